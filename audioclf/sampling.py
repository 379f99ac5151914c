"""The order of clips: batches of like length, a pure function of (seed, epoch)."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

BUCKET_BATCHES = 50
"""Batches' worth of randomly drawn clips that are sorted by length together: little padding, yet random batches."""
MIN_BUCKETS = 8
"""Stretches that a small data set is cut into at least: sorted as a whole it would give the same batches each epoch."""


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
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int | None, max_samples: float = math.inf
    ) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.max_samples = max_samples
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Chooses the order of the next iteration, and how many of its batches a resumed run has already had."""
        self.epoch = epoch
        self.start = start

    def __len__(self) -> int:
        return self.num_batches(self.epoch)

    def num_batches(self, epoch: int) -> int:
        """Batches of that epoch."""
        return len(self._batches(epoch))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self._batches(self.epoch)[self.start :]:
            yield [(index, self.epoch) for index in batch]

    def _batches(self, epoch: int) -> list[list[int]]:
        if self.seed is None:
            return self._cut(np.argsort(-self.lengths, kind="stable"))
        size = self.batch_size
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.lengths))
        num_whole = len(order) - len(order) % size
        whole, rest = order[:num_whole], order[num_whole:]
        stretch = size * max(1, min(BUCKET_BATCHES, num_whole // size // MIN_BUCKETS))
        buckets = [whole[i : i + stretch] for i in range(0, num_whole, stretch)]
        buckets = [bucket[np.argsort(-self.lengths[bucket], kind="stable")] for bucket in buckets]
        batches = [batch for bucket in buckets for batch in self._cut(bucket)]
        return [batches[i] for i in rng.permutation(len(batches))] + self._cut(rest)

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
