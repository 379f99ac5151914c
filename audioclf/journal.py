"""The two files of a store of arrays: values, and a journal with a line for each clip that is wholly there.

Whatever ends a process while it writes them, what is whole is found again and the rest goes.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from .errors import AudioError

SYNC_CLIPS = 256
"""Clips between two moments at which the values are forced to disk before their journal lines are."""

EDGE_VALUES = 200
"""Values at either end of a clip that the resampler's filter reaches from beyond it: 116 from 8 to 16 kHz."""


@dataclass(frozen=True)
class Growing:
    """A store that is being completed.

    Attributes:
        folder: Where it lies.
        compute: Array of the clip with that index, which is stored flat; may raise `AudioError`.
        dtype: Type of the values.
        num_threads: Clips computed at a time.
        max_bytes: Size that the values may grow to.
    """

    folder: Path
    compute: Callable[[int], np.ndarray]
    dtype: np.dtype
    num_threads: int
    max_bytes: float

    def fits(self, end: int, size: int) -> bool:
        """Whether there may be so many values behind those that end there."""
        return (end + size) * self.dtype.itemsize <= self.max_bytes

    def arrays(self, clips: Iterable[int]) -> contextlib.closing:
        """Those of some clips, in order, computed in parallel."""
        return contextlib.closing(_computed(clips, self.compute, self.num_threads))


def complete(store: Growing, num_clips: int, title: str, progress: bool) -> list[dict[str, Any]]:
    """The rows of all clips, once those that are missing are computed.

    Args:
        store: The store; no other process may complete it at the same time.
        num_clips: Clips in all.
        title: What the progress bar is called.
        progress: Show one.
    """
    rows = read_journal(store.folder, store.dtype.itemsize)
    _mend(store, rows, title, progress)
    if len(rows) == num_clips:
        return rows
    with store.arrays(range(len(rows), num_clips)) as arrays:
        bar = tqdm(arrays, total=num_clips, initial=len(rows), desc=title, unit="clip", disable=not progress)
        _append(store, rows, bar)
    return read_journal(store.folder, store.dtype.itemsize)


def _mend(store: Growing, rows: list[dict[str, Any]], title: str, progress: bool) -> None:
    """Adds the arrays of clips that failed once and can be read now, or for which there is room now.

    They go to the end of the values: another run may be reading those that are there.
    """
    end = room = _end(rows)
    wanted = []
    for index, row in enumerate(rows):
        if "error" in row:
            wanted.append(index)
        elif not is_kept(row) and store.fits(room, row["length"]):
            wanted.append(index)
            room += row["length"]
    if not wanted:
        return
    _truncate(store.folder / "values.bin", end * store.dtype.itemsize)
    with store.arrays(wanted) as arrays, open(store.folder / "values.bin", "ab") as values:
        bar = tqdm(arrays, total=len(wanted), desc=f"{title}, once more", unit="clip", disable=not progress)
        try:
            for index, array in zip(wanted, bar, strict=True):
                if not isinstance(array, AudioError):
                    row = _row(store, end, array)
                    end += _write(values, store, row, array)
                    rows[index] = row
        finally:  # an interruption keeps what is computed
            values.flush()
            os.fsync(values.fileno())
            partial = store.folder / "journal.partial"
            partial.write_bytes(b"".join(map(_journal_line, rows)))
            partial.replace(store.folder / "journal.jsonl")


def _end(rows: Iterable[dict[str, Any]]) -> int:
    """Values that belong to rows."""
    return max((row["offset"] + row["length"] for row in rows if is_kept(row)), default=0)


def is_kept(row: dict[str, Any]) -> bool:
    """Whether the clip's values are on disk."""
    return row.get("kept", True)


def _row(store: Growing, offset: int, array: np.ndarray | AudioError) -> dict[str, Any]:
    if isinstance(array, AudioError):
        return {"offset": offset, "length": 0, "error": str(array)}
    row = {"offset": offset, "length": array.size, "flat": _is_flat(array)}
    return row if store.fits(offset, array.size) else {**row, "kept": False}


def _write(values: BinaryIO, store: Growing, row: dict[str, Any], array: np.ndarray | AudioError) -> int:
    """Appends the array if its row says so; returns how many values that were."""
    if isinstance(array, AudioError) or not is_kept(row):
        return 0
    values.write(array.astype(store.dtype, copy=False).tobytes())
    return array.size


def _append(store: Growing, rows: list[dict[str, Any]], arrays: Iterable[np.ndarray | AudioError]) -> None:
    """Keeps the clips of `rows` and writes what follows them."""
    values_path, journal_path = store.folder / "values.bin", store.folder / "journal.jsonl"
    # What was being written when an earlier build was cut off goes; what is whole stays.
    end = _end(rows)
    _truncate(values_path, end * store.dtype.itemsize)
    _truncate(journal_path, sum(len(_journal_line(row)) for row in rows))
    lines: list[bytes] = []
    with open(values_path, "ab") as values, open(journal_path, "ab") as journal:
        try:
            for array in arrays:
                row = _row(store, end, array)
                lines.append(_journal_line(row))
                end += _write(values, store, row, array)
                if len(lines) >= SYNC_CLIPS:
                    _commit(values, journal, lines)
        finally:  # an interruption keeps what is computed
            _commit(values, journal, lines)


def _is_flat(array: np.ndarray) -> bool:
    """Whether the values stay the same, but for both ends, where resampling a constant leaves its traces."""
    inner = array[EDGE_VALUES:-EDGE_VALUES] if array.size > 4 * EDGE_VALUES else array
    return bool(np.ptp(inner) <= 1e-4 * np.abs(inner).max()) if inner.size else True


def _journal_line(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _truncate(path: Path, num_bytes: int) -> None:
    path.touch()
    os.truncate(path, num_bytes)


def _commit(values: BinaryIO, journal: BinaryIO, lines: list[bytes]) -> None:
    """Values reach the disk before the lines that vouch for them."""
    values.flush()
    os.fsync(values.fileno())
    journal.writelines(lines)
    journal.flush()
    os.fsync(journal.fileno())
    lines.clear()


def _computed(
    clips: Iterable[int], compute: Callable[[int], np.ndarray], num_threads: int
) -> Iterator[np.ndarray | AudioError]:
    """Computes in parallel, yields in order, at most a few clips ahead."""
    remaining = iter(clips)
    with ThreadPoolExecutor(num_threads) as pool:
        queue: list[Future] = [pool.submit(_attempt, compute, index) for index in islice(remaining, 2 * num_threads)]
        try:
            while queue:
                array = queue.pop(0).result()
                queue.extend(pool.submit(_attempt, compute, index) for index in islice(remaining, 1))
                yield array
        finally:
            pool.shutdown(cancel_futures=True)


def _attempt(compute: Callable[[int], np.ndarray], index: int) -> np.ndarray | AudioError:
    try:
        return compute(index)
    except AudioError as error:
        return error


def read_journal(folder: Path, itemsize: int) -> list[dict[str, Any]]:
    """Rows of the clips that are wholly in the store; a line cut short by a crash does not count."""
    try:
        text = (folder / "journal.jsonl").read_bytes()
        held = (folder / "values.bin").stat().st_size
    except FileNotFoundError:
        return []
    rows: list[dict[str, Any]] = []
    for line in text.split(b"\n")[:-1]:  # what follows the last line end was cut short
        try:
            row = json.loads(line)
        except ValueError:
            break
        if is_kept(row) and (row["offset"] + row["length"]) * itemsize > held:
            break
        rows.append(row)
    return rows
