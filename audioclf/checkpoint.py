"""Files and folders that are written whole or not at all, and folders that show damage.

A folder is filled beside its place, as `.NAME.partial`, with the SHA-256 of every file in `checksums.sha256` (which
`sha256sum -c` reads too), and forced to disk. Only then do renames put the earlier one aside, as `NAME-1`, and the new
one in its place. Whenever the process or the machine dies, one of them is whole.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from .errors import CheckpointError
from .result import HISTORY_FILE

CHECKSUMS_FILE = "checksums.sha256"


def write_folder(folder: Path, fill: Callable[[Path], None], num_earlier: int = 0) -> None:
    """Puts a new folder in place of the one of that name, if there is one.

    Args:
        folder: Its place.
        fill: Writes files into the folder it is given.
        num_earlier: How many earlier ones are kept, as `NAME-1` (the latest), `NAME-2` and so on.

    Raises:
        CheckpointError: when the disk is full or refuses; what was there before is still there, and whole.
    """
    partial = _partial(folder)
    try:
        _remove(partial)
        partial.mkdir(parents=True)
        fill(partial)
        names = sorted(path.name for path in partial.iterdir())
        (partial / CHECKSUMS_FILE).write_text(_checksums(partial, names), encoding="utf-8", newline="\n")
        for path in (*partial.iterdir(), partial):
            _force_to_disk(path)
        _put_in_place(partial, folder)
        keep(folder, num_earlier)
    except (OSError, MemoryError, SafetensorError, RuntimeError) as error:  # the last two: the writers of tensors
        _remove(partial)
        raise CheckpointError(f"{str(folder)!r} cannot be written ({_reason(error)}).") from error


def write_file(path: Path, content: str | bytes) -> None:
    """Puts a new file in place of the one of that name, if there is one.

    Raises:
        OSError: when the disk is full or refuses; what was there before is still there.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        _force_to_disk(partial)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def generations(folder: Path) -> list[Path]:
    """The folder and its earlier ones, the newest first; `.NAME.partial` too, which may be whole."""
    numbered = {}
    if folder.parent.is_dir():
        for path in folder.parent.iterdir():
            if match := re.fullmatch(re.escape(folder.name) + r"-([1-9][0-9]*)", path.name):
                numbered[int(match[1])] = path
    return [
        path for path in (_partial(folder), folder, *(numbered[number] for number in sorted(numbered))) if path.is_dir()
    ]


def damage(folder: Path) -> str | None:
    """What is wrong with a folder of ours, or None when every file is as it was written; others may lie beside them."""
    try:
        noted = (folder / CHECKSUMS_FILE).read_bytes()
        names = [_name(line) for line in noted.split(b"\n") if line and not line.startswith(b"#")]
        found = _checksums(folder, names).encode("utf-8")
    except (OSError, ValueError) as error:  # the latter for a damaged name
        return _reason(error)
    if noted == found:
        return None
    changed = sorted({_name(line) for line in set(noted.split(b"\n")) ^ set(found.split(b"\n"))})
    return f"{', '.join(changed)} is not as it was written"


def restore(generation: Path, folder: Path) -> None:
    """Makes one of the generations the folder itself; newer ones, which are damaged, are deleted."""
    newer = generations(folder)
    for path in newer[: newer.index(generation)]:
        _remove(path)
    if generation != folder:
        _put_in_place(generation, folder)


def keep(folder: Path, num_earlier: int) -> None:
    """Deletes all but so many of the earlier folders, and what an interrupted write has left."""
    _remove(_partial(folder))
    for path in [path for path in generations(folder) if path != folder][num_earlier:]:
        _remove(path)


def best_of(path: str | Path) -> Path:
    """The best checkpoint, where a path is the folder of a run; else the path itself."""
    folder = Path(path).expanduser()
    is_run = (folder / HISTORY_FILE).is_file() and (folder / "best").is_dir()
    return folder / "best" if is_run else folder


def located(checkpoint: str | Path) -> str:
    """A checkpoint as it is opened: a run's best, a folder of its own, or else a hub id as it is."""
    folder = best_of(checkpoint)
    return str(folder if folder.exists() else checkpoint)


def _put_in_place(new: Path, folder: Path) -> None:
    """Renames only: an earlier folder goes to number 1, number 1 to number 2, and so on."""
    aside = [path for path in generations(folder) if path not in (new, _partial(folder))]
    if folder in aside:
        for number in range(len(aside), 0, -1):
            aside[number - 1].rename(folder.with_name(f"{folder.name}-{number}"))
    try:
        new.rename(folder)
    except OSError:
        if folder in aside:
            folder.with_name(f"{folder.name}-1").rename(folder)
        raise
    _force_to_disk(folder.parent)


def _checksums(folder: Path, names: list[str]) -> str:
    """The text of the checksums file that belongs to these files as they are."""
    lines = [f"{_digest(folder / name)}  {name}\n" for name in names]
    return "".join([*lines, f"# {len(names)} files\n"])  # a comment to sha256sum: without it lines could be missing


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    except FileNotFoundError:
        return "0" * 64  # the digest of nothing that exists
    return digest.hexdigest()


def _name(line: bytes) -> str:
    """The file that a line of checksums is about; a line that was damaged itself is about the checksums."""
    match = re.fullmatch(rb"[0-9a-f]{64}  (.+)", line)
    return match[1].decode("utf-8", "replace") if match else CHECKSUMS_FILE


def _partial(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # what is in the way still is told by what comes next


def _force_to_disk(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: BaseException) -> str:
    """The system's own words, which may lie beneath those of a writer of tensors."""
    beneath: BaseException | None = error
    while beneath is not None and not isinstance(beneath, OSError):
        beneath = beneath.__context__
    return getattr(beneath, "strerror", None) or str(error).split("\n")[0]
