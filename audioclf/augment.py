"""Changes to training waveforms, drawn for each clip and epoch alone: workers and resuming do not change them.

Shapes: T samples.
"""

from dataclasses import dataclass

import numpy as np

NOISE_SNR_DB = (10.0, 40.0)
"""Range of the signal-to-noise ratio that `noise` draws from, evenly in dB."""


@dataclass(frozen=True)
class Augmentation:
    """What happens to a clip on its way into training.

    Attributes:
        seed: Seed of all draws.
        random_crop: A clip that is too long is cut to a random stretch, not to its start.
        noise: White noise is added.
    """

    seed: int
    random_crop: bool = False
    noise: bool = False

    def __call__(self, waveform: np.ndarray, num_samples: int, epoch: int, index: int) -> np.ndarray:
        """The clip's waveform (T,) of that epoch, of at most `num_samples`."""
        rng = np.random.default_rng([self.seed, epoch, index])
        spare = len(waveform) - num_samples
        start = int(rng.integers(spare + 1)) if self.random_crop and spare > 0 else 0
        waveform = waveform[start : start + num_samples]
        return add_noise(waveform, rng.uniform(*NOISE_SNR_DB), rng) if self.noise else np.array(waveform)


def add_noise(waveform: np.ndarray, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    """The waveform (T,) with white Gaussian noise of exactly that signal-to-noise ratio; silence stays silent."""
    noise = rng.standard_normal(len(waveform), dtype=np.float32)
    power = float(np.mean(np.square(waveform, dtype=np.float64)))
    noise_power = float(np.mean(np.square(noise, dtype=np.float64)))
    return waveform + noise * np.float32(np.sqrt(power / noise_power / 10 ** (snr_db / 10)))
