"""From examples to decoded clips: the cache is filled, unreadable clips are judged, and a part becomes a dataset.

Shapes: N rows of a part (clips, or pieces of them), C classes.
"""

import functools
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import audio, cache
from .augment import Augmentation
from .bad_audio import NUM_NAMED, judge, listing
from .config import default_cache_dir
from .datasets.base import AudioSplits, Example
from .errors import AudioError, DatasetError
from .pieces import piece_starts


@dataclass(frozen=True)
class Clips:
    """Decoded clips of one part, or pieces of them; a map-style dataset whose keys are `(index, epoch)`.

    Attributes:
        store: Where the waveforms lie.
        positions: Index in the store of each clip.
        starts: First sample of each clip as it is used, (N,): 0, or where a piece begins.
        names: What to call each clip in a message.
        groups: Number of each clip's group, (N,); clips without one are groups of their own.
        labels: Id of each clip's class, (N,) int64; of multi-label data 1.0 for each of its classes and 0.0 for the
            others, (N, C) float32.
        lengths: Samples of each clip as it is used, (N,): whole, or cut to the longest allowed.
        augmentation: What changes them from epoch to epoch; None for their start as it is.
        cut_from: The whole clips, when these are pieces of them.
        firsts: Then the row of each clip's first piece, (whole clips,); its others follow.
    """

    store: cache.ArrayStore
    positions: tuple[int, ...]
    starts: np.ndarray
    names: tuple[str, ...]
    groups: np.ndarray
    labels: np.ndarray
    lengths: np.ndarray
    augmentation: Augmentation | None
    cut_from: "Clips | None" = None
    firsts: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        index, epoch = key
        start, num_samples = int(self.starts[index]), int(self.lengths[index])
        waveform = self.store.array(self.positions[index])
        if self.augmentation is None:
            waveform = np.array(waveform[start : start + num_samples])
        else:  # a random crop may be from anywhere in the clip
            crop = waveform if self.augmentation.random_crop else waveform[start : start + num_samples]
            waveform = self.augmentation(crop, num_samples, epoch, index)
        return {"waveform": waveform, "label": self.labels[index], "index": index}

    @property
    def whole(self) -> "Clips":
        """The clips that these are pieces of, or these themselves."""
        return self.cut_from or self

    def identity(self, index: int) -> str:
        """A string that changes when the samples of a row do, as they are without augmentation."""
        where = f"{self.store.folder.name} {self.positions[index]}"
        return f"{where} {self.starts[index]} {self.lengths[index]}"


@dataclass(frozen=True)
class DecodedSplits:
    """A data set with its clips decoded.

    Attributes:
        parts: The readable clips of each part that the data set has.
        set_aside: Name and reason of each clip that could not be read.
        notes: Sentences for the user.
        max_seconds: What longer clips are cut to; None when they are not.
        chunk_seconds: Length of their pieces; None when they are whole.
        augmentation: What changes the clips of train from epoch to epoch.
    """

    parts: dict[str, Clips]
    set_aside: dict[str, str]
    notes: tuple[str, ...]
    max_seconds: float | None
    chunk_seconds: float | None
    augmentation: Augmentation | None


def decode(
    splits: AudioSplits,
    *,
    sampling_rate: int,
    max_seconds: float | None,
    chunk_seconds: float | None = None,
    augmentation: Augmentation | None = None,
    bad_audio: str = "auto",
    cache_dir: str | Path | None = None,
    progress: bool = False,
    max_cache_gb: float | None = None,
) -> DecodedSplits:
    """Decodes every clip of a data set, once and for all later runs.

    Args:
        splits: The data set.
        sampling_rate: Rate of the waveforms, in Hz.
        max_seconds: Longer clips are cut; None for no limit.
        chunk_seconds: Length of the pieces that each part is made of; None for whole clips.
        augmentation: What changes the train part from epoch to epoch.
        bad_audio: `skip`, `error` or `auto`, as `TrainConfig.bad_audio`.
        cache_dir: Folder of the cache; ~/.cache/audioclf when not given.
        progress: Show a progress bar while decoding.
        max_cache_gb: As in `TrainConfig`.

    Raises:
        AudioError: for unreadable clips that `bad_audio` does not allow, naming them.
        DatasetError: when no readable clip of a part or of a class in train is left.
    """
    kept = {"cache_dir": cache_dir, "progress": progress, "max_cache_gb": max_cache_gb}
    ordered, store = stored(splits, sampling_rate=sampling_rate, **kept)
    set_aside = {ordered[i].name: reason for i, reason in store.errors.items()}
    judge(list(store.errors.values()), len(ordered), bad_audio)
    position = {example: i for i, example in enumerate(ordered)}
    max_samples = None if max_seconds is None else audio.num_samples(max_seconds, sampling_rate)
    parts = {
        name: _part(
            store,
            [(position[e], e) for e in examples if position[e] not in store.errors],
            splits,
            max_samples,
            augmentation if name == "train" else None,
        )
        for name, examples in splits.parts.items()
    }
    for name, clips in parts.items():
        if not len(clips):
            raise DatasetError(f"{splits.name}: no clip of its {name} part could be read.")
    if "train" in parts:
        check_classes(splits, parts["train"].labels)
    if chunk_seconds is not None:
        size = audio.num_samples(chunk_seconds, sampling_rate)
        parts = {name: _cut(clips, size, sampling_rate) for name, clips in parts.items()}
    notes = tuple(_notes(store, ordered))
    return DecodedSplits(parts, set_aside, notes, max_seconds, chunk_seconds, augmentation)


def stored(
    splits: AudioSplits,
    *,
    sampling_rate: int,
    cache_dir: str | Path | None = None,
    progress: bool = False,
    max_cache_gb: float | None = None,
) -> tuple[list[Example], cache.ArrayStore]:
    """All clips of a data set, in the order of the store of their waveforms, which is filled first."""
    # Sorted, so that another split of the same clips finds the same store.
    ordered = sorted({e for part in splits.parts.values() for e in part}, key=lambda e: (e.identity(), e.name, e.label))
    store = cache.build(
        [example.identity() for example in ordered],
        functools.partial(_decode_one, ordered, sampling_rate),
        recipe=_recipe(sampling_rate),
        cache_dir=cache_dir or default_cache_dir(),
        names=[example.name for example in ordered],
        progress=progress,
        max_bytes=math.inf if max_cache_gb is None else max_cache_gb * 1e9,
    )
    return ordered, store


def _decode_one(examples: Sequence[Example], sampling_rate: int, index: int) -> np.ndarray:
    return decode_example(examples[index], sampling_rate)


def _cut(clips: Clips, size: int, sampling_rate: int) -> Clips:
    """The pieces of whole clips, of `size` samples, or of fewer where the clip has no more."""
    starts = [piece_starts(int(length), size) for length in clips.lengths]
    counts = np.array([len(of_clip) for of_clip in starts])
    rows, starts = np.repeat(np.arange(len(clips)), counts), np.concatenate(starts)
    where = [f" from {start / sampling_rate:.1f} s" for start in starts]
    return replace(
        clips,
        positions=tuple(clips.positions[row] for row in rows),
        starts=starts,
        names=tuple(clips.names[row] + place for row, place in zip(rows, where, strict=True)),
        groups=clips.groups[rows],
        labels=clips.labels[rows],
        lengths=np.minimum(clips.lengths[rows], size),
        cut_from=clips,
        firsts=np.cumsum(counts) - counts,
    )


def check_classes(splits: AudioSplits, train_labels: np.ndarray) -> None:
    """A class that train lacks cannot be learnt; the user should know before the hours of training.

    Raises:
        DatasetError: naming those classes.
    """
    counts = train_labels.sum(0) if splits.multi_label else np.bincount(train_labels, minlength=len(splits.labels))
    missing = [label for label, count in zip(splits.labels, counts, strict=True) if not count]
    if missing:
        raise DatasetError(
            f"{splits.name}: train has no readable clip of {', '.join(map(repr, missing))}; add some, or leave the "
            "class out of labels."
        )


def decode_example(example: Example, sampling_rate: int, max_seconds: float | None = None) -> np.ndarray:
    """The waveform of a clip (T,), or the very same samples of its beginning.

    Raises:
        AudioError: naming the clip and what is wrong with it.
    """
    try:
        return audio.load(example.source(), sampling_rate, example.start, example.end, max_seconds)
    except OSError as error:
        raise AudioError(f"{example.name}: cannot be read ({error}).") from error
    except AudioError as error:
        # A row's audio may have no name of its own.
        raise error if isinstance(example.audio, str) else AudioError(f"{example.name}: {error}") from error


def _recipe(sampling_rate: int) -> str:
    # torchcodec reads more formats, so what failed without it deserves another try once it is there.
    fallback = importlib.util.find_spec("torchcodec") is not None
    return f"v1 mono {sampling_rate} Hz soxr {audio.RESAMPLE_QUALITY} float32 torchcodec={fallback}"


def _part(
    store: cache.ArrayStore,
    clips: Sequence[tuple[int, Example]],
    splits: AudioSplits,
    max_samples: int | None,
    augmentation: Augmentation | None,
) -> Clips:
    positions = tuple(position for position, _ in clips)
    lengths = store.lengths[list(positions)]
    return Clips(
        store=store,
        positions=positions,
        starts=np.zeros(len(clips), dtype=np.int64),
        names=tuple(example.name for _, example in clips),
        groups=_group_numbers([example for _, example in clips]),
        labels=targets([example for _, example in clips], splits),
        lengths=lengths if max_samples is None else np.minimum(lengths, max_samples),
        augmentation=augmentation,
    )


def targets(examples: Sequence[Example], splits: AudioSplits) -> np.ndarray:
    """The labels as `Clips` keeps them."""
    label2id = splits.label2id
    if not splits.multi_label:
        return np.array([label2id[example.label] for example in examples], dtype=np.int64)
    rows = np.zeros((len(examples), len(label2id)), dtype=np.float32)
    for row, example in enumerate(examples):
        rows[row, [label2id[label] for label in example.labels]] = 1.0
    return rows


def _group_numbers(examples: Sequence[Example]) -> np.ndarray:
    """Equal numbers (N,) for clips of one group."""
    numbers: dict[Any, int] = {}
    keys = (row if example.group is None else example.group for row, example in enumerate(examples))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _notes(store: cache.ArrayStore, examples: Sequence[Example]) -> list[str]:
    notes = []
    if store.compute is not None:
        notes.append(
            f"{np.count_nonzero(~store.kept):,} of {len(examples):,} clips go beyond max_cache_gb and are decoded "
            "whenever they are wanted: num_workers does that ahead."
        )
    reasons = list(store.errors.values())
    if reasons:
        notes.append(f"{len(reasons)} of {len(examples)} clips cannot be used and are set aside:\n{listing(reasons)}")
    if store.flat:
        names = ", ".join(repr(examples[i].name) for i in store.flat[:NUM_NAMED])
        notes.append(
            f"{len(store.flat)} clip(s) are silent, or one constant, from start to end (they are kept): {names}."
        )
    return notes
