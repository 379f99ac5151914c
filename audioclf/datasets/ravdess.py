"""RAVDESS: acted emotion, eight classes, 1,440 spoken clips of 24 actors at 48 kHz.

Source: Livingstone & Russo (2018), "The Ryerson Audio-Visual Database of Emotional Speech and Song". A clip's name
says all: modality, vocal channel, emotion, intensity, statement, repetition, actor.
"""

import re
from pathlib import Path

from .acted import acted_splits
from .base import AudioSplits
from .corpus import find_corpus, require_root
from .folder import audio_files

SOURCE = "https://zenodo.org/records/1188976 (Audio_Speech_Actors_01-24.zip, 0.2 GB)"
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
"""In the order of their numbers in the names, from 01."""
NAME = re.compile(r"03-01-(\d\d)-\d\d-\d\d-\d\d-(\d\d)")
"""Of sound alone (03; 01 and 02 are video) that is speech (01; 02 is song)."""
NUM_CLIPS = 1440
MAX_UNPACKED_BYTES = 8 * 2**30


def load(root: str | Path | None, fold: int | str | None, cache_dir: str | Path) -> AudioSplits:
    """The spoken clips of RAVDESS, wherever they lie below a folder, or in its zip.

    Args:
        root: A folder with the actors' folders below it, or the zip. A clip that lies there twice is taken once.
        fold: The actor, 1 to 24, that is test; when not given there is no test part, with a note.
        cache_dir: Where an archive is unpacked.

    Raises:
        DatasetError: when it cannot be found or read.
    """
    folder = find_corpus(
        require_root(root, "RAVDESS", SOURCE),
        title="RAVDESS",
        holds=lambda folder: any(_parse(path) for path in audio_files(folder)),
        lacks="there is no clip with a name like 03-01-06-01-02-01-12.wav in it",
        archives=("Audio_Speech_Actors_01-24.zip",),
        unpack_into=Path(cache_dir) / "ravdess",
        max_bytes=MAX_UNPACKED_BYTES,
    )
    return acted_splits(folder, _parse, name="ravdess", labels=EMOTIONS, num_clips=NUM_CLIPS, fold=fold)


def _parse(path: Path) -> tuple[str, str] | None:
    match = NAME.fullmatch(path.stem)
    if match is None:
        return None
    number, actor = match.groups()
    # A number that stands for no emotion is refused as a label.
    return dict(enumerate(EMOTIONS, start=1)).get(int(number), number), actor
