"""Tables that list clips: CSV, TSV or JSON lines, with path, label, and maybe split, group, start, end and fold."""

import csv
import json
import os
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from ..checks import nearest
from ..errors import DatasetError
from .base import SPLIT_NAMES, Example, split_name

EXTENSIONS = (".csv", ".tsv", ".jsonl")
PATH_COLUMNS = ("path", "file_name", "filename", "file", "audio", "audio_path", "filepath")
LABEL_COLUMNS = ("label", "class", "category", "target", "genre", "emotion", "language")
LABELS_COLUMNS = ("labels", "tags")
"""Columns that hold several labels a clip, separated by commas in a text."""
MAX_REPEATED = 10_000
"""Cells of a table that are looked for again further down."""


def examples(
    path: str | Path,
    *,
    label_column: str | None = None,
    group_column: str | None = None,
    multi_label: bool | None = None,
    fold: int | str | None = None,
    split: str | None = None,
    split_folders: bool = False,
) -> list[Example]:
    """The clips of a table, in its order. Relative paths are relative to the table's own folder.

    Args:
        label_column: Column of the labels; the first of `LABEL_COLUMNS` or `LABELS_COLUMNS` when not given.
        group_column: Column of the groups; `group` when there is one.
        multi_label: Whether a clip may have several labels, or none; when not given, it may where any is a list or
            the column is one of `LABELS_COLUMNS`.
        fold: Value in the column `fold` that is test; the other rows are train.
        split: Split of every row, for a table that stands in a split's folder.
        split_folders: Where the table names no splits and every path begins with a split's folder, take it from there.

    Raises:
        DatasetError: for a table that cannot be read or lacks a column, naming the row where one is wrong.
    """
    path = Path(path)
    rows = _read_jsonl(path) if path.suffix.lower() == ".jsonl" else read_csv(path)
    if not rows:
        raise DatasetError(f"{str(path)!r} lists no clips.")
    columns = list(dict.fromkeys(chain.from_iterable(row for _, row in rows)))
    path_column = _column(path, columns, None, PATH_COLUMNS, "path")
    label_column = _column(path, columns, label_column, (*LABEL_COLUMNS, *LABELS_COLUMNS), "label_column")
    if multi_label is None:
        multi_label = label_column in LABELS_COLUMNS or any(isinstance(row.get(label_column), list) for _, row in rows)
    if group_column is not None:
        _column(path, columns, group_column, (), "group_column")
    by_folder = split_folders and "split" not in columns and all(_folder_split(row, path_column) for _, row in rows)
    usual_group = group_column is None and "group" in columns
    if fold is not None:
        _check_fold(path, columns, rows, fold)
    folder = "" if path.parent == Path() else str(path.parent)
    found, line = [], f"{str(path)!r}, line "
    for number, row in rows:
        where = f"{line}{number}"
        start, end = _seconds(row, "start", where), _seconds(row, "end", where)
        if end is not None and end <= (start or 0.0):
            raise DatasetError(f"{where}: the end, {end:g} s, is not after the start, {start or 0.0:g} s.")
        found.append(
            Example(
                audio=_clip_path(folder, _text(row, path_column, where)),
                label=label_names(row.get(label_column), where) if multi_label else _text(row, label_column, where),
                split=_folder_split(row, path_column) if by_folder else _row_split(row, where, fold, split),
                # The usual column may have gaps; one that was asked for may not.
                group=_optional(row, "group") if usual_group else group_column and _text(row, group_column, where),
                start=start,
                end=end,
                fold=_optional(row, "fold"),
            )
        )
    return found


def label_names(value: Any, where: str) -> tuple[str, ...]:
    """The labels of one clip, from a list or from a text that separates them by commas.

    Raises:
        DatasetError: for a list that holds something else than names or numbers.
    """
    parts = str("" if value is None else value).split(",") if not isinstance(value, (list, tuple)) else value
    if any(part is None or isinstance(part, (list, dict)) for part in parts):
        raise DatasetError(f"{where}: {value!r} is no list of labels.")
    names = (str(part).strip() for part in parts)
    return tuple(dict.fromkeys(name for name in names if name))


def read_csv(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The rows of a CSV or TSV table with a header, each with the number of its line.

    Raises:
        DatasetError: for a table that cannot be read, naming the line.
    """
    begins = 1  # the line where a row does; a quote that is never closed reaches to the end of the file
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            # A spreadsheet in much of Europe writes semicolons.
            delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=header.count)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            names = [name.strip() for name in next(reader, [])]
            begins = reader.line_num + 1
            rows: list[tuple[int, dict[str, Any]]] = []
            repeated: dict[str, str] = {}  # labels and the like, one string each, however many rows
            for cells in reader:
                begins = reader.line_num + 1
                if len(cells) > len(names):
                    raise DatasetError(
                        f"{str(path)!r}, line {reader.line_num}: has more cells than the header; put quotes around "
                        f"what holds a {delimiter!r}."
                    )
                if len(repeated) < MAX_REPEATED:
                    repeated.update(zip(cells, cells, strict=True))
                cells = [repeated.get(cell, cell) for cell in cells]
                if cells:  # else the line is blank
                    rows.append((reader.line_num, dict(zip_longest(names, cells))))
    except UnicodeDecodeError as error:
        raise DatasetError(f"{str(path)!r} is not UTF-8 ({error.reason}); save it as UTF-8.") from error
    except csv.Error as error:
        raise DatasetError(f"{str(path)!r}, line {begins}: is no proper table ({error}).") from error
    return rows


def _read_jsonl(path: Path) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{str(path)!r} is not UTF-8 ({error.reason}); save it as UTF-8.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DatasetError(f"{str(path)!r}, line {number}: is not JSON ({error.msg}).") from error
        if not isinstance(row, dict):
            raise DatasetError(f'{str(path)!r}, line {number}: expected an object like {{"path": ..., "label": ...}}.')
        rows.append((number, row))
    return rows


def _column(path: Path, columns: Sequence[str], wanted: str | None, usual: Sequence[str], option: str) -> str:
    if wanted is not None:
        if wanted not in columns:
            raise DatasetError(
                f"{str(path)!r} has no column {wanted!r} ({option}); it has {', '.join(columns)}"
                f"{nearest(wanted, list(columns))}"
            )
        return wanted
    for name in usual:
        if name in columns:
            return name
    advice = f"name it with {option}" if option == "label_column" else "call it path"
    raise DatasetError(f"{str(path)!r} has no column {' or '.join(usual[:3])}; it has {', '.join(columns)}: {advice}.")


def _text(row: dict[str, Any], column: str, where: str) -> str:
    value = row.get(column)
    if isinstance(value, (list, dict)):
        advice = "; for several labels a clip give multi_label=True" if isinstance(value, list) else ""
        raise DatasetError(f"{where}: {column} is {value!r}; it must be a single text or number{advice}.")
    text = "" if value is None else str(value).strip()
    if not text:
        raise DatasetError(f"{where}: {column} is empty.")
    return text


def _optional(row: dict[str, Any], column: str) -> str | None:
    value = row.get(column)
    return None if value is None or not str(value).strip() else str(value).strip()


def _clip_path(folder: str, text: str) -> str:
    """A path as the table gives it; backslashes count as separators where only that gives a file."""
    if "\\" in text and not os.path.exists(os.path.join(folder, text)):
        text = text.replace("\\", "/")
    if "./" in text or "//" in text:
        text = str(Path(text))
    return os.path.join(folder, text)


def _row_split(row: dict[str, Any], where: str, fold: int | str | None, split: str | None) -> str | None:
    if fold is not None:
        return "test" if str(row.get("fold")).strip() == str(fold) else "train"
    if split is not None or not str(row.get("split") or "").strip():
        return split
    return split_name(row["split"], where)


def _folder_split(row: dict[str, Any], path_column: str) -> str | None:
    """The split that the first folder of a row's path stands for."""
    return SPLIT_NAMES.get(str(row.get(path_column)).replace("\\", "/").split("/")[0].strip().lower())


def _check_fold(path: Path, columns: Sequence[str], rows: list[tuple[int, dict[str, Any]]], fold: int | str) -> None:
    if "fold" not in columns:
        raise DatasetError(f"{str(path)!r} has no column fold, so fold={fold!r} chooses nothing; leave fold out.")
    known = sorted({str(row.get("fold")).strip() for _, row in rows})
    if str(fold) not in known:
        raise DatasetError(f"{str(path)!r} has no fold {str(fold)!r}; it has {', '.join(known)}.")


def _seconds(row: dict[str, Any], column: str, where: str) -> float | None:
    value = row.get(column)
    if value is None or str(value).strip() == "":
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise DatasetError(f"{where}: {column}={value!r} is no time in seconds.")
    return seconds
