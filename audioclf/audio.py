"""From any sound a user may hold to a mono float32 waveform at the model's rate.

Shapes: T samples, K channels.
"""

import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr

from .errors import AudioError

EXTENSIONS = frozenset(
    f".{ending}"
    for ending in (
        *("wav", "wave", "flac", "ogg", "oga", "opus", "mp3", "aif", "aiff", "aifc", "au", "snd", "caf", "w64", "rf64"),
        *("gsm", "m4a", "mp4", "aac", "wma", "webm"),
    )
)
"""File-name endings that count as audio when a folder is searched."""

RESAMPLE_QUALITY = "HQ"
BLOCK_SAMPLES = 1 << 20
"""Frames decoded at a time: bounds memory whatever length a header claims."""

MAX_CHANNELS = 64
MIN_RATE = 1000
"""Lowest plausible sampling rate, in Hz: a damaged header that claims less would blow up on resampling."""
STREAMED_SIZES = (0x7FFFF000, 0x7FFFFF00, 0x7FFFFFFF, 0xFFFFFFFF)
"""Sizes that programs (SoX, arecord, FFmpeg) write into a header when they cannot know the length yet."""
SIZE_LINE = re.compile(r"^\s*(?:data|Data Size|SSND|riff|Riff size)\s*: (\d+) \(should be (\d+)", re.MULTILINE)
"""libsndfile's log of a wav, au, aiff, w64 or rf64 whose header promises more or fewer bytes than there are."""
MAX_UNREAD_SHARE = 0.2
"""Share of an MP3 that may lie behind its last frame (tags, pictures) without its length being in doubt."""


def load(source: Any, sampling_rate: int, start: float | None = None, end: float | None = None) -> np.ndarray:
    """Reads a sound as a mono waveform (T,) float32 at `sampling_rate` Hz.

    Channels are averaged; other rates are resampled with soxr HQ, block by block, so that memory holds little
    more than the result.

    Args:
        source: A path, the bytes of an audio file, `{"array", "sampling_rate"}` with an array (T,) or (T, K) or
            (K, T), or `{"bytes", "path"}` as `datasets` stores audio.
        sampling_rate: Rate of the result, in Hz.
        start: Where to begin, in seconds; the beginning when not given.
        end: Where to stop, in seconds; the end of the sound when not given.

    Raises:
        AudioError: naming the file and what is wrong with it: missing, unreadable, empty, truncated, or with
            samples that are NaN or infinite.

    Example:
        >>> load({"array": np.zeros(22050), "sampling_rate": 22050}, 16_000).shape
        (16000,)
    """
    return np.concatenate(list(load_blocks(source, sampling_rate, start, end)))


def load_blocks(
    source: Any, sampling_rate: int, start: float | None = None, end: float | None = None
) -> Iterator[np.ndarray]:
    """The same samples as `load` in blocks (T,), of which one is in memory, however long the sound is.

    Only formats that FFmpeg has to read (m4a, aac, wma) are decoded whole first.

    Raises:
        AudioError: as `load`, once the fault is reached.
    """
    source, name = named(source)
    for option, seconds in (("start", start), ("end", end)):
        if seconds is not None and not 0 <= seconds < float("inf"):
            raise AudioError(f"{name}: {option}={seconds!r} is no time in seconds.")
    if start is not None and end is not None and end <= start:
        raise AudioError(f"{name}: the segment from {start:g} s to {end:g} s is empty; give an end after its start.")
    if isinstance(source, Mapping):
        rate, blocks = _array_blocks(source, name, start, end)
    else:
        rate, blocks = _file_blocks(source, name, start, end)
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


def seconds_told(source: Any) -> float | None:
    """Length of a sound as its header has it, in seconds, without decoding it; None where it does not tell.

    Args:
        source: As for `load`.
    """
    try:
        source, _ = named(source)
        if isinstance(source, Mapping):
            return max(np.shape(source["array"])) / source["sampling_rate"]
        with (
            io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as stream,
            soundfile.SoundFile(stream) as file,
        ):
            return file.frames / file.samplerate
    except (AudioError, OSError, soundfile.SoundFileError, ValueError, TypeError, KeyError, ZeroDivisionError):
        return None  # whoever decodes it will say what is wrong


def num_samples(seconds: float, sampling_rate: int) -> int:
    """Samples of so many seconds, at least one."""
    return max(1, round(seconds * sampling_rate))


def is_audio_path(path: str | os.PathLike) -> bool:
    """Whether a path looks like audio; hidden files and the `._*` shadows that macOS leaves do not count."""
    path = Path(path)
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


def named(source: Any) -> tuple[Any, str]:
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
            data, name = named(source["bytes"])
            return data, name if path is None else repr(os.fspath(path))
        if path is not None:
            return named(path)
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
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and 0 < value < float("inf")


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


def _file_blocks(
    source: str | bytes, name: str, start: float | None, end: float | None
) -> tuple[int, Iterator[np.ndarray]]:
    """Sampling rate and mono blocks of an encoded file."""
    if not source:
        raise AudioError(f"{name}: is empty (0 bytes); remove it from the data.")
    if isinstance(source, str):
        if not os.path.exists(source):
            raise AudioError(f"{name}: no such file.")
        if os.path.isdir(source):
            raise AudioError(f"{name}: is a folder, not an audio file.")
        if os.path.getsize(source) == 0:
            raise AudioError(f"{name}: is empty (0 bytes); remove it from the data.")
    try:
        # Opened by Python: names in any encoding work, and libsndfile goes by content, not by the name's ending.
        stream = io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")  # noqa: SIM115
    except OSError as error:
        raise AudioError(f"{name}: cannot be opened ({error.strerror or error}).") from error
    try:
        file = soundfile.SoundFile(stream)
    except soundfile.LibsndfileError as error:
        stream.close()
        return _torchcodec_blocks(source, name, start, end, error.error_string.rstrip("."))
    return file.samplerate, _soundfile_blocks(stream, file, name, start, end)


def _soundfile_blocks(
    stream: BinaryIO, file: soundfile.SoundFile, name: str, start: float | None, end: float | None
) -> Iterator[np.ndarray]:
    """Mono blocks of an open file; checks that as many samples come as its header promises."""
    with stream, file:
        if file.channels > MAX_CHANNELS:
            raise AudioError(f"{name}: claims {file.channels} channels; it is damaged, or no recording; remove it.")
        if file.samplerate < MIN_RATE:
            raise AudioError(f"{name}: claims a sampling rate of {file.samplerate} Hz; it is damaged; remove it.")
        size = SIZE_LINE.search(file.extra_info)
        if size and int(size[1]) > int(size[2]) and int(size[1]) not in STREAMED_SIZES:
            raise AudioError(
                f"{name}: is truncated (its header promises {int(size[1]):,} bytes of samples, it holds "
                f"{int(size[2]):,}); fetch or export it again."
            )
        first = 0 if start is None else round(start * file.samplerate)
        last = file.frames if end is None else min(file.frames, round(end * file.samplerate))
        if first > file.frames:
            raise AudioError(
                f"{name}: lasts {file.frames / file.samplerate:.2f} s, so nothing begins at {start:g} s; "
                "correct its start."
            )
        try:
            if first:
                file.seek(first)
            position = first
            while position < last:
                block = file.read(min(BLOCK_SAMPLES, last - position), dtype="float32", always_2d=True)
                if not len(block):
                    break
                position += len(block)
                yield block.mean(axis=1) if block.shape[1] > 1 else block[:, 0]
        except soundfile.LibsndfileError as error:
            reason = error.error_string.rstrip(".")
            raise AudioError(f"{name}: cannot be decoded to its end ({reason}); fetch or export it again.") from error
        # The length of an MP3 without a length header is only estimated: a frame less is no damage, but an estimate
        # that is far too short would silently lose the rest.
        if file.format == "MP3" and last == file.frames and _unread_share(stream) > MAX_UNREAD_SHARE:
            raise AudioError(
                f"{name}: is an MP3 of variable bit rate without a header that tells its length; "
                "convert it to wav or flac."
            )
        if position < last and not (file.format == "MP3" and last - position <= 4 * 1152):
            raise AudioError(
                f"{name}: is truncated ({position - first:,} samples came of the {last - first:,} its header "
                "promises); fetch or export it again."
            )


def _unread_share(stream: BinaryIO) -> float:
    """Share of an open file that lies behind the place reached so far."""
    reached = stream.tell()
    size = stream.seek(0, io.SEEK_END)
    return 1 - reached / size


def _torchcodec_blocks(
    source: str | bytes, name: str, start: float | None, end: float | None, reason: str
) -> tuple[int, Iterator[np.ndarray]]:
    """Second try, with FFmpeg through torchcodec, for formats that libsndfile does not know (m4a, aac, wma)."""
    try:
        from torchcodec.decoders import AudioDecoder
    except (ImportError, RuntimeError, OSError):
        raise AudioError(
            f"{name}: libsndfile cannot read it ({reason}); convert it to wav or flac, or, if it is m4a, aac or "
            "the like, install FFmpeg and torchcodec."
        ) from None
    try:
        samples = AudioDecoder(source).get_samples_played_in_range(start or 0.0, end)
    except (RuntimeError, ValueError) as error:
        raise AudioError(
            f"{name}: neither libsndfile ({reason}) nor FFmpeg can read it; it is damaged or no audio."
        ) from error
    return int(samples.sample_rate), iter([samples.data.mean(dim=0).numpy()])


def _resampled(blocks: Iterator[np.ndarray], rate: int, sampling_rate: int) -> Iterator[np.ndarray]:
    """Blocks (T,) of `rate` Hz at `sampling_rate` Hz: the very samples of one call on the whole."""
    if rate == sampling_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, sampling_rate, 1, dtype="float32", quality=RESAMPLE_QUALITY)
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
