"""What the demonstration sets share in making sound: noise of a colour, mixing, and all that tells no class.

Shapes: T samples, N = T // 2 + 1 frequencies.
"""

import numpy as np


def octaves(num_samples: int, sampling_rate: int) -> np.ndarray:
    """Octaves from 1 kHz to each frequency of a clip's spectrum, (N,); what lies below 40 Hz counts as 40 Hz."""
    hertz = np.arange(num_samples // 2 + 1) / (num_samples / sampling_rate)
    return np.log2(np.maximum(hertz, 40) / 1000).astype(np.float32)


def add(out: np.ndarray, sound: np.ndarray, start: int) -> None:
    """Add `sound` to `out` in place, from sample `start` on, which may be negative; what sticks out is cut."""
    begin, end = max(start, 0), min(start + len(sound), len(out))
    if begin < end:
        out[begin:end] += sound[begin - start : end - start]


def noise(rng: np.random.Generator, gain: np.ndarray, num_samples: int) -> np.ndarray:
    """Noise of a spectrum, (T,).

    Args:
        rng: Where it is drawn from.
        gain: Amplitude at each frequency, (N,).
        num_samples: T.
    """
    spectrum = rng.standard_normal((len(gain), 2), np.float32).view(np.complex64)[:, 0]
    return np.fft.irfft(spectrum * gain, num_samples)


def level(sound: np.ndarray) -> np.ndarray:
    """The sound at a peak of 1; silence stays silent."""
    return sound / max(np.abs(sound).max(), 1e-9)


def master(mix: np.ndarray, rng: np.random.Generator, sampling_rate: int) -> np.ndarray:
    """Add what tells nothing about the class, drawn alike for all: equaliser, coloured noise, loudness.

    Args:
        mix: What the clip holds, (T,).
        rng: Where it is drawn from.
        sampling_rate: In Hz.

    Returns:
        The clip, float32, (T,), within [-1, 1].
    """
    spectrum = np.fft.rfft(mix)
    above = octaves(len(mix), sampling_rate)
    gain_db = rng.uniform(-2, 2) * above
    for _ in range(2):
        gain_db += rng.uniform(-5, 5) * np.exp(-0.5 * ((above - rng.uniform(-4, 3)) / 0.6) ** 2)
    spectrum *= 10 ** (gain_db / 20)
    hiss = rng.standard_normal((len(spectrum), 2), np.float32).view(np.complex64)[:, 0]
    hiss *= 10 ** (-rng.uniform(0, 6) * above / 20)
    hiss *= 10 ** (-rng.uniform(25, 45) / 20) * np.linalg.norm(spectrum) / np.linalg.norm(hiss)
    mix = np.fft.irfft(spectrum + hiss, len(mix))
    # More or less squashed, so that the ratio of peak to mean power tells little too.
    mix = np.tanh(rng.uniform(0.3, 3) * mix / np.abs(mix).max())
    return (10 ** (rng.uniform(-26, -0.5) / 20) * mix / np.abs(mix).max()).astype(np.float32)
