"""The known corpora, each as a miniature of its own layout, with the faults of the copies that people hold."""

import csv
import inspect
import json
import re
import shutil
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import ClassVar

import datasets
import loopback_hub
import numpy as np
import pytest
import soundfile

from audioclf import AudioSplits, ConfigError, DatasetError, load_dataset
from audioclf.clips import decode
from audioclf.datasets import fleurs
from audioclf.datasets.load import CORPORA

SHADOW = b"\x00\x05\x16\x07" + bytes(207)
"""What macOS leaves beside each file as `._NAME`."""


def write(root: Path, *names: str, seconds: float = 0.1, rate: int = 16_000) -> Path:
    """A wav file of noise of each name, with a shadow beside it."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, int(seconds * rate))
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise, rate, subtype="PCM_16", format="WAV")
        path.with_name(f"._{path.name}").write_bytes(SHADOW)
    return root


def write_table(path: Path, *rows: tuple, end: str = "\n", bom: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8-sig" if bom else "utf-8") as file:
        csv.writer(file, lineterminator=end).writerows(rows)


def pack(folder: Path, archive: Path) -> Path:
    """A folder as a zip or tar.gz, with its own name at the top."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(folder.rglob("*")):
                file.write(path, path.relative_to(folder.parent))
    else:
        with tarfile.open(archive, "w:gz") as file:
            file.add(folder, folder.name)
    return archive


def sizes(splits: AudioSplits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.valid), len(splits.test)


def everything(splits: AudioSplits) -> list:
    return [example for part in splits.parts.values() for example in part]


def names(examples) -> list[str]:
    return sorted(Path(example.audio).name for example in examples)


def check_groups_apart(splits: AudioSplits) -> None:
    groups = [{example.group for example in part} for part in splits.parts.values()]
    assert sum(map(len, groups)) == len(set().union(*groups))
    assert not any("group(s)" in note for note in splits.notes)


def refused(name: str, sentence: str, **options) -> None:
    """That exactly this sentence is said, but for what stands before and after it."""
    with pytest.raises(DatasetError, match=re.escape(sentence)) as caught:
        load_dataset(name, **options)
    assert "\n" not in str(caught.value)


WRONG_ROOT = {
    "speech_commands": "is no Speech Commands: validation_list.txt and testing_list.txt are not both in it.",
    "esc50": "is no ESC-50: there is no meta/esc50.csv in it.",
    "urbansound8k": "is no UrbanSound8K: there is no metadata/UrbanSound8K.csv in it.",
    "ravdess": "is no RAVDESS: there is no clip with a name like 03-01-06-01-02-01-12.wav in it.",
    "crema_d": "is no CREMA-D: there is no clip with a name like 1001_DFA_ANG_XX.wav in it.",
    "common_language": "is no CommonLanguage: there is no language's folder with train, dev and test in it.",
    "voxlingua107": "is no VoxLingua107: there is no language's folder such as en, with names like "
    "VIDEO---0001.000-0009.000.wav, in it.",
    "fleurs": "is no FLEURS: there is no language's folder such as en_us with train.tsv in it.",
    "fsd50k": "is no FSD50K: there is no folder FSD50K.ground_truth in it.",
}


@pytest.mark.parametrize("name", WRONG_ROOT)
def test_wrong_roots(tmp_path, name):
    write(tmp_path / "other", "Music/a song.wav", "Music/b.wav")
    refused(name, f"{str(tmp_path / 'other')!r} {WRONG_ROOT[name]}", root=tmp_path / "other", cache_dir=tmp_path)
    refused(name, f": {str(tmp_path / 'nowhere')!r} is no folder", root=tmp_path / "nowhere", cache_dir=tmp_path)


SOURCES = {
    "speech_commands": "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
    "urbansound8k": "https://zenodo.org/records/1203745",
    "ravdess": "https://zenodo.org/records/1188976",
    "crema_d": "https://github.com/CheyneyComputerScience/CREMA-D",
    "common_language": "https://zenodo.org/records/5036977",
    "voxlingua107": "https://bark.phon.ioc.ee/voxlingua107/",
    "fsd50k": "https://zenodo.org/records/4060432",
}


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_not_fetched_says_where_it_is(tmp_path, name):
    refused(name, f" is not fetched by itself: get it from {SOURCES[name]} (", cache_dir=tmp_path)
    refused(name, "and give where it lies as root.", cache_dir=tmp_path)


@pytest.mark.parametrize("name", CORPORA)
def test_only_options_with_a_meaning_are_taken(name):
    """What `load` does not take is refused by name, and it takes nothing that `load_dataset` does not offer."""
    taken = set(inspect.signature(CORPORA[name].load).parameters)
    offered = set(inspect.signature(load_dataset).parameters) - {"name_or_path"}
    assert taken <= offered
    for option in offered - taken - {"cache_dir"}:
        with pytest.raises(ConfigError, match=f"^{option}='x' means nothing for {name}; leave it out"):
            load_dataset(name, **{option: "x"})


class TestSpeechCommands:
    WORDS = ("bed", "down", "go", "left", "no", "off", "on", "right", "stop", "up", "visual", "yes")
    SPEAKERS: ClassVar[dict] = {"00aa11bb": "train", "01cc22dd": "train", "0a0b0c0d": "valid", "ffee0011": "test"}

    def corpus(self, root: Path, version: int = 2, end: str = "\n") -> Path:
        words = (*self.WORDS, "backward") if version == 2 else (*self.WORDS[:-2], "yes")
        files = {f"{word}/{speaker}_nohash_0.wav": split for word in words for speaker, split in self.SPEAKERS.items()}
        write(root, *files)
        for split, name in (("valid", "validation_list.txt"), ("test", "testing_list.txt")):
            (root / name).write_bytes(end.join([*(file for file, part in files.items() if part == split), ""]).encode())
        for noise, seconds in (("running_tap", 2.2), ("exercise_bike", 3.0), ("pink_noise", 1.0), ("white_noise", 4)):
            write(root, f"_background_noise_/{noise}.wav", seconds=seconds)
        (root / "_background_noise_" / "README.md").touch()
        (root / "LICENSE").touch()
        return root

    def test_35(self, tmp_path):
        splits = load_dataset("speech_commands", root=self.corpus(tmp_path / "speech commands"))
        assert splits.labels == tuple(sorted((*self.WORDS, "backward")))
        assert sizes(splits) == (26, 13, 13)
        assert splits.name == "speech_commands (35)"
        assert splits.notes == ("There are 13 words here; version 0.02 has 35.",)
        assert {example.group for example in splits.train} == {"00aa11bb", "01cc22dd"}
        assert {example.group for example in splits.test} == {"ffee0011"}
        assert all(example.label == Path(example.audio).parent.name for example in everything(splits))
        assert splits.metric is None
        check_groups_apart(splits)

    @pytest.mark.parametrize("place", ["speech_commands_v0.02", "SpeechCommands/speech_commands_v0.02"])
    def test_a_root_above(self, tmp_path, place):
        self.corpus(tmp_path / place)
        assert sizes(load_dataset("speech_commands", root=tmp_path)) == (26, 13, 13)

    def test_a_root_below(self, tmp_path):
        refused("speech_commands", WRONG_ROOT["speech_commands"], root=self.corpus(tmp_path) / "yes")

    def test_two_versions_side_by_side(self, tmp_path):
        for version in (1, 2):
            self.corpus(tmp_path / f"v0.0{version}", version)
        sentence = f"holds Speech Commands 2 times; give one of {str(tmp_path / 'v0.01')!r} and "
        refused("speech_commands", sentence, root=tmp_path)

    def test_version_1_with_lists_from_windows(self, tmp_path):
        splits = load_dataset("speech_commands", root=self.corpus(tmp_path, version=1, end=" \r\n"))
        assert splits.labels == (*self.WORDS[:-2], "yes")
        assert sizes(splits) == (22, 11, 11)

    def test_listed_clips_and_words_that_are_missing(self, tmp_path):
        self.corpus(tmp_path)
        (tmp_path / "yes" / "ffee0011_nohash_0.wav").unlink()
        shutil.rmtree(tmp_path / "bed")
        splits = load_dataset("speech_commands", root=tmp_path)
        assert "bed" not in splits.labels
        assert sizes(splits) == (24, 12, 11)
        assert splits.notes[0] == (
            f"{str(tmp_path)!r}: 3 of its 50 clips are missing, for example "
            f"{str(tmp_path / 'bed' / '0a0b0c0d_nohash_0.wav')!r}; they are left out."
        )

    @pytest.mark.parametrize("name", ["validation_list.txt", "testing_list.txt"])
    def test_a_list_is_missing(self, tmp_path, name):
        (self.corpus(tmp_path) / name).unlink()
        refused("speech_commands", WRONG_ROOT["speech_commands"], root=tmp_path)

    def test_a_clip_in_both_lists(self, tmp_path):
        self.corpus(tmp_path)
        shutil.copy(tmp_path / "testing_list.txt", tmp_path / "validation_list.txt")
        refused("speech_commands", "'backward/ffee0011_nohash_0.wav' stands in both lists; fetch it", root=tmp_path)

    def test_12_without_the_official_test_set(self, tmp_path):
        splits = load_dataset("speech_commands", root=self.corpus(tmp_path), protocol="12")
        keywords = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
        assert splits.labels == (*keywords, "_unknown_", "_silence_")
        assert splits.name == "speech_commands (12)"
        counts = {part: Counter(example.label for example in clips) for part, clips in splits.parts.items()}
        # bed, visual and backward are unknown; a second of noise every half second, and none beyond its end.
        assert counts["train"] == {**dict.fromkeys(keywords, 2), "_unknown_": 6, "_silence_": 1 + 7}
        assert counts["valid"] == {**dict.fromkeys(keywords, 1), "_unknown_": 3, "_silence_": 3}
        assert counts["test"] == {**dict.fromkeys(keywords, 1), "_unknown_": 3, "_silence_": 5}
        pieces = [e for e in splits.valid if e.label == "_silence_"]
        assert [(e.start, e.end) for e in pieces] == [(0.0, 1.0), (0.5, 1.5), (1.0, 2.0)]
        assert {Path(e.audio).name for e in pieces} == {"running_tap.wav"}
        assert {Path(e.audio).name for e in splits.test if e.start is not None} == {"exercise_bike.wav"}
        assert len(splits.notes) == 1
        assert "speech_commands_test_set_v0.02, which is used when it lies beside the words." in splits.notes[0]
        check_groups_apart(splits)
        decoded = decode(splits, sampling_rate=16_000, max_seconds=None, bad_audio="error", cache_dir=tmp_path / "c")
        assert set(decoded.parts["valid"].lengths) == {1600, 16_000}

    def official(self, root: Path) -> Path:
        labels = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
        write(root, *(f"{label}/ffee0011_nohash_{n}.wav" for label in labels for n in range(2)))
        return write(root, "_unknown_/bed_ffee0011_nohash_1.wav", "_silence_/0.wav", "_silence_/1.wav")

    @pytest.mark.parametrize("place", ["beside", "inside", "archive"])
    @pytest.mark.parametrize("version", [1, 2])
    def test_12_with_the_official_test_set(self, tmp_path, place, version):
        root = self.corpus(tmp_path / "words", version)
        name = f"speech_commands_test_set_v0.0{version}"
        # That of the other version is not taken.
        write(tmp_path, f"speech_commands_test_set_v0.0{3 - version}/yes/1234abcd_nohash_0.wav")
        official = self.official((root if place == "inside" else tmp_path) / name)
        if place == "archive":
            with tarfile.open(tmp_path / f"{name}.tar.gz", "w:gz") as file:
                file.add(official, ".")
            shutil.rmtree(official)
        splits = load_dataset("speech_commands", root=root, protocol="12", cache_dir=tmp_path / "cache")
        assert splits.notes == ()
        counts = Counter(example.label for example in splits.test)
        assert (len(splits.test), counts["yes"], counts["_unknown_"], counts["_silence_"]) == (23, 2, 1, 2)
        assert all(name in e.audio or place == "archive" for e in splits.test)
        assert {e.group for e in splits.test} == {"ffee0011", None}
        assert names(splits.test).count("bed_ffee0011_nohash_1.wav") == 1
        assert not any("ffee0011" in e.audio for e in (*splits.train, *splits.valid))
        noise = {Path(e.audio).name for e in splits.train if e.label == "_silence_"}
        assert noise == {"exercise_bike.wav", "pink_noise.wav", "white_noise.wav"}
        check_groups_apart(splits)
        assert name not in load_dataset("speech_commands", root=root).labels

    def test_12_needs_its_noise_and_a_whole_test_set(self, tmp_path):
        root = self.corpus(tmp_path / "words")
        official = self.official(tmp_path / "speech_commands_test_set_v0.02")
        shutil.rmtree(official / "_silence_")
        sentence = "is no whole test set: there is no audio in the folder '_silence_'."
        refused("speech_commands", sentence, root=root, protocol="12")
        shutil.rmtree(official)
        (root / "_background_noise_" / "running_tap.wav").write_bytes(b"noise")
        refused("speech_commands", "running_tap.wav', from which _silence_ is cut, cannot be", root=root, protocol="12")
        (root / "_background_noise_" / "running_tap.wav").unlink()
        refused("speech_commands", "running_tap.wav' is missing, from which _silence_", root=root, protocol="12")
        shutil.rmtree(root / "go")
        write(root, "_background_noise_/running_tap.wav", seconds=1)
        refused("speech_commands", "there is no clip of 'go', and 2 of its", root=root, protocol="12")

    def test_its_archive(self, tmp_path):
        """It has no folder of its own name at the top."""
        self.corpus(tmp_path / "words")
        with tarfile.open(tmp_path / "speech_commands_v0.02.tar.gz", "w:gz") as file:
            file.add(tmp_path / "words", ".")
        shutil.rmtree(tmp_path / "words")
        self.official(tmp_path / "speech_commands_test_set_v0.02")
        for root in (tmp_path / "speech_commands_v0.02.tar.gz", tmp_path):
            splits = load_dataset("speech_commands", root=root, protocol="12", cache_dir=tmp_path / "cache")
            assert len(splits.test) == 23

    def test_protocols(self, tmp_path):
        sentence = "speech_commands has no protocol '10'; choose 35 or 12."
        refused("speech_commands", sentence, root=tmp_path, protocol="10")


class TestESC50:
    HEADER = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
    CLASSES: ClassVar[dict] = {"dog": (0, True), "cow": (3, False), "airplane": (47, False), "rain": (10, True)}

    def rows(self) -> list[tuple]:
        return [
            (f"{fold}-{fold}{target}-{take}-{target}.wav", fold, target, category, esc10, f"{fold}{target}", take)
            for fold in range(1, 6)
            for category, (target, esc10) in self.CLASSES.items()
            for take in "AB"
        ]

    def corpus(self, root: Path, **table) -> Path:
        write(root / "audio", *(row[0] for row in self.rows()), rate=44_100, seconds=0.01)
        write_table(root / "meta" / "esc50.csv", self.HEADER, *self.rows(), **table)
        return root

    def check(self, splits: AudioSplits) -> None:
        assert splits.labels == ("dog", "cow", "rain", "airplane")
        assert sizes(splits) == (32, 0, 8)
        assert {example.fold for example in splits.test} == {"5"}
        assert {example.fold for example in splits.train} == {"1", "2", "3", "4"}
        assert Counter(example.group for example in splits.test) == {"50": 2, "53": 2, "510": 2, "547": 2}
        assert splits.notes == (
            "The test part is fold 5, whose score alone is not the official one: that is the mean over all 5 folds, "
            "which audioclf.cross_validate gives.",
        )
        check_groups_apart(splits)

    @pytest.mark.parametrize("table", [{}, {"end": "\r\n", "bom": True}])
    def test_folder(self, tmp_path, table):
        splits = load_dataset("esc50", root=self.corpus(tmp_path / "ESC-50-master", **table))
        self.check(splits)
        assert splits.name == "esc50"
        assert all(Path(e.audio).name.endswith(f"-{self.CLASSES[e.label][0]}.wav") for e in everything(splits))
        assert load_dataset("esc50", root=tmp_path) == splits  # one above
        refused("esc50", WRONG_ROOT["esc50"], root=tmp_path / "ESC-50-master" / "audio")  # one below

    def test_zip(self, tmp_path):
        archive = pack(self.corpus(tmp_path / "x" / "ESC-50-master"), tmp_path / "y" / "ESC-50-master.zip")
        for root in (archive, archive.parent):
            self.check(load_dataset("esc50", root=root, cache_dir=tmp_path / "cache"))

    def test_folds(self, tmp_path):
        splits = load_dataset("esc50", root=self.corpus(tmp_path), fold=2)
        assert {example.fold for example in splits.test} == {"2"}
        assert (sizes(splits), splits.notes) == ((32, 0, 8), ())
        refused("esc50", "esc50 has no fold '6'; it has 1, 2, 3, 4, 5.", root=tmp_path, fold=6)

    def test_esc10(self, tmp_path):
        splits = load_dataset("esc50", root=self.corpus(tmp_path), protocol="esc10", fold="1")
        assert (splits.labels, splits.name, sizes(splits)) == (("dog", "rain"), "esc10", (16, 0, 4))
        refused("esc50", "esc50 has no protocol 'us8k'; choose esc50 or esc10.", root=tmp_path, protocol="us8k")

    def test_missing_clips(self, tmp_path):
        (self.corpus(tmp_path) / "audio" / "1-10-A-0.wav").unlink()
        table, missing = str(tmp_path / "meta" / "esc50.csv"), str(tmp_path / "audio" / "1-10-A-0.wav")
        note = f"{table!r}: 1 of its 40 clips are missing, for example {missing!r}; they are left out."
        assert load_dataset("esc50", root=tmp_path).notes[0] == note
        shutil.rmtree(tmp_path / "audio")
        sentence = f"{table!r}: there is no clip of 'dog', and 40 of its 40 clips are missing, for example {missing!r}"
        refused("esc50", sentence, root=tmp_path)

    def test_tables_without_rows(self, tmp_path):
        write_table(tmp_path / "meta" / "esc50.csv", self.HEADER)
        refused("esc50", "esc50.csv': there are no clips in it; fetch it again.", root=tmp_path)
        write_table(tmp_path / "meta" / "esc50.csv", self.HEADER, ("a.wav", 1, 3, "cow", False, 1, "A"))
        refused("esc50", "esc50.csv': there are no clips in it", root=tmp_path, protocol="esc10")

    @pytest.mark.parametrize(
        ("header", "row", "sentence"),
        [
            (("filename", "target"), ("a.wav", 0), "esc50.csv' has no column 'fold'; it has filename, target."),
            (HEADER, ("a.wav", 1, "", "dog", True, 1, "A"), "esc50.csv', line 2: target is empty."),
            (HEADER, ("a.wav", 1, "x", "dog", True, 1, "A"), "the class 'dog' has the id 'x', which is not its own."),
            (HEADER, ("a.wav", 1, 7, "dog", True, 1, "A"), "the class 'dog' has the id '0', which is not its own."),
            (HEADER, ("a.wav", 1, 0, "hen", True, 1, "A"), "the class 'dog' has the id '0', which is not its own."),
        ],
    )
    def test_tables_that_cannot_be(self, tmp_path, header, row, sentence):
        rest = self.rows() if header == self.HEADER else []
        write_table(tmp_path / "meta" / "esc50.csv", header, row, *rest)
        refused("esc50", sentence, root=tmp_path)


class TestUrbanSound8K:
    HEADER = ("slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class")
    CLASSES = ("air_conditioner", "car_horn", "siren")

    def rows(self) -> list[tuple]:
        """The class names are not in the order of their ids, and start and end are times of another file."""
        ids = {"siren": 0, "air_conditioner": 4, "car_horn": 9}
        return [
            (f"{fold}{ids[c]}-{ids[c]}-{n}-0.wav", f"{fold}{ids[c]}", 58.5, 62.5, 1, fold, ids[c], c)
            for fold in range(1, 11)
            for c in self.CLASSES
            for n in range(2)
        ]

    def corpus(self, root: Path, audio: str = "audio", table: str = "metadata/UrbanSound8K.csv") -> Path:
        write(root / audio, *(f"fold{row[5]}/{row[0]}" for row in self.rows()))
        write_table(root / table, self.HEADER, *self.rows(), end="\r\n")
        return root

    def check(self, splits: AudioSplits) -> None:
        assert splits.labels == ("siren", "air_conditioner", "car_horn")
        assert sizes(splits) == (54, 0, 6)
        assert {example.fold for example in splits.test} == {"10"}
        assert {(example.start, example.end) for example in everything(splits)} == {(None, None)}
        assert {example.group for example in splits.test} == {"100", "104", "109"}
        assert len(splits.notes) == 1
        assert splits.notes[0].startswith("The test part is fold 10, whose score alone is not the official one")
        check_groups_apart(splits)

    def test_folder(self, tmp_path):
        splits = load_dataset("urbansound8k", root=self.corpus(tmp_path / "UrbanSound8K"))
        self.check(splits)
        assert load_dataset("urbansound8k", root=tmp_path) == splits
        decoded = decode(splits, sampling_rate=16_000, max_seconds=None, bad_audio="error", cache_dir=tmp_path / "c")
        assert set(decoded.parts["test"].lengths) == {1600}
        refused("urbansound8k", WRONG_ROOT["urbansound8k"], root=tmp_path / "UrbanSound8K" / "audio")

    def test_kaggle(self, tmp_path):
        self.check(load_dataset("urbansound8k", root=self.corpus(tmp_path, ".", "UrbanSound8K.csv")))

    def test_archive(self, tmp_path):
        archive = pack(self.corpus(tmp_path / "UrbanSound8K"), tmp_path / "y" / "UrbanSound8K.tar.gz")
        self.check(load_dataset("urbansound8k", root=archive, cache_dir=tmp_path / "cache"))
        self.check(load_dataset("urbansound8k", root=archive.parent, cache_dir=tmp_path / "cache"))

    def test_folds_and_missing_clips(self, tmp_path):
        self.corpus(tmp_path)
        (tmp_path / "audio/fold1/10-0-0-0.wav").unlink()
        splits = load_dataset("urbansound8k", root=tmp_path, fold="1")
        assert sizes(splits) == (54, 0, 5)
        assert len(splits.notes) == 1
        assert ": 1 of its 60 clips are missing, for example " in splits.notes[0]
        refused("urbansound8k", "urbansound8k has no fold '0'; it has 1, 2, 3, 4, 5, 6", root=tmp_path, fold=0)
        for path in tmp_path.rglob("*9-9-*.wav"):
            path.unlink()
        refused("urbansound8k", "there is no clip of 'car_horn', and 21 of its 60 clips are", root=tmp_path)


class TestRAVDESS:
    EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")

    def corpus(self, root: Path) -> Path:
        for actor in (1, 2, 24):
            clips = (f"03-01-{emotion:02}-01-{s:02}-01-{actor:02}.wav" for emotion in range(1, 9) for s in (1, 2))
            write(root / f"Actor_{actor:02}", *clips, rate=48_000, seconds=0.01)
        return root

    def test_no_fold(self, tmp_path):
        splits = load_dataset("ravdess", root=self.corpus(tmp_path / "speech"))
        assert splits.labels == self.EMOTIONS
        assert (sizes(splits), splits.metric, splits.name) == ((48, 0, 0), "uar", "ravdess")
        assert {example.group for example in splits.train} == {"01", "02", "24"}
        assert all(example.fold == example.group for example in splits.train)
        for example in splits.train:
            assert self.EMOTIONS.index(example.label) + 1 == int(Path(example.audio).name.split("-")[2])
            assert example.group == Path(example.audio).parent.name[-2:]
        assert splits.notes == (
            "48 of the 1440 clips of ravdess are here.",
            "ravdess has no official split, so there is no test part: fold= makes one actor the test part; "
            "published scores leave out each actor, or some of them, in turn, as audioclf.cross_validate does.",
        )

    @pytest.mark.parametrize("fold", [2, "2", "02"])
    def test_an_actor_is_held_out(self, tmp_path, fold):
        splits = load_dataset("ravdess", root=self.corpus(tmp_path), fold=fold)
        assert sizes(splits) == (32, 0, 16)
        assert {example.group for example in splits.test} == {"02"}
        assert splits.notes == ("48 of the 1440 clips of ravdess are here.",)
        check_groups_apart(splits)
        refused("ravdess", "ravdess has no fold '3'; it has 01, 02, 24.", root=tmp_path, fold=3)

    def test_the_corpus_lies_there_twice_and_with_more(self, tmp_path):
        self.corpus(self.corpus(tmp_path) / "audio_speech_actors_01-24")
        write(tmp_path, "Video/Actor_01/01-01-03-01-01-01-01.mp4", "Song/Actor_01/03-02-03-01-01-01-01.wav")
        splits = load_dataset("ravdess", root=tmp_path)
        assert sizes(splits) == (48, 0, 0)
        assert len(set(names(splits.train))) == 48
        assert splits.notes[0].startswith("48 clip(s) lie there again, for example '03-01-01-01-01-01-01.wav'; each is")
        assert splits.notes[1] == (
            "2 file(s) are none of its clips, for example '03-02-03-01-01-01-01.wav'; they are left out."
        )

    def test_zip(self, tmp_path):
        """Zenodo's has the actors' folders at the top."""
        self.corpus(tmp_path / "x")
        (tmp_path / "y").mkdir()
        with zipfile.ZipFile(tmp_path / "y" / "Audio_Speech_Actors_01-24.zip", "w") as file:
            for path in sorted((tmp_path / "x").rglob("*")):
                file.write(path, path.relative_to(tmp_path / "x"))
        for root in (tmp_path / "y" / "Audio_Speech_Actors_01-24.zip", tmp_path / "y"):
            assert sizes(load_dataset("ravdess", root=root, cache_dir=tmp_path / "cache")) == (48, 0, 0)

    def test_what_cannot_be(self, tmp_path):
        write(self.corpus(tmp_path), "Actor_01/03-01-09-01-01-01-01.wav")
        refused("ravdess", "03-01-09-01-01-01-01.wav has the label '09', which is not among labels.", root=tmp_path)
        for path in tmp_path.rglob("03-01-0[29]-*"):
            path.unlink()
        refused("ravdess", f"{str(tmp_path)!r}: there is no clip of 'calm'; fetch it again.", root=tmp_path)


class TestCREMAD:
    CODES = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")

    def corpus(self, root: Path) -> Path:
        write(root, *(f"{actor}_DFA_{code}_XX.wav" for actor in (1001, 1040, 1076) for code in self.CODES))
        return write(root, "1040_ITH_SAD_X.wav", "1001_IEO_ANG_HI.wav")

    def test_no_fold(self, tmp_path):
        self.corpus(tmp_path / "AudioWAV")
        write(tmp_path, "AudioMP3/1001_DFA_ANG_XX.mp3")
        for root in (tmp_path, tmp_path / "AudioWAV"):
            splits = load_dataset("crema_d", root=root)
            assert splits.labels == ("anger", "disgust", "fear", "happy", "neutral", "sad")
            assert (sizes(splits), splits.metric) == ((20, 0, 0), "uar")
            assert {(e.group, e.fold) for e in splits.train} == {(a, a) for a in ("1001", "1040", "1076")}
            labels = dict(zip(self.CODES, splits.labels, strict=True))
            assert all(labels[Path(e.audio).name.split("_")[2]] == e.label for e in splits.train)
            assert "crema_d has no official split, so there is no test part" in splits.notes[-1]
        others = "1 file(s) are none of its clips, for example '1001_DFA_ANG_XX.mp3'; they are left out."
        assert load_dataset("crema_d", root=tmp_path).notes[0] == others

    def test_an_actor_is_held_out(self, tmp_path):
        splits = load_dataset("crema_d", root=self.corpus(tmp_path), fold=1040)
        assert sizes(splits) == (13, 0, 7)
        check_groups_apart(splits)

    def test_zip_and_the_clip_without_sound(self, tmp_path):
        self.corpus(tmp_path / "CREMA-D-master" / "AudioWAV")
        (tmp_path / "CREMA-D-master" / "AudioWAV" / "1076_MTI_SAD_XX.wav").touch()
        archive = pack(tmp_path / "CREMA-D-master", tmp_path / "y" / "CREMA-D-master.zip")
        splits = load_dataset("crema_d", root=archive.parent, cache_dir=tmp_path / "cache")
        assert sizes(splits) == (21, 0, 0)
        decoded = decode(splits, sampling_rate=16_000, max_seconds=None, bad_audio="skip", cache_dir=tmp_path / "c")
        assert [Path(name).name for name in decoded.set_aside] == ["1076_MTI_SAD_XX.wav"]

    def test_an_emotion_that_there_is_not(self, tmp_path):
        write(self.corpus(tmp_path), "1001_DFA_JOY_XX.wav")
        refused("crema_d", "1001_DFA_JOY_XX.wav has the label 'JOY', which is not among labels.", root=tmp_path)


class TestCommonLanguage:
    LANGUAGES = ("Chinese_China", "Mangolian", "Ukranian")

    def corpus(self, root: Path) -> Path:
        for language in self.LANGUAGES:
            for part, speakers in {"train": (1, 2, 3), "dev": (4,), "test": (5,)}.items():
                write(root / language, *(f"{part}/spk {s}/{n} x.wav" for s in speakers for n in range(2)))
                (root / language / f"{part}.csv").write_text("\tclient_id\n", encoding="utf-16")
        return root

    def test_folder(self, tmp_path):
        splits = load_dataset("common_language", root=self.corpus(tmp_path / "common_voice_kpd"))
        assert (splits.labels, sizes(splits)) == (self.LANGUAGES, (18, 6, 6))
        assert {e.group for e in splits.valid} == {f"{language}/spk 4" for language in self.LANGUAGES}
        assert all(f"/{example.label}/" in example.audio for example in everything(splits))
        check_groups_apart(splits)
        assert load_dataset("common_language", root=tmp_path) == splits
        refused("common_language", WRONG_ROOT["common_language"], root=tmp_path / "common_voice_kpd" / "Mangolian")

    def test_zip(self, tmp_path):
        archive = pack(self.corpus(tmp_path / "common_voice_kpd"), tmp_path / "y" / "CommonLanguage.zip")
        for root in (archive, archive.parent):
            splits = load_dataset("common_language", root=root, cache_dir=tmp_path / "cache")
            assert sizes(splits) == (18, 6, 6)

    def test_some_languages(self, tmp_path):
        self.corpus(tmp_path)
        splits = load_dataset("common_language", root=tmp_path, labels=["Ukranian", "Mangolian"])
        assert (splits.labels, sizes(splits)) == (("Ukranian", "Mangolian"), (12, 4, 4))
        sentence = (
            "common_language: labels has 'Mongolian', of which there is nothing here, only Chinese_China, Mangolian, "
            "Ukranian; did you mean 'Mangolian'?"
        )
        refused("common_language", sentence, root=tmp_path, labels=["Mongolian", "Ukranian"])
        refused("common_language", "labels='Ukranian' must be a list of class", root=tmp_path, labels="Ukranian")

    def test_a_part_is_missing(self, tmp_path):
        shutil.rmtree(self.corpus(tmp_path) / "Ukranian" / "dev")
        sentence = f"{str(tmp_path / 'Ukranian')!r} is no whole language of CommonLanguage: there is no audio in 'dev'."
        refused("common_language", sentence, root=tmp_path)
        assert sizes(load_dataset("common_language", root=tmp_path, labels=self.LANGUAGES[:2])) == (12, 4, 4)


class TestVoxLingua107:
    def corpus(self, root: Path) -> Path:
        for code in ("ceb", "en", "iw", "jw"):
            videos = (f"-a_{code}{video}__U__S{n}---00{n}0.000-00{n}9.500.wav" for video in range(3) for n in range(2))
            write(root / code, *videos)
        return write(root, *(f"dev/{c}/z{c}---0038.510-0055.040.wav" for c in ("en", "iw", "et")))

    def test_folder(self, tmp_path):
        splits = load_dataset("voxlingua107", root=self.corpus(tmp_path / "voxlingua107"))
        assert (splits.labels, sizes(splits)) == (("ceb", "en", "he", "jv"), (24, 2, 0))
        assert Counter(e.label for e in splits.train) == dict.fromkeys(splits.labels, 6)
        assert {e.label for e in splits.valid} == {"en", "he"}
        assert {Path(e.audio).parent.name for e in splits.train if e.label in ("he", "jv")} == {"iw", "jw"}
        assert splits.notes == (
            "The folders iw and jw have old codes: these languages are called he and jv.",
            "1 clip(s) of dev are of languages without a train part; they are left out.",
            "VoxLingua107 has no test part: published scores are those on dev, which is the valid part here.",
        )
        assert load_dataset("voxlingua107", root=tmp_path) == splits
        refused("voxlingua107", WRONG_ROOT["voxlingua107"], root=tmp_path / "voxlingua107" / "en")
        refused("voxlingua107", WRONG_ROOT["voxlingua107"], root=tmp_path / "voxlingua107" / "dev")

    def test_pieces_of_a_video_are_a_group(self, tmp_path):
        splits = load_dataset("voxlingua107", root=write(self.corpus(tmp_path), "en/v---1-2.wav", "en/v---3-4.wav"))
        assert [e.group for e in splits.train if "/v---" in e.audio] == ["v", "v"]
        check_groups_apart(splits)

    def test_without_dev_and_old_codes(self, tmp_path):
        self.corpus(tmp_path)
        for name in ("dev", "iw", "jw"):
            shutil.rmtree(tmp_path / name)
        splits = load_dataset("voxlingua107", root=tmp_path)
        assert (splits.labels, sizes(splits), splits.notes) == (("ceb", "en"), (12, 0, 0), ())

    def test_some_languages(self, tmp_path):
        splits = load_dataset("voxlingua107", root=self.corpus(tmp_path), labels=["he", "ceb"])
        assert (splits.labels, sizes(splits)) == (("he", "ceb"), (12, 1, 0))
        assert not any("left out" in note for note in splits.notes)
        sentence = "labels has 'iw', of which there is nothing here, only ceb, en, he, jv"
        refused("voxlingua107", sentence, root=tmp_path, labels=["iw", "en"])


class TestFLEURS:
    ROWS = (
        '{n}\t{n}00{s}.wav\t"Quotes stand alone, she said\tquotes stand alone\tq u o\t160\tMALE',
        '{n}\t{n}11{s}.wav\tAnd "so, on"\tand so on\ta n d\t160\tFEMALE',
    )
    SPLITS: ClassVar[dict] = {"train": 3, "dev": 1, "test": 2}

    def language(self, folder: Path, packed: bool = False) -> Path:
        """Each sentence has one id and is read by two speakers; there is one file more than is listed."""
        for part, number in self.SPLITS.items():
            rows = [row.format(n=n, s=part[0]) for n in range(1, number + 1) for row in self.ROWS]
            write(folder, *(f"audio/{part}/{row.split()[1]}" for row in rows), f"audio/{part}/9{part}.wav")
            (folder / f"{part}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
            if packed:
                pack(folder / "audio" / part, folder / "audio" / f"{part}.tar.gz")
                shutil.rmtree(folder / "audio" / part)
        return folder

    def corpus(self, root: Path, packed: bool = False) -> Path:
        for language in ("cmn_hans_cn", "en_us", "fr_fr"):
            self.language(root / language, packed)
        return root

    @pytest.mark.parametrize("packed", [False, True])
    def test_folder(self, tmp_path, packed):
        self.corpus(tmp_path / "fleurs" / "data", packed)
        for root in (tmp_path / "fleurs" / "data", tmp_path / "fleurs", tmp_path):
            splits = load_dataset("fleurs", root=root, cache_dir=tmp_path / "cache")
            assert splits.labels == ("cmn_hans_cn", "en_us", "fr_fr")
            assert sizes(splits) == (18, 6, 12)
            assert {example.group for example in everything(splits)} == {None}
            assert names(e for e in splits.test if e.label == "en_us") == [
                "100t.wav",
                "111t.wav",
                "200t.wav",
                "211t.wav",
            ]
            assert splits.notes == ()
            assert packed or all(f"/{e.label}/" in e.audio for e in everything(splits))
        refused("fleurs", WRONG_ROOT["fleurs"], root=tmp_path / "fleurs" / "data" / "en_us")

    def test_some_languages(self, tmp_path):
        splits = load_dataset("fleurs", root=self.corpus(tmp_path), labels=["fr_fr", "en_us"])
        assert (splits.labels, sizes(splits)) == (("fr_fr", "en_us"), (12, 4, 8))
        refused(
            "fleurs", "labels has 'fr', of which there is nothing here, only ", root=tmp_path, labels=["fr", "en_us"]
        )

    def test_what_is_missing(self, tmp_path):
        folder = self.corpus(tmp_path) / "en_us"
        (folder / "audio/train/100t.wav").unlink()
        assert load_dataset("fleurs", root=tmp_path).notes == (
            f"{str(folder / 'train.tsv')!r}: 1 of its 6 clips are missing, for example "
            f"{str(folder / 'audio/train/100t.wav')!r}; they are left out.",
        )
        for path in (folder / "audio/dev").iterdir():
            path.unlink()
        refused("fleurs", f"{str(folder / 'dev.tsv')!r}: there is no clip of 'en_us', and 2 of its 2", root=tmp_path)
        (folder / "audio/dev").rmdir()
        refused("fleurs", "en_us' is no whole language of FLEURS: audio/dev.tar.gz is missing.", root=tmp_path)
        (tmp_path / "cmn_hans_cn" / "test.tsv").unlink()
        refused("fleurs", "test.tsv' is missing, which lists the clips; fetch it again.", root=tmp_path)
        (tmp_path / "cmn_hans_cn" / "test.tsv").write_text("1,a.wav,x\n")
        refused("fleurs", "test.tsv', line 1: its second cell must be the name of a wav file.", root=tmp_path)

    def test_all_of_it_is_not_fetched(self, tmp_path):
        sentence = (
            "All 102 languages of FLEURS are some 350 GB: name those to fetch, such as labels=['en_us', 'fr_fr'], "
        )
        refused("fleurs", sentence, cache_dir=tmp_path)
        refused("fleurs", "labels has 'en_uk', of which there is nothing here", labels=["en_uk"], cache_dir=tmp_path)
        assert len(fleurs.LANGUAGES) == len(set(fleurs.LANGUAGES)) == 102


class TestFSD50K:
    LABELS = ("Accordion", "Bark", "Zipper_(clothing)")

    def corpus(self, root: Path) -> Path:
        truth = root / "FSD50K.ground_truth"
        dev = [
            ("10", "Bark", "/m/b", "train"),
            ("11", "Bark,Accordion", "/m/b,/m/a", "train"),
            ("9", "Zipper_(clothing)", "/m/z", "val"),
        ]
        test = [("10", "Accordion", "/m/a"), ("12", "Zipper_(clothing),Bark", "/m/z,/m/b")]
        # Clip 10 stands in both: here the folder tells which is meant.
        write(root / "FSD50K.dev_audio", *(f"{row[0]}.wav" for row in dev))
        write(root / "FSD50K.eval_audio", *(f"{row[0]}.wav" for row in test))
        write_table(truth / "dev.csv", ("fname", "labels", "mids", "split"), *dev)
        write_table(truth / "eval.csv", ("fname", "labels", "mids"), *test)
        # In no order but that of the ids.
        write_table(
            truth / "vocabulary.csv", (2, self.LABELS[2], "/m/z"), (0, self.LABELS[0], "/m/a"), (1, "Bark", "/m/b")
        )
        return root

    def test_folder(self, tmp_path):
        splits = load_dataset("fsd50k", root=self.corpus(tmp_path / "fsd"))
        assert (splits.labels, sizes(splits)) == (self.LABELS, (2, 1, 2))
        assert (splits.metric, splits.multi_label, splits.notes) == ("map", True, ())
        assert [(Path(e.audio).name, e.label) for e in splits.train] == [
            ("10.wav", ("Bark",)),
            ("11.wav", ("Bark", "Accordion")),
        ]
        assert splits.valid[0].label == ("Zipper_(clothing)",)
        assert Path(splits.test[0].audio).parts[-2:] == ("FSD50K.eval_audio", "10.wav")
        assert load_dataset("fsd50k", root=tmp_path) == splits
        refused("fsd50k", WRONG_ROOT["fsd50k"], root=tmp_path / "fsd" / "FSD50K.ground_truth")

    def test_an_archive_is_no_root(self, tmp_path):
        (tmp_path / "FSD50K.dev_audio.zip").touch()
        refused("fsd50k", "FSD50K.dev_audio.zip' is no folder.", root=tmp_path / "FSD50K.dev_audio.zip")

    @pytest.mark.parametrize("name", ["dev.csv", "eval.csv", "vocabulary.csv"])
    def test_a_table_is_missing(self, tmp_path, name):
        (self.corpus(tmp_path) / "FSD50K.ground_truth" / name).unlink()
        refused("fsd50k", f"{name}' is missing, which ", root=tmp_path)

    def test_what_cannot_be(self, tmp_path):
        truth = self.corpus(tmp_path) / "FSD50K.ground_truth"
        shutil.rmtree(tmp_path / "FSD50K.dev_audio")
        refused("fsd50k", "dev.csv': there is no clip of 'Accordion', and 3 of its 3 clips", root=tmp_path)
        self.corpus(tmp_path)
        (truth / "eval.csv").write_text(
            'fname,labels,mids\n10,Meow,/m/m\n12,"Bark,Accordion",x\n10,Zipper_(clothing),x\n'
        )
        refused("fsd50k", "10.wav has the label 'Meow', which is not among labels.", root=tmp_path)
        (truth / "dev.csv").write_text("fname,labels,mids,split\n10,Bark,x,holdout\n")
        refused("fsd50k", "dev.csv': 'holdout' is no split", root=tmp_path)
        (truth / "vocabulary.csv").write_text("Accordion\nBark\n")
        refused("fsd50k", "vocabulary.csv' is no vocabulary of FSD50K: its rows must be index,label", root=tmp_path)

    def test_missing_clips(self, tmp_path):
        truth = self.corpus(tmp_path) / "FSD50K.ground_truth"
        (tmp_path / "FSD50K.dev_audio" / "10.wav").unlink()
        splits = load_dataset("fsd50k", root=tmp_path)
        assert sizes(splits) == (1, 1, 2)
        assert splits.notes[0].startswith(f"{str(truth / 'dev.csv')!r}: 1 of its 3 clips are missing, for example ")


FETCH = """
import json, sys, time, audioclf
time.sleep = lambda seconds: None  # the client's waits between its tries
from audioclf.clips import decode
def say(name, **options):
    try:
        splits = audioclf.load_dataset(name, cache_dir=sys.argv[1], **options)
    except audioclf.DatasetError as error:
        return {"error": str(error)}
    clips = decode(splits, sampling_rate=16000, max_seconds=None, bad_audio="error", cache_dir=sys.argv[1]).parts
    return {
        "labels": splits.labels,
        "notes": splits.notes,
        "parts": {p: [[e.label, e.group, e.fold] for e in examples] for p, examples in splits.parts.items()},
        "decoded": {part: len(c) for part, c in clips.items()},
    }
print(json.dumps([
    say("esc50"), say("esc50", protocol="esc10", fold=1),
    say("fleurs", labels=["fr_fr", "en_us"]), say("fleurs", labels=["en_us", "zu_za"]),
]))
"""


def test_fetched_from_the_hub(tmp_path):
    """By the real clients, from a hub of our own; then from their cache, when the hub is gone; and not at all."""
    repository = tmp_path / "hub" / "datasets"
    esc50 = TestESC50()
    esc50.corpus(tmp_path / "esc50")
    table = {key: list(values) for key, values in zip(esc50.HEADER, zip(*esc50.rows(), strict=True), strict=True)}
    table["src_file"] = [int(value) for value in table["src_file"]]  # as in the copy on the hub
    table["audio"] = [
        {"bytes": (tmp_path / "esc50" / "audio" / name).read_bytes(), "path": name} for name in table["filename"]
    ]
    data = datasets.Dataset.from_dict(table).cast_column("audio", datasets.Audio())
    (repository / "ashraq" / "esc50" / "data").mkdir(parents=True)
    data.to_parquet(str(repository / "ashraq" / "esc50" / "data" / "train-00000-of-00001.parquet"))
    for language in ("en_us", "fr_fr", "ar_eg"):
        TestFLEURS().language(repository / "google" / "fleurs" / "data" / language, packed=True)

    with loopback_hub.serve(tmp_path / "hub") as hub:
        done = hub.run(FETCH, tmp_path / "home", tmp_path / "cache")
        asked = {path for _, path in hub.requests}
    assert done.returncode == 0, done.stderr
    whole, esc10, languages, missing = json.loads(done.stdout.splitlines()[-1])
    assert whole["labels"] == ["dog", "cow", "rain", "airplane"]
    assert whole["decoded"] == {"train": 32, "test": 8}
    assert {tuple(row[1:]) for row in whole["parts"]["test"]} == {("50", "5"), ("53", "5"), ("510", "5"), ("547", "5")}
    assert whole["notes"][0].startswith("The test part is fold 5, whose score alone is not the official one")
    assert (esc10["labels"], esc10["decoded"], esc10["notes"]) == (["dog", "rain"], {"train": 16, "test": 4}, [])
    assert languages["labels"] == ["fr_fr", "en_us"]
    assert languages["decoded"] == {"train": 12, "valid": 4, "test": 8}
    assert not any("ar_eg" in path for path in asked)
    assert re.fullmatch(
        r"The language zu_za of FLEURS \(3 GB\) could not be fetched from the hub \(\w+: .+\)\. If you have a copy, "
        r"give its folder as root\.",
        missing["error"],
    )

    offline = loopback_hub.run(FETCH, hub.env(tmp_path / "home") | {"HF_HUB_OFFLINE": "1"}, tmp_path / "cache")
    assert json.loads(offline.stdout.splitlines()[-1])[:3] == [whole, esc10, languages]
    nowhere = loopback_hub.run(FETCH, hub.env(tmp_path / "new") | {"HF_HUB_OFFLINE": "1"}, tmp_path / "cache")
    assert re.fullmatch(
        r"ESC-50 \(0\.8 GB\) could not be fetched from the hub \(\w+: .+\)\. If you have a copy, give its folder or "
        r"ESC-50-master\.zip as root\.",
        json.loads(nowhere.stdout.splitlines()[-1])[0]["error"],
    )
