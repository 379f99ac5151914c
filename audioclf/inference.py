"""Using a trained checkpoint: `load` gives a `Classifier`."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import audio
from .checkpoint import located
from .checks import check_int, check_number
from .collate import make_collator
from .config import Device, Precision
from .errors import AudioError, ConfigError
from .evaluation import forward_backing_off, probabilities
from .export import read_metadata
from .loaders import prefetch
from .models.backbone import backbone_of, lengths_heard
from .models.classifier import AudioClassifier, load_classifier, place
from .models.loading import load_feature_extractor
from .pieces import piece_starts
from .runtime import choose_device, choose_precision
from .sampling import LengthBucketSampler
from .timeline import Timeline, Window, batched, choose_window, find_segments, windows

CHUNK_BATCHES = 16
"""Batches' worth of inputs decoded and sorted by length together; at most two such chunks are in memory."""


class Classifier:
    """A checkpoint ready to classify sounds; made by `audioclf.load`.

    Attributes:
        model: The encoder with its head, in evaluation mode.
        labels: Class names by id.
        thresholds: Of a multi-label checkpoint, the scores (C,) from which a class counts as detected, as tuned on
            validation, or 0.5; else None.
        sampling_rate: Rate the model works at, in Hz; any input is resampled to it.
        max_seconds: Longer sounds are cut to their start, as in validation; None for no limit.
        chunk_seconds: Longer sounds are scored in pieces of this length, by the mean of their probabilities, as in
            validation; None for a checkpoint that was trained on whole clips.
        clip_seconds: Usual length of the clips it was trained on; None for a checkpoint that does not tell.
        min_samples: Shorter sounds are extended to so many samples, as in training.
        collator: Normalises and pads as in training.
        device, precision: Where and how it computes.
    """

    def __init__(
        self, model: AudioClassifier, extractor: Any, metadata: dict[str, Any], device: torch.device, precision: str
    ) -> None:
        self.model = place(model, device).eval()
        self.labels = tuple(model.labels)
        self.thresholds: np.ndarray | None = None
        if model.multi_label:
            self.thresholds = np.array(metadata.get("thresholds") or [0.5] * len(self.labels))
        self.sampling_rate = extractor.sampling_rate
        lengths = lengths_heard(model.config, extractor, metadata.get("max_seconds"), metadata.get("chunk_seconds"))
        self.max_seconds, self.chunk_seconds = lengths["max_seconds"], lengths["chunk_seconds"]
        self.collator = make_collator(model.config, extractor)
        self.min_samples = backbone_of(model.config).min_samples(model.config, extractor)
        self.clip_seconds = metadata.get("clip_seconds")
        self.device = device
        self.precision = precision
        self._max_clips: int | None = None  # what memory allows, once it has run out

    def __call__(
        self, inputs: Any, *, top_k: int | None = 5, min_score: float | None = None, batch_size: int = 8
    ) -> list:
        """Classifies one sound or many.

        Args:
            inputs: A path, the bytes of a file, or `{"array", "sampling_rate"}`; or a list or other iterable of such.
            top_k: Classes to return for each sound, the likeliest first; None for all.
            min_score: A sound whose likeliest class has a lower score is none of them and gets `[]`; docs/scores.md
                shows how to choose it.
            batch_size: Sounds in one forward pass. It does not change the scores.

        Returns:
            `[{"label", "score"}, ...]` for one sound, a list of such lists for many. In a multi-label task each entry
            has `"detected"` too: whether the score reaches the label's threshold.

        Raises:
            AudioError: naming the sound that cannot be read.
            ConfigError: for `min_score` in a multi-label task, whose classes have thresholds.

        Example:
            >>> classifier = audioclf.load("runs/first")
            >>> classifier("song.wav", top_k=1)
            [{'label': 'blues', 'score': 0.91}]
        """
        self._check_choice(top_k, min_score)
        if isinstance(inputs, (str, os.PathLike, bytes, bytearray, memoryview, dict)):
            return self._top(self.probabilities([inputs], batch_size), top_k, min_score)[0]
        if not isinstance(inputs, Iterable):
            raise AudioError(f"{inputs!r} is no sound: give a path, bytes, {{'array', 'sampling_rate'}} or a list.")
        return self._top(self.probabilities(inputs, batch_size), top_k, min_score)

    def each(
        self, inputs: Iterable[Any], *, top_k: int | None = 5, min_score: float | None = None, batch_size: int = 8
    ) -> Iterator[list[dict[str, Any]] | AudioError]:
        """Classifies sounds one after the other, as a call with each would; for many, some of which may be broken.

        Args:
            inputs: Sounds in the forms that a call takes.
            top_k, min_score, batch_size: As for a call.

        Yields:
            Of each sound, in their order, what a call returns, or the error that says why it cannot be read.

        Example:
            >>> for path, found in zip(paths, classifier.each(paths)):
            ...     print(path, "broken" if isinstance(found, audioclf.AudioError) else found[0]["label"])
        """
        self._check_choice(top_k, min_score)
        check_int("batch_size", batch_size, minimum=1)
        with contextlib.closing(self._decoded(inputs, CHUNK_BATCHES * batch_size)) as chunks:
            for outcomes in chunks:
                waveforms = [outcome for outcome in outcomes if not isinstance(outcome, AudioError)]
                found = iter(self._top(self._probabilities(waveforms, batch_size), top_k, min_score))
                yield from (outcome if isinstance(outcome, AudioError) else next(found) for outcome in outcomes)

    def probabilities(self, inputs: Iterable[Any], batch_size: int = 8) -> np.ndarray:
        """Class probabilities (N, C) float32 of many sounds, in their order; memory stays flat however many.

        They add up to 1, except in a multi-label task, where each class has one of its own.
        """
        check_int("batch_size", batch_size, minimum=1)
        rows = [np.zeros((0, len(self.labels)), dtype=np.float32)]
        with contextlib.closing(self._decoded(inputs, CHUNK_BATCHES * batch_size)) as chunks:
            for waveforms in chunks:
                for outcome in waveforms:
                    if isinstance(outcome, AudioError):
                        raise outcome
                rows.append(self._probabilities(waveforms, batch_size))
        return np.concatenate(rows)

    def timeline(
        self,
        sound: Any,
        *,
        window_seconds: float | None = None,
        hop_seconds: float | None = None,
        threshold: float | None = None,
        batch_size: int = 8,
    ) -> Timeline:
        """What is heard when: scores of overlapping windows, and the segments they merge into.

        A sound of any length needs the same memory. Each window is classified as a clip of its own; those at the end
        are described in `audioclf.timeline`, and the segments in its `find_segments`.

        Args:
            sound: A path, the bytes of a file, or `{"array", "sampling_rate"}`.
            window_seconds: Length of a window; by default the usual length of the checkpoint's training clips, or
                5 s for one that does not tell.
            hop_seconds: From the start of one window to that of the next; by default half a window.
            threshold: Score from which a class counts as heard, the same for all; by default the checkpoint's own
                thresholds in a multi-label task, else none, so that the likeliest class always counts.
            batch_size: Windows in one forward pass. It does not change the scores.

        Raises:
            AudioError: naming the sound that cannot be read.
            ConfigError: for a window shorter or longer than the model can judge, and a hop longer than a window.

        Example:
            >>> timeline = classifier.timeline("street.wav", window_seconds=2.0, hop_seconds=0.5)
            >>> timeline.segments[0]
            Segment(start=0.0, end=7.25, label='rain', score=0.93)
            >>> timeline.times.shape, timeline.scores.shape
            ((120, 2), (120, 10))
        """
        check_int("batch_size", batch_size, minimum=1)
        if threshold is not None:
            check_number("threshold", threshold, minimum=0, maximum=1)
        elif self.thresholds is None:
            threshold = 0.0
        cut = self._window(window_seconds, hop_seconds)
        with contextlib.closing(audio.load_blocks(sound, self.sampling_rate)) as blocks:
            single = chain.from_iterable(windows(blocks, *cut))
            with contextlib.closing(prefetch(batched(single, batch_size))) as batches:
                spans, rows = zip(*self._heard(batches), strict=True)
        times, scores = np.array(spans), np.array(rows)
        wanted = self.thresholds if threshold is None else threshold
        segments = find_segments(times, scores, self.labels, wanted, self.model.multi_label)
        return Timeline(self.labels, times, scores, segments)

    def stream(
        self,
        blocks: Iterable[Any],
        *,
        sampling_rate: int,
        window_seconds: float | None = None,
        hop_seconds: float | None = None,
        top_k: int | None = 5,
        batch_size: int = 8,
    ) -> Iterator[Window]:
        """Scores of a sound that is still being made, each window as soon as its last sample is there.

        They are those that `timeline` gives for the whole, however the sound is divided into blocks.

        Args:
            blocks: Arrays (samples,) or (samples, channels) of any lengths, floats in [-1, 1] or signed integers, as
                a microphone gives them. The next one is asked for once the windows so far are classified.
            sampling_rate: Their rate, in Hz.
            window_seconds, hop_seconds: As in `timeline`.
            top_k: Classes to name for each window, the likeliest first; None for all.
            batch_size: Windows in one forward pass, when a block completes several. None waits for another.

        Raises:
            AudioError: naming the block that is no sound, holds NaN, or has other channels than those before it.
            ConfigError: as `timeline`, right away.

        Example:
            >>> for window in classifier.stream(microphone, sampling_rate=44_100):
            ...     print(window.start, window.end, window.top[0]["label"])
        """
        check_int("batch_size", batch_size, minimum=1)
        self._check_choice(top_k, None)
        cut = self._window(window_seconds, hop_seconds)
        ready = windows(audio.live_blocks(blocks, sampling_rate, self.sampling_rate), *cut)
        batches = (batch for completed in ready for batch in batched(completed, batch_size))
        return (Window(*span, row, self._top(row[None], top_k)[0]) for span, row in self._heard(batches))

    def _check_choice(self, top_k: int | None, min_score: float | None) -> None:
        if top_k is not None:
            check_int("top_k", top_k, minimum=1)
        if min_score is not None:
            check_number("min_score", min_score, minimum=0, maximum=1)
            if self.thresholds is not None:
                raise ConfigError(
                    "min_score is for classes of which a sound has one; this multi-label checkpoint has thresholds, "
                    "which say what is 'detected', maybe nothing: leave min_score out."
                )

    def _window(self, window_seconds: float | None, hop_seconds: float | None) -> tuple[int, int]:
        return choose_window(
            window_seconds,
            hop_seconds,
            sampling_rate=self.sampling_rate,
            min_samples=self.min_samples,
            clip_seconds=self.clip_seconds,
            max_seconds=self.max_seconds,
        )

    def _heard(
        self, batches: Iterable[list[tuple[int, np.ndarray]]]
    ) -> Iterator[tuple[tuple[float, float], np.ndarray]]:
        """Start and end in seconds and the scores (C,) of each window."""
        for batch in batches:
            rows = self._probabilities([waveform for _, waveform in batch], len(batch))
            for (start, waveform), row in zip(batch, rows, strict=True):
                yield (start / self.sampling_rate, (start + len(waveform)) / self.sampling_rate), row

    def _decoded(self, inputs: Iterable[Any], size: int) -> Iterator[list[np.ndarray | AudioError]]:
        """Waveforms of so many inputs at a time, or why there is none; the next are decoded meanwhile."""
        remaining = iter(inputs)
        pool = ThreadPoolExecutor()
        try:
            ahead = [pool.submit(self._waveform, sound) for sound in islice(remaining, size)]
            while ahead:
                current, ahead = ahead, [pool.submit(self._waveform, sound) for sound in islice(remaining, size)]
                yield [_outcome(future) for future in current]
        finally:
            pool.shutdown(cancel_futures=True)

    def _probabilities(self, waveforms: Sequence[np.ndarray], batch_size: int) -> np.ndarray:
        """Of each waveform, in pieces where it is longer than these, (N, C)."""
        if self.chunk_seconds is None or not waveforms:
            return self._piece_probabilities(waveforms, batch_size)
        size = audio.num_samples(self.chunk_seconds, self.sampling_rate)
        starts = [piece_starts(len(waveform), size) for waveform in waveforms]
        pieces = [
            waveform[start : start + size]
            for waveform, of_clip in zip(waveforms, starts, strict=True)
            for start in of_clip
        ]
        counts = np.array([len(of_clip) for of_clip in starts])
        sums = np.add.reduceat(self._piece_probabilities(pieces, batch_size), np.cumsum(counts) - counts, axis=0)
        return sums / counts[:, None].astype(np.float32)

    def _piece_probabilities(self, waveforms: Sequence[np.ndarray], batch_size: int) -> np.ndarray:
        result = np.empty((len(waveforms), len(self.labels)), dtype=np.float32)
        lengths = [len(waveform) for waveform in waveforms]
        names = [f"of {length / self.sampling_rate:.1f} s" for length in lengths]
        with torch.inference_mode():
            for keys in LengthBucketSampler(lengths, batch_size, seed=None):
                items = [{"waveform": waveforms[index], "label": 0, "index": index} for index, _ in keys]
                logits, self._max_clips = forward_backing_off(
                    self.model, self.collator(items), self.device, self.precision, names, self._max_clips
                )
                result[[index for index, _ in keys]] = probabilities(logits, self.model.multi_label).cpu().numpy()
        return result

    def _waveform(self, sound: Any) -> np.ndarray:
        return audio.load(sound, self.sampling_rate, max_seconds=self.max_seconds)

    def _top(
        self, probabilities: np.ndarray, top_k: int | None, min_score: float | None = None
    ) -> list[list[dict[str, Any]]]:
        orders = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
        return [
            [self._entry(index, float(row[index])) for index in order if float(row.max()) >= (min_score or 0.0)]
            for row, order in zip(probabilities, orders, strict=True)
        ]

    def _entry(self, index: int, score: float) -> dict[str, Any]:
        entry = {"label": self.labels[index], "score": score}
        return entry if self.thresholds is None else {**entry, "detected": bool(score >= self.thresholds[index])}


def _outcome(future: Future) -> np.ndarray | AudioError:
    try:
        return future.result()
    except AudioError as error:
        return error


def load(
    checkpoint: str | Path, *, precision: Precision = "fp32", device: Device = "auto", head: Callable | None = None
) -> Classifier:
    """Opens a checkpoint of ours, or an audio classifier that transformers saved, of the families in docs/backbones.md.

    Args:
        checkpoint: Its folder, that of a run, whose best it then is, or a hub id.
        precision: `fp32` for exact scores; `bf16`, `fp16` or `auto` for speed.
        device: `auto`, `cuda`, `mps` or `cpu`.
        head: The callable that builds the head, for a checkpoint trained with one of the user's own.

    Raises:
        CheckpointError: when there is no such checkpoint or it cannot be used.

    Example:
        >>> classifier = load("runs/first")
    """
    checkpoint = located(checkpoint)
    where = choose_device(device)
    return Classifier(
        load_classifier(checkpoint, head),
        load_feature_extractor(checkpoint),
        read_metadata(checkpoint),
        where,
        choose_precision(precision, where),
    )
