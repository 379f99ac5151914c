"""CREMA-D: acted emotion, six classes, 7,442 clips of 91 actors at 16 kHz.

Source: Cao, Cooper, Keutmann, Gur, Nenkova & Verma (2014), "CREMA-D: Crowd-sourced Emotional Multimodal Actors
Dataset". A clip's name says all: actor, sentence, emotion, level. The label is the emotion that was to be acted, not
the one that was perceived. `1076_MTI_SAD_XX.wav` has no sound; like any clip that cannot be decoded it is set aside.
"""

import re
from pathlib import Path

from .acted import acted_splits
from .base import AudioSplits
from .corpus import find_corpus, require_root
from .folder import audio_files

SOURCE = "https://github.com/CheyneyComputerScience/CREMA-D (its folder AudioWAV)"
EMOTIONS = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
NAME = re.compile(r"(\d{4})_[A-Z]{3}_([A-Z]{3})_[A-Z]{1,2}\.wav")
"""Not the mp3s, which are the same clips."""
NUM_CLIPS = 7442
MAX_UNPACKED_BYTES = 32 * 2**30
"""The repository has the videos too."""


def load(root: str | Path | None, fold: int | str | None, cache_dir: str | Path) -> AudioSplits:
    """The wav files of CREMA-D, wherever they lie below a folder, or in its zip.

    Args:
        root: The folder `AudioWAV`, one above it, or a zip of either. A clip that lies there twice is taken once.
        fold: The actor, 1001 to 1091, that is test; when not given there is no test part, with a note.
        cache_dir: Where an archive is unpacked.

    Raises:
        DatasetError: when it cannot be found or read.
    """
    folder = find_corpus(
        require_root(root, "CREMA-D", SOURCE),
        title="CREMA-D",
        holds=lambda folder: any(_parse(path) for path in audio_files(folder)),
        lacks="there is no clip with a name like 1001_DFA_ANG_XX.wav in it",
        archives=("CREMA-D-master.zip", "AudioWAV.zip"),
        unpack_into=Path(cache_dir) / "crema_d",
        max_bytes=MAX_UNPACKED_BYTES,
    )
    labels = list(EMOTIONS.values())
    return acted_splits(folder, _parse, name="crema_d", labels=labels, num_clips=NUM_CLIPS, fold=fold)


def _parse(path: Path) -> tuple[str, str] | None:
    match = NAME.fullmatch(path.name)
    if match is None:
        return None
    actor, code = match.groups()
    return EMOTIONS.get(code, code), actor  # a code that stands for no emotion is refused as a label
