"""What the loaders of known corpora share: where a corpus lies, what its tables say, which fold is test."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ..checks import nearest
from ..errors import DatasetError
from . import archive
from .base import Example
from .folder import subfolders
from .folds import fold_names
from .manifest import read_csv

SEARCH_DEPTH = 2
"""How many folders below the root a corpus may lie: copies are often packed once or twice more."""


def require_root(root: str | Path | None, title: str, source: str) -> str | Path:
    """The root of a corpus that this library does not fetch.

    Raises:
        DatasetError: when it is not given, with where a person gets the corpus.
    """
    if root is None:
        raise DatasetError(f"{title} is not fetched by itself: get it from {source} and give where it lies as root.")
    return root


def find_corpus(
    root: str | Path,
    *,
    title: str,
    holds: Callable[[Path], bool],
    lacks: str,
    archives: Sequence[str] = (),
    unpack_into: Path | None = None,
    max_bytes: int = 0,
) -> Path:
    """The folder of a corpus, unpacked if need be: the root itself, or the one below it that holds the corpus.

    Args:
        root: A folder, or an archive where `unpack_into` is given.
        title: What people call the corpus.
        holds: Whether a folder is the corpus's own.
        lacks: What a folder that is not has not, for the message.
        archives: Usual names of its archive, looked for in a folder that does not hold it unpacked.
        unpack_into: Parent of the unpacked archive.
        max_bytes: Most bytes that may be unpacked.

    Raises:
        DatasetError: when it is not there, or there more than once.
    """
    root = Path(root).expanduser()
    if root.is_file() and unpack_into is not None:
        packed = root
    elif root.is_dir():
        if found := _places(root, holds):
            return _only(found, root, title)
        packed = next((root / name for name in archives if (root / name).is_file()), None)
    else:
        raise DatasetError(f"{title}: {str(root)!r} is no folder{' and no archive' if unpack_into else ''}.")
    if packed and (found := _places(archive.unpack(packed, unpack_into, max_bytes), holds)):
        return _only(found, packed, title)
    raise DatasetError(f"{str(packed or root)!r} is no {title}: {lacks}.")


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Some columns of a CSV table of a corpus, in which no cell of them may be empty.

    Raises:
        DatasetError: naming the column that is missing, or the line where it is empty.
    """
    if not path.is_file():
        raise DatasetError(f"{str(path)!r} is missing, which lists the clips; fetch it again.")
    rows = []
    for number, row in read_csv(path):
        if missing := [column for column in columns if column not in row]:
            raise DatasetError(f"{str(path)!r} has no column {missing[0]!r}; it has {', '.join(row)}.")
        values = {column: (row[column] or "").strip() for column in columns}
        if empty := [column for column in columns if not values[column]]:
            raise DatasetError(f"{str(path)!r}, line {number}: {empty[0]} is empty.")
        rows.append(values)
    return rows


def labels_by_id(pairs: Iterable[tuple[str, str]], where: str) -> list[str]:
    """Class names in the order of their ids, from pairs of id and name.

    Raises:
        DatasetError: for an id that is no number, and for an id or a name that belongs to two classes.
    """
    names: dict[int, str] = {}
    for number, name in dict.fromkeys(pairs):
        if not number.isdecimal() or int(number) in names or name in names.values():
            raise DatasetError(f"{where}: the class {name!r} has the id {number!r}, which is not its own.")
        names[int(number)] = name
    return [names[number] for number in sorted(names)]


def choose_protocol(name: str, protocol: str | None, known: Sequence[str]) -> str:
    """The protocol that was asked for; the first when none was.

    Raises:
        DatasetError: for one that the corpus does not have.
    """
    protocol = str(protocol or known[0])
    if protocol not in known:
        raise DatasetError(f"{name} has no protocol {protocol!r}; choose {' or '.join(known)}.")
    return protocol


def choose_labels(name: str, labels: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """The classes that were asked for, in that order; all when none were.

    Raises:
        DatasetError: for one that the corpus does not have, or not here.
    """
    if isinstance(labels, str):
        raise DatasetError(f"{name}: labels={labels!r} must be a list of class names.")
    for label in labels or ():
        if label not in known:
            some = ", ".join([*known[:8], "..."] if len(known) > 8 else known)
            raise DatasetError(
                f"{name}: labels has {label!r}, of which there is nothing here, only {some}"
                f"{nearest(label, list(known))}"
            )
    return list(labels or known)


def present(examples: Sequence[Example], labels: Sequence[str], where: str) -> tuple[list[Example], list[str]]:
    """The clips whose files are there, and a note if some are not.

    Args:
        examples: All the clips, as the corpus lists them.
        labels: Classes of which there must be clips.
        where: The folder or the list, for the message.

    Raises:
        DatasetError: for no clips, and for a copy that broke off, in which a class has none and would never be right.
    """
    if not examples:
        raise DatasetError(f"{where}: there are no clips in it; fetch it again.")
    there = [e for e in examples if not isinstance(e.audio, str) or os.path.isfile(e.audio)]
    missing = sorted({e.audio for e in examples if isinstance(e.audio, str)} - {e.audio for e in there})
    loss = f"{len(missing)} of its {len(examples)} clips are missing, for example {missing[0]!r}" if missing else ""
    found = {label for example in there for label in example.labels}
    if empty := [label for label in labels if label not in found]:
        raise DatasetError(f"{where}: there is no clip of {empty[0]!r}{loss and f', and {loss}'}; fetch it again.")
    return there, [f"{where}: {loss}; they are left out."] if missing else []


def hold_out(examples: Sequence[Example], fold: int | str, name: str) -> list[Example]:
    """The examples with one of the official folds as test, and all others as train.

    Raises:
        DatasetError: for a fold that there is not.
    """
    known = fold_names(example.fold for example in examples)
    # An actor is "01" in the files; 1 means the same.
    chosen = next((one for one in known if str(fold) in (one, one.lstrip("0"))), None)
    if chosen is None:
        raise DatasetError(f"{name} has no fold {str(fold)!r}; it has {', '.join(known)}.")
    return [replace(e, split="test" if e.fold == chosen else "train") for e in examples]


def hold_out_or_last(examples: Sequence[Example], fold: int | str | None, name: str) -> tuple[list[Example], list[str]]:
    """As `hold_out`; without a fold the last is test, with a note that its score alone is not the official one."""
    if fold is not None:
        return hold_out(examples, fold, name), []
    known = fold_names(example.fold for example in examples)
    return hold_out(examples, known[-1], name), [
        f"The test part is fold {known[-1]}, whose score alone is not the official one: that is the mean over all "
        f"{len(known)} folds, which audioclf.cross_validate gives."
    ]


def _places(root: Path, holds: Callable[[Path], bool]) -> list[Path]:
    """The folders nearest to the root that hold the corpus."""
    level = [root]
    for depth in range(SEARCH_DEPTH + 1):
        if depth:
            level = [below for folder in level for below in subfolders(folder)]
        if found := [folder for folder in level if holds(folder)]:
            return found
    return []


def _only(found: list[Path], root: Path, title: str) -> Path:
    if len(found) > 1:
        names = " and ".join(repr(str(folder)) for folder in found[:2])
        raise DatasetError(f"{str(root)!r} holds {title} {len(found)} times; give one of {names} as root.")
    return found[0]
