"""Five acted emotions by speakers who all say the same kind of nonsense.

An emotion is in how something is said, beside how that speaker usually speaks: height, range and course of the pitch,
pace, stress, and voice quality. What is said, and who says it, is drawn alike for all of them.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from .files import Clip
from .sound import level, master
from .voice import SAMPLING_RATE, Said, draw_voice, speak, today

VERSION = "demo-emotion-v1"
"""Names the folder of the set: to be changed whenever a sample of any clip changes."""
METRIC = "uar"
NOTE = "Demo: synthetic speech; its scores show that the library works and say nothing about real emotion."
SEED = 20_261_127
SECONDS = 2.0
SPEAKERS = {"train": 36, "valid": 8, "test": 10}
"""Each is a fold as well, so that every speaker can be the one left out."""
TAKES = 3
SYLLABLES = ("ba", "da", "ma", "no", "lu", "mi", "go", "se", "ta", "fi", "ro", "ne")


@dataclass(frozen=True)
class _Emotion:
    """How an emotion changes speech; a pair of numbers is the range a clip's value is drawn from."""

    pitch: tuple[float, float]  # semitones above the usual
    range: tuple[float, float]  # semitones that stressed syllables stand out by
    slope: tuple[float, float]  # semitones from the start of a phrase to its end
    glide: tuple[float, float]  # semitones within a syllable
    pace: tuple[float, float]  # factor
    stress: float  # how much louder and longer every stressed syllable is, 0 to 1
    tilt: float  # dB an octave beside the usual: less is more pressed
    breath: float = 0.0  # beside the usual
    tremor: float = 0.0  # semitones either way, with the loudness, several times a syllable
    staccato: float = 0.0  # length of the pause after each syllable
    laughs: bool = False  # breath breaks the vowels of stressed syllables


_EMOTIONS = {
    # Hard and short: strong stress, every syllable falls and breaks off.
    "angry": _Emotion((2, 5), (4, 7), (-4, -1), (-9, -6), (1.1, 1.3), 1.0, -1.0, staccato=0.4),
    # High, hurried, flat, and trembling.
    "fearful": _Emotion((4, 8), (0, 2), (0, 3), (0, 1), (1.3, 1.5), 0.1, 0.0, breath=0.03, tremor=1.2),
    # Sing-song: every syllable rises, and the stressed ones are laughed.
    "happy": _Emotion((2, 6), (4, 7), (0, 3), (6, 9), (0.95, 1.15), 0.5, -0.5, laughs=True),
    "neutral": _Emotion((-1, 1), (1, 2), (-3, -1), (-0.5, 0.5), (0.95, 1.15), 0.3, 0.0),
    # Slow, low, sighing.
    "sad": _Emotion((-3, 0), (0, 1), (-4, -2), (-3, -1), (0.55, 0.7), 0.0, 1.0, breath=0.03),
}
LABELS: tuple[str, ...] = tuple(sorted(_EMOTIONS))


def clips() -> list[Clip]:
    """All clips: each speaker plays each emotion `TAKES` times."""
    found, first = [], 1
    for split, count in SPEAKERS.items():
        for speaker in range(first, first + count):
            name = f"{speaker:02d}"
            for emotion in LABELS:
                for take in range(TAKES):
                    make = partial(synthesise, emotion, speaker, take)
                    path = f"actor{name}/{emotion}_{take}.wav"
                    found.append(Clip(path, make, emotion, split, group=name, fold=name))
        first += count
    return found


def synthesise(emotion: str, speaker: int, take: int) -> np.ndarray:
    """Say something with an emotion; the same arguments give the same samples.

    Returns:
        Waveform at `SAMPLING_RATE`, float32, (T,) of `SECONDS`, within [-1, 1].
    """
    rng = np.random.default_rng([SEED, speaker, LABELS.index(emotion), take])
    usual = today(draw_voice(np.random.default_rng([SEED, speaker])), rng)
    played = _EMOTIONS[emotion]
    voice = replace(
        usual,
        pitch=usual.pitch * 2 ** (rng.uniform(*played.pitch) / 12),
        tilt=usual.tilt + played.tilt,
        breath=usual.breath + played.breath,
        rate=usual.rate * rng.uniform(*played.pace),
    )
    num_samples = int(SECONDS * SAMPLING_RATE)
    lead = rng.integers(SAMPLING_RATE // 4)  # the clip begins a little after the speech
    parts, total = [], 0
    while total < num_samples + lead:
        parts.append(speak(_phrase(played, rng), voice, rng))
        total += len(parts[-1])
    return master(level(np.concatenate(parts)[lead : lead + num_samples]), rng, SAMPLING_RATE)


def _phrase(played: _Emotion, rng: np.random.Generator) -> list[Said]:
    """Some syllables and a pause."""
    count = int(rng.integers(4, 8))
    stressed = np.arange(count) % int(rng.integers(2, 4)) == 0
    course = rng.uniform(*played.slope) * np.linspace(-0.5, 0.5, count) + rng.normal(0, 0.5, count)
    course += rng.uniform(*played.range) * (stressed - stressed.mean())
    phrase = []
    for i in range(count):
        consonant, vowel = SYLLABLES[rng.integers(len(SYLLABLES))]
        glide = rng.uniform(*played.glide) * (1.0 if stressed[i] else 0.5)
        loudness = rng.uniform(0.85, 1.0) * (1.0 if stressed[i] else 1 - 0.5 * played.stress)
        stretch = 1.0 + (0.5 * played.stress if stressed[i] else 0.0)
        phrase.append(Said(consonant, 1.0, loudness, course[i] - glide / 2))
        # In pieces, along which the voice glides and trembles.
        for piece in range(4):
            bend = glide * (piece / 3 - 0.5) + played.tremor * (1.0 if piece % 2 else -1.0)
            trembling = loudness * (1.0 if piece % 2 else 1 - 0.5 * played.tremor)
            phrase.append(Said(vowel, 0.25 * stretch, trembling, course[i] + bend))
            if played.laughs and stressed[i] and piece in (0, 2):
                phrase.append(Said("h", 0.6, trembling, course[i] + bend))
        if played.staccato:
            phrase.append(Said("_", played.staccato))
    return [*phrase, Said("_", rng.uniform(0.4, 1.2) * played.pace[0])]
