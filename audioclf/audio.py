"""From any sound a user may hold to a mono float32 waveform at the model's rate.

Shapes: T samples, K channels.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from .errors import AudioError
from .sound_file import BLOCK_SAMPLES, file_blocks, open_sound

EXTENSIONS = frozenset(
    f".{ending}"
    for ending in (
        *("wav", "wave", "flac", "ogg", "oga", "opus", "mp3", "aif", "aiff", "aifc", "au", "snd", "caf", "w64", "rf64"),
        *("gsm", "m4a", "mp4", "aac", "wma", "webm"),
    )
)
"""File-name endings that count as audio when a folder is searched."""

RESAMPLE_QUALITY = "HQ"
MARGIN_SECONDS = 1.0
"""Sound decoded beyond where it is cut: more than the resampler looks ahead."""
MAX_CHANNELS = 64


def load(
    source: Any,
    sampling_rate: int,
    start: float | None = None,
    end: float | None = None,
    max_seconds: float | None = None,
) -> np.ndarray:
    """Reads a sound as a mono waveform (T,) float32 at `sampling_rate` Hz.

    Channels are averaged; other rates are resampled with soxr HQ, block by block, so that memory holds little
    more than the result.

    Args:
        source: A path, the bytes of an audio file, `{"array", "sampling_rate"}` with an array (T,) or (T, K) or
            (K, T), or `{"bytes", "path"}` as `datasets` stores audio.
        sampling_rate: Rate of the result, in Hz.
        start: Where to begin, in seconds; the beginning when not given.
        end: Where to stop, in seconds; the end of the sound when not given.
        max_seconds: Length of the result at most: the very samples of its beginning, with little more decoded.

    Raises:
        AudioError: naming the file and what is wrong with it: missing, unreadable, empty, truncated, or with
            samples that are NaN or infinite.

    Example:
        >>> load({"array": np.zeros(22050), "sampling_rate": 22050}, 16_000).shape
        (16000,)
    """
    if max_seconds is None:
        return np.concatenate(list(load_blocks(source, sampling_rate, start, end)))
    enough = (start or 0.0) + max_seconds + MARGIN_SECONDS
    blocks = load_blocks(source, sampling_rate, start, enough if end is None else min(end, enough))
    return np.concatenate(list(blocks))[: num_samples(max_seconds, sampling_rate)]


def load_blocks(
    source: Any, sampling_rate: int, start: float | None = None, end: float | None = None
) -> Iterator[np.ndarray]:
    """The same samples as `load` in blocks (T,), of which one is in memory, however long the sound is.

    Only formats that FFmpeg has to read (m4a, aac, wma) are decoded whole first.

    Raises:
        AudioError: as `load`, once the fault is reached.
    """
    source, name = source_and_name(source)
    for option, seconds in (("start", start), ("end", end)):
        if seconds is not None and not 0 <= seconds < float("inf"):
            raise AudioError(f"{name}: {option}={seconds!r} is no time in seconds.")
    if start is not None and end is not None and end <= start:
        raise AudioError(f"{name}: the segment from {start:g} s to {end:g} s is empty; give an end after its start.")
    if isinstance(source, Mapping):
        rate, blocks = _array_blocks(source, name, start, end)
    else:
        rate, blocks = file_blocks(source, name, start, end)
    is_empty = True
    for block in _resampled(blocks, rate, sampling_rate):
        if not np.isfinite(block).all():
            raise AudioError(f"{name}: holds NaN or infinite samples; export it again or remove it from the data.")
        is_empty = is_empty and not len(block)
        yield block
    if is_empty:
        where = "" if start is None else f" from {start:g} s on"
        raise AudioError(f"{name}: holds no samples{where}; remove it from the data.")


def live_blocks(blocks: Iterable[Any], rate: int, sampling_rate: int) -> Iterator[np.ndarray]:
    """Blocks as a microphone gives them, as mono blocks (T,) float32 of another rate, each as soon as it can be.

    Args:
        blocks: Arrays (T,) or (T, K) of floats or signed integers, each of any length, all of the same K.
        rate: Their rate, in Hz.
        sampling_rate: Rate of the result, in Hz.

    Raises:
        AudioError: naming the block that has another form, or samples that are NaN or infinite; when there are no
            samples at all.
    """
    if isinstance(blocks, (str, bytes, np.ndarray, Mapping)) or not isinstance(blocks, Iterable):
        raise AudioError(
            f"{type(blocks).__name__} is no stream: give an iterable of blocks (samples,) or (samples, channels)."
        )
    if not _is_rate(rate):
        raise AudioError(f"sampling_rate={rate!r} is no rate in Hz; give that of the stream's blocks.")
    return _not_empty(_resampled(_live_mono(blocks), int(rate), sampling_rate))


def _not_empty(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    is_empty = True
    for block in blocks:
        is_empty = is_empty and not len(block)
        yield block
    if is_empty:
        raise AudioError("The stream ended without any samples; check that its source is recording.")


def _live_mono(blocks: Iterable[Any]) -> Iterator[np.ndarray]:
    num_channels = None
    for number, given in enumerate(blocks, 1):
        name = f"Block {number} of the stream"
        block = _samples(given, name)
        if not len(block):
            continue
        if block.ndim == 2 and not 0 < block.shape[1] <= MAX_CHANNELS:
            raise AudioError(f"{name}: has {block.shape[1]} channels; give arrays (samples, channels).")
        previous, num_channels = num_channels, 1 if block.ndim == 1 else block.shape[1]
        if previous not in (None, num_channels):
            raise AudioError(
                f"{name}: has {num_channels} channel(s), those before it {previous}; start another stream for it."
            )
        if not np.isfinite(block).all():
            raise AudioError(f"{name}: holds NaN or infinite samples; leave it out or put zeros in their place.")
        yield _mono(block)


def header_seconds(source: Any) -> float | None:
    """Length of a sound as its header has it, in seconds, without decoding it; None where it does not tell.

    Args:
        source: As for `load`.
    """
    try:
        source, _ = source_and_name(source)
        if isinstance(source, Mapping):
            return max(np.shape(source["array"])) / source["sampling_rate"]
        with open_sound(source) as file:
            return file.frames / file.samplerate if file.has_length else None
    except (AudioError, OSError, soundfile.SoundFileError, ValueError, TypeError, KeyError, ZeroDivisionError):
        return None  # whoever decodes it will say what is wrong


def num_samples(seconds: float, sampling_rate: int) -> int:
    """Samples of so many seconds, at least one."""
    return max(1, round(seconds * sampling_rate))


def is_audio_path(path: str | os.PathLike) -> bool:
    """Whether a path looks like audio; hidden files and the `._*` shadows that macOS leaves do not count."""
    path = Path(path)
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


def source_and_name(source: Any) -> tuple[Any, str]:
    """The source of a sound in one of three forms (path, bytes, mapping with an array), with a name for messages.

    Raises:
        AudioError: for what is none of these.
    """
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source), repr(os.fspath(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source), f"<{len(source)} bytes of audio>"
    if isinstance(source, Mapping):
        if source.get("array") is not None:
            return source, repr(source.get("path") or "<array>")
        path = source.get("path")
        if source.get("bytes") is not None:
            data, name = source_and_name(source["bytes"])
            return data, name if path is None else repr(os.fspath(path))
        if path is not None:
            return source_and_name(path)
    raise AudioError(
        f"{type(source).__name__} is no audio: give a path, the bytes of a file, or "
        '{"array": samples, "sampling_rate": hertz}.'
    )


def _array_blocks(
    source: Mapping, name: str, start: float | None, end: float | None
) -> tuple[int, Iterator[np.ndarray]]:
    rate = source.get("sampling_rate")
    if not _is_rate(rate):
        raise AudioError(f'{name}: an array needs its "sampling_rate" in Hz.')
    samples = _samples(source["array"], name)
    if samples.size == 0:
        samples = np.zeros(0, dtype=np.float32)
    if samples.ndim == 2 and samples.shape[0] <= samples.shape[1]:
        samples = samples.T  # a sound has far more samples than channels: the short axis is the channels'
    samples = samples[0 if start is None else round(start * rate) : None if end is None else round(end * rate)]
    return int(rate), (_mono(samples[i : i + BLOCK_SAMPLES]) for i in range(0, len(samples), BLOCK_SAMPLES))


def _is_rate(value: Any) -> bool:
    """Whether it may be a sampling rate in Hz."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and 1 <= value < float("inf")


def _samples(given: Any, name: str) -> np.ndarray:
    try:
        samples = np.asarray(given)
    except ValueError as error:
        raise AudioError(f"{name}: expected an array (samples,) or (samples, channels); its rows differ.") from error
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fi":
        raise AudioError(
            f"{name}: expected an array (samples,) or (samples, channels) of floats or signed integers, "
            f"got {samples.dtype} of shape {samples.shape}."
        )
    return samples


def _mono(samples: np.ndarray) -> np.ndarray:
    """Samples (T,) or (T, K) as (T,) float32 in [-1, 1]; they are never the caller's own memory."""
    if samples.dtype.kind == "i":
        samples = samples / -float(np.iinfo(samples.dtype).min)
    if samples.ndim == 2:
        samples = samples.mean(axis=1, dtype=np.float64)
    return samples.astype(np.float32)


def _resampled(blocks: Iterator[np.ndarray], rate: int, sampling_rate: int) -> Iterator[np.ndarray]:
    """Blocks (T,) of `rate` Hz at `sampling_rate` Hz: the very samples of one call on the whole."""
    if rate == sampling_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, sampling_rate, 1, dtype="float32", quality=RESAMPLE_QUALITY)
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
