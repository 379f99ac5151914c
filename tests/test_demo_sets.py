"""The embedded sets for the other tasks: counts, groups, folds, and samples that are the same everywhere."""

import hashlib
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audioclf import AudioSplits, ConfigError, DatasetError, load_dataset
from audioclf.datasets.demo import SETS

NEW = [name for name in SETS if name != "music"]
GROUPED = [name for name in NEW if name != "music-hard"]
SIZES = {
    "music": (10, 500, 150, 0),
    "music-hard": (10, 240, 120, 400),
    "keywords": (10, 800, 240, 320),
    "languages": (5, 400, 100, 140),
    "emotion": (5, 540, 120, 150),
    "environment": (8, 384, 128, 128),
    "events": (6, 500, 120, 160),
}
"""Classes, and clips of train, valid and test."""
SECONDS = {
    "music-hard": (3.0, 3.0),
    "keywords": (0.8, 1.0),
    "languages": (3.0, 3.0),
    "emotion": (2.0, 2.0),
    "environment": (3.0, 3.0),
    "events": (3.0, 3.0),
}
SOME = 37
"""Every so manieth clip is heard; it shares no factor with the counts, so that all classes and parts come up."""


@pytest.fixture
def silent(monkeypatch):
    """Sets of which no sound is made: what they list can be looked at quickly."""
    monkeypatch.setattr("audioclf.datasets.demo.files.write", lambda *arguments: None)


def everything(splits: AudioSplits) -> list:
    return [example for part in splits.parts.values() for example in part]


@pytest.mark.usefixtures("silent")
class TestParts:
    @pytest.mark.parametrize("name", SETS)
    def test_counts(self, tmp_path, name):
        splits = load_dataset("demo", protocol=name, root=tmp_path)
        assert (len(splits.labels), *map(len, (splits.train, splits.valid, splits.test))) == SIZES[name]
        assert splits.labels == tuple(sorted(splits.labels))
        assert splits.name == ("demo" if name == "music" else f"demo-{name}")
        assert len({example.audio for example in everything(splits)}) == sum(SIZES[name][1:])
        assert splits.multi_label == (name == "events")
        assert splits.metric == {"emotion": "uar", "events": "map"}.get(name)
        (note,) = splits.notes  # in particular none on groups that are in two parts
        assert "say nothing about real" in note

    @pytest.mark.parametrize("name", GROUPED)
    def test_groups_are_on_one_side(self, tmp_path, name):
        parts = load_dataset("demo", protocol=name, root=tmp_path).parts.values()
        groups = [{example.group for example in part} for part in parts]
        assert None not in set().union(*groups)
        assert sum(map(len, groups)) == len(set().union(*groups))
        assert all(len(part) >= 2 * len(group) for part, group in zip(parts, groups, strict=True))

    @pytest.mark.parametrize("name", ["keywords", "languages", "emotion", "environment"])
    def test_classes_are_equally_frequent(self, tmp_path, name):
        for part in load_dataset("demo", protocol=name, root=tmp_path).parts.values():
            assert len(set(Counter(example.label for example in part).values())) == 1

    @pytest.mark.parametrize("name", ["keywords", "emotion"])
    def test_every_speaker_says_everything(self, tmp_path, name):
        splits = load_dataset("demo", protocol=name, root=tmp_path)
        said = Counter((example.group, example.label) for example in everything(splits))
        assert len(said) == len({example.group for example in everything(splits)}) * len(splits.labels)
        assert len(set(said.values())) == 1

    def test_nobody_speaks_two_languages(self, tmp_path):
        spoken = {(e.group, e.label) for e in everything(load_dataset("demo", protocol="languages", root=tmp_path))}
        assert len(spoken) == len({speaker for speaker, _ in spoken})

    def test_events_occur_alone_together_and_not_at_all(self, tmp_path):
        splits = load_dataset("demo", protocol="events", root=tmp_path)
        for part in splits.parts.values():
            assert {len(example.label) for example in part} == {0, 1, 2, 3}
            counts = Counter(label for example in part for label in example.label)
            assert set(counts) == set(splits.labels)
            assert min(counts.values()) > 0.5 * max(counts.values())

    def test_folds_of_environment(self, tmp_path):
        splits = load_dataset("demo", protocol="environment", root=tmp_path)
        folds = {part: {example.fold for example in clips} for part, clips in splits.parts.items()}
        assert folds == {"train": {"1", "2", "3"}, "valid": {"4"}, "test": {"5"}}
        held_out = load_dataset("demo", protocol="environment", root=tmp_path, fold=2)
        assert {example.fold for example in held_out.test} == {"2"}
        assert {example.fold for example in held_out.train} == {"1", "3", "4", "5"}
        assert held_out.valid == ()
        assert (len(held_out.test), len(held_out.train)) == (128, 512)

    def test_a_speaker_of_emotion_left_out(self, tmp_path):
        splits = load_dataset("demo", protocol="emotion", root=tmp_path, fold="7")
        assert {example.group for example in splits.test} == {"07"}
        assert (len(splits.test), len(splits.train), len(splits.valid)) == (15, 795, 0)
        assert len({example.group for example in splits.train}) == 53
        assert all(example.fold == example.group for example in everything(splits))


def test_home_and_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    splits = load_dataset("demo", root="~/sets")
    assert Path(splits.train[0].audio).is_relative_to(tmp_path / "home" / "sets")
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"cannot be written \(.*\): free some space, or choose another root"):
        load_dataset("demo", root=tmp_path / "file")


class TestRefused:
    """Before anything is written."""

    def test_unknown_set(self, tmp_path):
        sentence = f"demo has no protocol 'birdsong'; choose {' or '.join(SETS)}."
        with pytest.raises(DatasetError, match=f"^{re.escape(sentence)}$"):
            load_dataset("demo", protocol="birdsong", root=tmp_path)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("name", ["music", "keywords", "languages", "events"])
    def test_fold_of_a_set_without_folds(self, tmp_path, name):
        sentence = f"fold=1 means nothing for the demo set {name}; leave it out."
        with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
            load_dataset("demo", protocol=name, fold=1, root=tmp_path)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(("name", "last"), [("environment", "5"), ("emotion", "54")])
    def test_a_fold_that_there_is_not(self, tmp_path, name, last):
        with pytest.raises(DatasetError, match=rf"^demo's {name} has no fold '99'; it has .*\b{last}\.$"):
            load_dataset("demo", protocol=name, fold=99, root=tmp_path)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NEW)
def test_samples(name):
    """Finite, of the length that is told, heard all along, and the same whenever they are made."""
    heard = set()
    for clip in SETS[name].clips()[::SOME]:
        samples = clip.make()
        assert samples.dtype == np.float32
        assert samples.ndim == 1
        shortest, longest = (int(seconds * SETS[name].SAMPLING_RATE) for seconds in SECONDS[name])
        assert shortest <= len(samples) <= longest
        assert np.isfinite(samples).all()
        assert 0.04 < np.abs(samples).max() <= 1
        assert abs(samples.mean()) < 0.1 * np.abs(samples).max()
        assert all(np.abs(block).max() > 0 for block in np.array_split(samples, 6))
        assert np.array_equal(samples, clip.make())
        heard.add(hashlib.sha256(samples.tobytes()).hexdigest())
    assert len(heard) == len(SETS[name].clips()[::SOME])


def test_another_process_makes_the_same():
    """Also when it has made other clips before."""
    code = (
        "import sys; from audioclf.datasets.demo import SETS\n"
        "for name in sys.argv[1:]:\n"
        "    *_, samples = (clip.make() for clip in SETS[name].clips()[5:2:-1])\n"
        "    sys.stdout.buffer.write(samples.tobytes())"
    )
    heard = subprocess.run([sys.executable, "-c", code, *NEW], check=True, capture_output=True).stdout
    assert heard == b"".join(SETS[name].clips()[3].make().tobytes() for name in NEW)


def test_files_hold_what_is_made(tmp_path, monkeypatch):
    """A part of a set is enough for that."""
    some = [clip for clip in SETS["environment"].clips() if clip.group[-2:] in ("02", "39")]
    monkeypatch.setattr(SETS["environment"], "clips", lambda: some)
    splits = load_dataset("demo", protocol="environment", root=tmp_path)
    for example, clip in zip(everything(splits), some, strict=True):
        assert (example.label, example.group, example.fold) == (clip.label, clip.group, clip.fold)
        info = soundfile.info(example.audio)
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
        samples, _ = soundfile.read(example.audio, dtype="float32")
        assert np.allclose(samples, clip.make(), atol=1 / 32_000)
