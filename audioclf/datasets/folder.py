"""Class folders: `<root>/<label>/**/*.wav`, or `<root>/{train,valid,test}/<label>/**`."""

import os
from collections.abc import Iterator
from pathlib import Path

from ..audio import is_audio_path
from ..errors import DatasetError
from .base import SPLIT_NAMES, Example

METADATA_NAMES = ("metadata.csv", "metadata.jsonl")


def examples(root: str | Path) -> list[Example]:
    """The clips below a folder of class folders, in the order of their paths.

    Folders are splits when all that hold audio have a split's name and hold class folders themselves; a class that
    happens to be called "train" is a class.

    Raises:
        DatasetError: when there are no class folders with audio in them.
    """
    return [clip for folder, split in _class_roots(Path(root)) for clip in _class_folders(folder, split)]


def loose_notes(root: str | Path) -> list[str]:
    """A sentence on sounds that lie beside the class folders, and so have no label."""
    loose = [
        entry for folder, _ in _class_roots(Path(root)) for entry in sorted(folder.iterdir()) if _is_loose_sound(entry)
    ]
    if not loose:
        return []
    return [f"{len(loose)} sound(s) lie beside the class folders and are not used, for example {str(loose[0])!r}."]


def _class_roots(root: Path) -> list[tuple[Path, str | None]]:
    """The folders that hold class folders, each with its split."""
    folders = [folder for folder in subfolders(root) if any(_sounds(folder))]
    if not folders:
        raise DatasetError(
            f"{str(root)!r} has no folders with audio files in it: expected one folder a class, "
            "or a metadata.csv that lists file_name and label."
        )
    if all(folder.name.lower() in SPLIT_NAMES and subfolders(folder) for folder in folders):
        return [(folder, SPLIT_NAMES[folder.name.lower()]) for folder in folders]
    return [(root, None)]


def metadata_files(root: str | Path) -> list[Path]:
    """The AudioFolder metadata of a data set: one file at the root, or one in each split's folder.

    Raises:
        DatasetError: when one split's folder has metadata and another none.
    """
    root = Path(root)
    for name in METADATA_NAMES:
        if (root / name).is_file():
            return [root / name]
    splits = [folder for folder in subfolders(root) if folder.name.lower() in SPLIT_NAMES]
    tables = {folder: [folder / name for name in METADATA_NAMES if (folder / name).is_file()][:1] for folder in splits}
    bare = [folder.name for folder, found in tables.items() if not found and audio_files(folder)]
    if bare and any(tables.values()):
        raise DatasetError(
            f"{str(root)!r}: the split {bare[0]!r} has no metadata.csv or metadata.jsonl, as others have."
        )
    return [table for found in tables.values() for table in found]


def audio_files(root: str | Path) -> list[Path]:
    """All audio files below a folder, sorted; hidden ones and macOS's shadows left out."""
    return list(_sounds(root))


def _sounds(root: str | Path) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not _is_hidden(name))
        yield from (Path(folder, name) for name in sorted(names) if is_audio_path(name))


def _class_folders(root: Path, split: str | None) -> list[Example]:
    return [
        Example(audio=str(path), label=folder.name, split=split)
        for folder in subfolders(root)
        for path in audio_files(folder)
    ]


def subfolders(root: Path) -> list[Path]:
    """The folders in a folder, sorted; hidden ones and macOS's shadows left out."""
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not _is_hidden(entry.name))


def _is_loose_sound(path: Path) -> bool:
    return is_audio_path(path) and path.is_file()


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
