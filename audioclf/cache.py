"""Arrays on disk, one a clip: computed once, then memory-mapped by every run.

There are two kinds: decoded waveforms, and features that a frozen encoder gives. A set of clips has one folder below
`cache_dir/waveforms` or `cache_dir/features`, named by what the clips are (path, size and time of change, or content)
and how their arrays are made. In it: `values.bin`, all arrays end to end; `journal.jsonl`, one line for each clip that
is wholly in `values.bin`, in order. The store is complete when all clips have a line; an interrupted or damaged one
goes on after the last clip that is whole. Where there is no room for a clip, its line has its length, and its array is
computed whenever it is wanted.
"""

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from .errors import AudioclfError, AudioError
from .journal import Growing, complete, is_kept, read_journal

KINDS = {"waveforms": "decoded audio", "features": "features"}
"""Folder of each kind of store, and what to call it in a sentence."""
KEPT_ROWS = "rows"
"""Folder of the encoded audio of a stream's held-out clips."""


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
        names: What to call each clip in a message.
        kept: Whether each clip's values are on disk, (N,).
        compute: What computes those that are not; None where all are.
    """

    folder: Path
    dtype: np.dtype
    offsets: np.ndarray
    lengths: np.ndarray
    errors: dict[int, str]
    flat: tuple[int, ...]
    names: Sequence[str]
    kept: np.ndarray
    compute: Callable[[int], np.ndarray] | None

    def array(self, index: int) -> np.ndarray:
        """One clip's values, flat: a view of those on disk, of which nothing is read before it is used, or anew.

        Raises:
            AudioError: for a clip that is not kept and can no longer be read, or has another length by now.
        """
        if self.lengths[index] == 0:
            raise IndexError(f"{self.names[index]} holds nothing: {self.errors.get(index)}")
        if not self.kept[index]:
            values = np.asarray(self.compute(index), dtype=self.dtype).reshape(-1)
            if len(values) != self.lengths[index]:
                raise AudioError(f"{self.names[index]}: has changed since the run began; leave the files as they are.")
            return values
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
        return int(self.lengths[self.kept].sum()) * self.dtype.itemsize


def build(
    identities: Sequence[str],
    compute: Callable[[int], np.ndarray],
    *,
    recipe: str,
    cache_dir: str | Path,
    names: Sequence[str] | None = None,
    kind: str = "waveforms",
    dtype: type = np.float32,
    num_threads: int | None = None,
    progress: bool = False,
    max_bytes: float = math.inf,
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
        names: What to call the clips in a message; their identities when not given.
        kind: `waveforms` or `features`.
        dtype: Type of the values.
        num_threads: Clips computed at a time; one a core when not given.
        progress: Show a progress bar.
        max_bytes: Size that the arrays on disk may grow to; each clip is computed once all the same.

    Raises:
        AudioclfError: when the folder cannot be written or the disk is full; what is there is kept.
    """
    folder = store_folder(identities, recipe, cache_dir, kind)
    names = identities if names is None else names

    def compute_named(index: int) -> np.ndarray:
        try:
            return compute(index)
        except OSError as error:  # of the clip, not of the store
            raise AudioError(f"{names[index]}: cannot be read ({error}).") from error

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            growing = Growing(folder, compute_named, np.dtype(dtype), num_threads or os.cpu_count() or 1, max_bytes)
            rows = complete(growing, len(identities), KINDS[kind], progress)
    except OSError as error:
        raise AudioclfError(
            f"The cache of {KINDS[kind]} in {str(folder)!r} cannot be written ({error.strerror or error}): "
            "free some space or choose another folder with cache_dir."
        ) from error
    kept = np.array([is_kept(row) for row in rows], dtype=bool)
    return ArrayStore(
        folder=folder,
        dtype=np.dtype(dtype),
        offsets=np.array([row["offset"] for row in rows], dtype=np.int64),
        lengths=np.array([row["length"] for row in rows], dtype=np.int64),
        errors={index: row["error"] for index, row in enumerate(rows) if "error" in row},
        flat=tuple(index for index, row in enumerate(rows) if row.get("flat")),
        names=names,
        kept=kept,
        compute=None if kept.all() else compute,
    )


def store_folder(identities: Sequence[str], recipe: str, cache_dir: str | Path, kind: str) -> Path:
    """Where `build` keeps, or would keep, the store of these options."""
    key = hashlib.sha256("\n".join([recipe, *identities]).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return Path(cache_dir).expanduser() / kind / key


def report(cache_dir: str | Path) -> list[dict[str, Any]]:
    """The folder, size in bytes and number of clips of each store below `cache_dir`, and of streams' held-out clips."""
    cache_dir, rows = Path(cache_dir).expanduser(), []
    for folder in _store_folders(cache_dir):
        rows.append({**_size(folder), "clips": len(read_journal(folder, itemsize=0))})
    if (kept := cache_dir / KEPT_ROWS).is_dir():
        rows.append({**_size(kept), "clips": len(list(kept.iterdir()))})
    return rows


def clear(cache_dir: str | Path) -> int:
    """Deletes all that `report` tells of; returns the bytes freed. Fetched archives stay."""
    rows = report(cache_dir)
    for row in rows:
        shutil.rmtree(row["folder"])
    return sum(row["bytes"] for row in rows)


def _size(folder: Path) -> dict[str, Any]:
    return {"folder": str(folder), "bytes": sum(file.stat().st_size for file in folder.iterdir() if file.is_file())}


def _store_folders(cache_dir: Path) -> list[Path]:
    roots = [cache_dir / kind for kind in KINDS]
    return sorted(folder for root in roots if root.is_dir() for folder in root.iterdir() if folder.is_dir())
