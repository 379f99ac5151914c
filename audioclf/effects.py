"""What can happen to a sound: pure functions of a waveform and physical quantities.

Each takes a waveform (T,) float32 and gives a new one of the same length, `change_speed` aside. Silence stays silent,
and nothing is clipped: samples may leave [-1, 1], which no encoder minds.

Shapes: T samples, K samples of an impulse response.
"""

from collections.abc import Callable

import numpy as np
import soxr

from .audio import RESAMPLE_QUALITY

SIXTY_DB = 3 * np.log(10)
"""Natural logarithm of the amplitude ratio that 60 dB are."""
DB_PER_NEPER = 20 / np.log(10)
"""What an amplitude gains when its natural logarithm grows by one."""
TINY_HZ = 1e-6
"""Stands for 0 Hz, which is infinitely many octaves below any other frequency."""
FLAT_BELOW_HZ = 50.0
"""Where a coloured noise's slope begins: with a steep one nearly all of its power would be too low to be heard."""
FILTER_TAIL_SECONDS = 0.05
"""Zeros behind a waveform that is filtered, so that what rings beyond one end does not come in again at the other."""
STOP_EDGE_HZ = 50.0
"""Width of either slope of `stop_band`, outside the band."""


def gain(waveform: np.ndarray, gain_db: float) -> np.ndarray:
    """The sound that many dB louder (T,)."""
    return waveform * np.float32(10 ** (gain_db / 20))


def shift(waveform: np.ndarray, sampling_rate: int, seconds: float) -> np.ndarray:
    """The sound that much later, its end first (T,); earlier for negative seconds.

    In a circle, not with silence: nothing of the clip is lost, so that its label stays true and its level the same.
    """
    return np.roll(waveform, round(seconds * sampling_rate))


def mix_at_snr(waveform: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """The sound (T,) with a noise (T,) at that very ratio of mean powers; as it is if either is silent."""
    signal_power, noise_power = mean_power(waveform), mean_power(noise)
    if not signal_power or not noise_power:
        return np.array(waveform)
    return waveform + noise * np.float32(np.sqrt(signal_power / noise_power / 10 ** (snr_db / 10)))


def mean_power(waveform: np.ndarray) -> float:
    """Mean of the squared samples."""
    return float(np.mean(np.square(waveform, dtype=np.float64)))


def white_noise(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise (T,) with as much power at every frequency."""
    return rng.standard_normal(num_samples, dtype=np.float32)


def coloured_noise(num_samples: int, sampling_rate: int, db_per_octave: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise (T,) whose power density changes by so many dB an octave: -3 is pink, -6 brown, 3 blue.

    Below 50 Hz it is flat.
    """
    size = fast_size(num_samples)
    octaves = np.log2(np.maximum(_frequencies(size, sampling_rate), FLAT_BELOW_HZ))
    amplitudes = np.exp((octaves - octaves[0]) * np.float32(db_per_octave / DB_PER_NEPER))
    parts = rng.standard_normal((len(octaves), 2), dtype=np.float32)
    spectrum = parts.view(np.complex64)[:, 0] * amplitudes
    return np.fft.irfft(spectrum, size)[:num_samples].astype(np.float32)


def synthetic_impulse_response(
    rt60_seconds: float, direct_to_reverberant_db: float, sampling_rate: int, rng: np.random.Generator
) -> np.ndarray:
    """Impulse response (K,) of a room that never was: the direct sound, then exponentially decaying Gaussian noise.

    Args:
        rt60_seconds: Time in which the reverberation decays by 60 dB; where the response ends.
        direct_to_reverberant_db: Energy of the direct sound over that of all that follows, exactly.
        sampling_rate: Rate of the response, in Hz.
        rng: Draws the noise.

    Source: J. A. Moorer, "About this reverberation business", Computer Music Journal 3(2), 1979.
    """
    num_samples = max(1, round(rt60_seconds * sampling_rate))
    time = np.arange(1, num_samples + 1, dtype=np.float32) / num_samples
    tail = rng.standard_normal(num_samples, dtype=np.float32) * np.exp(-np.float32(SIXTY_DB) * time)
    tail *= np.float32(10 ** (-direct_to_reverberant_db / 20) / np.linalg.norm(tail.astype(np.float64)))
    return np.concatenate([np.ones(1, np.float32), tail])


def reverberate(waveform: np.ndarray, impulse_response: np.ndarray) -> np.ndarray:
    """The sound in a room with that impulse response (K,), as loud as before (T,).

    The direct sound, the response's largest sample, does not come later; what rings on after the end is cut off.
    """
    size = fast_size(len(waveform) + len(impulse_response) - 1)
    spectrum = np.fft.rfft(waveform, size) * np.fft.rfft(impulse_response, size)
    direct = int(np.argmax(np.abs(impulse_response)))
    wet = np.fft.irfft(spectrum, size)[direct : direct + len(waveform)].astype(np.float32)
    dry_power, wet_power = mean_power(waveform), mean_power(wet)
    return wet * np.float32(np.sqrt(dry_power / wet_power)) if dry_power and wet_power else np.array(waveform)


def change_speed(waveform: np.ndarray, factor: float) -> np.ndarray:
    """The sound so many times as fast (about T / factor,), tempo and pitch together, as a tape would play it.

    Source: T. Ko et al., "Audio augmentation for speech recognition", Interspeech 2015 (Kaldi's speed perturbation).
    """
    changed = soxr.resample(waveform, factor, 1.0, quality=RESAMPLE_QUALITY)
    return changed if len(changed) else np.array(waveform[:1])


def limit_band(
    waveform: np.ndarray,
    sampling_rate: int,
    low_hz: float = 0.0,
    high_hz: float = float("inf"),
    db_per_octave: float = 24.0,
) -> np.ndarray:
    """What of the sound lies between two frequencies (T,): 3 dB less at either, then falling; the phase is kept.

    The slopes are a Butterworth filter's of the order `db_per_octave / 6`.
    """
    slope = np.float32(2 * db_per_octave / DB_PER_NEPER)

    def response(frequencies: np.ndarray) -> np.ndarray:
        octaves, losses = np.log2(np.maximum(frequencies, TINY_HZ)), np.float32(0)
        if high_hz < np.inf:
            losses = losses + np.exp(np.clip((octaves - np.float32(np.log2(high_hz))) * slope, -60, 60))
        if low_hz > 0:
            losses = losses + np.exp(np.clip((np.float32(np.log2(low_hz)) - octaves) * slope, -60, 60))
        return 1 / np.sqrt(1 + losses)

    return _filtered(waveform, sampling_rate, response)


def stop_band(waveform: np.ndarray, sampling_rate: int, low_hz: float, high_hz: float) -> np.ndarray:
    """The sound without what lies between two frequencies (T,); outside them 50 Hz wide slopes begin."""

    def response(frequencies: np.ndarray) -> np.ndarray:
        outside = np.maximum(low_hz - frequencies, frequencies - high_hz)
        return 0.5 - 0.5 * np.cos(np.pi * np.clip(outside / STOP_EDGE_HZ, 0, 1))

    return _filtered(waveform, sampling_rate, response)


def quantise_mu_law(waveform: np.ndarray, bits: int) -> np.ndarray:
    """The sound in so many bits a sample on the logarithmic scale of telephony, relative to its own peak (T,).

    Zero is one of the levels, so that silence stays silent. With 8 bits mu is G.711's 255.
    """
    peak = float(np.max(np.abs(waveform)))
    if not peak:
        return np.array(waveform)
    mu, levels = 2**bits - 1, 2 ** (bits - 1) - 1
    magnitudes = np.abs(waveform) * np.float32(mu / peak)
    codes = np.rint(np.log(1 + magnitudes) * np.float32(levels / np.log(1 + mu))).astype(np.intp)
    scale = (peak * np.expm1(np.arange(levels + 1) / levels * np.log(1 + mu)) / mu).astype(np.float32)
    return np.copysign(scale[codes], waveform)


def mask_time(waveform: np.ndarray, sampling_rate: int, start_seconds: float, seconds: float) -> np.ndarray:
    """The sound with silence in the place of a stretch (T,)."""
    masked = np.array(waveform)
    first = round(start_seconds * sampling_rate)
    masked[first : first + round(seconds * sampling_rate)] = 0
    return masked


def fast_size(num_samples: int) -> int:
    """The smallest size of at least so many samples whose transform is quick: 2^n times 1, 9/8, 5/4, 3/2 or 15/8."""
    power = 16
    while power < num_samples:
        power *= 2
    return next(size for parts in (9, 10, 12, 15, 16) if (size := power // 16 * parts) >= num_samples)


def _filtered(waveform: np.ndarray, sampling_rate: int, response: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The waveform (T,) with each frequency times `response` of it, which is real: no frequency comes later."""
    size = fast_size(len(waveform) + round(FILTER_TAIL_SECONDS * sampling_rate))
    spectrum = np.fft.rfft(waveform, size) * response(_frequencies(size, sampling_rate))
    return np.fft.irfft(spectrum, size)[: len(waveform)].astype(np.float32)


def _frequencies(size: int, sampling_rate: int) -> np.ndarray:
    """Frequency in Hz of each value of a spectrum; in float32, as all that is made of it, which is quicker."""
    return np.fft.rfftfreq(size, 1 / sampling_rate).astype(np.float32)
