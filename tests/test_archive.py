"""Unpacking archives of unknown origin: whole, once, inside, or not at all."""

import gzip
import io
import os
import random
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from audioclf import DatasetError
from audioclf.datasets.archive import LOCK_FILE, unpack

GOOD = {"genres/blues/blues.00000.wav": b"RIFF one", "genres/rock/ro ck.wav": b"RIFF two" * 5000, "읽기.txt": b""}
LIMIT = 10**7


def member(name: str, content: bytes | None = b"x", **fields) -> tuple[tarfile.TarInfo, io.BytesIO | None]:
    info = tarfile.TarInfo(name)
    if content is not None:
        info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, None if content is None else io.BytesIO(content)


def pack(path: Path, *members: tuple, mode: str = "w:gz") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for info, content in members:
            tar.addfile(info, content)
    return path


def good(path: Path, mode: str = "w:gz") -> Path:
    return pack(path, *(member(name, content) for name, content in GOOD.items()), mode=mode)


def tree(folder: Path) -> dict[str, bytes]:
    """What lies below, but for the lock."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != LOCK_FILE]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def unpacked(place: Path) -> list[Path]:
    """All that lies there but the lock."""
    return [entry for entry in place.iterdir() if entry.name != LOCK_FILE]


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder to unpack into, deep enough that `../..` stays in sight, beside a canary."""
    (tmp_path / "canary").write_bytes(b"sings")
    (tmp_path / "a" / "b").mkdir(parents=True)
    return tmp_path / "a" / "b" / "into"


@pytest.mark.parametrize(
    ("ending", "mode"), [("tar.gz", "w:gz"), ("tar", "w"), ("tar.bz2", "w:bz2"), ("tar.xz", "w:xz"), ("dat", "w:gz")]
)
def test_a_good_archive(tmp_path, place, ending, mode):
    folder = unpack(good(tmp_path / f"x.{ending}", mode), place, LIMIT)
    assert folder.parent == place
    assert tree(folder) == GOOD
    assert unpacked(place) == [folder]


def test_folders_dots_and_long_names(tmp_path, place):
    long = "/".join(["n" * 90] * 4) + ".wav"
    folder = unpack(
        pack(
            tmp_path / "x.tar.gz",
            member("./", None, type=tarfile.DIRTYPE),
            member("./genres/", None, type=tarfile.DIRTYPE, mode=0),
            member("./genres/a.wav", b"1", mode=0o4777, uid=12345),
            member(long, b"2"),
            member("a..b/..c.wav", b"3"),
        ),
        place,
        LIMIT,
    )
    assert tree(folder) == {"genres/a.wav": b"1", long: b"2", "a..b/..c.wav": b"3"}
    assert not os.stat(folder / "genres" / "a.wav").st_mode & 0o7000


def test_it_is_unpacked_once(tmp_path, place):
    archive = good(tmp_path / "x.tar.gz")
    folder = unpack(archive, place, LIMIT)
    marker = folder / "genres" / "blues" / "blues.00000.wav"
    marker.write_bytes(b"touched by the user")
    assert unpack(archive, place, LIMIT) == folder
    assert unpack(os.path.relpath(archive), place, LIMIT) == folder
    assert marker.read_bytes() == b"touched by the user"


def test_another_archive_gets_another_folder(tmp_path, place):
    first = unpack(good(tmp_path / "x.tar.gz"), place, LIMIT)
    (tmp_path / "x.tar.gz").unlink()
    second = unpack(pack(tmp_path / "x.tar.gz", member("other.txt", b"new")), place, LIMIT)
    assert first != second
    assert (tree(first), tree(second)) == (GOOD, {"other.txt": b"new"})


OUTSIDE = "which leads outside its folder; this archive is not to be trusted."
LINK = "which is a link or a device; this archive is not to be trusted."
HOSTILE = {
    "parent": (member("../../canary"), OUTSIDE),
    "inner parent": (member("genres/../../../canary"), OUTSIDE),
    "parent in the end": (member("genres/..", None, type=tarfile.DIRTYPE), OUTSIDE),
    "backslash parent": (member("..\\..\\canary"), OUTSIDE),
    "mixed slashes": (member("genres\\../..\\../canary"), OUTSIDE),
    "absolute": (member("/canary"), OUTSIDE),
    "two slashes": (member("//host/canary"), OUTSIDE),
    "backslash root": (member("\\canary"), OUTSIDE),
    "drive": (member("C:\\canary"), OUTSIDE),
    "drive with slash": (member("c:/canary"), OUTSIDE),
    "drive without a slash": (member("c:canary"), OUTSIDE),
    "symlink outwards": (member("genres", None, type=tarfile.SYMTYPE, linkname="../../.."), LINK),
    "symlink inwards": (member("genres/l.wav", None, type=tarfile.SYMTYPE, linkname="blues.wav"), LINK),
    "hardlink": (member("genres/l.wav", None, type=tarfile.LNKTYPE, linkname="first.wav"), LINK),
    "fifo": (member("pipe", None, type=tarfile.FIFOTYPE), LINK),
    "character device": (member("tty", None, type=tarfile.CHRTYPE, devmajor=5), LINK),
    "block device": (member("sda", None, type=tarfile.BLKTYPE, devmajor=8), LINK),
    "unknown kind": (member("what", None, type=b"Z"), LINK),
    "too much": (
        member("genres/zeros.wav", bytes(LIMIT)),
        "which makes it more than 0.0 GiB unpacked; this archive is not to be trusted.",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_members(tmp_path, place, case):
    """Refused by name, with what was unpacked before it taken away again, and nothing anywhere else."""
    evil, sentence = HOSTILE[case]
    archive = pack(tmp_path / "x.tar.gz", member("first.wav", b"1"), evil, member("last.wav", b"1"))
    before = tree(tmp_path)
    with pytest.raises(DatasetError, match=re.escape(f"x.tar.gz' holds {evil[0].name.rstrip('/')!r}, {sentence}")):
        unpack(archive, place, LIMIT)
    assert tree(tmp_path) == before
    assert not unpacked(place)
    assert not Path("/canary").exists()


def test_a_link_cannot_lead_a_later_member_out(tmp_path, place):
    link = member("door", None, type=tarfile.SYMTYPE, linkname=str(tmp_path))
    with pytest.raises(DatasetError, match="'door', which is a link"):
        unpack(pack(tmp_path / "x.tar", link, member("door/canary", b"dead"), mode="w"), place, LIMIT)
    assert (tmp_path / "canary").read_bytes() == b"sings"


def test_a_bomb_is_met_by_its_header(tmp_path, place):
    """A header that claims 8 GiB stops the unpacking before a byte of it is written."""
    info, _ = member("zeros.wav", None, size=8 * 2**30)
    path = tmp_path / "x.tar.gz"
    with gzip.open(path, "wb") as file:
        file.write(info.tobuf() + bytes(1000))
    with pytest.raises(DatasetError, match=r"'zeros\.wav', which makes it more than 4\.0 GiB unpacked"):
        unpack(path, place, 4 * 2**30)
    assert not unpacked(place)


def test_exactly_the_limit_is_allowed(tmp_path, place):
    assert unpack(good(tmp_path / "x.tar"), place, sum(map(len, GOOD.values()))).is_dir()


DAMAGE = {
    "cut": lambda content: content[: len(content) // 3],
    "header only": lambda content: content[:10],
    "no archive": lambda content: b"<html>sign in first</html>" * 100,
    "empty": lambda content: b"",
    "wiped": lambda content: content[:50_000] + bytes(20_000) + content[70_000:],
    "one bit": lambda content: content[:50_000] + bytes([content[50_000] ^ 1]) + content[50_001:],
    "one bit near the middle": lambda content: flip(content, b"b.wav"),
}


def flip(content: bytes, mark: bytes) -> bytes:
    """One bit changed where `mark` stands; noise is stored as it is, and the header between it nearly so."""
    place = content.find(mark) if mark in content else len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_damaged_archives(tmp_path, place, mode, how):
    """All three compressions carry checksums: nothing that differs from what was packed may pass."""
    noise = random.Random(0).randbytes(200_000)
    archive = pack(tmp_path / "x.tar.gz", member("a.wav", noise), member("b.wav", noise[::-1]), mode=mode)
    archive.write_bytes(DAMAGE[how](archive.read_bytes()))
    with pytest.raises(DatasetError, match=r"(?s)x\.tar\.gz' cannot be unpacked \(.*\); fetch it again\.$"):
        unpack(archive, place, LIMIT)
    assert not unpacked(place)


def test_what_is_no_archive_is_refused_in_one_line(tmp_path, place):
    (tmp_path / "x.tar.gz").write_text("<html>sign in first</html>")
    with pytest.raises(DatasetError, match=r"^.*x\.tar\.gz' cannot be unpacked \([^\n]*\); fetch it again\.$"):
        unpack(tmp_path / "x.tar.gz", place, LIMIT)


def test_after_a_failure_a_good_copy_unpacks(tmp_path, place):
    archive = good(tmp_path / "x.tar.gz")
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(DatasetError):
        unpack(archive, place, LIMIT)
    archive.write_bytes(content)
    assert tree(unpack(archive, place, LIMIT)) == GOOD


def test_what_a_killed_process_left_goes(tmp_path, place):
    archive = good(tmp_path / "x.tar.gz")
    folder = unpack(archive, place, LIMIT)
    folder.rename(place / f".{folder.name}.partial")
    (place / f".{folder.name}.partial" / "half.wav").write_bytes(b"ha")
    assert tree(unpack(archive, place, LIMIT)) == GOOD
    assert unpacked(place) == [folder]


def test_two_processes_at_once(tmp_path, place):
    """Both get the whole folder, and there is one."""
    content = random.Random(1).randbytes(20_000)
    archive = pack(tmp_path / "x.tar", *(member(f"{n:03}.wav", content) for n in range(300)), mode="w")
    code = (
        "import sys; from audioclf.datasets.archive import unpack; sys.stdin.read()\n"
        "folder = unpack(sys.argv[1], sys.argv[2], 10**8); print(folder, len(list(folder.iterdir())))"
    )
    command = [sys.executable, "-c", code, str(archive), str(place)]
    racers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for racer in racers:
        racer.stdin.close()
    said = {racer.stdout.read() for racer in racers}
    assert [racer.wait() for racer in racers] == [0, 0, 0]
    (folder,) = unpacked(place)
    assert said == {f"{folder} 300\n"}
    assert set(tree(folder).values()) == {content}
