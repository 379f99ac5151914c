"""A run's batches: the loaders of its parts, of waveforms or of cached features, and collating ahead of the step."""

import contextlib
import functools
import math
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import SequenceFeatureExtractor

from .augment import steps_of
from .clips import Clips, DecodedSplits
from .collate import Collator, make_collator
from .config import TrainConfig
from .datasets.base import AudioSplits
from .distributed import num_ranks, one_a_machine_first, rank
from .errors import AudioclfError, ConfigError, ResourceError
from .features import FeatureClips, cache_features, collate_features
from .interrupt import SIGNALS
from .mixup import MixedClips
from .models.classifier import AudioClassifier
from .readers import RowReader, TableReader
from .sampling import LengthBucketSampler, Share
from .streams import StreamClips, StreamCollator, StreamSampler

T = TypeVar("T")


def _ignore_interrupts(_worker: int) -> None:
    """A terminal's Ctrl-C or a cluster's SIGTERM reaches the workers too; the main process decides when they end."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def make_loader(
    clips: Clips | MixedClips | FeatureClips,
    collate: Callable,
    *,
    batch_size: int,
    seed: int | None,
    num_workers: int,
    pin_memory: bool,
    max_samples: float = math.inf,
    balanced: bool = False,
    share: Share = Share(),
) -> DataLoader:
    """Batches of one part, in the order of a `LengthBucketSampler` of these options (its `batch_sampler`)."""
    order = LengthBucketSampler(clips.lengths, batch_size, seed, max_samples, clips.labels if balanced else None, share)
    return _loader(clips, order, collate, seed, num_workers=num_workers, pin_memory=pin_memory)


def _loader(
    clips: Clips | MixedClips | FeatureClips | StreamClips,
    order: LengthBucketSampler | StreamSampler,
    collate: Callable,
    seed: int | None,
    *,
    num_workers: int,
    pin_memory: bool,
) -> DataLoader:
    return DataLoader(
        clips,
        batch_sampler=order,
        collate_fn=collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=_ignore_interrupts,
        # A private generator: without one, starting a loader draws from the global stream that dropout uses.
        generator=torch.Generator().manual_seed(seed or 0),
    )


def prefetch(batches: Iterable[T]) -> Iterator[T]:
    """The same batches, the next one always in the making while the last one is in use.

    A thread is enough: reading, normalising and padding are NumPy's, which lets the model's own thread run.
    """
    iterator = iter(batches)
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        following = pool.submit(_next, iterator)
        while (batch := following.result()) is not None:
            following = pool.submit(_next, iterator)
            yield batch


def _next(iterator: Iterator[T]) -> T | None:
    """The next batch; what a worker process raises is told in its own words, and in a job by which process."""
    try:
        return next(iterator, None)
    except AudioclfError as error:
        words = str(error)
        if words.startswith("Caught "):  # torch puts the worker's whole traceback there
            words = words.rsplit(f"{type(error).__name__}: ", 1)[-1].strip()
        where = f"Process {rank()} of {num_ranks()}: " if num_ranks() > 1 else ""
        raise type(error)(where + words) from error


def stop_workers(loaders: dict[str, DataLoader]) -> None:
    """Ends the processes of the loaders.

    They ignore the signal that Python sends them at its own end, only to wait for them; and the traceback of an error
    holds them until then.
    """
    for loader in loaders.values():
        if loader._iterator is not None:
            loader._iterator._shutdown_workers()
            loader._iterator = None


@contextlib.contextmanager
def worker_deaths_told() -> Iterator[None]:
    """Inside, the end of a process that prepares batches is told in a sentence; torch raises it anywhere.

    Raises:
        ResourceError: when it happens.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ResourceError(
            f"A data worker was killed, as a system does that is short of memory ({str(error).splitlines()[0]}). Go on "
            "from the last checkpoint by resume=True, with num_workers=0."
        ) from error


def make_loaders(
    config: TrainConfig,
    device: torch.device,
    precision: str,
    splits: AudioSplits,
    decoded: DecodedSplits,
    model: AudioClassifier,
    extractor: SequenceFeatureExtractor,
    window: int,
) -> tuple[dict[str, DataLoader], tuple[str, ...]]:
    """The loader of each part, train in a new order every epoch; and sentences for the user.

    In a job of several processes each has its share of every window of `window` micro-batches, and of every part that
    is evaluated.

    Raises:
        ConfigError: when a clip is longer than `max_batch_seconds`, or multi-label clips are to be balanced.
        AudioclfError: when features cannot be kept on disk.
    """
    if config.balanced_sampling and model.multi_label:
        raise ConfigError(
            "balanced_sampling draws each class equally often, which clips of several classes do not allow: weigh the "
            "classes by class_weights='balanced' instead."
        )
    max_samples = _max_samples(config, decoded, extractor.sampling_rate)
    parts, collate, notes = _inputs(config, device, precision, decoded, model, extractor)
    shared = {"num_workers": config.num_workers, "pin_memory": device.type == "cuda"}
    loaders = {
        part: make_loader(
            clips,
            collate,
            batch_size=config.batch_size if part == "train" else config.eval_batch_size or config.batch_size,
            seed=config.seed if part == "train" else None,
            max_samples=max_samples,
            balanced=config.balanced_sampling and part == "train",
            share=Share(rank(), num_ranks(), window if part == "train" else num_ranks()),
            **shared,
        )
        for part, clips in parts.items()
    }
    if config.steps_per_epoch is not None:
        clips = StreamClips(
            splits.label2id, splits.multi_label, extractor.sampling_rate, decoded.max_seconds, decoded.augmentation
        )
        order = _stream_order(config, splits, clips, window, max_samples)
        loaders = {"train": _loader(clips, order, StreamCollator(collate), config.seed, **shared), **loaders}
    return loaders, notes


def _stream_order(
    config: TrainConfig, splits: AudioSplits, clips: StreamClips, window: int, max_samples: float
) -> StreamSampler:
    if splits.stream is None:
        make_reader = functools.partial(TableReader, splits.train, config.seed)
    else:
        begun_with = window // config.gradient_accumulation_steps
        make_reader = functools.partial(RowReader, splits.stream, config.seed, rank(), num_ranks(), begun_with)
    own = Share(window=config.gradient_accumulation_steps)
    share = Share(rank(), num_ranks(), window) if make_reader().is_shared else own
    return StreamSampler(
        make_reader, config.steps_per_epoch, config.batch_size, config.seed, clips.num_samples, max_samples, share
    )


def _max_samples(config: TrainConfig, decoded: DecodedSplits, sampling_rate: int) -> float:
    """Samples a batch.

    Raises:
        ConfigError: when not even a batch of its own would do for the longest clip.
    """
    max_batch_seconds = config.max_batch_seconds
    if max_batch_seconds is None:
        return math.inf
    if config.steps_per_epoch is not None and decoded.max_seconds > max_batch_seconds:
        raise ConfigError(
            f"max_batch_seconds={max_batch_seconds:g} is less than the {decoded.max_seconds:g} s that a streamed clip "
            "may have: give more, or cut long clips by max_seconds."
        )
    for clips in decoded.parts.values():
        longest = int(np.argmax(clips.lengths))
        seconds = clips.lengths[longest] / sampling_rate
        if seconds > max_batch_seconds:
            raise ConfigError(
                f"max_batch_seconds={max_batch_seconds:g} is less than the {seconds:.1f} s of {clips.names[longest]}: "
                "give more, or cut long clips by max_seconds."
            )
    return max_batch_seconds * sampling_rate


def _inputs(
    config: TrainConfig,
    device: torch.device,
    precision: str,
    decoded: DecodedSplits,
    model: AudioClassifier,
    extractor: SequenceFeatureExtractor,
) -> tuple[dict[str, Clips | MixedClips] | dict[str, FeatureClips], Callable, tuple[str, ...]]:
    """The clips of each part, as waveforms or as cached features, what collates them, and sentences for the user."""
    collator = make_collator(model.config, extractor)
    if config.augment != "none":
        parts, notes = _augmented(config, decoded, collator, model.config.num_labels)
        return parts, collator, notes
    wanted = config.cache_features
    if wanted is None:
        wanted = config.freeze != "none" and not config.random_crop and config.steps_per_epoch is None
    if not wanted:
        return decoded.parts, collator, ()
    with one_a_machine_first():
        parts = cache_features(
            model,
            decoded.parts,
            extractor,
            precision=precision,
            device=device,
            cache_dir=config.cache_dir,
            progress=config.progress,
            at_any_size=config.cache_features is True,
        )
    if parts is None:
        note = (
            "The disk has no room to keep what the frozen encoder gives, so it is computed in every epoch; for a "
            "larger disk give cache_dir."
        )
        return decoded.parts, collator, (note,)
    store = next(iter(parts.values())).store
    return parts, collate_features, (f"Features of the frozen encoder: {store.num_bytes / 2**20:,.0f} MiB on disk.",)


def _augmented(
    config: TrainConfig, decoded: DecodedSplits, collator: Collator, num_classes: int
) -> tuple[dict[str, Clips | MixedClips], tuple[str, ...]]:
    """The clips of each part, those of train mixed if the options say so, and sentences for the user.

    Raises:
        ConfigError: for `gain` alone, when the encoder's input is brought to one level anyway.
    """
    steps, notes = steps_of(config.augment), ()
    if "gain" in steps and not _hears_level(collator):
        if len(steps) == 1:
            raise ConfigError(
                "augment='gain' changes nothing for this encoder, whose input is brought to one level: leave it out."
            )
        notes = ("gain in augment changes nothing for this encoder, whose input is brought to one level.",)
    if "mixup" not in steps:
        return decoded.parts, notes
    return {**decoded.parts, "train": MixedClips(decoded.parts["train"], config.seed, num_classes)}, notes


def _hears_level(collator: Collator) -> bool:
    """Whether an encoder's input changes with the level of a sound."""
    sound = 0.1 * np.random.default_rng(0).standard_normal(16_000, dtype=np.float32)
    return not np.allclose(collator.prepare(sound), collator.prepare(2 * sound), atol=0.01)
