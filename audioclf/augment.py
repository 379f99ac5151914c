"""Changes to training waveforms, drawn for each clip and epoch alone: workers and resuming do not change them.

Each transform draws the strength of an effect from its range here; docs/augmentation.md has them in a table.

Shapes: T samples.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import effects
from .checks import check_choice, check_number
from .errors import ConfigError

Transform = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]
"""`(waveform (T,), sampling_rate, rng) -> waveform`, which may be of another length; `rng` is its only chance."""

GAIN_DB = (-12.0, 12.0)
SHIFT_SECONDS = (-0.1, 0.1)
"""As far as the baselines of Speech Commands shift."""
NOISE_SNR_DB = (10.0, 40.0)
"""Range of the signal-to-noise ratio that `noise` and `coloured_noise` draw from, evenly in dB."""
NOISE_DB_PER_OCTAVE = (-6.0, 0.0)
"""From brown to white."""
REVERB_RT60_SECONDS = (0.1, 0.8)
"""From a furnished room to a lecture hall."""
REVERB_DIRECT_DB = (0.0, 15.0)
"""Direct-to-reverberant ratio."""
SPEED_FACTOR = (0.9, 1.1)
"""Between the factors of Kaldi's speed perturbation."""
LOWPASS_HZ = (1500.0, 7000.0)
HIGHPASS_HZ = (60.0, 600.0)
"""Cutoffs are drawn evenly in octaves."""
PHONE_HZ = (300.0, 3400.0)
"""The band of a telephone line."""
PHONE_DB_PER_OCTAVE = 48.0
CODEC_HZ = (2500.0, 6000.0)
CODEC_BITS = (5, 8)
STOP_OCTAVES = (0.1, 0.7)
"""Width of the band that `frequency_mask` silences."""
STOP_FROM_HZ, STOP_TO_HZ = 100.0, 7000.0
TIME_MASK_SHARE = 0.1
"""Of the clip, that `time_mask` silences at most."""


def _gain(waveform: np.ndarray, _sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    return effects.gain(waveform, rng.uniform(*GAIN_DB))


def _polarity(waveform: np.ndarray, _sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    return -waveform if rng.random() < 0.5 else waveform


def _shift(waveform: np.ndarray, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    return effects.shift(waveform, sampling_rate, rng.uniform(*SHIFT_SECONDS))


def _speed(waveform: np.ndarray, _sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    return effects.change_speed(waveform, rng.uniform(*SPEED_FACTOR))


def _noise(waveform: np.ndarray, _sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    return effects.mix_at_snr(waveform, effects.white_noise(len(waveform), rng), rng.uniform(*NOISE_SNR_DB))


def _coloured_noise(waveform: np.ndarray, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    noise = effects.coloured_noise(len(waveform), sampling_rate, rng.uniform(*NOISE_DB_PER_OCTAVE), rng)
    return effects.mix_at_snr(waveform, noise, rng.uniform(*NOISE_SNR_DB))


def _reverb(waveform: np.ndarray, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    rt60_seconds, direct_db = rng.uniform(*REVERB_RT60_SECONDS), rng.uniform(*REVERB_DIRECT_DB)
    return effects.reverberate(
        waveform, effects.synthetic_impulse_response(rt60_seconds, direct_db, sampling_rate, rng)
    )


def _lowpass(waveform: np.ndarray, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    return effects.limit_band(waveform, sampling_rate, high_hz=_frequency(rng, *LOWPASS_HZ))


def _highpass(waveform: np.ndarray, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    return effects.limit_band(waveform, sampling_rate, low_hz=_frequency(rng, *HIGHPASS_HZ))


def _phone(waveform: np.ndarray, sampling_rate: int, _rng: np.random.Generator) -> np.ndarray:
    return effects.limit_band(waveform, sampling_rate, *PHONE_HZ, PHONE_DB_PER_OCTAVE)


def _codec(waveform: np.ndarray, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    limited = effects.limit_band(
        waveform, sampling_rate, high_hz=_frequency(rng, *CODEC_HZ), db_per_octave=PHONE_DB_PER_OCTAVE
    )
    return effects.quantise_mu_law(limited, int(rng.integers(*CODEC_BITS, endpoint=True)))


def _time_mask(waveform: np.ndarray, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    seconds = len(waveform) / sampling_rate
    masked = rng.uniform(0, TIME_MASK_SHARE) * seconds
    return effects.mask_time(waveform, sampling_rate, rng.uniform(0, seconds - masked), masked)


def _frequency_mask(waveform: np.ndarray, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    factor = 2 ** rng.uniform(*STOP_OCTAVES)
    low_hz = _frequency(rng, STOP_FROM_HZ, STOP_TO_HZ / factor)
    return effects.stop_band(waveform, sampling_rate, low_hz, low_hz * factor)


def _frequency(rng: np.random.Generator, low_hz: float, high_hz: float) -> float:
    """Drawn evenly in octaves."""
    return float(low_hz * (high_hz / low_hz) ** rng.random())


TRANSFORMS: dict[str, Transform] = {
    "gain": _gain,
    "polarity": _polarity,
    "shift": _shift,
    "speed": _speed,
    "noise": _noise,
    "coloured_noise": _coloured_noise,
    "reverb": _reverb,
    "lowpass": _lowpass,
    "highpass": _highpass,
    "phone": _phone,
    "codec": _codec,
    "time_mask": _time_mask,
    "frequency_mask": _frequency_mask,
}
"""By the names that `TrainConfig.augment` takes; `mixup`, which needs a second clip, has a file of its own."""


@dataclass(frozen=True)
class Sometimes:
    """A transform that happens to a clip with some probability; else the clip stays as it is.

    Attributes:
        probability: Of its happening, from 0 to 1.
        transform: A name, or a callable as `TrainConfig.augment` takes it.

    Raises:
        ConfigError: for a name or probability that is none.

    Example:
        >>> half_of_them = Sometimes(0.5, "reverb")
    """

    probability: float
    transform: Transform | str

    def __post_init__(self) -> None:
        check_number("probability", self.probability, minimum=0, maximum=1)
        if not callable(self.transform):
            check_choice("transform", self.transform, tuple(TRANSFORMS))

    def __call__(self, waveform: np.ndarray, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
        """The waveform (T,), changed or not."""
        if rng.random() >= self.probability:
            return waveform
        return _callable(self.transform)(waveform, sampling_rate, rng)

    def opened(self, **options: Any) -> "Sometimes":
        """With what its transform reads from disk in place; the options are those of `recordings.open_folder`."""
        return replace(self, transform=_opened(self.transform, options))


PRESETS: dict[str, tuple[Transform | str, ...]] = {
    "light": ("gain", "polarity", "shift", Sometimes(0.5, "noise")),
    "strong": (
        Sometimes(0.5, "speed"),
        Sometimes(0.3, "reverb"),
        Sometimes(0.3, "noise"),
        Sometimes(0.3, "coloured_noise"),
        Sometimes(0.15, "lowpass"),
        Sometimes(0.15, "highpass"),
        Sometimes(0.1, "phone"),
        Sometimes(0.1, "codec"),
        Sometimes(0.3, "frequency_mask"),
        Sometimes(0.3, "time_mask"),
        *("shift", "polarity", "gain"),
    ),
}
"""`light` leaves what is heard nearly as it was, so it is safe for any task. `strong` changes pitch by up to 10 % and
takes bands away: not for tasks whose classes are just that."""


@dataclass(frozen=True)
class Augmentation:
    """What happens to a clip on its way into training.

    Attributes:
        seed: Seed of all draws.
        random_crop: A clip that is too long is cut to a random stretch, not to its start.
        transforms: What changes it then, in this order.
        sampling_rate: Of the waveforms, in Hz.
    """

    seed: int
    random_crop: bool = False
    transforms: tuple[Transform, ...] = ()
    sampling_rate: int = 16_000

    def __call__(self, waveform: np.ndarray, num_samples: int, epoch: int, index: int) -> np.ndarray:
        """The clip's waveform (T,) of that epoch, of at most `num_samples`: what grows is cut evenly at both ends.

        Raises:
            ConfigError: when a transform gives no waveform.
        """
        rng = np.random.default_rng([self.seed, epoch, index])
        spare = len(waveform) - num_samples
        start = int(rng.integers(spare + 1)) if self.random_crop and spare > 0 else 0
        waveform = np.array(waveform[start : start + num_samples])
        for transform in self.transforms:
            waveform = _checked(transform(waveform, self.sampling_rate, rng), transform)
        # Batches are planned, and their memory bounded, by the lengths before.
        start = max(0, len(waveform) - num_samples) // 2
        return waveform[start : start + num_samples]


def make_augmentation(
    seed: int, random_crop: bool, augment: str | tuple[Transform | str, ...], sampling_rate: int, **options: Any
) -> Augmentation:
    """What the options of a run come to.

    Args:
        seed, random_crop, augment: Those of `TrainConfig`.
        sampling_rate: Of the waveforms, in Hz.
        **options: How folders of recordings are opened: `cache_dir` and `progress`.

    Raises:
        AudioError: for a recording in such a folder that cannot be read, naming it.
    """
    chosen: list[Transform | str] = []
    for step in steps_of(augment):
        chosen += PRESETS.get(step, (step,)) if isinstance(step, str) else (step,)
    options["sampling_rate"] = sampling_rate
    opened = [_opened(step, options) for step in chosen if step != "mixup"]
    return Augmentation(seed, random_crop, tuple(_callable(step) for step in opened), sampling_rate)


def steps_of(augment: str | tuple[Transform | str, ...]) -> tuple[Transform | str, ...]:
    """What `TrainConfig.augment` lists; nothing for `none`."""
    steps = (augment,) if isinstance(augment, str) else augment
    return () if steps == ("none",) else steps


def _callable(transform: Transform | str) -> Transform:
    return TRANSFORMS[transform] if isinstance(transform, str) else transform


def _opened(transform: Transform | str, options: dict[str, Any]) -> Transform | str:
    return transform.opened(**options) if hasattr(transform, "opened") else transform


def _checked(result: Any, transform: Transform) -> np.ndarray:
    """What a transform gave, as (T,) float32."""
    waveform = np.asarray(result)
    if waveform.ndim != 1 or waveform.dtype.kind != "f":
        what = f"{waveform.dtype} of shape {waveform.shape}"
    elif not len(waveform):
        what = "no samples"
    elif not np.isfinite(waveform).all():
        what = "NaN or infinite samples"
    else:
        return waveform.astype(np.float32, copy=False)
    raise ConfigError(f"augment: {_name(transform)} gave {what}; it must give a waveform (T,) of finite floats.")


def _name(transform: Transform) -> str:
    return getattr(transform, "__qualname__", None) or repr(transform)
