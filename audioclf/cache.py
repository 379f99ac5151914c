"""Arrays on disk, one a clip: computed once, then memory-mapped by every run.

There are two kinds: decoded waveforms, and features that a frozen encoder gives. A set of clips has one folder below
`cache_dir/waveforms` or `cache_dir/features`, named by what the clips are (path, size and time of change, or content)
and how their arrays are made. In it: `values.bin`, all arrays end to end; `journal.jsonl`, one line for each clip that
is wholly in `values.bin`, in order. The store is complete when all clips have a line; an interrupted or damaged one
goes on after the last clip that is whole.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from .errors import AudioclfError, AudioError

KINDS = {"waveforms": "decoded audio", "features": "features"}
"""Folder of each kind of store, and what to call it in a sentence."""
SYNC_CLIPS = 256
"""Clips between two moments at which the values are forced to disk before their journal lines are."""

EDGE_VALUES = 200
"""Values at either end of a clip that the resampler's filter reaches from beyond it: 116 from 8 to 16 kHz."""


@dataclass(frozen=True)
class ArrayStore:
    """Arrays of a set of clips, in the order they were given.

    Attributes:
        folder: Where the store lies on disk.
        dtype: Type of the values.
        offsets: First value of each clip in `values.bin`, (N,) int64.
        lengths: Values of each clip, (N,) int64; 0 for a clip that could not be read.
        errors: The sentence that says why, for each clip that could not be read, by its index.
        flat: Indices of the clips without any sound: silent, or constant.
    """

    folder: Path
    dtype: np.dtype
    offsets: np.ndarray
    lengths: np.ndarray
    errors: dict[int, str]
    flat: tuple[int, ...]

    def array(self, index: int) -> np.ndarray:
        """A view of one clip's values, flat; nothing is read before it is used."""
        if self.lengths[index] == 0:
            raise IndexError(f"clip {index} holds nothing: {self.errors.get(index)}")
        return np.memmap(
            self.folder / "values.bin",
            dtype=self.dtype,
            mode="r",
            offset=int(self.offsets[index]) * self.dtype.itemsize,
            shape=(int(self.lengths[index]),),
        )

    @property
    def num_bytes(self) -> int:
        """Size of all arrays on disk."""
        return int(self.lengths.sum()) * self.dtype.itemsize


def build(
    identities: Sequence[str],
    compute: Callable[[int], np.ndarray],
    *,
    recipe: str,
    cache_dir: str | Path,
    kind: str = "waveforms",
    dtype: type = np.float32,
    num_threads: int | None = None,
    progress: bool = False,
) -> ArrayStore:
    """Opens the store of these clips, computing first what is not in it yet.

    Arrays are computed by threads (decoding and resampling release the interpreter), a bounded number ahead of the
    one that is written, so memory stays flat whatever the size of the data set. A second process that asks for the
    same store waits for the first.

    Args:
        identities: What each clip is, as a string that changes when its content does.
        compute: Array of the clip with that index, which is stored flat; may raise `AudioError`.
        recipe: What `compute` does, as a string that changes when its result does.
        cache_dir: Folder for all stores.
        kind: `waveforms` or `features`.
        dtype: Type of the values.
        num_threads: Clips computed at a time; one a core when not given.
        progress: Show a progress bar.

    Raises:
        AudioclfError: when the folder cannot be written or the disk is full; what is there is kept.
    """
    folder = store_folder(identities, recipe, cache_dir, kind)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            rows = _complete(folder, len(identities), compute, np.dtype(dtype), num_threads, KINDS[kind], progress)
    except OSError as error:
        raise AudioclfError(
            f"The cache of {KINDS[kind]} in {str(folder)!r} cannot be written ({error.strerror or error}): "
            "free some space or choose another folder with cache_dir."
        ) from error
    return ArrayStore(
        folder=folder,
        dtype=np.dtype(dtype),
        offsets=np.array([row["offset"] for row in rows], dtype=np.int64),
        lengths=np.array([row["length"] for row in rows], dtype=np.int64),
        errors={index: row["error"] for index, row in enumerate(rows) if "error" in row},
        flat=tuple(index for index, row in enumerate(rows) if row.get("flat")),
    )


def store_folder(identities: Sequence[str], recipe: str, cache_dir: str | Path, kind: str) -> Path:
    """Where `build` keeps, or would keep, the store of these options."""
    key = hashlib.sha256("\n".join([recipe, *identities]).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return Path(cache_dir).expanduser() / kind / key


def report(cache_dir: str | Path) -> list[dict[str, Any]]:
    """Each store below `cache_dir`: its folder, size in bytes and number of clips."""
    rows = []
    for folder in _store_folders(cache_dir):
        rows.append(
            {
                "folder": str(folder),
                "bytes": sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
                "clips": len(_read_journal(folder, itemsize=0)),
            }
        )
    return rows


def clear(cache_dir: str | Path) -> int:
    """Deletes every store below `cache_dir`; returns the bytes freed. Fetched archives stay."""
    freed = sum(row["bytes"] for row in report(cache_dir))
    for folder in _store_folders(cache_dir):
        shutil.rmtree(folder)
    return freed


def _complete(
    folder: Path,
    num_clips: int,
    compute: Callable[[int], np.ndarray],
    dtype: np.dtype,
    num_threads: int | None,
    title: str,
    progress: bool,
) -> list[dict[str, Any]]:
    """The rows of all clips, once those that are missing are computed."""
    rows = _read_journal(folder, dtype.itemsize)
    _mend(folder, rows, compute, dtype)
    if len(rows) == num_clips:
        return rows
    missing = range(len(rows), num_clips)
    with contextlib.closing(_computed(missing, compute, num_threads or os.cpu_count() or 1)) as arrays:
        bar = tqdm(arrays, total=num_clips, initial=len(rows), desc=title, unit="clip", disable=not progress)
        _append(folder, rows, bar, dtype)
    return _read_journal(folder, dtype.itemsize)


def _mend(folder: Path, rows: list[dict[str, Any]], compute: Callable[[int], np.ndarray], dtype: np.dtype) -> None:
    """Adds the arrays of clips that failed once and can be read now (their permissions, their disk mended).

    They go to the end of the values: another run may be reading those that are there.
    """
    mended = False
    for index, row in enumerate(rows):
        if "error" in row and not isinstance(array := _attempt(compute, index), AudioError):
            end = _end(rows)
            _truncate(folder / "values.bin", end * dtype.itemsize)
            with open(folder / "values.bin", "ab") as values:
                values.write(array.astype(dtype, copy=False).tobytes())
                values.flush()
                os.fsync(values.fileno())
            rows[index], mended = _row(end, array), True
    if mended:
        partial = folder / "journal.partial"
        partial.write_bytes(b"".join(map(_journal_line, rows)))
        partial.replace(folder / "journal.jsonl")


def _end(rows: Iterable[dict[str, Any]]) -> int:
    """Values that belong to rows."""
    return max((row["offset"] + row["length"] for row in rows), default=0)


def _row(offset: int, array: np.ndarray | AudioError) -> dict[str, Any]:
    if isinstance(array, AudioError):
        return {"offset": offset, "length": 0, "error": str(array)}
    return {"offset": offset, "length": array.size, "flat": _is_flat(array)}


def _append(
    folder: Path, rows: list[dict[str, Any]], arrays: Iterable[np.ndarray | AudioError], dtype: np.dtype
) -> None:
    """Keeps the clips of `rows` and writes what follows them."""
    values_path, journal_path = folder / "values.bin", folder / "journal.jsonl"
    # What was being written when an earlier build was cut off goes; what is whole stays.
    end = _end(rows)
    _truncate(values_path, end * dtype.itemsize)
    _truncate(journal_path, sum(len(_journal_line(row)) for row in rows))
    lines: list[bytes] = []
    with open(values_path, "ab") as values, open(journal_path, "ab") as journal:
        try:
            for array in arrays:
                lines.append(_journal_line(_row(end, array)))
                if not isinstance(array, AudioError):
                    values.write(array.astype(dtype, copy=False).tobytes())
                    end += array.size
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
    clips: range, compute: Callable[[int], np.ndarray], num_threads: int
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
    except OSError as error:  # of the clip, not of the store
        return AudioError(f"clip {index}: cannot be read ({error}).")


def _read_journal(folder: Path, itemsize: int) -> list[dict[str, Any]]:
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
        if (row["offset"] + row["length"]) * itemsize > held:
            break
        rows.append(row)
    return rows


def _store_folders(cache_dir: str | Path) -> list[Path]:
    roots = [Path(cache_dir).expanduser() / kind for kind in KINDS]
    return sorted(folder for root in roots if root.is_dir() for folder in root.iterdir() if folder.is_dir())
