"""Unpacking archives that came from elsewhere: nothing may be written outside the folder, or without bound."""

import hashlib
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from filelock import FileLock

from ..errors import DatasetError

MAX_MEMBERS = 1_000_000
COPY_BYTES = 1 << 20
LOCK_FILE = ".lock"
ZIP_MARKS = (b"PK\x03\x04", b"PK\x05\x06")
"""How a zip begins, with members and without; a tar cannot, as its first member's name would have such bytes."""


def unpack(archive: str | Path, into: str | Path, max_bytes: int) -> Path:
    """Unpacks a tar or zip archive once; returns the folder that holds what was in it.

    The folder's name comes from the archive's size and time of change, so another archive gets another folder. It
    appears whole or not at all. Links, devices and any member whose path leads outside are refused, not skipped: an
    archive with one is not what it claims to be.

    Args:
        archive: A .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz file; its first bytes tell which.
        into: Parent of the folder.
        max_bytes: Most bytes that may be unpacked.

    Raises:
        DatasetError: naming the member that is not acceptable, or that the archive is damaged.
    """
    archive = Path(archive)
    status = archive.stat()
    key = hashlib.sha256(f"{archive.resolve()}|{status.st_size}|{status.st_mtime_ns}".encode()).hexdigest()[:16]
    folder = Path(into) / key
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(LOCK_FILE)):
            if not folder.is_dir():  # else another process was quicker
                _unpack_whole(archive, folder, max_bytes)
    # RuntimeError: a zip with a password, or with a compression that Python lacks.
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error, lzma.LZMAError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        of_the_disk = isinstance(error, OSError) and error.errno is not None
        advice = "make room or choose another cache_dir" if of_the_disk else "fetch it again"
        raise DatasetError(f"{str(archive)!r} cannot be unpacked ({reason}); {advice}.") from error
    return folder


def _unpack_whole(archive: Path, folder: Path, max_bytes: int) -> None:
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    try:
        partial.mkdir()
        _unpack_members(archive, partial, max_bytes)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _unpack_members(archive: Path, folder: Path, max_bytes: int) -> None:
    unpacked = 0
    for number, member in enumerate(_members(archive)):
        where = f"{str(archive)!r} holds {member.name!r}"
        path = PurePosixPath(member.name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", member.name):
            raise DatasetError(f"{where}, which leads outside its folder; this archive is not to be trusted.")
        if not (member.is_file or member.is_folder):
            raise DatasetError(f"{where}, which is a link or a device; this archive is not to be trusted.")
        unpacked += member.size
        if unpacked > max_bytes or number >= MAX_MEMBERS:
            raise DatasetError(
                f"{where}, which makes it more than {max_bytes / 2**30:.1f} GiB unpacked; "
                "this archive is not to be trusted."
            )
        target = folder.joinpath(*path.parts)
        if member.is_folder:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source, open(target, "wb") as sink:
            shutil.copyfileobj(source, sink, COPY_BYTES)


@dataclass(frozen=True)
class _Member:
    """What an archive holds under one name; neither file nor folder when it is a link or a device."""

    name: str
    size: int
    is_file: bool
    is_folder: bool
    open: Callable[[], BinaryIO]


def _members(archive: Path) -> Iterator[_Member]:
    with open(archive, "rb") as file:
        is_zip = file.read(4) in ZIP_MARKS
    if is_zip:
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)  # 0 when packed where files have no such mode
                is_folder = info.filename.endswith(("/", "\\"))
                is_file = not is_folder and kind in (0, stat.S_IFREG)
                # Opened by its entry and not by its name, which two members may share.
                yield _Member(info.filename, info.file_size, is_file, is_folder, lambda info=info: packed.open(info))
        return
    with tarfile.open(archive) as tar:
        for info in tar:
            yield _Member(info.name, info.size, info.isreg(), info.isdir(), lambda info=info: tar.extractfile(info))
        # tarfile stops at the end mark; reading on makes the decompressor compare its checksum.
        while tar.fileobj.read(COPY_BYTES):
            pass
