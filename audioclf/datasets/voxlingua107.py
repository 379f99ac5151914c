"""VoxLingua107: spoken language, 107 classes, 6,628 hours from videos of YouTube, at 16 kHz.

Source: Valk & Alumäe (2021), "VoxLingua107: a Dataset for Spoken Language Recognition". Its train part was labelled by
machine; the dev part, of 33 languages, by people.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from .base import AudioSplits, Example
from .corpus import choose_labels, find_corpus, require_root
from .folder import audio_files, subfolders
from .making import make_splits

SOURCE = "https://bark.phon.ioc.ee/voxlingua107/ (a zip a language, and dev.zip, to be unpacked into one folder)"
CODE = re.compile(r"(?!dev$)[a-z]{2,3}")
RENAMED = {"iw": "he", "jw": "jv"}
"""Codes that ISO 639 has since replaced, of Hebrew and Javanese."""
SEPARATOR = "---"
"""Between the video and the times in a clip's name."""


def load(root: str | Path | None, labels: Sequence[str] | None) -> AudioSplits:
    """VoxLingua107 from a folder: the languages' folders are train, those in `dev` are valid.

    Args:
        root: The folder with the languages' folders (or one above it).
        labels: The languages wanted, in the order of their ids; all of the train part, sorted, when not given.

    Raises:
        DatasetError: when it cannot be found or read.
    """
    folder = find_corpus(
        require_root(root, "VoxLingua107", SOURCE),
        title="VoxLingua107",
        holds=lambda folder: folder.name != "dev" and any(_is_language(below) for below in subfolders(folder)),
        lacks="there is no language's folder such as en, with names like VIDEO---0001.000-0009.000.wav, in it",
    )
    train, dev = _clips(folder, "train"), _clips(folder / "dev", "valid")
    languages = choose_labels("voxlingua107", labels, sorted({clip.label for clip in train}))
    valid = [clip for clip in dev if clip.label in languages]
    notes = []
    if any((folder / code).is_dir() for code in RENAMED):
        notes.append("The folders iw and jw have old codes: these languages are called he and jv.")
    if labels is None and len(valid) < len(dev):
        notes.append(
            f"{len(dev) - len(valid)} clip(s) of dev are of languages without a train part; they are left out."
        )
    if valid:
        notes.append("VoxLingua107 has no test part: published scores are those on dev, which is the valid part here.")
    clips = [clip for clip in train if clip.label in languages] + valid
    return make_splits(clips, name="voxlingua107", labels=languages, notes=notes)


def _clips(folder: Path, split: str) -> list[Example]:
    return [
        Example(str(path), RENAMED.get(below.name, below.name), split, group=path.name.split(SEPARATOR)[0])
        for below in (subfolders(folder) if folder.is_dir() else [])
        if CODE.fullmatch(below.name)
        for path in audio_files(below)
    ]


def _is_language(folder: Path) -> bool:
    return bool(CODE.fullmatch(folder.name)) and any(SEPARATOR in path.name for path in folder.iterdir())
