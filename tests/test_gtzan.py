"""GTZAN as it is found: the hub's archive, the Kaggle folder, someone's copy; in miniature, with its known faults."""

import re
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import loopback_hub
import numpy as np
import pytest
import soundfile

from audioclf import DatasetError, load_dataset
from audioclf.clips import decode

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
NUMBERS = (0, 1, 2, 3, 11, 29, 47, 54, 71, 99)
CORRUPT_NOTE = "jazz.00054.wav has no wav header in this copy, as in most; it is left out."
RANDOM_NOTE = (
    "This split has no test part: its score is a validation score, and the same artists are on both sides. "
    "protocol='fault-filtered' gives the honest one."
)


def write(genres: Path) -> Path:
    """The ten genre folders: ten wavs a genre, a garbage jazz.00054 and a shadow beside each file."""
    rng = np.random.default_rng(0)
    for genre in GENRES:
        (genres / genre).mkdir(parents=True)
        for number in NUMBERS:
            path = genres / genre / f"{genre}.{number:05d}.wav"
            if path.stem == "jazz.00054":
                path.write_bytes(rng.bytes(4000))
            else:
                soundfile.write(path, rng.uniform(-0.5, 0.5, 2205), 22_050, subtype="PCM_16")
            (path.parent / f"._{path.name}").write_bytes(b"\x00\x05\x16\x07" + bytes(207))
    return genres


@pytest.fixture(scope="module")
def genres(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("gtzan") / "genres")


@pytest.fixture(scope="module")
def archive(genres, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "genres.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(genres, "genres")
    return path


@pytest.fixture(scope="module")
def listing(tmp_path_factory) -> Path:
    """All 1,000 names; what is in them is not looked at, but for the one without a header."""
    root = tmp_path_factory.mktemp("whole")
    for genre in GENRES:
        (root / genre).mkdir()
        for number in range(100):
            (root / genre / f"{genre}.{number:05d}.wav").write_bytes(b"RIFF")
    (root / "jazz" / "jazz.00054.wav").write_bytes(b"\x00\x12\x34")
    return root


def stems(part: tuple) -> set[str]:
    return {Path(example.audio).stem for example in part}


def check_random(splits) -> None:
    """What every layout of the miniature must give by the protocol `random`."""
    assert splits.labels == GENRES
    assert splits.id2label == dict(enumerate(GENRES))
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (89, 10, 0)
    assert Counter(example.label for example in splits.valid) == dict.fromkeys(GENRES, 1)
    assert splits.notes == (CORRUPT_NOTE, RANDOM_NOTE)
    expected = {f"{genre}.{number:05d}" for genre in GENRES for number in NUMBERS} - {"jazz.00054"}
    assert stems(splits.train) | stems(splits.valid) == expected
    assert all(example.label == Path(example.audio).parent.name for example in splits.train)


@pytest.mark.parametrize("place", [".", "genres", "genres_original", "Data/genres_original", "gtzan/genres"])
def test_folder_layouts(genres, tmp_path, place):
    """The archive's, Kaggle's and torchaudio's; Kaggle has pictures and tables beside the sound."""
    shutil.copytree(genres, tmp_path / place, dirs_exist_ok=True)
    (tmp_path / "features_30_sec.csv").touch()
    (tmp_path / "images_original" / "blues").mkdir(parents=True)
    splits = load_dataset("gtzan", root=tmp_path)
    check_random(splits)
    assert splits.name == "gtzan (random)"
    assert load_dataset("gtzan", root=str(tmp_path), protocol="random") == splits


def test_archive_and_the_folder_that_holds_it(archive, tmp_path):
    splits = load_dataset("gtzan", root=archive, cache_dir=tmp_path)
    check_random(splits)
    (folder,) = (tmp_path / "gtzan").glob("[!.]*")
    inode = folder.stat().st_ino
    assert load_dataset("gtzan", root=archive.parent, cache_dir=tmp_path) == splits
    assert [(entry.name, entry.stat().st_ino) for entry in (tmp_path / "gtzan").glob("[!.]*")] == [(folder.name, inode)]


def test_what_is_unpacked_already_goes_before_the_archive(genres, tmp_path):
    shutil.copytree(genres, tmp_path / "genres")
    (tmp_path / "genres.tar.gz").write_bytes(b"half a download")
    check_random(load_dataset("gtzan", root=tmp_path, cache_dir=tmp_path / "cache"))


def test_fetched_from_the_hub(archive, tmp_path):
    """By the real client, from a hub of our own; once, and then from the cache, also when the hub is gone."""
    home = tmp_path / "home"
    repository = tmp_path / "hub" / "datasets" / "marsyas" / "gtzan"
    (repository / "data").mkdir(parents=True)
    shutil.copy(archive, repository / "data")
    code = (
        "import sys, audioclf; s = audioclf.load_dataset('gtzan', cache_dir=sys.argv[1])\n"
        "print(len(s.train), len(s.valid), *s.labels, *s.notes, sorted(e.audio for e in s.valid), sep='|')"
    )
    with loopback_hub.serve(tmp_path / "hub") as hub:
        first = hub.run(code, home, tmp_path / "cache")
        asked = list(hub.requests)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("|".join(["89", "10", *GENRES, CORRUPT_NOTE, RANDOM_NOTE]))
    assert {path for _, path in asked} == {"/datasets/marsyas/gtzan/resolve/main/data/genres.tar.gz"}
    assert hub.strays == []
    offline = loopback_hub.run(code, hub.env(home) | {"HF_HUB_OFFLINE": "1"}, tmp_path / "cache")
    assert offline.stdout == first.stdout


UNREACHABLE = {
    "offline": (None, None, {"HF_HUB_OFFLINE": "1"}),
    "no such repository": (None, None, {}),
    "no such file": ("readme.md", None, {}),
    "broken hub": ("data/genres.tar.gz", "500", {}),
    "broken line": ("data/genres.tar.gz", "cut", {}),
}


@pytest.mark.parametrize("case", UNREACHABLE)
def test_not_to_be_fetched(tmp_path, case):
    name, fault, more = UNREACHABLE[case]
    if name:
        file = tmp_path / "hub/datasets/marsyas/gtzan" / name
        file.parent.mkdir(parents=True)
        file.write_bytes(bytes(100_000))
    code = (
        "import sys, time; time.sleep = lambda seconds: None  # the client's waits between its tries\n"
        "import audioclf\n"
        "try: audioclf.load_dataset('gtzan', cache_dir=sys.argv[1])\n"
        "except audioclf.DatasetError as error: print(error)"
    )
    with loopback_hub.serve(tmp_path / "hub") as hub:
        hub.faults = {"marsyas/gtzan": fault}
        done = loopback_hub.run(code, hub.env(tmp_path / "home") | more, tmp_path / "cache")
    assert re.fullmatch(
        r"GTZAN \(1\.2 GB\) could not be fetched from the hub \(\w+: .+\)\. If you have a copy, give its folder or "
        r"genres\.tar\.gz as root; to see the library at work without it, take the data set demo\.\n",
        done.stdout,
    ), done.stdout + done.stderr
    assert hub.strays == []


def test_no_server_at_all(tmp_path):
    """A closed port, with the client's waits between its tries left out."""
    with loopback_hub.serve(tmp_path) as hub:
        closed = hub.url
    code = (
        "import sys, time; time.sleep = lambda seconds: None\n"
        "import audioclf\n"
        "for name in ('gtzan', 'user/mini'):\n"
        "    try: audioclf.load_dataset(name, cache_dir=sys.argv[1])\n"
        "    except audioclf.DatasetError as error: print(error)"
    )
    done = loopback_hub.run(code, loopback_hub.client_env(closed, tmp_path / "home"), tmp_path)
    gtzan, mini = done.stdout.splitlines()
    assert gtzan.startswith("GTZAN (1.2 GB) could not be fetched from the hub (LocalEntryNotFoundError: ")
    assert mini.startswith("'user/mini' is no file or folder here, and could not be fetched from the hub (")
    assert mini.endswith("; check the name and the network.")


@pytest.mark.parametrize("ending", [".wav", ".au"])
def test_a_repaired_clip_is_kept(genres, tmp_path, ending):
    """Some copies have a sound jazz.00054; the first distribution was of .au files."""
    shutil.copytree(genres, tmp_path / "g")
    (tmp_path / "g" / "jazz" / "jazz.00054.wav").unlink()
    soundfile.write(tmp_path / "g" / "jazz" / f"jazz.00054{ending}", np.zeros(2205), 22_050)
    splits = load_dataset("gtzan", root=tmp_path / "g")
    assert splits.notes == (RANDOM_NOTE,)
    assert (len(splits.train), len(splits.valid)) == (90, 10)
    assert "jazz.00054" in stems(splits.train) | stems(splits.valid)


def test_every_clip_left_can_be_decoded(genres, tmp_path):
    splits = load_dataset("gtzan", root=genres)
    decoded = decode(splits, sampling_rate=16_000, max_seconds=30, bad_audio="error", cache_dir=tmp_path)
    assert {name: len(clips) for name, clips in decoded.parts.items()} == {"train": 89, "valid": 10}
    assert set(decoded.parts["train"].lengths) == {1600}


def test_random_on_the_whole_listing(listing):
    splits = load_dataset("gtzan", root=listing)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (899, 100, 0)
    assert Counter(example.label for example in splits.valid) == dict.fromkeys(GENRES, 10)
    assert not stems(splits.train) & stems(splits.valid)
    assert "jazz.00054" not in stems(splits.train) | stems(splits.valid)
    assert load_dataset("gtzan", root=listing) == splits
    # Drawn, not the first or last of each genre.
    assert len({Path(example.audio).stem[-5:] for example in splits.valid}) > 30


def test_random_is_the_same_wherever_the_copy_lies(listing, genres, tmp_path):
    shutil.copytree(listing, tmp_path / "Data" / "genres_original")
    shutil.copytree(genres / "blues", tmp_path / "Data" / "other")
    here, there = load_dataset("gtzan", root=listing), load_dataset("gtzan", root=tmp_path)
    assert stems(here.valid) == stems(there.valid)


def test_fault_filtered(listing):
    """Counts are Kereliuk's 443/197/290 less the clip without a header; the lists are torchaudio's."""
    from torchaudio.datasets import gtzan as lists

    splits = load_dataset("gtzan", root=listing, protocol="fault-filtered")
    assert splits.name == "gtzan (fault-filtered)"
    assert splits.labels == GENRES
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (442, 197, 290)
    assert stems(splits.train) == set(lists.filtered_train) - {"jazz.00054"}
    assert stems(splits.valid) == set(lists.filtered_valid)
    assert stems(splits.test) == set(lists.filtered_test)
    assert splits.notes == (CORRUPT_NOTE,)


@pytest.mark.parametrize("missing", ["blues", "jazz", "rock"])
def test_a_genre_is_missing(genres, tmp_path, missing):
    shutil.copytree(genres, tmp_path / "genres")
    shutil.rmtree(tmp_path / "genres" / missing)
    sentence = {
        "blues": "is no GTZAN: there are no folders blues, classical, country, ... in it.",
        "jazz": "genres' is no whole GTZAN: the folder 'jazz' is missing.",
        "rock": "genres' is no whole GTZAN: the folder 'rock' is missing.",
    }[missing]
    with pytest.raises(DatasetError, match=re.escape(sentence)):
        load_dataset("gtzan", root=tmp_path)


@pytest.mark.parametrize("protocol", ["random", "fault-filtered"])
def test_a_genre_is_empty(genres, tmp_path, protocol):
    """A copy that broke off is not ten genres; found now, not as a class that is never right."""
    shutil.copytree(genres, tmp_path / "genres")
    shutil.rmtree(tmp_path / "genres" / "rock")
    (tmp_path / "genres" / "rock").mkdir()
    with pytest.raises(DatasetError, match="rock"):
        load_dataset("gtzan", root=tmp_path, protocol=protocol)


def test_wrong_roots(tmp_path):
    (tmp_path / "other" / "x").mkdir(parents=True)
    (tmp_path / "x.txt").write_text("no archive")
    for root, sentence in [
        (tmp_path / "nowhere", f"GTZAN: {str(tmp_path / 'nowhere')!r} is no folder and no archive."),
        (
            tmp_path / "other",
            f"{str(tmp_path / 'other')!r} is no GTZAN: there are no folders blues, classical, country",
        ),
        (tmp_path / "x.txt", "x.txt' cannot be unpacked ("),
    ]:
        with pytest.raises(DatasetError, match=re.escape(sentence)):
            load_dataset("gtzan", root=root, cache_dir=tmp_path / "cache")


def test_unknown_protocol(genres):
    with pytest.raises(DatasetError, match=r"^gtzan has no protocol 'honest'; choose random or fault-filtered\.$"):
        load_dataset("gtzan", root=genres, protocol="honest")
