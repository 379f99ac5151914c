"""Unpacking archives of unknown origin: whole, once, inside, or not at all."""

import gzip
import io
import os
import random
import re
import stat
import subprocess
import sys
import tarfile
import zipfile
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


def pack_zip(path: Path, members: dict[str, bytes], modes: dict[str, int] | None = None, **options) -> Path:
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = file.compression
            info.external_attr = (modes or {}).get(name, 0) << 16
            file.writestr(info, content)
    return path


class TestZip:
    @pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
    @pytest.mark.parametrize("ending", ["zip", "ZIP", "dat"])
    def test_a_good_archive(self, tmp_path, place, compression, ending):
        archive = pack_zip(tmp_path / f"x.{ending}", {"genres/": b"", **GOOD}, compression=compression)
        folder = unpack(archive, place, LIMIT)
        assert tree(folder) == GOOD
        assert unpacked(place) == [folder]
        assert unpack(archive, place, LIMIT) == folder

    def test_modes_of_files_are_not_taken_over(self, tmp_path, place):
        modes = {"a.wav": stat.S_IFREG | 0o4777, "b/": stat.S_IFDIR | 0o000}
        folder = unpack(pack_zip(tmp_path / "x.zip", {"a.wav": b"1", "b/": b"", "b/c.wav": b"2"}, modes), place, LIMIT)
        assert tree(folder) == {"a.wav": b"1", "b/c.wav": b"2"}
        assert not os.stat(folder / "a.wav").st_mode & 0o7000

    def test_folders_of_windows(self, tmp_path, place):
        archive = pack_zip(tmp_path / "x.zip", {"a\\": b"", "a\\b.wav": b"1"})
        assert tree(unpack(archive, place, LIMIT)) == {"a/b.wav": b"1"}

    def test_an_empty_archive(self, tmp_path, place):
        assert tree(unpack(pack_zip(tmp_path / "x.zip", {}), place, LIMIT)) == {}

    def test_a_tar_that_holds_a_zip_is_a_tar(self, tmp_path, place):
        """Neither its first member's name nor a zip at its end make it one."""
        inner = pack_zip(tmp_path / "inner.zip", {"evil.wav": b"1"}).read_bytes()
        archive = pack(tmp_path / "x.tar", member("PK.wav", b"2"), member("inner.zip", inner), mode="w")
        assert tree(unpack(archive, place, LIMIT)) == {"PK.wav": b"2", "inner.zip": inner}

    @pytest.mark.parametrize(
        "name", ["../../canary", "a/../../../canary", "/canary", "..\\..\\canary", "\\canary", "C:\\canary", "c:canary"]
    )
    def test_members_outside(self, tmp_path, place, name):
        archive = pack_zip(tmp_path / "x.zip", {"first.wav": b"1", name: b"dead", "last.wav": b"1"})
        before = tree(tmp_path)
        with pytest.raises(DatasetError, match=re.escape(f"x.zip' holds {name!r}, {OUTSIDE}")):
            unpack(archive, place, LIMIT)
        assert tree(tmp_path) == before
        assert not unpacked(place)

    @pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
    def test_links_and_devices(self, tmp_path, place, kind):
        archive = pack_zip(tmp_path / "x.zip", {"first.wav": b"1", "door": b"../../.."}, {"door": kind | 0o777})
        with pytest.raises(DatasetError, match=re.escape(f"x.zip' holds 'door', {LINK}")):
            unpack(archive, place, LIMIT)
        assert not unpacked(place)

    def test_the_bound(self, tmp_path, place):
        archive = pack_zip(tmp_path / "x.zip", {"a.wav": bytes(LIMIT), "b.wav": b"1"}, compression=zipfile.ZIP_DEFLATED)
        with pytest.raises(
            DatasetError, match=r"'b\.wav', which makes it more than 0\.0 GiB unpacked; this archive is"
        ):
            unpack(archive, place, LIMIT)
        assert not unpacked(place)
        assert unpack(archive, place, LIMIT + 1).is_dir()

    def test_a_size_that_lies(self, tmp_path, place):
        """What is unpacked is what was announced, or nothing."""
        archive = pack_zip(tmp_path / "x.zip", {"a.wav": bytes(LIMIT)}, compression=zipfile.ZIP_DEFLATED)
        size = LIMIT.to_bytes(4, "little")
        assert archive.read_bytes().count(size) == 2
        archive.write_bytes(archive.read_bytes().replace(size, (1000).to_bytes(4, "little")))
        with pytest.raises(DatasetError, match=r"x\.zip' cannot be unpacked \(Bad CRC-32 .*\); fetch it again\.$"):
            unpack(archive, place, LIMIT)
        assert not unpacked(place)

    @pytest.mark.parametrize("how", [how for how in DAMAGE if how not in ("no archive", "empty")])
    def test_damage(self, tmp_path, place, how):
        noise = random.Random(0).randbytes(200_000)
        archive = pack_zip(tmp_path / "x.zip", {"a.wav": noise, "b.wav": noise[::-1]})
        archive.write_bytes(DAMAGE[how](archive.read_bytes()))
        with pytest.raises(DatasetError, match=r"x\.zip' cannot be unpacked \([^\n]*\); fetch it again\.$"):
            unpack(archive, place, LIMIT)
        assert not unpacked(place)

    @pytest.mark.parametrize(("field", "value"), [(6, 1), (8, 97)])
    def test_a_password_or_an_unknown_compression(self, tmp_path, place, field, value):
        archive = pack_zip(tmp_path / "x.zip", {"a.wav": b"1"})
        content = bytearray(archive.read_bytes())
        for header in (content.find(b"PK\3\4"), content.find(b"PK\1\2") + 2):
            content[header + field] = value
        archive.write_bytes(content)
        with pytest.raises(DatasetError, match=r"x\.zip' cannot be unpacked \((File .* is encrypted|That compression)"):
            unpack(archive, place, LIMIT)
        assert not unpacked(place)
