"""The order of clips: batches of like length, a pure function of (seed, epoch)."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

BUCKET_BATCHES = 50
"""Batches' worth of randomly drawn clips that are sorted by length together: little padding, yet random batches."""
MIN_BUCKETS = 8
"""Stretches that a small data set is cut into at least: sorted as a whole it would give the same batches each epoch."""
AGAIN = 2**20
"""Added to the epoch of a clip's key each time that it comes again within an epoch."""


Key = tuple[int, int]
"""A clip's index, and the epoch that its augmentation is drawn for."""


@dataclass(frozen=True)
class Share:
    """What one process of a job computes of each window, the batches behind one optimizer step.

    Attributes:
        rank: The number of the process.
        num_ranks: Processes in the job.
        window: Batches in a window, those of all processes together.
    """

    rank: int = 0
    num_ranks: int = 1
    window: int = 1


class LengthBucketSampler:
    """Batches of `(index, epoch)` keys for a DataLoader's `batch_sampler`.

    Each epoch is a new random permutation. Within consecutive stretches of it clips are sorted by length and cut into
    batches, whose order is random again; clips of one length therefore keep their random order. Clips that do not
    fill a batch come last.

    Args:
        lengths: Samples of each clip, (N,).
        batch_size: Clips a batch, at most.
        seed: Seed of the order; None for the fixed order of evaluation, all clips sorted by length.
        max_samples: Samples a batch, padding included, at most; no clip may be longer. The number of batches may then
            differ from epoch to epoch.
        classes: Class of each clip (N,), to draw from each equally often; None to draw every clip once. An epoch has N
            clips all the same: each of a class equally often, but for some, drawn anew every epoch, once more. When a
            clip comes again its key names an epoch of its own, so that it is augmented in another way.
        share: The share of each window that is yielded. The windows hold the same clips whatever the number of
            processes. Of several each gets as many clips as the others, give or take one, and as long ones.
        min_buckets: Stretches that the clips are cut into at least.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int | None,
        max_samples: float = math.inf,
        classes: np.ndarray | None = None,
        share: Share = Share(),
        min_buckets: int = MIN_BUCKETS,
    ) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.max_samples = max_samples
        self.classes = classes
        self.share = share
        self.min_buckets = min_buckets
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Chooses the order of the next iteration, and how many of its windows a resumed run has already had."""
        self.epoch = epoch
        self.start = start

    def __len__(self) -> int:
        return sum(self.window_sizes())

    def __iter__(self) -> Iterator[list[Key]]:
        return (batch for window in self.windows() for batch in window)

    def window_sizes(self) -> Iterator[int]:
        """Batches of each window that are yielded; 0 of one that has fewer clips than there are processes."""
        return (len(window) for window in self.windows())

    def num_windows(self, epoch: int) -> int:
        """Windows of that epoch: the same number in each, unless clips are counted by their samples."""
        if self.max_samples == math.inf:
            return math.ceil(math.ceil(len(self.lengths) / self.batch_size) / self.share.window)
        return math.ceil(len(self._batches(epoch)) / self.share.window)

    def windows(self) -> Iterator[list[list[Key]]]:
        """This process's batches of each window from the first one that is wanted."""
        times: Counter[int] = Counter()
        batches, size = self._batches(self.epoch), self.share.window
        for number in range(math.ceil(len(batches) / size)):
            window = []
            for batch in batches[number * size : (number + 1) * size]:
                window.append([])
                for index in batch:
                    window[-1].append((index, self.epoch + AGAIN * times[index]))
                    times[index] += 1
            if number >= self.start:
                yield self._shared(window)

    def _shared(self, window: list[list[Key]]) -> list[list[Key]]:
        """This process's batches of a window."""
        share = self.share
        if share.num_ranks == 1:
            return window
        clips = sorted((key for batch in window for key in batch), key=lambda key: -self.lengths[key[0]])
        # Dealt forth and back, so that nobody always gets the longer one.
        rounds = (clips[first : first + share.num_ranks] for first in range(0, len(clips), share.num_ranks))
        own = []
        for number, dealt in enumerate(rounds):
            place = share.num_ranks - 1 - share.rank if number % 2 else share.rank
            own += dealt[place : place + 1]
        remaining = iter(own)
        return [[next(remaining) for _ in batch] for batch in self._cut(np.array([index for index, _ in own], int))]

    def _batches(self, epoch: int) -> list[list[int]]:
        if self.seed is None:
            return self._cut(np.argsort(-self.lengths, kind="stable"))
        size = self.batch_size
        rng = np.random.default_rng([self.seed, epoch])
        clips = self._drawn(rng)
        order = clips[rng.permutation(len(clips))]
        num_whole = len(order) - len(order) % size
        whole, rest = order[:num_whole], order[num_whole:]
        stretch = size * max(1, min(BUCKET_BATCHES, num_whole // size // self.min_buckets))
        buckets = [whole[i : i + stretch] for i in range(0, num_whole, stretch)]
        buckets = [bucket[np.argsort(-self.lengths[bucket], kind="stable")] for bucket in buckets]
        batches = [batch for bucket in buckets for batch in self._cut(bucket)]
        return [batches[i] for i in rng.permutation(len(batches))] + self._cut(rest)

    def _drawn(self, rng: np.random.Generator) -> np.ndarray:
        """The clips of an epoch (N,), in no order."""
        num_clips = len(self.lengths)
        if self.classes is None:
            return np.arange(num_clips)
        members = [np.flatnonzero(self.classes == label) for label in np.unique(self.classes)]
        quotas = np.full(len(members), num_clips // len(members))
        quotas[rng.permutation(len(members))[: num_clips % len(members)]] += 1
        drawn = []
        for own, quota in zip(members, quotas, strict=True):
            drawn += [np.tile(own, quota // len(own)), rng.permutation(own)[: quota % len(own)]]
        return np.concatenate(drawn)

    def _cut(self, order: np.ndarray) -> list[list[int]]:
        """Clips in this order, a new batch wherever one more would be too many."""
        batches: list[list[int]] = []
        size = longest = 0
        for index, length in zip(order.tolist(), self.lengths[order].tolist(), strict=True):
            longest = max(longest, length)
            if not batches or size == self.batch_size or (size + 1) * longest > self.max_samples:
                batches.append([])
                size, longest = 0, length
            batches[-1].append(index)
            size += 1
        return batches
