"""A voice for the demonstration sets of speech: a source of pulses and noise, through the formants of a vocal tract.

Source: the source-filter theory, Fant (1960), "Acoustic Theory of Speech Production"; formants of vowels after
Peterson & Barney (1952). It need not be understood, only be told apart as speech is: by formants that move, hisses,
bursts, pauses, pitch and rhythm, in voices of many sizes.

Shapes: T samples, F frames of `HOP` samples, N frequencies of a frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

SAMPLING_RATE = 16_000
HOP = 128
_WINDOW = 256
_SHAPE = np.sin(np.pi * np.arange(_WINDOW) / _WINDOW).astype(np.float32)
_HERTZ = np.fft.rfftfreq(_WINDOW, 1 / SAMPLING_RATE).astype(np.float32)
_OCTAVES = np.log2(np.maximum(_HERTZ, 60) / 500)
_LIPS = _HERTZ**2 / (_HERTZ**2 + 80.0**2)
"""No sound leaves the lips at 0 Hz."""
_WIDTHS = np.array([70.0, 100.0, 150.0, 250.0], np.float32)
"""Bandwidths of the formants, in Hz."""


@dataclass(frozen=True)
class _Phone:
    """A stretch of speech whose formants aim at one place; amplitudes are beside those of a vowel."""

    seconds: float
    formants: tuple[float, float, float]  # Hz
    voice: float = 0.0  # pulses through the formants
    breath: float = 0.0  # noise through the formants
    hiss: float = 0.0  # noise around `hiss_hertz`
    hiss_hertz: float = 3000.0


def _stop(formants: tuple[float, float, float], hiss_hertz: float, voiced: bool) -> tuple[_Phone, ...]:
    """A closure, then a burst; breath after it if it isn't voiced."""
    closure = _Phone(0.06, formants, voice=0.12 if voiced else 0.0)
    burst = _Phone(0.014, formants, voice=0.3 if voiced else 0.0, hiss=0.5, hiss_hertz=hiss_hertz)
    return (closure, burst) if voiced else (closure, burst, _Phone(0.03, formants, breath=0.25))


_LIP, _TEETH, _BACK = (400.0, 900.0, 2200.0), (400.0, 1750.0, 2700.0), (350.0, 2000.0, 2500.0)
_VOWELS = {
    "i": (290, 2250, 3000), "e": (480, 1950, 2600), "a": (750, 1250, 2500), "o": (500, 900, 2400),
    "u": (320, 800, 2250), "y": (290, 1750, 2200), "@": (500, 1450, 2450),
}  # fmt: skip
_PHONES: dict[str, tuple[_Phone, ...]] = {
    **{name: (_Phone(0.11, formants, voice=1.0),) for name, formants in _VOWELS.items()},
    "p": _stop(_LIP, 900, voiced=False),
    "b": _stop(_LIP, 900, voiced=True),
    "t": _stop(_TEETH, 4200, voiced=False),
    "d": _stop(_TEETH, 4200, voiced=True),
    "k": _stop(_BACK, 2100, voiced=False),
    "g": _stop(_BACK, 2100, voiced=True),
    "s": (_Phone(0.10, _TEETH, hiss=0.45, hiss_hertz=5800),),
    "z": (_Phone(0.08, _TEETH, voice=0.25, hiss=0.3, hiss_hertz=5800),),
    "S": (_Phone(0.10, (350.0, 1900.0, 2600.0), hiss=0.5, hiss_hertz=2900),),
    "f": (_Phone(0.09, _LIP, hiss=0.15, hiss_hertz=4000),),
    "x": (_Phone(0.09, _BACK, breath=0.3, hiss=0.3, hiss_hertz=1600),),
    "h": (_Phone(0.06, (500.0, 1450.0, 2450.0), breath=0.4),),
    "m": (_Phone(0.07, (250.0, 1000.0, 2200.0), voice=0.35),),
    "n": (_Phone(0.07, (250.0, 1650.0, 2500.0), voice=0.35),),
    "N": (_Phone(0.07, (250.0, 2100.0, 2600.0), voice=0.35),),
    "l": (_Phone(0.06, (360.0, 1100.0, 2700.0), voice=0.6),),
    "r": (_Phone(0.06, (380.0, 1200.0, 1600.0), voice=0.6),),
    "R": (_Phone(0.022, (420.0, 1350.0, 2000.0), voice=0.8), _Phone(0.02, (420.0, 1350.0, 2000.0), voice=0.1)) * 3,
    "w": (_Phone(0.06, (300.0, 680.0, 2200.0), voice=0.6),),
    "j": (_Phone(0.06, (280.0, 2300.0, 3000.0), voice=0.6),),
    "_": (_Phone(0.10, (500.0, 1450.0, 2450.0)),),
}


@dataclass(frozen=True)
class Voice:
    """How someone speaks.

    Attributes:
        pitch: Usual pitch, in Hz.
        tract: Factor on all formants: 1 is a vocal tract of middle length, more a shorter one.
        tilt: Fall of the source's spectrum, in dB an octave; pressed voices fall less.
        breath: Noise in the source, beside the pulses.
        rate: Factor on the pace of speech.
        jitter: Relative deviation of the pitch from one frame to the next.
        accent: Factors on the formants of each sound, by its name.
    """

    pitch: float
    tract: float
    tilt: float
    breath: float
    rate: float
    jitter: float
    accent: dict[str, np.ndarray]


@dataclass(frozen=True)
class Said:
    """A sound as it is said: longer or shorter, louder or softer, higher or lower than usual."""

    sound: str
    stretch: float = 1.0
    level: float = 1.0
    semitones: float = 0.0


def draw_voice(rng: np.random.Generator) -> Voice:
    """Somebody, from a deep man to a small child; small ones are mostly high."""
    size = rng.uniform(-1, 1)
    return Voice(
        pitch=150 * 2 ** (0.65 * size + rng.normal(0, 0.12)),
        tract=1.04 * 2 ** (0.2 * size + rng.normal(0, 0.04)),
        tilt=rng.uniform(5, 11),
        breath=rng.uniform(0.01, 0.12),
        rate=2 ** rng.uniform(-0.25, 0.25),
        jitter=rng.uniform(0.004, 0.012),
        accent={sound: 2 ** rng.normal(0, 0.05, 3) for sound in _PHONES},
    )


def today(voice: Voice, rng: np.random.Generator) -> Voice:
    """The same person another time."""
    return replace(
        voice,
        pitch=voice.pitch * 2 ** rng.normal(0, 0.08),
        tilt=voice.tilt + rng.uniform(-1.5, 1.5),
        rate=voice.rate * 2 ** rng.normal(0, 0.1),
    )


def speak(sounds: Sequence[Said], voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """Say sounds one after the other.

    Returns:
        Waveform at `SAMPLING_RATE`, (T,), as long as it takes.
    """
    parts = [(phone, said) for said in sounds for phone in _PHONES[said.sound]]
    # Nobody keeps time exactly; a closure or burst is not drawn out as a vowel is.
    seconds = [
        phone.seconds * said.stretch ** (1.0 if phone.seconds > 0.05 else 0.3) * 2 ** rng.normal(0, 0.12) / voice.rate
        for phone, said in parts
    ]
    counts = np.maximum(1, np.round(np.array(seconds) * SAMPLING_RATE / HOP)).astype(int)
    centres = np.cumsum(counts) - counts / 2
    frames = np.arange(counts.sum())

    targets = [np.array(phone.formants) * voice.accent[said.sound] * voice.tract for phone, said in parts]
    formants = _smooth(np.repeat(targets, counts, axis=0), 7)  # some 50 ms: the tongue takes its time
    amplitudes = [np.array([phone.voice, phone.breath, phone.hiss]) * said.level for phone, said in parts]
    pulses, breath, hiss = _smooth(np.repeat(amplitudes, counts, axis=0), 2).T
    hiss_octaves = np.log2([phone.hiss_hertz / 500 * voice.tract**0.5 for phone, _ in parts]).astype(np.float32)

    semitones = np.interp(frames, centres, [said.semitones for _, said in parts])
    semitones += 30 * voice.jitter * _smooth(rng.standard_normal((len(frames), 1)), 2)[:, 0]
    source = _pulse_train(voice.pitch * 2 ** (semitones / 12))

    tract = _tract(formants, 3600 * voice.tract)
    tilted = 10 ** (-voice.tilt * _OCTAVES / 20)
    noisy = tract * (breath + 1.5 * voice.breath * pulses)[:, None]
    noisy += hiss[:, None] * np.exp(-0.5 * ((_OCTAVES - np.repeat(hiss_octaves, counts)[:, None]) / 0.45) ** 2)
    noise = rng.standard_normal(len(source), np.float32)
    return _overlap(_spectra(source) * tract * tilted * pulses[:, None] + _spectra(noise) * noisy)


def _tract(formants: np.ndarray, fourth: float) -> np.ndarray:
    """Gain of a cascade of four resonances, (F, N), from three of them, (F, 3), and the fourth, in Hz."""
    gain = np.tile(_LIPS, (len(formants), 1))
    for centre, width in zip([*formants.T, np.full(len(formants), fourth, np.float32)], _WIDTHS, strict=True):
        square = centre[:, None] ** 2
        gain *= square / np.sqrt((square - _HERTZ**2) ** 2 + (width * _HERTZ) ** 2)
    return gain / np.sqrt(np.mean(gain**2, axis=1, keepdims=True))


def _pulse_train(pitch: np.ndarray) -> np.ndarray:
    """Pulses at a pitch given for each frame, in Hz, (F,), of mean power 1, (T,)."""
    hertz = np.interp(np.arange(len(pitch) * HOP) / HOP, np.arange(len(pitch)), pitch)
    phase = np.cumsum(hertz) / SAMPLING_RATE
    last = np.flatnonzero(np.diff(np.floor(phase)))  # the samples before each pulse
    share = (np.floor(phase[last + 1]) - phase[last]) / (phase[last + 1] - phase[last])  # of a sample, to the pulse
    source = np.zeros(len(hertz), np.float32)
    height = np.sqrt(SAMPLING_RATE / hertz[last])
    source[last] += (1 - share) * height
    source[last + 1] += share * height
    return source


def _spectra(sound: np.ndarray) -> np.ndarray:
    """Spectra of windowed frames, (F, N), of a sound of F hops."""
    padded = np.pad(sound, (_WINDOW // 2, _WINDOW // 2))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[: len(sound) : HOP]
    return np.fft.rfft(frames * _SHAPE)


def _overlap(spectra: np.ndarray) -> np.ndarray:
    """The sound, (T,), whose frames have these spectra, (F, N)."""
    frames = np.fft.irfft(spectra, _WINDOW) * _SHAPE * (2 * HOP / _WINDOW)
    sound = np.zeros((len(frames) + _WINDOW // HOP) * HOP, np.float32)
    for part in range(_WINDOW // HOP):  # the first hops of all frames lie end to end, and so do the second ones
        pieces = frames[:, part * HOP : (part + 1) * HOP].reshape(-1)
        sound[part * HOP : part * HOP + len(pieces)] += pieces
    return sound[_WINDOW // 2 : _WINDOW // 2 + len(frames) * HOP]


def _smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Moving average over frames, (F, K), under a bell some `width` frames wide."""
    bell = np.hanning(2 * width + 1)[1:-1]
    padded = np.pad(values, ((width - 1, width - 1), (0, 0)), mode="edge")
    smoothed = [np.convolve(column, bell / bell.sum(), mode="valid") for column in padded.T]
    return np.stack(smoothed, axis=1).astype(np.float32)
