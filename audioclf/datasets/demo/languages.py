"""Five invented languages by many speakers, none of whom speaks two.

They share most of their sounds. They differ in which sounds follow which (clusters, diphthongs, trills, breaks), in the
shape of syllables, in rhythm (all syllables alike, every second one long, long and short vowels) and in melody (tones,
rises, falls, accents). Every clip says other words.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from .files import Clip
from .sound import level, master
from .voice import SAMPLING_RATE, Said, draw_voice, speak, today

VERSION = "demo-languages-v1"
"""Names the folder of the set: to be changed whenever a sample of any clip changes."""
METRIC = None
NOTE = "Demo: invented languages; its scores show that the library works and say nothing about real speech."
SEED = 20_261_126
SECONDS = 3.0
SPEAKERS = {"train": 40, "valid": 10, "test": 14}
"""Speakers of each language."""
TAKES = 2


@dataclass(frozen=True)
class _Language:
    """How a language sounds; a syllable has an onset, a vowel and a coda, each drawn from its list.

    In the lists `.` is no sound, and what stands there twice is twice as frequent.
    """

    onsets: str
    vowels: str
    codas: str
    beat: tuple[float, ...]  # length of one syllable after the other, again and again; 0 draws short or long
    melody: str  # of a phrase: see `_melody`


# Hisses and silences (a stop is one, mostly) have much the same share in all of them.
_LANGUAGES = {
    # Vowels that may break in the middle, syllables of one length, that rise at the end of a phrase.
    "belu": _Language("s s d m n l b d m n", "a_a e_e i_i o_o u_u a e i o u", ". . . n", (1.0,), "rise"),
    # Clusters, every second syllable reduced, a falling melody.
    "grast": _Language("bl br dr sn st ml nr sl n", "a e i o u", "n l nt lt .", (1.4, 0.7), "fall"),
    # Short and long vowels, stops held back, an accent that drops once a word.
    "hokari": _Language("_k _t s s d m n l b m n", "a e i o u", ". . . n", (0.0,), "accent"),
    # Diphthongs with a tone on every syllable.
    "mai": _Language("p t k s s d m n l b", "ai au oi ei ua ia", ". . . n", (1.0,), "tones"),
    # Trills, a long stressed syllable and two short ones.
    "tarro": _Language("R tR bR s s p k d m n", "a e i o u", ". . R n", (1.7, 0.65, 0.65), "stress"),
}
LABELS: tuple[str, ...] = tuple(sorted(_LANGUAGES))


def clips() -> list[Clip]:
    """All clips: each speaker speaks one language, and says `TAKES` things in it."""
    found, first = [], 0
    for split, count in SPEAKERS.items():
        for language in LABELS:
            for speaker in range(first, first + count):
                for take in range(TAKES):
                    name = f"{language}_speaker{speaker:02d}"
                    make = partial(synthesise, language, speaker, take)
                    found.append(Clip(f"{split}/{language}/{name}_{take}.wav", make, language, split, group=name))
        first += count
    return found


def synthesise(language: str, speaker: int, take: int) -> np.ndarray:
    """Say something in a language; the same arguments give the same samples.

    Returns:
        Waveform at `SAMPLING_RATE`, float32, (T,) of `SECONDS`, within [-1, 1].
    """
    number = LABELS.index(language)
    rng = np.random.default_rng([SEED, number, speaker, take])
    voice = today(draw_voice(np.random.default_rng([SEED, number, speaker])), rng)
    num_samples = int(SECONDS * SAMPLING_RATE)
    lead = rng.integers(SAMPLING_RATE // 4)  # the clip begins anywhere in a phrase
    parts, total = [], 0
    while total < num_samples + lead:
        parts.append(speak(list(_phrase(_LANGUAGES[language], rng)), voice, rng))
        total += len(parts[-1])
    return master(level(np.concatenate(parts)[lead : lead + num_samples]), rng, SAMPLING_RATE)


def _phrase(language: _Language, rng: np.random.Generator) -> Iterator[Said]:
    """Some syllables and a pause."""
    count = int(rng.integers(4, 8))
    lengths = np.array([language.beat[i % len(language.beat)] or rng.choice([0.6, 2.0]) for i in range(count)])
    lengths = lengths / lengths.mean()  # the pace is the speaker's, not the language's
    melody = _melody(language, lengths, rng)
    for length, (start, end) in zip(lengths, melody, strict=True):
        onset, vowel, coda = (
            rng.choice(sounds.split()) for sounds in (language.onsets, language.vowels, language.codas)
        )
        loudness = min(1.0, 0.6 + 0.3 * length) * rng.uniform(0.8, 1.0)
        for sound in onset.strip("."):
            yield Said(sound, 1.0, loudness, start)
        yield Said(vowel[0], 0.5 * length, loudness, start)
        yield from (Said(sound, 0.4, loudness, end) for sound in vowel[1:-1])
        yield Said(vowel[-1], 0.5 * length, loudness, end)
        for sound in coda.strip("."):
            yield Said(sound, 1.0, loudness, end)
    yield Said("_", rng.uniform(0.8, 2.5))


def _melody(language: _Language, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pitch at the start and the end of each syllable, in semitones, (S, 2)."""
    count = len(lengths)
    slope = np.linspace(1, -1, count + 1)
    lively = rng.uniform(0.7, 1.3)
    if language.melody == "rise":
        line = np.concatenate([np.zeros(count - 1), [1.0, 7.0]])
    elif language.melody == "fall":
        line = 3.5 * slope + 1.0
    elif language.melody == "accent":
        line = np.where(np.arange(count + 1) % 4 < rng.integers(1, 4), 3.0, -2.0) + slope
    elif language.melody == "stress":
        line = np.where(np.append(lengths, lengths[0]) > 1, 4.0, -1.0)
    else:
        tones = np.array([(4, 4), (-4, 4), (6, -4), (-2, -5)])
        return lively * tones[rng.integers(len(tones), size=count)] + rng.normal(0, 0.4, (count, 2))
    line = lively * (line - line.mean()) + rng.normal(0, 0.4, count + 1)
    return np.stack([line[:-1], line[1:]], axis=1)
