"""The order of clips: batches of like length, a pure function of (seed, epoch)."""

import signal
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader

from .clips import Clips
from .features import FeatureClips

BUCKET_BATCHES = 50
"""Batches' worth of randomly drawn clips that are sorted by length together: little padding, yet random batches."""
MIN_BUCKETS = 8
"""Stretches that a small data set is cut into at least: sorted as a whole it would give the same batches each epoch."""


class LengthBucketSampler:
    """Batches of `(index, epoch)` keys for a DataLoader's `batch_sampler`.

    Each epoch is a new random permutation. Within consecutive stretches of it clips are sorted by length and cut into
    batches, whose order is random again; clips of one length therefore keep their random order. The one batch that
    may be short comes last.

    Args:
        lengths: Samples of each clip, (N,).
        batch_size: Clips a batch.
        seed: Seed of the order; None for the fixed order of evaluation, all clips sorted by length.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int | None) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self._batches():
            yield [(int(index), self.epoch) for index in batch]

    def _batches(self) -> list[np.ndarray]:
        size = self.batch_size
        if self.seed is None:
            order = np.argsort(-self.lengths, kind="stable")
            return [order[i : i + size] for i in range(0, len(order), size)]
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.lengths))
        num_whole = len(order) - len(order) % size
        whole, rest = order[:num_whole], order[num_whole:]
        stretch = size * max(1, min(BUCKET_BATCHES, num_whole // size // MIN_BUCKETS))
        buckets = [whole[i : i + stretch] for i in range(0, num_whole, stretch)]
        buckets = [bucket[np.argsort(-self.lengths[bucket], kind="stable")] for bucket in buckets]
        batches = [bucket[i : i + size] for bucket in buckets for i in range(0, len(bucket), size)]
        batches = [batches[i] for i in rng.permutation(len(batches))]
        return [*batches, rest] if len(rest) else batches


def _ignore_interrupts(_worker: int) -> None:
    """Ctrl-C in a terminal reaches the workers too; the main process decides when they end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def make_loader(
    clips: Clips | FeatureClips,
    collate: Callable,
    *,
    batch_size: int,
    seed: int | None,
    num_workers: int,
    pin_memory: bool,
) -> DataLoader:
    """Batches of one part, in the order of a `LengthBucketSampler` with that seed (its `batch_sampler`)."""
    return DataLoader(
        clips,
        batch_sampler=LengthBucketSampler(clips.lengths, batch_size, seed),
        collate_fn=collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=_ignore_interrupts,
        # A private generator: without one, starting a loader draws from the global stream that dropout uses.
        generator=torch.Generator().manual_seed(seed or 0),
    )
