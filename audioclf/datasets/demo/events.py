"""Six sound events, none to three of them in a clip, over the noise of a scene.

A scene has a noise and a bell, a dog, ... of its own; its clips are in one part. What happens, and when, is drawn for
each clip.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from .files import Clip
from .sound import add, level, master, noise, octaves

VERSION = "demo-events-v1"
"""Names the folder of the set: to be changed whenever a sample of any clip changes."""
SAMPLING_RATE = 16_000
METRIC = "map"
NOTE = "Demo: synthetic sounds; its scores show that the library works and say nothing about real ones."
SEED = 20_261_129
SECONDS = 3.0
SCENES = {"train": 125, "valid": 30, "test": 40}
CLIPS_PER_SCENE = 4
SHARES = (0.1, 0.4, 0.3, 0.2)
"""Of clips with none, one, two and three events."""

_NUM_SAMPLES = int(SECONDS * SAMPLING_RATE)

Rng = np.random.Generator


def clips() -> list[Clip]:
    """All clips: some of each scene."""
    found, first = [], 0
    for split, count in SCENES.items():
        for scene in range(first, first + count):
            for number in range(CLIPS_PER_SCENE):
                path = f"{split}/scene{scene:03d}_{number}.wav"
                make = partial(synthesise, scene, number)
                found.append(Clip(path, make, happens(scene, number), split, group=f"scene{scene:03d}"))
        first += count
    return found


def happens(scene: int, number: int) -> tuple[str, ...]:
    """The events in a clip, sorted."""
    rng = np.random.default_rng([SEED, scene, number, 0])
    return tuple(sorted(rng.choice(LABELS, size=rng.choice(len(SHARES), p=SHARES), replace=False).tolist()))


def synthesise(scene: int, number: int) -> np.ndarray:
    """A clip; the same arguments give the same samples.

    Returns:
        Waveform at `SAMPLING_RATE`, float32, (T,) of `SECONDS`, within [-1, 1].
    """
    rng = np.random.default_rng([SEED, scene, number, 1])
    source = np.random.default_rng([SEED, scene])  # what the clips of a scene share
    above = octaves(_NUM_SAMPLES, SAMPLING_RATE)
    background = noise(rng, 10 ** (source.uniform(-6, 0) * above / 20), _NUM_SAMPLES)
    clip = level(background) * 10 ** (source.uniform(-26, -14) / 20)
    for event in happens(scene, number):
        own = np.random.default_rng([SEED, scene, LABELS.index(event), 2])
        sound = level(_EVENTS[event](own)) * 10 ** (rng.uniform(-8, 0) / 20)
        add(clip, sound, int(rng.integers(_NUM_SAMPLES - len(sound) + 1)))
    return master(clip, rng, SAMPLING_RATE)


def _bark(rng: Rng) -> np.ndarray:
    """Two short cries that fall."""
    time = _time(0.16)
    cry = _harmonics(2 ** rng.uniform(8.2, 9.5) * (1 + 0.6 * np.exp(-time / 0.04)), rng) * _swell(time, 0.16)
    out = np.zeros(len(_time(0.16 + rng.uniform(0.2, 0.4))))
    add(out, cry, 0)
    add(out, cry, len(out) - len(cry))
    return out


def _bell(rng: Rng) -> np.ndarray:
    """Partials out of tune that ring."""
    time = _time(1.2)
    partials = 2 ** rng.uniform(9, 10.5) * np.array([1, 2.0, 2.76, 4.1, 5.4]) * 2 ** rng.normal(0, 0.02, 5)
    ring = rng.uniform(0.2, 0.5)
    parts = [rng.uniform(0.3, 1) * np.sin(2 * np.pi * f * time) * np.exp(-time / ring) for f in partials if f < 7500]
    return np.sum(parts, axis=0)


def _clap(rng: Rng) -> np.ndarray:
    """Some strokes of noise in a row."""
    every, count = rng.uniform(0.12, 0.25), int(rng.integers(4, 8))
    time = _time(0.08)
    colour = 10 ** (-3 * (octaves(len(time), SAMPLING_RATE) - rng.uniform(-0.5, 1)) ** 2 / 20)
    out = np.zeros(len(_time(every * count + 0.1)))
    for i in range(count):
        stroke = noise(rng, colour, len(time)) * np.exp(-time / 0.015)
        add(out, stroke, int((i * every + abs(rng.normal(0, 0.01))) * SAMPLING_RATE))
    return out


def _buzzer(rng: Rng) -> np.ndarray:
    """A rough tone, cut off and on many times a second."""
    time = _time(rng.uniform(0.5, 0.9))
    gate = np.sin(2 * np.pi * rng.uniform(18, 35) * time) > -0.2
    return _harmonics(np.full(len(time), 2 ** rng.uniform(8.2, 9.5)), rng) * gate


def _horn(rng: Rng) -> np.ndarray:
    """A steady tone with all its overtones."""
    time = _time(rng.uniform(0.5, 1.0))
    return _harmonics(np.full(len(time), 2 ** rng.uniform(8.2, 9.5)), rng) * _swell(time, time[-1]) ** 0.3


def _whistle(rng: Rng) -> np.ndarray:
    """A pure tone that rises and falls."""
    time = _time(rng.uniform(0.5, 0.9))
    hertz = 2 ** (rng.uniform(9.5, 11) + rng.uniform(0.4, 0.9) * _swell(time, time[-1]))
    return np.sin(2 * np.pi * np.cumsum(hertz) / SAMPLING_RATE) * _swell(time, time[-1]) ** 0.5


_EVENTS: dict[str, Callable[[Rng], np.ndarray]] = {
    "bark": _bark, "bell": _bell, "buzzer": _buzzer, "clap": _clap, "horn": _horn, "whistle": _whistle,
}  # fmt: skip
LABELS: tuple[str, ...] = tuple(sorted(_EVENTS))


def _time(seconds: float) -> np.ndarray:
    """Times of the samples, in seconds, (T,)."""
    return np.arange(int(seconds * SAMPLING_RATE)) / SAMPLING_RATE


def _swell(time: np.ndarray, seconds: float) -> np.ndarray:
    """From 0 to 1 and back."""
    return np.sin(np.pi * np.clip(time / seconds, 0, 1))


def _harmonics(hertz: np.ndarray, rng: Rng) -> np.ndarray:
    """A tone of twelve partials, of a pitch given for each sample, (T,)."""
    turns = np.exp(2j * np.pi * np.cumsum(hertz) / SAMPLING_RATE)
    rolloff = rng.uniform(0.5, 1.5)
    partial, out = np.ones_like(turns), np.zeros(len(hertz))
    for order in range(1, 13):
        partial = partial * turns
        out += order**-rolloff * partial.imag * (order * hertz < 7500)
    return out
