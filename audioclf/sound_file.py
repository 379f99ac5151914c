"""Encoded sound, files or their bytes, block by block: by libsndfile, and what that does not know by FFmpeg.

Shapes: T samples.
"""

import contextlib
import io
import os
import re
import unicodedata
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile

from .errors import AudioError

BLOCK_SAMPLES = 1 << 20
"""Frames decoded at a time: bounds memory whatever length a header claims."""
MAX_CHANNELS = 64
MIN_RATE = 1000
"""Lowest plausible sampling rate, in Hz: a damaged header that claims less would blow up on resampling."""
MAX_FRAMES = 2**62
"""Frames from which on they are libsndfile's word for a length that the header does not tell."""
STREAMED_SIZES = (0x7FFFF000, 0x7FFFFF00, 0x7FFFFFFF, 0xFFFFFFFF)
"""Sizes that programs (SoX, arecord, FFmpeg) write into a header when they cannot know the length yet."""
SIZE_LINE = re.compile(r"^\s*(?:data|Data Size|SSND|riff|Riff size)\s*: (\d+) \(should be (\d+)", re.MULTILINE)
"""libsndfile's log of a wav, au, aiff, w64 or rf64 whose header promises more or fewer bytes than there are."""
MAX_UNREAD_SHARE = 0.2
"""Share of an MP3 that may lie behind its last frame (tags, pictures) without its length being in doubt."""


class Sound(soundfile.SoundFile):
    """An open sound; a FLAC that was written into a pipe does not tell its length, and cannot be sought in."""

    @property
    def has_length(self) -> bool:
        """Whether `frames` is its length."""
        return self.frames < MAX_FRAMES

    def seekable(self) -> bool:
        """Whether `seek` works; soundfile also asks this at every `read`."""
        return self.has_length and super().seekable()


@contextlib.contextmanager
def open_sound(source: str | bytes) -> Iterator[Sound]:
    """A path's or an encoded sound's file, opened by its content: whatever its name ends in, or is encoded in.

    Raises:
        OSError: for a file that cannot be opened.
        soundfile.LibsndfileError: for what libsndfile does not know.
    """
    with _opened(source) as stream, Sound(stream) as file:
        yield file


def _opened(source: str | bytes) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    stream = open(source, "rb")  # noqa: SIM115 - its users close it
    stream.raw.name = ""  # soundfile would go by its ending
    return stream


def file_blocks(
    source: str | bytes, name: str, start: float | None, end: float | None
) -> tuple[int, Iterator[np.ndarray]]:
    """Sampling rate and mono blocks (T,) of an encoded sound, from and to so many seconds.

    Raises:
        AudioError: as `audio.load`; for what is wrong inside once it is reached.
    """
    if not source:
        raise AudioError(f"{name}: is empty (0 bytes); remove it from the data.")
    if isinstance(source, str):
        if not os.path.exists(source):
            raise AudioError(f"{name}: no such file{_spelt_otherwise(source)}.")
        if os.path.isdir(source):
            raise AudioError(f"{name}: is a folder, not an audio file.")
        if os.path.getsize(source) == 0:
            raise AudioError(f"{name}: is empty (0 bytes); remove it from the data.")
    try:
        stream = _opened(source)
    except OSError as error:
        raise AudioError(f"{name}: cannot be opened ({error.strerror or error}).") from error
    try:
        file = Sound(stream)
    except soundfile.LibsndfileError as error:
        stream.close()
        return _torchcodec_blocks(source, name, start, end, error.error_string.rstrip("."))
    return file.samplerate, _soundfile_blocks(stream, file, name, start, end)


def _spelt_otherwise(path: str) -> str:
    """What to say where there is a file of that name as macOS decomposes accents and Hangul, or composed again."""
    for form in ("NFC", "NFD"):
        if (other := unicodedata.normalize(form, path)) != path and os.path.exists(other):
            return f", but one of the same letters in another Unicode form: write its name as {form}"
    return ""


def _soundfile_blocks(
    stream: BinaryIO, file: Sound, name: str, start: float | None, end: float | None
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
            position = _skip(file, first)
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
        if file.has_length and position < last and not (file.format == "MP3" and last - position <= 4 * 1152):
            raise AudioError(
                f"{name}: is truncated ({position - first:,} samples came of the {last - first:,} its header "
                "promises); fetch or export it again."
            )


def _skip(file: Sound, frames: int) -> int:
    """Goes to a frame, or to the end if that comes first; returns where it is."""
    if file.seekable():
        return file.seek(frames)
    position = 0
    while position < frames and (block := len(file.read(min(BLOCK_SAMPLES, frames - position)))):
        position += block
    return position


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
