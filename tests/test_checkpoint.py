"""Folders that are whole or not there: replacing, keeping earlier ones, and seeing every damage."""

import os
import subprocess

import numpy as np
import pytest

from audioclf import checkpoint
from audioclf.errors import CheckpointError


def filled(text):
    """What fills a folder with two files of that text."""

    def fill(folder):
        (folder / "weights").write_text(text)
        (folder / "names, with a space").write_text(text * 3)

    return fill


def texts(folder):
    """The text of the folder and its generations, the newest first."""
    return {path.name: (path / "weights").read_text() for path in checkpoint.generations(folder)}


def test_replacing_keeps_so_many_earlier_ones(tmp_path):
    last = tmp_path / "last"
    for number, expected in (
        (1, {"last": "1"}),
        (2, {"last": "2", "last-1": "1"}),
        (3, {"last": "3", "last-1": "2", "last-2": "1"}),
        (4, {"last": "4", "last-1": "3", "last-2": "2"}),
    ):
        checkpoint.write_folder(last, filled(str(number)), num_earlier=2)
        assert texts(last) == expected
        assert all(checkpoint.damage(folder) is None for folder in checkpoint.generations(last))
    checkpoint.keep(last, 0)
    assert texts(last) == {"last": "4"}
    assert {path.name for path in tmp_path.iterdir()} == {"last"}


def test_sha256sum_agrees(tmp_path):
    checkpoint.write_folder(tmp_path / "last", filled("x"))
    subprocess.run(["sha256sum", "--check", "--strict", checkpoint.CHECKSUMS_FILE], cwd=tmp_path / "last", check=True)


@pytest.mark.parametrize("fails_in", ["fill", "rename", "fsync", "checksums"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch, fails_in, error):
    last = tmp_path / "last"
    checkpoint.write_folder(last, filled("old"))

    def fail(*_arguments, **_options):
        raise error

    fill = filled("new")
    if fails_in == "fill":

        def fill(folder):
            filled("new")(folder)
            fail()

    elif fails_in == "rename":
        monkeypatch.setattr(checkpoint.Path, "rename", fail)
    elif fails_in == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(checkpoint, "_checksums", fail)
    with pytest.raises((CheckpointError, KeyboardInterrupt)) as caught:
        checkpoint.write_folder(last, fill)
    if isinstance(error, OSError):
        assert str(caught.value) == f"{str(last)!r} cannot be written (No space left on device)."
        assert texts(last) == {"last": "old"}
    monkeypatch.undo()
    assert (last / "weights").read_text() == "old"
    assert checkpoint.damage(last) is None
    checkpoint.write_folder(last, filled("newer"))
    assert texts(last) == {"last": "newer"}


def test_between_any_two_renames_one_generation_is_whole(tmp_path, monkeypatch):
    """As if the machine died right before the n-th rename: the newest whole generation is the new one."""
    for dies_at in range(1, 6):
        last = tmp_path / str(dies_at) / "last"
        for number in range(3):
            checkpoint.write_folder(last, filled(str(number)), num_earlier=1)
        calls, rename = 0, checkpoint.Path.rename

        def dying(path, target, dies_at=dies_at, rename=rename):
            nonlocal calls
            calls += 1
            if calls == dies_at:
                raise SystemExit
            return rename(path, target)

        monkeypatch.setattr(checkpoint.Path, "rename", dying)
        try:
            checkpoint.write_folder(last, filled("3"), num_earlier=1)
        except SystemExit:
            assert calls == dies_at
        monkeypatch.undo()
        newest = next(folder for folder in checkpoint.generations(last) if checkpoint.damage(folder) is None)
        assert (newest / "weights").read_text() == "3"
        checkpoint.restore(newest, last)
        assert (last / "weights").read_text() == "3"
        checkpoint.write_folder(last, filled("4"), num_earlier=1)
        assert texts(last) == {"last": "4", "last-1": "3"}


def test_restoring_an_earlier_one_deletes_the_damaged(tmp_path):
    last = tmp_path / "last"
    for number in range(3):
        checkpoint.write_folder(last, filled(str(number)), num_earlier=2)
    (last / "weights").write_text("other")
    checkpoint.restore(tmp_path / "last-1", last)
    assert texts(last) == {"last": "1", "last-2": "0"}
    checkpoint.write_folder(last, filled("5"), num_earlier=2)
    assert texts(last) == {"last": "5", "last-1": "1", "last-2": "0"}


def test_other_names_are_no_generations(tmp_path):
    for name in ("last", "last-1", "last-x", "last-01", "last-", "lastly-1", "my last-1"):
        (tmp_path / name).mkdir()
    (tmp_path / "last-2").write_text("a file")
    assert [path.name for path in checkpoint.generations(tmp_path / "last")] == ["last", "last-1"]
    assert checkpoint.generations(tmp_path / "absent" / "last") == []


def test_every_flipped_bit_and_every_truncation_is_seen(tmp_path):
    last = tmp_path / "last"
    checkpoint.write_folder(last, filled("some text of a file"))
    files = sorted(last.iterdir())
    for file in files:
        original = file.read_bytes()
        for position in range(len(original)):
            damaged = bytearray(original)
            damaged[position] ^= 1 << (position % 8)
            file.write_bytes(damaged)
            assert checkpoint.damage(last) is not None
            file.write_bytes(original[:position])
            assert checkpoint.damage(last) is not None
        file.write_bytes(original)
        assert checkpoint.damage(last) is None


def test_damage_names_the_file(tmp_path):
    last = tmp_path / "last"
    checkpoint.write_folder(last, filled("text"))
    (last / "weights").write_text("texT")
    assert checkpoint.damage(last) == "weights is not as it was written"
    (last / "weights").unlink()
    assert checkpoint.damage(last) == "weights is not as it was written"
    (last / checkpoint.CHECKSUMS_FILE).unlink()
    assert checkpoint.damage(last) == "No such file or directory"


def test_what_is_put_beside_the_files_is_no_damage(tmp_path):
    checkpoint.write_folder(tmp_path / "last", filled("text"))
    (tmp_path / "last" / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "last" / "README.md").write_text("A card.")
    (tmp_path / "last" / "onnx").mkdir()
    assert checkpoint.damage(tmp_path / "last") is None


def test_a_line_less_in_the_checksums_is_damage(tmp_path):
    """As a file cut short at the end of a line."""
    checkpoint.write_folder(tmp_path / "last", filled("text"))
    file = tmp_path / "last" / checkpoint.CHECKSUMS_FILE
    lines = file.read_text().splitlines(keepends=True)
    for count in range(len(lines)):
        file.write_text("".join(lines[:count]))
        assert "checksums.sha256" in checkpoint.damage(tmp_path / "last")


def test_a_rename_that_fails_puts_the_earlier_one_back(tmp_path, monkeypatch):
    last, rename = tmp_path / "last", checkpoint.Path.rename
    checkpoint.write_folder(last, filled("old"))

    def fail(path, target):
        if path.name.startswith("."):
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(checkpoint.Path, "rename", fail)
    with pytest.raises(CheckpointError, match="Input/output error"):
        checkpoint.write_folder(last, filled("new"))
    assert texts(last) == {"last": "old"}


def test_large_files(tmp_path):
    """Checksums are read in blocks."""
    content = np.random.default_rng(0).bytes(2**21 + 17)
    checkpoint.write_folder(tmp_path / "last", lambda folder: (folder / "f").write_bytes(content))
    assert checkpoint.damage(tmp_path / "last") is None
    (tmp_path / "last" / "f").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert checkpoint.damage(tmp_path / "last") == "f is not as it was written"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match="cannot be written \\(Permission denied\\)"):
            checkpoint.write_folder(tmp_path / "last", filled("text"))
    finally:
        tmp_path.chmod(0o700)


def test_a_vanished_folder_is_made_again(tmp_path):
    checkpoint.write_folder(tmp_path / "gone" / "last", filled("text"))
    assert checkpoint.damage(tmp_path / "gone" / "last") is None
