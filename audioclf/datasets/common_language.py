"""CommonLanguage: spoken language, 45 classes, an hour each, from Common Voice, with official parts by speaker.

Source: Sinisetty, Ruban, Dymov & Ravanelli (2021), "CommonLanguage", https://doi.org/10.5281/zenodo.5036977. The
labels are the folders' names as they are, misspellings such as Mangolian and Ukranian included.
"""

from collections.abc import Sequence
from pathlib import Path

from ..errors import DatasetError
from .base import SPLIT_NAMES, AudioSplits, Example
from .corpus import choose_labels, find_corpus, require_root
from .folder import audio_files, subfolders
from .making import make_splits

SOURCE = "https://zenodo.org/records/5036977 (CommonLanguage.zip, 4 GB)"
PARTS = ("train", "dev", "test")
MAX_UNPACKED_BYTES = 32 * 2**30


def load(root: str | Path | None, labels: Sequence[str] | None, cache_dir: str | Path) -> AudioSplits:
    """CommonLanguage from a folder or its zip.

    Args:
        root: The folder with the languages' folders (or one above it), or the zip.
        labels: The languages wanted, in the order of their ids; all that are there, sorted, when not given.
        cache_dir: Where an archive is unpacked.

    Raises:
        DatasetError: when it cannot be found or read, or a language lacks a part.
    """
    folder = find_corpus(
        require_root(root, "CommonLanguage", SOURCE),
        title="CommonLanguage",
        holds=lambda folder: any(_is_language(below) for below in subfolders(folder)),
        lacks="there is no language's folder with train, dev and test in it",
        archives=("CommonLanguage.zip",),
        unpack_into=Path(cache_dir) / "common_language",
        max_bytes=MAX_UNPACKED_BYTES,
    )
    known = [below.name for below in subfolders(folder) if _is_language(below)]
    languages = choose_labels("common_language", labels, known)
    clips = [clip for language in languages for part in PARTS for clip in _clips(folder / language, part)]
    return make_splits(clips, name="common_language", labels=languages)


def _is_language(folder: Path) -> bool:
    return any((folder / part).is_dir() for part in PARTS)


def _clips(language: Path, part: str) -> list[Example]:
    paths = audio_files(language / part)
    if not paths:
        raise DatasetError(f"{str(language)!r} is no whole language of CommonLanguage: there is no audio in {part!r}.")
    # Speakers are counted anew in each language.
    return [
        Example(str(path), label=language.name, split=SPLIT_NAMES[part], group=f"{language.name}/{path.parent.name}")
        for path in paths
    ]
