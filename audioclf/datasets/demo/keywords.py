"""Ten short words by many speakers.

The words are five pairs that hold the same sounds in another order, so that a spectrum averaged over time confuses
them.
"""

from functools import partial

import numpy as np

from .files import Clip
from .sound import level, master
from .voice import SAMPLING_RATE, Said, draw_voice, speak, today

VERSION = "demo-keywords-v1"
"""Names the folder of the set: to be changed whenever a sample of any clip changes."""
METRIC = None
NOTE = "Demo: synthetic words; its scores show that the library works and say nothing about real speech."
SEED = 20_261_125
SPEAKERS = {"train": 40, "valid": 12, "test": 16}
TAKES = 2
WORDS = {
    "felt": "felt", "left": "left", "gum": "g@m", "mug": "m@g", "lap": "lap", "pal": "pal", "no": "nou", "own": "oun",
    "spot": "spot", "stop": "stop",
}  # fmt: skip
"""The sounds of each word."""
LABELS: tuple[str, ...] = tuple(sorted(WORDS))


def clips() -> list[Clip]:
    """All clips: each speaker says each word `TAKES` times."""
    found, first = [], 0
    for split, count in SPEAKERS.items():
        for speaker in range(first, first + count):
            for word in LABELS:
                for take in range(TAKES):
                    path = f"{split}/{word}/speaker{speaker:02d}_{take}.wav"
                    make = partial(synthesise, word, speaker, take)
                    found.append(Clip(path, make, word, split, group=f"speaker{speaker:02d}"))
        first += count
    return found


def synthesise(word: str, speaker: int, take: int) -> np.ndarray:
    """Say a word; the same arguments give the same samples.

    Returns:
        Waveform at `SAMPLING_RATE`, float32, (T,) of 0.8 to 1 s, within [-1, 1].
    """
    rng = np.random.default_rng([SEED, speaker, LABELS.index(word), take])
    voice = today(draw_voice(np.random.default_rng([SEED, speaker])), rng)
    sounds = WORDS[word]
    # The melody goes with the time, not with the word.
    start, end = rng.uniform(-2, 4), rng.uniform(-5, 3)
    melody = np.linspace(start, end, len(sounds))
    said = [Said(sound, 1.3, rng.uniform(0.7, 1.0), semitones) for sound, semitones in zip(sounds, melody, strict=True)]
    speech = speak([Said("_", 0.3), *said, Said("_", 0.3)], voice, rng)
    clip = np.zeros(int(rng.integers(80, 101)) * SAMPLING_RATE // 100)
    spare = len(clip) - len(speech)
    start = rng.integers(0, abs(spare) + 1)
    if spare < 0:
        clip += speech[start : start + len(clip)]
    else:
        clip[start : start + len(speech)] += speech
    return master(level(clip), rng, SAMPLING_RATE)
