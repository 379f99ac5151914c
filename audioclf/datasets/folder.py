"""Class folders: `<root>/<label>/**/*.wav`, or `<root>/{train,valid,test}/<label>/**`."""

import os
from pathlib import Path

from ..audio import is_audio_path
from ..errors import DatasetError
from .base import SPLIT_NAMES, Example

METADATA_NAMES = ("metadata.csv", "metadata.jsonl")


def examples(root: str | Path) -> list[Example]:
    """The clips below a folder of class folders, in the order of their paths.

    Folders are splits when all of them have a split's name and hold class folders themselves; a class that happens
    to be called "train" is a class.

    Raises:
        DatasetError: when there are no class folders, or no audio in them.
    """
    root = Path(root)
    folders = _folders(root)
    if not folders:
        raise DatasetError(
            f"{str(root)!r} has no folders in it: expected one folder of audio files a class, "
            "or a metadata.csv that lists file_name and label."
        )
    if all(folder.name.lower() in SPLIT_NAMES and _folders(folder) for folder in folders):
        found = [
            example for folder in folders for example in _class_folders(folder, split=SPLIT_NAMES[folder.name.lower()])
        ]
    else:
        found = _class_folders(root, split=None)
    if not found:
        raise DatasetError(f"{str(root)!r} has class folders but no audio files in them.")
    return found


def metadata_files(root: str | Path) -> list[Path]:
    """The AudioFolder metadata of a data set: one file at the root, or one in each split's folder."""
    root = Path(root)
    for name in METADATA_NAMES:
        if (root / name).is_file():
            return [root / name]
    return [
        folder / name
        for folder in _folders(root)
        if folder.name.lower() in SPLIT_NAMES
        for name in METADATA_NAMES
        if (folder / name).is_file()
    ]


def audio_files(root: str | Path) -> list[Path]:
    """All audio files below a folder, sorted; hidden ones and macOS's shadows left out."""
    found = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not _is_hidden(name))
        found += [Path(folder, name) for name in sorted(names) if is_audio_path(name)]
    return found


def _class_folders(root: Path, split: str | None) -> list[Example]:
    return [
        Example(audio=str(path), label=folder.name, split=split)
        for folder in _folders(root)
        for path in audio_files(folder)
    ]


def _folders(root: Path) -> list[Path]:
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not _is_hidden(entry.name))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
