"""The store of decoded waveforms: exact, resumed, shared, and never wrong after a crash."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from audioclf import cache, journal
from audioclf.errors import AudioclfError, AudioError

NUM_CLIPS = 30
IDENTITIES = [f"clip {i}" for i in range(NUM_CLIPS)]


def clip(index: int) -> np.ndarray:
    return np.random.default_rng(index).standard_normal(50 + 37 * index % 400).astype(np.float32)


class Decoder:
    """`clip`, with a note of what was asked for."""

    def __init__(self, stop_at: int | None = None):
        self.calls: list[int] = []
        self.stop_at = stop_at

    def __call__(self, index: int) -> np.ndarray:
        if index == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append(index)
        return clip(index)


def build(cache_dir, decode, identities=IDENTITIES, recipe="r"):
    return cache.build(identities, decode, recipe=recipe, cache_dir=cache_dir)


def assert_right(store, num_clips=NUM_CLIPS) -> None:
    assert len(store.lengths) == num_clips
    for index in range(num_clips):
        np.testing.assert_array_equal(store.array(index), clip(index))


# A process of its own that builds the store, a few milliseconds a clip; it prints how many clips it decoded.
SCRIPT = """
import sys, time
sys.path[:0] = {paths!r}
from test_cache import IDENTITIES, Decoder, build, cache, journal
decoder = Decoder()
journal.SYNC_CLIPS = 3
def slow(index):
    time.sleep(0.02)
    return decoder(index)
build({cache_dir!r}, slow)
print(len(decoder.calls))
"""


def script(text: str, **values) -> subprocess.Popen:
    paths = [str(Path(__file__).parent), str(Path(cache.__file__).parents[1])]
    return subprocess.Popen(
        [sys.executable, "-c", text.format(paths=paths, **values)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


# --- content ---------------------------------------------------------------------------------------------------------


def test_waveforms_come_back_bit_identical(tmp_path):
    special = np.array([0.0, -0.0, 1e-45, 3.4e38, -1.0, np.pi], np.float32)
    store = build(tmp_path, lambda i: special if i == 0 else clip(i))
    assert store.array(0).tobytes() == special.tobytes()
    for index in range(1, NUM_CLIPS):
        assert store.array(index).tobytes() == clip(index).tobytes()
    assert store.num_bytes == (store.folder / "values.bin").stat().st_size
    np.testing.assert_array_equal(store.offsets, np.concatenate([[0], np.cumsum(store.lengths)[:-1]]))


def test_waveforms_are_memory_mapped_and_read_only(tmp_path):
    waveform = build(tmp_path, clip).array(3)
    assert isinstance(waveform, np.memmap)
    assert waveform.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        waveform[0] = 1.0


def test_order_is_kept_whatever_decodes_first(tmp_path):
    def uneven(index):
        time.sleep(0.01 if index % 3 == 0 else 0)
        return clip(index)

    assert_right(build(tmp_path, uneven))


def test_second_build_decodes_nothing(tmp_path):
    first, second = Decoder(), Decoder()
    build(tmp_path, first)
    assert sorted(first.calls) == list(range(NUM_CLIPS))
    assert_right(build(tmp_path, second))
    assert second.calls == []


@pytest.mark.parametrize(
    ("identities", "recipe"),
    [
        (IDENTITIES, "other"),
        ([*IDENTITIES[:-1], "clip 29, changed"], "r"),
        (IDENTITIES[:-1], "r"),
        ([*IDENTITIES[1:], IDENTITIES[0]], "r"),
    ],
    ids=["recipe", "changed", "fewer", "order"],
)
def test_what_differs_is_decoded_again(tmp_path, identities, recipe):
    build(tmp_path, clip)
    decoder = Decoder()
    build(tmp_path, decoder, identities, recipe)
    assert sorted(decoder.calls) == list(range(len(identities)))
    again = Decoder()
    assert_right(build(tmp_path, again))
    assert again.calls == []


def test_errors_and_silence_are_recorded(tmp_path):
    def decode(index):
        if index in (4, 29):
            raise AudioError(f"'clip {index}': is \"broken\" 음악;\nreally.")
        return np.zeros(20, np.float32) if index == 7 else clip(index)

    for _ in range(2):  # the second opens what the first wrote
        store = build(tmp_path, decode)
        assert store.errors == {i: f"'clip {i}': is \"broken\" 음악;\nreally." for i in (4, 29)}
        assert store.flat == (7,)
        assert [int(store.lengths[i]) for i in (4, 7, 29)] == [0, 20, 0]
        np.testing.assert_array_equal(store.array(7), np.zeros(20))
        np.testing.assert_array_equal(store.array(5), clip(5))
        with pytest.raises(IndexError, match="clip 4 holds nothing: 'clip 4': is"):
            store.array(4)


def test_a_clip_that_can_be_read_again_is_not_held_to_its_old_error(tmp_path):
    """Permissions or a network disk, mended since: nothing that the identity of a file would show."""

    def decode(index):
        if index in (12, 20):
            raise AudioError("cannot be opened (Permission denied).")
        return clip(index)

    assert set(build(tmp_path, decode).errors) == {12, 20}
    decoder = Decoder()
    assert_right(build(tmp_path, decoder))
    assert sorted(decoder.calls) == [12, 20]
    assert_right(build(tmp_path, Decoder()))  # as it lies on disk


def test_a_run_keeps_its_arrays_while_another_mends_the_store(tmp_path):
    """They share a file: nothing in it may move."""

    def decode(index):
        if index == 2:
            raise AudioError("cannot be opened (Too many open files).")
        return clip(index)

    first = build(tmp_path, decode)
    assert_right(build(tmp_path, Decoder()))
    assert first.lengths[2] == 0
    for index in (0, 1, 3, 4, 5):
        np.testing.assert_array_equal(first.array(index), clip(index))


def test_no_clips(tmp_path):
    store = build(tmp_path, clip, [])
    assert len(store.lengths) == 0
    assert store.num_bytes == 0


def test_names_that_are_no_unicode(tmp_path):
    identities = [os.fsdecode(b"caf\xe9.wav|1"), unicode_name := "음악.wav|1"]
    assert_right(build(tmp_path, clip, identities), 2)
    decoder = Decoder()
    build(tmp_path, decoder, identities)
    assert decoder.calls == []
    build(tmp_path, decoder, ["caf?.wav|1", unicode_name])
    assert sorted(decoder.calls) == [0, 1]


def test_folder_may_be_home_relative(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    store = build("~/kept", clip)
    assert store.folder.is_relative_to(tmp_path / "kept")
    assert len(cache.report("~/kept")) == 1


# --- interruptions ---------------------------------------------------------------------------------------------------


def interrupt(cache_dir, at: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(cache_dir, Decoder(stop_at=at))


@pytest.mark.parametrize("stop_at", [0, 1, 5, 11, 29])
def test_interrupted_build_goes_on(tmp_path, monkeypatch, stop_at):
    monkeypatch.setattr(journal, "SYNC_CLIPS", 3)
    interrupt(tmp_path, stop_at)
    (row,) = cache.report(tmp_path)
    assert row["clips"] == stop_at
    decoder = Decoder()
    assert_right(build(tmp_path, decoder))
    assert sorted(decoder.calls) == list(range(row["clips"], NUM_CLIPS))


def test_every_interruption_keeps_what_earlier_ones_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "SYNC_CLIPS", 5)
    for stop_at in (2, 12, 13, 14, 25, 25):
        interrupt(tmp_path, stop_at)
        assert cache.report(tmp_path)[0]["clips"] == stop_at
    assert_right(build(tmp_path, Decoder()))


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, OSError])
def test_an_unforeseen_error_of_the_decoder_is_not_blamed_on_the_folder(tmp_path, error):
    def decode(index):
        if index == 4:
            raise error("no such luck")
        return clip(index)

    try:
        said = str(build(tmp_path, decode).errors)
    except Exception as raised:
        said = str(raised)
    assert "no such luck" in said
    assert "cannot be written" not in said
    assert_right(build(tmp_path / "other", clip))


def half_built(cache_dir, monkeypatch) -> Path:
    """A store of 20 clips or more that is not complete."""
    monkeypatch.setattr(journal, "SYNC_CLIPS", 2)
    interrupt(cache_dir, 25)
    (row,) = cache.report(cache_dir)
    assert row["clips"] >= 20
    return Path(row["folder"])


@pytest.mark.parametrize("cut", [1, 5, 14])
def test_torn_journal_line(tmp_path, monkeypatch, cut):
    journal = half_built(tmp_path, monkeypatch) / "journal.jsonl"
    text = journal.read_text()
    journal.write_text(text[:-cut])
    decoder = Decoder()
    assert_right(build(tmp_path, decoder))
    assert min(decoder.calls) >= 20


@pytest.mark.parametrize("garbage", [b"\0" * 64, b"\xff\xfe\x80", b"\n"])
def test_garbage_at_the_end_of_the_journal(tmp_path, monkeypatch, garbage):
    """A power cut may leave blocks of anything where the last lines should be."""
    journal = half_built(tmp_path, monkeypatch) / "journal.jsonl"
    with open(journal, "ab") as file:
        file.write(garbage)
    decoder = Decoder()
    assert_right(build(tmp_path, decoder))
    assert min(decoder.calls) >= 20


@pytest.mark.parametrize("left", [0, 1, 4 * 700 + 3])
def test_samples_shorter_than_the_journal(tmp_path, monkeypatch, left):
    folder = half_built(tmp_path, monkeypatch)
    os.truncate(folder / "values.bin", left)
    assert_right(build(tmp_path, Decoder()))


def test_samples_longer_than_the_journal(tmp_path, monkeypatch):
    folder = half_built(tmp_path, monkeypatch)
    with open(folder / "values.bin", "ab") as file:
        file.write(b"\xff" * 1001)
    assert_right(build(tmp_path, Decoder()))


@pytest.mark.parametrize("damaged", ["values.bin", "journal.jsonl"])
@pytest.mark.parametrize("left", [0, 100, None], ids=["emptied", "cut", "deleted"])
def test_complete_store_that_lost_its_end_is_repaired(tmp_path, damaged, left):
    """By a full disk, a copy that stopped, a cleaner of temporary files."""
    file = build(tmp_path, clip).folder / damaged
    if left is None:
        file.unlink()
    else:
        os.truncate(file, left)
    assert_right(build(tmp_path, Decoder()))


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_killed_build(tmp_path):
    process = script(SCRIPT, cache_dir=str(tmp_path))
    deadline = time.monotonic() + 30
    while not (rows := cache.report(tmp_path)) or rows[0]["clips"] < 6:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (row,) = cache.report(tmp_path)
    decoder = Decoder()
    assert_right(build(tmp_path, decoder))
    assert sorted(decoder.calls) == list(range(row["clips"], NUM_CLIPS))


def test_two_processes_make_one_store(tmp_path):
    processes = [script(SCRIPT, cache_dir=str(tmp_path)) for _ in range(2)]
    assert sorted(int(output_of(process)) for process in processes) == [0, NUM_CLIPS]
    decoder = Decoder()
    assert_right(build(tmp_path, decoder))
    assert decoder.calls == []


def test_two_threads_make_one_store(tmp_path):
    decoder, stores = Decoder(), []
    threads = [threading.Thread(target=lambda: stores.append(build(tmp_path, decoder))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(decoder.calls) == list(range(NUM_CLIPS))
    assert len(stores) == 4
    for store in stores:
        assert_right(store)


# --- limits ----------------------------------------------------------------------------------------------------------

MEMORY = """
import sys
sys.path[:0] = {paths!r}
import numpy as np
from audioclf import cache, journal
from peak import peak_mib
def decode(index):
    return np.full(250_000, index, np.float32)
cache.build(["warm up"], lambda _: np.ones(10, np.float32), recipe="r", cache_dir={cache_dir!r})
before = peak_mib()
store = cache.build([str(i) for i in range(200)], decode, recipe="r", cache_dir={cache_dir!r})
assert all(store.array(i)[-1] == i for i in range(200))
print(peak_mib() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux tells it")
def test_memory_is_flat(tmp_path):
    """200 clips of a megabyte; what is decoded ahead grows with the threads only."""
    grown = float(output_of(script(MEMORY, cache_dir=str(tmp_path))))
    assert grown < 30 + 4 * os.cpu_count()


FULL_DISK = """
import resource, signal, sys
sys.path[:0] = {paths!r}
from test_cache import Decoder, build, journal
from audioclf.errors import AudioclfError
journal.SYNC_CLIPS = 2
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000))
try:
    build({cache_dir!r}, Decoder())
except AudioclfError as error:
    print(error)
"""


@pytest.mark.skipif(os.name == "nt", reason="no resource module")
def test_full_disk(tmp_path):
    """A limit on the file's size stands for the full disk: the sentence names the folder, what fits is kept."""
    said = output_of(script(FULL_DISK, cache_dir=str(tmp_path)))
    (row,) = cache.report(tmp_path)
    assert said.strip() == (
        f"The cache of decoded audio in {row['folder']!r} cannot be written (File too large): "
        "free some space or choose another folder with cache_dir."
    )
    assert row["clips"] >= 4
    decoder = Decoder()
    assert_right(build(tmp_path, decoder))
    assert min(decoder.calls) == row["clips"]


@pytest.mark.parametrize("where", ["", "waveforms"])
def test_file_in_the_way(tmp_path, where):
    cache_dir = tmp_path / "cache"
    in_the_way = cache_dir / where
    in_the_way.parent.mkdir(exist_ok=True)
    in_the_way.write_text("here first")
    sentence = (
        rf"The cache of decoded audio in '{re.escape(str(cache_dir))}.*' cannot be written \(Not a directory\): "
        r"free some space or choose another folder with cache_dir\."
    )
    with pytest.raises(AudioclfError, match=sentence):
        build(cache_dir, clip)
    assert in_the_way.read_text() == "here first"


# --- report and clear ------------------------------------------------------------------------------------------------


def test_report_and_clear(tmp_path, monkeypatch):
    assert cache.report(tmp_path / "none") == []
    assert cache.clear(tmp_path / "none") == 0
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "kept.tar").write_bytes(b"x" * 10)
    store = build(tmp_path, clip)
    half_built(tmp_path / "half", monkeypatch)
    (row,) = cache.report(tmp_path)
    assert row["folder"] == str(store.folder)
    assert row["clips"] == NUM_CLIPS
    assert row["bytes"] >= store.num_bytes
    json.dumps(row)
    (half,) = cache.report(tmp_path / "half")
    assert half["clips"] < NUM_CLIPS
    assert cache.clear(tmp_path) == row["bytes"]
    assert cache.report(tmp_path) == []
    assert not store.folder.exists()
    assert (tmp_path / "archives" / "kept.tar").exists()
    assert len(cache.report(tmp_path / "half")) == 1
    decoder = Decoder()
    assert_right(build(tmp_path, decoder))
    assert len(decoder.calls) == NUM_CLIPS


class TestLimit:
    """A store that may not grow: every clip is computed once, and those beyond the limit whenever they are wanted."""

    def limited(self, cache_dir, decode, share: float):
        total = sum(clip(index).nbytes for index in range(NUM_CLIPS))
        return cache.build(IDENTITIES, decode, recipe="r", cache_dir=cache_dir, max_bytes=share * total), total

    @pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, 1.0])
    def test_arrays_are_the_same(self, share, tmp_path):
        decode = Decoder()
        store, total = self.limited(tmp_path, decode, share)
        assert sorted(decode.calls) == list(range(NUM_CLIPS))
        assert_right(store)
        assert (store.folder / "values.bin").stat().st_size == store.num_bytes <= share * total
        assert (store.compute is None) == (share == 1.0)
        assert len(decode.calls) == NUM_CLIPS + np.count_nonzero(~store.kept)
        assert share == 0.0 or store.num_bytes > share * total - 2000  # the longest clip has 449 values

    def test_more_room_keeps_more_and_less_loses_nothing(self, tmp_path):
        first, _ = self.limited(tmp_path, Decoder(), 0.3)
        decode = Decoder()
        larger, _ = self.limited(tmp_path, decode, 0.7)
        assert larger.num_bytes > 2 * first.num_bytes
        assert len(decode.calls) == np.count_nonzero(larger.kept) - np.count_nonzero(first.kept)
        assert_right(larger)
        assert_right(first)  # which another run is reading
        decode = Decoder()
        smaller, _ = self.limited(tmp_path, decode, 0.0)
        assert decode.calls == []
        assert smaller.num_bytes == larger.num_bytes
        assert_right(build(tmp_path, Decoder()))

    def test_interrupted(self, tmp_path, monkeypatch):
        monkeypatch.setattr(journal, "SYNC_CLIPS", 3)
        with pytest.raises(KeyboardInterrupt):
            self.limited(tmp_path, Decoder(stop_at=20), 0.4)
        store, total = self.limited(tmp_path, Decoder(), 0.4)
        assert_right(store)
        assert store.num_bytes <= 0.4 * total

    def test_mending_that_is_interrupted(self, tmp_path):
        """Keeps what it has come to, and the rest is computed next time."""
        self.limited(tmp_path, Decoder(), 0.0)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path, Decoder(stop_at=20))
        decode = Decoder()
        assert_right(build(tmp_path, decode))
        assert 20 in decode.calls
        assert len(decode.calls) < NUM_CLIPS - 10

    def test_a_clip_that_has_changed(self, tmp_path):
        store, _ = self.limited(tmp_path, Decoder(), 0.0)
        object.__setattr__(store, "compute", lambda index: np.zeros(3, np.float32))
        with pytest.raises(AudioError, match="clip 4: has changed since the run began"):
            store.array(4)
