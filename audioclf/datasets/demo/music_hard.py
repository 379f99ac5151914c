"""The ten styles of music made hard to tell: few clips, styles that overlap, and loud noise.

Each clip borrows parts of its groove from another style, lacks some of its own, is faster or slower than its style is,
and has noise nearly as loud as itself. For comparing recipes, which the easy set does not tell apart.
"""

from dataclasses import replace

import numpy as np

from . import music
from .files import Clip
from .music import LABELS, SAMPLING_RATE, STYLES, play
from .sound import master, noise, octaves

VERSION = "demo-music-hard-v1"
"""Names the folder of the set: to be changed whenever a sample of any clip changes."""
METRIC = music.METRIC
NOTE = music.NOTE
SEED = 20_261_130
CLIPS_PER_STYLE = {"train": 24, "valid": 12, "test": 40}
PARTS = ("bass", "lead", "kick", "snare", "hat")
NUM_BORROWED = 1
MISSING_SHARE = 0.3
"""Probability with which each of the other parts is left out."""
TEMPO_FACTORS = (0.85, 1.18)
NOISE_SNR_DB = (0.0, 12.0)


def clips() -> list[Clip]:
    """All clips."""
    return music.clips_of(CLIPS_PER_STYLE, synthesise)


def synthesise(style: str, index: int) -> np.ndarray:
    """Play one clip; the same `style` and `index` give the same samples.

    Returns:
        Waveform at `SAMPLING_RATE`, float32, (T,), within [-1, 1].
    """
    rng = np.random.default_rng([SEED, LABELS.index(style), index])
    own, other = STYLES[style], STYLES[rng.choice([label for label in LABELS if label != style])]
    order = rng.permutation(PARTS).tolist()
    changes = {part: getattr(other, part) for part in order[:NUM_BORROWED]}
    changes |= {part: "." for part in order[NUM_BORROWED:] if rng.random() < MISSING_SHARE}
    slowest, fastest = TEMPO_FACTORS
    blurred = replace(own, bpm=(own.bpm[0] * slowest, own.bpm[1] * fastest), **changes)
    mix = play(blurred, rng)
    while not mix.any():  # the clip fell between two notes
        mix = play(blurred, rng)
    above = octaves(len(mix), SAMPLING_RATE)
    hiss = noise(rng, 10 ** (-rng.uniform(0, 6) * above / 20), len(mix))
    hiss *= 10 ** (-rng.uniform(*NOISE_SNR_DB) / 20) * np.linalg.norm(mix) / np.linalg.norm(hiss)
    return master(mix + hiss, rng, SAMPLING_RATE)
