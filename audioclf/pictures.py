"""Sounds as pictures, for pages that people look at while they listen."""

import math

import matplotlib
import numpy as np
import torch

WINDOW_SECONDS = 0.032
"""Of the Fourier transform: fine enough for formants, short enough for onsets."""
NUM_MELS = 64
RANGE_DB = 80.0
"""What lies this far below the loudest point is as dark as silence."""
SILENCE_DB = -100.0
"""The least that AmplitudeToDB tells; digital silence has it."""
INK = (46, 125, 215)
"""Colour of a waveform, which shows on white and on black."""


def waveform_image(waveform: np.ndarray, max_width: int = 600, height: int = 96) -> np.ndarray:
    """The least and the largest sample at each place, full scale from edge to edge, on nothing.

    Args:
        waveform: (T,), float32.
        max_width: In pixels; fewer for fewer samples.
        height: In pixels.

    Returns:
        (height, W, 4), uint8, transparent where there is no sound.
    """
    columns = np.array_split(np.asarray(waveform, np.float32), max(1, min(max_width, len(waveform))))
    image = np.zeros((height, len(columns), 4), np.uint8)
    for place, samples in enumerate(columns):
        low, high = (0.0, 0.0) if not len(samples) else (float(samples.min()), float(samples.max()))
        top, bottom = ((1 - np.clip([high, low], -1, 1)) / 2 * (height - 1)).astype(int)
        image[top : bottom + 1, place] = (*INK, 255)
    return image


def spectrogram_image(waveform: np.ndarray, sampling_rate: int, max_width: int = 600) -> np.ndarray:
    """A mel spectrogram, low frequencies at the bottom, dark where it is quiet; whatever the clip's level.

    Args:
        waveform: (T,), float32.
        sampling_rate: In Hz.
        max_width: In pixels; what is longer than that has pixels of more than half a window, each the mean of its time.

    Returns:
        (64, W, 3), uint8.
    """
    # Here, as torchaudio refuses to be imported beside a torch of another build, and training does without pictures.
    from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

    window = 2 ** round(math.log2(WINDOW_SECONDS * sampling_rate))
    hop = window // 2
    samples = torch.from_numpy(np.array(waveform, dtype=np.float32))
    samples = torch.nn.functional.pad(samples, (0, max(0, window - len(samples))))
    mels = MelSpectrogram(sampling_rate, n_fft=window, hop_length=hop, n_mels=NUM_MELS, pad_mode="constant")(samples)
    if mels.shape[1] > max_width:
        mels = torch.nn.functional.adaptive_avg_pool1d(mels[None], max_width)[0]
    level = AmplitudeToDB(top_db=RANGE_DB)(mels).numpy()
    shares = 1 + (level - max(level.max(), SILENCE_DB + RANGE_DB)) / RANGE_DB
    return matplotlib.colormaps["magma"](np.flipud(shares), bytes=True)[..., :3]
