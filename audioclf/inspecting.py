"""`inspect`: what a data set holds, and what may be wrong with it, before hours go into training on it."""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from . import findings, levels, soundness
from .cache import ArrayStore
from .checks import check_int, check_number
from .clips import stored
from .config import TrainConfig
from .copies import find_copies
from .datasets.base import AudioSplits, Example, refuse_stream
from .datasets.load import load_dataset
from .datasets.overlap import shared_group_note, shared_groups
from .findings import SEVERITIES, Finding
from .fingerprint import SAMPLING_RATE, landmarks
from .inspection import Inspection
from .soundness import InspectedClip

DURATIONS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
"""Where the bars of the histogram of durations begin, in seconds; the last one has no end."""


def inspect(
    data: Any,
    *,
    max_seconds: float = TrainConfig.max_seconds,
    min_clips: int = findings.MIN_CLIPS,
    cache_dir: str | Path | None = None,
    progress: bool = False,
) -> Inspection:
    """Looks for what would spoil a training: copies, leaks between parts, faults of labels, files and sound.

    Clips are decoded into the cache that training reads, at 16 kHz.

    Args:
        data: Whatever `load_dataset` takes, or what it returns.
        max_seconds: What training will hear of a clip.
        min_clips: Clips that each class should have in train.
        cache_dir: Folder for decoded audio; ~/.cache/audioclf when not given.
        progress: Show progress bars.

    Raises:
        DatasetError: for data that cannot be found or read as a data set; unreadable clips are findings.
        ConfigError: for an option out of its range.

    Example:
        >>> found = inspect("clips.csv")
        >>> [finding.kind for finding in found.findings if finding.severity == "error"]
    """
    check_number("max_seconds", max_seconds, above=0)
    check_int("min_clips", min_clips, minimum=0)
    splits = load_dataset(data, cache_dir=cache_dir)
    refuse_stream(splits, "inspect")
    examples, store = stored(splits, sampling_rate=SAMPLING_RATE, cache_dir=cache_dir, progress=progress)
    part_of = {example: part for part, clips in splits.parts.items() for example in clips}
    parts = [part_of[example] for example in examples]
    readable = [index for index in range(len(examples)) if index not in store.errors]
    num_threads = os.cpu_count() or 1
    with ThreadPoolExecutor(num_threads) as pool:
        heard = pool.map(partial(_listen, examples, store), readable)
        heard = list(tqdm(heard, total=len(readable), desc="listening", unit="clip", disable=not progress))
    copies = find_copies(
        [each.digest for each in heard],
        [each.landmarks for each in heard],
        lambda row: store.array(readable[row]),
        num_threads,
    )
    clips = [
        InspectedClip(
            examples[index].name,
            parts[index],
            examples[index].label,
            store.lengths[index] / SAMPLING_RATE,
            each.levels,
            each.original,
        )
        for index, each in zip(readable, heard, strict=True)
    ]
    unreadable = [
        findings.found_clip(examples[index], parts[index], detail=reason) for index, reason in store.errors.items()
    ]
    found = [
        *findings.of_groups(splits),
        *soundness.of_copies(copies, clips),
        *soundness.of_unreadable(unreadable, len(examples)),
        *findings.of_table(splits, min_clips),
        *soundness.of_levels(clips),
        *soundness.of_lengths(clips, max_seconds),
    ]
    return _summary(splits, clips, sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))


class _Heard(NamedTuple):
    """Levels of a clip, what its file says, a hash of its samples and its landmarks; silence has neither."""

    levels: levels.Levels
    original: levels.Original
    digest: bytes
    landmarks: tuple[np.ndarray, np.ndarray]


def _listen(examples: Sequence[Example], store: ArrayStore, index: int) -> _Heard:
    example, waveform = examples[index], np.asarray(store.array(index))
    found = levels.levels(waveform, SAMPLING_RATE)
    original = _original(example, found.may_be_clipped)
    if index in store.flat or found.silent_share == 1:
        return _Heard(found, original, b"", (np.zeros(0, np.uint32), np.zeros(0, np.int32)))
    return _Heard(found, original, hashlib.blake2b(waveform, digest_size=16).digest(), landmarks(waveform))


def _original(example: Example, look_for_clipping: bool) -> levels.Original:
    try:
        source = example.source()
    except OSError:  # the archive is gone, while what was decoded from it is still there
        return levels.Original()
    return levels.original(source, example.start, example.end, look_for_clipping)


def _summary(splits: AudioSplits, clips: Sequence[InspectedClip], found: Sequence[Finding]) -> Inspection:
    told = {shared_group_note(*parts, groups) for parts, groups in shared_groups(splits).items()}
    durations, _ = np.histogram([clip.seconds for clip in clips], [*DURATIONS, np.inf])
    filled = np.flatnonzero(durations)
    shown = range(filled[0], filled[-1] + 1) if len(filled) else range(0)
    rates = [clip.original.sampling_rate for clip in clips if clip.original.sampling_rate is not None]
    return Inspection(
        name=splits.name,
        findings=tuple(found),
        parts={part: _amount(clips, lambda clip, part=part: clip.part == part) for part in splits.parts},
        classes=_classes(splits, clips),
        durations=tuple((DURATIONS[bar], int(durations[bar])) for bar in shown),
        sampling_rates={rate: rates.count(rate) for rate in sorted(set(rates))},
        notes=tuple(note for note in splits.notes if note not in told),
        clips=tuple(clips),
    )


def _amount(clips: Sequence[InspectedClip], wanted: Callable[[InspectedClip], bool]) -> dict[str, float]:
    seconds = [clip.seconds for clip in clips if wanted(clip)]
    return {"clips": len(seconds), "hours": sum(seconds) / 3600}


def _classes(splits: AudioSplits, clips: Sequence[InspectedClip]) -> dict[str, dict[str, dict[str, float]]]:
    table = {label: {part: {"clips": 0, "hours": 0.0} for part in splits.parts} for label in splits.labels}
    for clip in clips:
        for label in (clip.label,) if isinstance(clip.label, str) else clip.label:
            table[label][clip.part]["clips"] += 1
            table[label][clip.part]["hours"] += clip.seconds / 3600
    return table
