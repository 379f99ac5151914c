"""What a clip's samples say of how it was recorded: level, silence, offset, and, of its file, rate and clipping.

Shapes: T samples, K channels.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile

from .audio import source_and_name
from .errors import AudioError
from .sound_file import open_sound

BLOCK_SECONDS = 0.1
SILENCE_DB = -60.0
"""Level below which a block of sound is silent, in decibels of full scale."""
LOSSY_FORMATS = ("MP3", "OGG")
"""Their coding rounds off the flat tops by which clipping is known."""
NEAR_PEAK, MIN_NEAR_PEAK = 0.8, 2e-4
"""A clip of which fewer samples than this share come so near its peak was not clipped; its file is not read again."""
MIN_CLIPPED_PEAK = 0.1
FLAT_SAMPLES = 3


@dataclass(frozen=True)
class Levels:
    """Levels of one clip.

    Attributes:
        peak: Largest absolute value; 1 is full scale.
        rms_db: Level, in decibels of full scale; -inf for digital silence.
        dc_offset: Mean of the samples.
        silent_share: Share of its blocks of 0.1 s that are silent.
        may_be_clipped: Whether so many samples are near the peak that its file is worth a look.
    """

    peak: float
    rms_db: float
    dc_offset: float
    silent_share: float
    may_be_clipped: bool


@dataclass(frozen=True)
class Original:
    """What the file of a clip says.

    Attributes:
        sampling_rate: Its rate, in Hz; None when only FFmpeg can tell.
        channels: Its channels; None likewise.
        clipped_share: Share of its samples that are cut off at the top; None when they were not looked at, or when
            its format does not show.
    """

    sampling_rate: int | None = None
    channels: int | None = None
    clipped_share: float | None = None


def levels(waveform: np.ndarray, sampling_rate: int) -> Levels:
    """Levels of a decoded clip (T,) of at least one sample."""
    size = max(1, int(BLOCK_SECONDS * sampling_rate))
    whole = waveform[: len(waveform) // size * size] if len(waveform) >= size else waveform
    blocks = whole.reshape(-1, min(size, len(whole)))
    mean_squares = np.einsum("ij,ij->i", blocks, blocks) / blocks.shape[1]
    magnitude = np.abs(waveform)
    peak, power = float(magnitude.max()), float(mean_squares.mean())
    near_peak = np.count_nonzero(magnitude > NEAR_PEAK * peak) / len(waveform)
    return Levels(
        peak=peak,
        rms_db=10 * math.log10(power) if power else -math.inf,
        dc_offset=float(waveform.mean(dtype=np.float64)),
        silent_share=float(np.mean(mean_squares < 10 ** (SILENCE_DB / 10))),
        may_be_clipped=peak > MIN_CLIPPED_PEAK and near_peak > MIN_NEAR_PEAK,
    )


def original(source: Any, start: float | None, end: float | None, look_for_clipping: bool) -> Original:
    """Rate and channels of a sound as `audio.load` takes it; of a segment of it, whether it is clipped.

    What cannot be told is None: the sound was decoded before, so that this is no error.
    """
    try:
        source, _ = source_and_name(source)
        if isinstance(source, Mapping):
            return Original(sampling_rate=int(source["sampling_rate"]))
        with open_sound(source) as file:
            clipped = None
            if look_for_clipping and file.has_length and file.format not in LOSSY_FORMATS:
                file.seek(round((start or 0.0) * file.samplerate))
                last = file.frames if end is None else round(end * file.samplerate)
                clipped = clipped_share(file.read(last - file.tell(), dtype="float32", always_2d=True))
            return Original(file.samplerate, file.channels, clipped)
    except (AudioError, OSError, soundfile.SoundFileError):
        return Original()


def clipped_share(samples: np.ndarray) -> float:
    """Share of samples (T, K) in runs of three or more equal ones at the top of their channel."""
    if len(samples) < FLAT_SAMPLES:
        return 0.0
    top = np.abs(samples).max(axis=0)
    at_top = np.abs(samples) >= np.maximum(0.98 * top, MIN_CLIPPED_PEAK)
    level = at_top[1:] & (samples[1:] == samples[:-1])  # each sample but the first continues the one before
    middle = level[1:] & level[:-1]
    flat = np.zeros(samples.shape, dtype=bool)
    for shift in range(FLAT_SAMPLES):
        flat[shift : len(samples) - FLAT_SAMPLES + 1 + shift] |= middle
    return float(flat.mean(axis=0).max())
