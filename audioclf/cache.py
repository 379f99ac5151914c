"""Decoded waveforms on disk: each clip is decoded and resampled once, then memory-mapped by every run.

A set of clips has one folder below `cache_dir/waveforms`, named by what the clips are (path, size and time of
change, or content) and how they are decoded. In it: `samples.f32`, all waveforms end to end as float32;
`journal.jsonl`, one line for each clip that is wholly in `samples.f32`, in order. The store is complete when all clips
have a line; an interrupted or damaged one goes on after the last clip that is whole.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from .errors import AudioclfError, AudioError

BYTES_PER_SAMPLE = 4
SYNC_CLIPS = 256
"""Clips between two moments at which the samples are forced to disk before their journal lines are."""


@dataclass(frozen=True)
class WaveformStore:
    """Waveforms of a set of clips, in the order they were given.

    Attributes:
        folder: Where the store lies on disk.
        offsets: First sample of each clip in `samples.f32`, (N,) int64.
        lengths: Samples of each clip, (N,) int64; 0 for a clip that could not be read.
        errors: The sentence that says why, for each clip that could not be read, by its index.
        silent: Indices of the clips whose samples are all zero.
    """

    folder: Path
    offsets: np.ndarray
    lengths: np.ndarray
    errors: dict[int, str]
    silent: tuple[int, ...]

    def waveform(self, index: int) -> np.ndarray:
        """A view (T,) float32 of one clip; nothing is read before it is used."""
        if self.lengths[index] == 0:
            raise IndexError(f"clip {index} holds no samples: {self.errors.get(index)}")
        return np.memmap(
            self.folder / "samples.f32",
            dtype=np.float32,
            mode="r",
            offset=int(self.offsets[index]) * BYTES_PER_SAMPLE,
            shape=(int(self.lengths[index]),),
        )

    @property
    def num_bytes(self) -> int:
        """Size of all waveforms on disk."""
        return int(self.lengths.sum()) * BYTES_PER_SAMPLE


def build(
    identities: Sequence[str],
    decode: Callable[[int], np.ndarray],
    *,
    recipe: str,
    cache_dir: str | Path,
    progress: bool = False,
) -> WaveformStore:
    """Opens the store of these clips, decoding first what is not in it yet.

    Clips are decoded by threads (decoding and resampling release the interpreter), a bounded number ahead of the
    one that is written, so memory stays flat whatever the size of the data set. A second process that asks for the
    same store waits for the first.

    Args:
        identities: What each clip is, as a string that changes when its content does.
        decode: Waveform (T,) float32 of the clip with that index; may raise `AudioError`.
        recipe: What `decode` does, as a string that changes when its result does.
        cache_dir: Folder for all stores.
        progress: Show a progress bar.

    Raises:
        AudioclfError: when the folder cannot be written or the disk is full; what is there is kept.
    """
    key = hashlib.sha256("\n".join([recipe, *identities]).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    folder = Path(cache_dir).expanduser() / "waveforms" / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            rows = _readable_rows(_read_journal(folder), decode)
            if len(rows) < len(identities):
                _fill(folder, rows, len(identities), decode, progress)
                rows = _read_journal(folder)
    except OSError as error:
        raise AudioclfError(
            f"The cache of decoded audio in {str(folder)!r} cannot be written ({error.strerror or error}): "
            "free some space or choose another folder with cache_dir."
        ) from error
    return _open(folder, rows)


def report(cache_dir: str | Path) -> list[dict[str, Any]]:
    """Each store below `cache_dir`: its folder, size in bytes and number of clips."""
    rows = []
    for folder in _store_folders(cache_dir):
        rows.append(
            {
                "folder": str(folder),
                "bytes": sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
                "clips": len(_read_journal(folder)),
            }
        )
    return rows


def clear(cache_dir: str | Path) -> int:
    """Deletes every store of decoded audio below `cache_dir`; returns the bytes freed. Fetched archives stay."""
    freed = sum(row["bytes"] for row in report(cache_dir))
    for folder in _store_folders(cache_dir):
        shutil.rmtree(folder)
    return freed


def _readable_rows(rows: list[dict[str, Any]], decode: Callable[[int], np.ndarray]) -> list[dict[str, Any]]:
    """The rows before the first clip that failed once and can be read now (its permissions, its disk mended)."""
    for index, row in enumerate(rows):
        if "error" in row and not isinstance(_attempt(decode, index), AudioError):
            return rows[:index]
    return rows


def _fill(
    folder: Path, rows: list[dict[str, Any]], num_clips: int, decode: Callable[[int], np.ndarray], progress: bool
) -> None:
    """Keeps the clips of `rows` and decodes, in order, all that come after them."""
    samples_path, journal_path = folder / "samples.f32", folder / "journal.jsonl"
    # What was being written when an earlier build was cut off goes; what is whole stays.
    _truncate(samples_path, sum(row["length"] for row in rows) * BYTES_PER_SAMPLE)
    _truncate(journal_path, sum(len(_journal_line(row)) for row in rows))
    lines: list[bytes] = []
    with (
        open(samples_path, "ab") as samples,
        open(journal_path, "ab") as journal,
        tqdm(total=num_clips, initial=len(rows), desc="decoding", unit="clip", disable=not progress) as bar,
    ):
        for waveform in _decoded(range(len(rows), num_clips), decode):
            if isinstance(waveform, AudioError):
                lines.append(_journal_line({"length": 0, "error": str(waveform)}))
            else:
                samples.write(waveform.astype(np.float32, copy=False).tobytes())
                lines.append(_journal_line({"length": len(waveform), "silent": not waveform.any()}))
            if len(lines) >= SYNC_CLIPS:
                _commit(samples, journal, lines)
            bar.update()
        _commit(samples, journal, lines)


def _journal_line(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _truncate(path: Path, num_bytes: int) -> None:
    path.touch()
    os.truncate(path, num_bytes)


def _commit(samples: BinaryIO, journal: BinaryIO, lines: list[bytes]) -> None:
    """Samples reach the disk before the lines that vouch for them."""
    samples.flush()
    os.fsync(samples.fileno())
    journal.writelines(lines)
    journal.flush()
    os.fsync(journal.fileno())
    lines.clear()


def _decoded(clips: range, decode: Callable[[int], np.ndarray]) -> Iterator[np.ndarray | AudioError]:
    """Decodes in parallel, yields in order, at most a few clips ahead."""
    num_threads = os.cpu_count() or 1
    remaining = iter(clips)
    with ThreadPoolExecutor(num_threads) as pool:
        queue: list[Future] = [pool.submit(_attempt, decode, index) for index in islice(remaining, 2 * num_threads)]
        try:
            while queue:
                waveform = queue.pop(0).result()
                queue.extend(pool.submit(_attempt, decode, index) for index in islice(remaining, 1))
                yield waveform
        finally:
            pool.shutdown(cancel_futures=True)


def _attempt(decode: Callable[[int], np.ndarray], index: int) -> np.ndarray | AudioError:
    try:
        return decode(index)
    except AudioError as error:
        return error
    except OSError as error:  # of the clip, not of the store
        return AudioError(f"clip {index}: cannot be read ({error}).")


def _read_journal(folder: Path) -> list[dict[str, Any]]:
    """Rows of the clips that are wholly in the store; a line cut short by a crash does not count."""
    try:
        text = (folder / "journal.jsonl").read_bytes()
        held = (folder / "samples.f32").stat().st_size // BYTES_PER_SAMPLE
    except FileNotFoundError:
        return []
    rows: list[dict[str, Any]] = []
    for line in text.split(b"\n")[:-1]:  # what follows the last line end was cut short
        try:
            row = json.loads(line)
        except ValueError:
            break
        held -= row["length"]
        if held < 0:
            break
        rows.append(row)
    return rows


def _open(folder: Path, rows: list[dict[str, Any]]) -> WaveformStore:
    lengths = np.array([row["length"] for row in rows], dtype=np.int64)
    return WaveformStore(
        folder=folder,
        offsets=np.cumsum(lengths) - lengths,
        lengths=lengths,
        errors={index: row["error"] for index, row in enumerate(rows) if "error" in row},
        silent=tuple(index for index, row in enumerate(rows) if row.get("silent")),
    )


def _store_folders(cache_dir: str | Path) -> list[Path]:
    root = Path(cache_dir).expanduser() / "waveforms"
    return sorted(folder for folder in root.iterdir() if folder.is_dir()) if root.is_dir() else []
