"""Eight sounds of the environment, as pieces of recordings, in five folds that keep the pieces of a recording together.

There are three that are struck (clock, footsteps, knocking), three of noise (rain, engine, wind) and two of tones
(birds, siren). Within each of these families the sound itself is drawn alike: its course in time tells them apart.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from .files import Clip
from .sound import add, level, master, noise, octaves

VERSION = "demo-environment-v1"
"""Names the folder of the set: to be changed whenever a sample of any clip changes."""
SAMPLING_RATE = 16_000
METRIC = None
NOTE = "Demo: synthetic sounds; its scores show that the library works and say nothing about real ones."
SEED = 20_261_128
SECONDS = 3.0
FOLD_PARTS = {"1": "train", "2": "train", "3": "train", "4": "valid", "5": "test"}
RECORDINGS = 8
"""Recordings of each kind in each fold."""
PIECES = 2

_NUM_SAMPLES = int(SECONDS * SAMPLING_RATE)
_TIME = np.arange(_NUM_SAMPLES) / SAMPLING_RATE
_OCTAVES = octaves(_NUM_SAMPLES, SAMPLING_RATE)

Rng = np.random.Generator


def clips() -> list[Clip]:
    """All clips: some pieces of each recording."""
    found = []
    for fold, split in FOLD_PARTS.items():
        for kind in LABELS:
            for number in range(RECORDINGS):
                recording = (int(fold) - 1) * RECORDINGS + number
                name = f"{kind}{recording:02d}"
                for piece in range(PIECES):
                    make = partial(synthesise, kind, recording, piece)
                    found.append(Clip(f"fold{fold}/{name}_{piece}.wav", make, kind, split, group=name, fold=fold))
    return found


def synthesise(kind: str, recording: int, piece: int) -> np.ndarray:
    """A piece of a recording; the same arguments give the same samples.

    Returns:
        Waveform at `SAMPLING_RATE`, float32, (T,) of `SECONDS`, within [-1, 1].
    """
    number = LABELS.index(kind)
    source = np.random.default_rng([SEED, number, recording])  # what the pieces of a recording share
    rng = np.random.default_rng([SEED, number, recording, piece])
    return master(level(_KINDS[kind](source, rng)), rng, SAMPLING_RATE)


def _clock(source: Rng, rng: Rng) -> np.ndarray:
    """Ticks and tocks, as regular as nothing else."""
    every = source.uniform(0.2, 0.5)
    bodies = [_body(source), _body(source)]
    times = np.arange(rng.uniform(-every, 0), SECONDS, every)
    return _struck(bodies, times, np.tile([1.0, source.uniform(0.5, 1.0)], len(times))[: len(times)])


def _footsteps(source: Rng, rng: Rng) -> np.ndarray:
    """Steps of two feet, each a heel and then a toe."""
    every = source.uniform(0.45, 0.7)
    roll = source.uniform(0.07, 0.12)
    heels = np.arange(rng.uniform(-every, 0), SECONDS, every)
    heels = heels + rng.normal(0, 0.02, len(heels))
    times = np.stack([heels, heels + roll + rng.normal(0, 0.008, len(heels))], axis=1).ravel()
    levels = rng.uniform(0.6, 1.0, len(times)) * np.tile([1.0, source.uniform(0.4, 0.7)], len(heels))
    return _struck([_body(source), _body(source)], times, levels)


def _knocking(source: Rng, rng: Rng) -> np.ndarray:
    """A few knocks, a pause, and again."""
    every, bodies = source.uniform(0.13, 0.22), [_body(source)]
    times, now = [], rng.uniform(-0.5, 0.3)
    while now < SECONDS:
        count = int(rng.integers(3, 6))
        times += [now + every * (i + rng.normal(0, 0.05)) for i in range(count)]
        now = times[-1] + rng.uniform(0.6, 1.1)
    return _struck(bodies, times, rng.uniform(0.6, 1.0, len(times)))


def _rain(source: Rng, rng: Rng) -> np.ndarray:
    """Drops at any time, some near, over the hiss of those far away."""
    rate = source.uniform(15, 60)
    drop = np.exp(-np.arange(400) / SAMPLING_RATE / source.uniform(0.002, 0.005))
    count = rng.poisson(rate * SECONDS)
    drops = np.zeros(_NUM_SAMPLES)
    for start, height in zip(rng.integers(_NUM_SAMPLES, size=count), rng.exponential(1.0, count), strict=True):
        add(drops, height * drop, start)
    return _hiss(source, rng) * (0.15 + drops)


def _engine(source: Rng, rng: Rng) -> np.ndarray:
    """Strokes in quick, even succession, a little faster and slower."""
    turn = source.uniform(14, 28)
    drift = 1 + 0.12 * np.sin(2 * np.pi * source.uniform(0.1, 0.4) * _TIME + rng.uniform(0, 6.28))
    phase = np.cumsum(turn * drift) / SAMPLING_RATE + rng.uniform()
    strength = source.uniform(0.5, 1.0, 4)[np.floor(phase).astype(int) % 4]
    return _hiss(source, rng) * (0.1 + strength * np.exp(-source.uniform(4, 8) * (phase % 1)))


def _wind(source: Rng, rng: Rng) -> np.ndarray:
    """Gusts: noise that swells and whose colour rises with it."""
    knots = rng.uniform(-1, 1, 8)
    gust = np.interp(_TIME, np.linspace(0, SECONDS, len(knots)), knots)
    gust = np.convolve(np.pad(gust, 1000, mode="edge"), np.hanning(2001) / 1000, mode="valid")
    low, high = _hiss(source, rng), _hiss(source, rng)
    return (low * (1 - gust) + high * (1 + gust)) * 2 ** (source.uniform(1.0, 2.0) * gust)


def _siren(source: Rng, rng: Rng) -> np.ndarray:
    """A tone that goes up and down, or between two pitches, for ever."""
    swing = np.sin(2 * np.pi * source.uniform(0.4, 2.5) * _TIME + rng.uniform(0, 6.28))
    if source.random() < 0.5:
        swing = np.tanh(8 * swing)
    return _tone(source.uniform(-0.7, 1.3) + source.uniform(0.15, 0.5) * swing, source)


def _birds(source: Rng, rng: Rng) -> np.ndarray:
    """Chirps in short phrases, with pauses between them."""
    centre, sweep = source.uniform(-0.2, 1.8), source.choice([-1, 1]) * source.uniform(0.3, 0.9)
    every = source.uniform(0.08, 0.18)
    pitch, envelope, now = np.full(_NUM_SAMPLES, centre), np.zeros(_NUM_SAMPLES), rng.uniform(-0.5, 0.3)
    while now < SECONDS:
        for _ in range(int(rng.integers(3, 8))):
            inside = (_TIME - now) / (every * 0.7)
            there = (inside >= 0) & (inside < 1)
            pitch[there] = centre + sweep * (inside[there] - 0.5) + rng.normal(0, 0.05)
            envelope[there] = np.sin(np.pi * inside[there]) * rng.uniform(0.6, 1.0)
            now += every * rng.uniform(0.9, 1.1)
        now += rng.uniform(0.2, 0.7)
    return _tone(pitch, source) * envelope


_KINDS: dict[str, Callable[[Rng, Rng], np.ndarray]] = {
    "birds": _birds, "clock": _clock, "engine": _engine, "footsteps": _footsteps, "knocking": _knocking, "rain": _rain,
    "siren": _siren, "wind": _wind,
}  # fmt: skip
LABELS: tuple[str, ...] = tuple(sorted(_KINDS))


def _body(source: Rng) -> np.ndarray:
    """What is heard when something is struck: three resonances and a little noise that die away."""
    time = np.arange(int(0.25 * SAMPLING_RATE)) / SAMPLING_RATE
    decay = 2 ** source.uniform(-7.5, -5)
    sound = source.uniform(0.1, 0.6) * source.standard_normal(len(time)) * np.exp(-time / 0.004)
    for hertz in 1000 * 2 ** source.uniform(-2.5, 1.8, 3):
        sound += source.uniform(0.3, 1.0) * np.sin(2 * np.pi * hertz * time) * np.exp(-time / decay)
    return level(sound)


def _struck(bodies: Sequence[np.ndarray], times: Sequence[float], levels: Sequence[float]) -> np.ndarray:
    """The bodies struck in turn at some times, in seconds."""
    out = np.zeros(_NUM_SAMPLES)
    for i, (time, height) in enumerate(zip(times, levels, strict=True)):
        add(out, height * bodies[i % len(bodies)], int(time * SAMPLING_RATE))
    return out


def _hiss(source: Rng, rng: Rng) -> np.ndarray:
    """Noise of a mean square of 1, with a broad hump somewhere."""
    gain_db = source.uniform(-5, 0) * _OCTAVES
    gain_db -= 4 * (_OCTAVES - source.uniform(-2, 1.5)) ** 2 / source.uniform(0.5, 2)
    hiss = noise(rng, 10 ** (np.clip(gain_db, -60, 40) / 20), _NUM_SAMPLES)
    return hiss / np.sqrt(np.mean(hiss**2))


def _tone(pitch: np.ndarray, source: Rng) -> np.ndarray:
    """A tone with some overtones, whose pitch is in octaves above 1 kHz, (T,)."""
    phase = 2 * np.pi * np.cumsum(1000 * 2**pitch) / SAMPLING_RATE
    return np.sin(phase) + source.uniform(0, 0.5) * np.sin(2 * phase)
