"""Sounds in time: windows cut from a stream of blocks, and segments made of their scores.

Every window is classified as a clip of its own, so its scores are those that the window alone would get. Windows start
every hop, all of one length. When the sound does not end with one of them, a last one is moved back so that it does: no
sample is unheard, and none is judged with less around it than the others. A sound shorter than a window is one window.

Shapes: T samples, W windows, C classes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from .audio import num_samples
from .checks import check_number
from .errors import ConfigError

T = TypeVar("T")

DEFAULT_WINDOW_SECONDS = 5.0
"""Window for a checkpoint that does not tell how long the clips were that it was trained on."""


@dataclass(frozen=True)
class Window:
    """What a model says of one stretch of a stream.

    Attributes:
        start, end: Seconds from the stream's beginning.
        scores: Of each class, (C,) float32.
        top: The likeliest classes, as the classifier gives them for a clip.
    """

    start: float
    end: float
    scores: np.ndarray
    top: list[dict[str, Any]]


@dataclass(frozen=True)
class Segment:
    """A stretch of time with one label.

    Attributes:
        start, end: Seconds from the sound's beginning.
        label: The class.
        score: Mean of the label's scores over the windows of the segment.
    """

    start: float
    end: float
    label: str
    score: float


@dataclass(frozen=True)
class Timeline:
    """What a model says of a sound over time.

    Attributes:
        labels: The classes.
        times: Start and end of each window in seconds, (W, 2) float64.
        scores: Of each class in each window, (W, C) float32.
        segments: Stretches with a label, by their start; see `find_segments`.
    """

    labels: tuple[str, ...]
    times: np.ndarray
    scores: np.ndarray
    segments: tuple[Segment, ...]


def choose_window(
    window_seconds: float | None,
    hop_seconds: float | None,
    *,
    sampling_rate: int,
    min_samples: int,
    clip_seconds: float | None,
    max_seconds: float | None,
) -> tuple[int, int]:
    """Samples of a window, and from the start of one to the start of the next.

    Args:
        window_seconds: What the user wants; by default the usual length of a training clip, for a model knows no
            other, or 5 s where that is not known.
        hop_seconds: What the user wants; by default half a window.
        sampling_rate: The model's, in Hz. Both are rounded to whole samples of it.
        min_samples: The shortest clip that gives a frame.
        clip_seconds: The usual length of a training clip, if it is known.
        max_seconds: The longest that the model was trained on, if there was a limit.

    Raises:
        ConfigError: for a window that the model cannot judge, and for a hop that would leave samples unheard.
    """
    if window_seconds is None:
        usual = min(clip_seconds or DEFAULT_WINDOW_SECONDS, max_seconds or np.inf)
        window = max(num_samples(usual, sampling_rate), min_samples)
    else:
        check_number("window_seconds", window_seconds, above=0)
        window = num_samples(window_seconds, sampling_rate)
        if window < min_samples:
            raise ConfigError(
                f"window_seconds={window_seconds:g} is less than the encoder needs for one frame; give at least "
                f"{min_samples / sampling_rate:g}."
            )
        if max_seconds is not None and window > num_samples(max_seconds, sampling_rate):
            raise ConfigError(
                f"window_seconds={window_seconds:g} is more than the {max_seconds:g} s to which the checkpoint's clips "
                f"were cut in training; give at most {max_seconds:g}."
            )
    if hop_seconds is None:
        return window, max(1, window // 2)
    check_number("hop_seconds", hop_seconds, above=0)
    hop = num_samples(hop_seconds, sampling_rate)
    if hop > window:
        raise ConfigError(
            f"hop_seconds={hop_seconds:g} is more than the window of {window / sampling_rate:g} s, so that samples in "
            "between would be left out; give a shorter hop or a longer window."
        )
    return window, hop


def windows(blocks: Iterable[np.ndarray], window: int, hop: int) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Cuts a sound that comes in blocks (T,) of any lengths; holds little more than a window and a block.

    Yields:
        First sample and samples of each window that a block has completed; nothing after a block that completes none.
    """
    parts: list[np.ndarray] = []  # the samples from `first` on
    first = start = end = 0  # `start` is where the next window begins
    for block in blocks:
        parts.append(block)
        end += len(block)
        if end - start < window:
            continue
        held = np.concatenate(parts)
        ready = []
        while end - start >= window:
            ready.append((start, held[start - first : start - first + window]))
            start += hop
        # The latest window is kept: if the sound ends before the next is complete, its last one begins in here.
        parts, first = [held[start - hop - first :].copy()], start - hop
        yield ready
    if start == 0 and end > 0:
        yield [(0, np.concatenate(parts))]
    elif end > start - hop + window:
        yield [(end - window, np.concatenate(parts)[-window:])]


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of so many items, the last one of those that are left."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def find_segments(
    times: np.ndarray, scores: np.ndarray, labels: Sequence[str], threshold: Any, multi_label: bool
) -> tuple[Segment, ...]:
    """Merges windows that say the same.

    In single-label tasks each window has its likeliest class, if that reaches the threshold; in multi-label tasks all
    classes that reach theirs. Consecutive windows with a class become one segment of it. As windows overlap, each
    speaks only for what is nearer to its centre than to another's, the first from the start of the sound and the last
    to its end: segments of one label never overlap, and of a single-label task none do.

    Args:
        times: Start and end of each window in seconds, (W, 2).
        scores: Scores (W, C).
        labels: The classes.
        threshold: The least score, one for all or of each class (C,).
        multi_label: Whether a window may have several classes.

    Returns:
        The segments by their start, those that start together by their class.

    Source: the two ways of the DCASE 2017 baseline (`frame_binarization`: `frame_max`, `global_threshold`).

    Example:
        >>> times = np.array([[0, 2], [1, 3], [2, 4]])
        >>> scores = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]])
        >>> for segment in find_segments(times, scores, ["rain", "wind"], 0.0, multi_label=False):
        ...     print(segment)
        Segment(start=0.0, end=2.5, label='rain', score=0.8)
        Segment(start=2.5, end=4.0, label='wind', score=0.8)
    """
    # In double precision, as a clip's own score is compared with its threshold.
    active = scores >= np.broadcast_to(np.asarray(threshold, dtype=np.float64), (len(labels),))
    if not multi_label:
        active &= np.arange(len(labels)) == scores.argmax(axis=1)[:, None]
    between = (times[1:].sum(axis=1) + times[:-1].sum(axis=1)) / 4  # halfway from centre to centre
    edges = np.concatenate([times[:1, 0], between, times[-1:, 1]])
    found = []
    for column, label in enumerate(labels):
        changes = np.flatnonzero(np.diff(active[:, column].astype(np.int8), prepend=0, append=0))
        for first, last in changes.reshape(-1, 2).tolist():
            score = float(scores[first:last, column].mean(dtype=np.float64))
            found.append((first, column, Segment(float(edges[first]), float(edges[last]), label, score)))
    return tuple(segment for *_, segment in sorted(found, key=lambda row: row[:2]))
