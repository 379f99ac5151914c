"""From waveforms to a batch: normalise each clip, pad, mask. Shapes: B batch, T samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

VARIANCE_FLOOR = 1e-7


@dataclass(frozen=True)
class Collator:
    """Collates `{"waveform", "label", "index"}` items as the checkpoint's feature extractor would.

    Attributes:
        do_normalize: Give each clip zero mean and unit variance over its own samples.
        padding_value: What fills the right of shorter clips.
        min_samples: Shorter clips are extended with zeros to so many samples, which then count as their own: the
            encoder gives no frame for less.
    """

    do_normalize: bool
    padding_value: float
    min_samples: int

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Batch: `input_values` (B, T) float32, `attention_mask` (B, T), `index` (B,) int64, `labels` as in `Clips`."""
        lengths = torch.tensor([max(len(item["waveform"]), self.min_samples) for item in items])
        input_values = np.full((len(items), int(lengths.max())), self.padding_value, dtype=np.float32)
        for row, item in enumerate(items):
            waveform = normalise(item["waveform"]) if self.do_normalize else item["waveform"]
            input_values[row, : len(waveform)] = waveform
            input_values[row, len(waveform) : lengths[row]] = 0.0
        return {
            "input_values": torch.from_numpy(input_values),
            "attention_mask": (torch.arange(input_values.shape[1]) < lengths[:, None]).long(),
            "labels": torch.from_numpy(np.stack([item["label"] for item in items])),
            "index": torch.tensor([item["index"] for item in items]),
        }


def normalise(waveform: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance (T,); silence stays zero.

    Source: `transformers.Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm`.
    """
    return (waveform - waveform.mean()) / np.sqrt(waveform.var() + VARIANCE_FLOOR)
