"""Mixup: training clips that are two clips at once, with labels to match.

Shapes: T and S samples, N clips, C classes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .clips import Clips
from .effects import mean_power

MIXUP_ALPHA = 0.2
"""Of the distribution Beta(alpha, alpha) that weights are of: nearly all of one clip in most, half of it in some."""


@dataclass(frozen=True)
class MixedClips:
    """Clips of train, each mixed with another one that is drawn for that clip and epoch alone.

    Both are as `clips` gives them, with their own augmentation. Of a partner that is longer a random stretch is taken;
    a shorter one begins at a random place. Labels become shares of the classes: with one label a clip the weights
    of the two, in multi-label data the weighted sum of both clips' labels. A silent clip stays as it is, as does one
    whose partner is silent: they have no power to be made equal.

    Attributes:
        clips: The clips.
        seed: Seed of the draws.
        num_classes: Classes C.
        alpha: See `MIXUP_ALPHA`.

    Source: H. Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018. The weighted sum of multi-label
    targets as in Q. Kong et al., "PANNs", IEEE/ACM TASLP 28, 2020, and Y. Gong et al., "AST", Interspeech 2021.
    """

    clips: Clips
    seed: int
    num_classes: int
    alpha: float = MIXUP_ALPHA

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def lengths(self) -> np.ndarray:
        """Samples of each clip, (N,)."""
        return self.clips.lengths

    @property
    def names(self) -> tuple[str, ...]:
        """What to call each clip in a message."""
        return self.clips.names

    @property
    def labels(self) -> np.ndarray:
        """The clips' own labels, as they keep them."""
        return self.clips.labels

    @property
    def groups(self) -> np.ndarray:
        """Number of each clip's group, (N,)."""
        return self.clips.groups

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        index, epoch = key
        item = self.clips[index, epoch]
        target = self._target(item["label"])
        # One number more than the seeds of `Augmentation`: other draws than a clip's own.
        rng = np.random.default_rng([self.seed, epoch, index, 1])
        other = int(rng.integers(max(1, len(self) - 1)))
        other += other >= index  # any but the clip itself
        if other < len(self):
            partner = self.clips[other, epoch]
            weight = float(rng.beta(self.alpha, self.alpha))
            sound, start = _fitted(partner["waveform"], len(item["waveform"]), rng)
            if mean_power(item["waveform"]) and mean_power(sound):
                item["waveform"] = mix(item["waveform"], sound, weight, start)
                target = weight * target + (1 - weight) * self._target(partner["label"])
        return {**item, "label": target.astype(np.float32)}

    def _target(self, label: np.ndarray) -> np.ndarray:
        """A clip's label as shares of the classes, (C,)."""
        return np.eye(self.num_classes)[label] if np.ndim(label) == 0 else label.astype(np.float64)


def mix(first: np.ndarray, second: np.ndarray, weight: float, start: int = 0) -> np.ndarray:
    """Two sounds at equal power: the second is brought to the mean power of the first, then each gets its weight.

    The sum is divided by the root of the sum of the squared weights, so that sounds that have nothing to do with each
    other keep the power of the first.

    Args:
        first: (T,), not silent.
        second: (S,) of at most T samples, not silent.
        weight: Of the first; the second has the rest to 1.
        start: Where in the first the second begins.

    Source: Y. Tokozume et al., "Learning from between-class examples for deep sound recognition", ICLR 2018.
    """
    level = np.sqrt(mean_power(first) / mean_power(second))
    scale = np.hypot(weight, 1 - weight)
    mixed = first * np.float32(weight / scale)
    mixed[start : start + len(second)] += second * np.float32((1 - weight) * level / scale)
    return mixed


def _fitted(waveform: np.ndarray, num_samples: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """At most so many samples of it, a random stretch, and where among so many they begin."""
    start = int(rng.integers(abs(len(waveform) - num_samples) + 1))
    return (waveform[start : start + num_samples], 0) if len(waveform) > num_samples else (waveform, start)
