"""Every kind of finding on a small data set that has it, and none on one that is sound."""

import csv
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import RATE, write_tone

import audioclf
from audioclf.cli import main
from audioclf.findings import of_groups, of_table
from audioclf.levels import clipped_share, levels, original
from audioclf.soundness import of_lengths


def sound(rng: np.random.Generator, seconds: float = 1.0) -> np.ndarray:
    """Noise whose loudness changes."""
    envelope = np.interp(np.linspace(0, 8, int(seconds * RATE)), np.arange(9), rng.uniform(0.02, 0.2, 9))
    return envelope * rng.standard_normal(len(envelope))


@pytest.fixture(scope="module")
def faulty(tmp_path_factory) -> Path:
    """A manifest with one fault of each kind."""
    root, rng, rows = tmp_path_factory.mktemp("faulty"), np.random.default_rng(0), []

    def add(name: str, wave: np.ndarray, label: str = "rock", split: str = "train", group: str | None = None) -> None:
        soundfile.write(root / name, wave, RATE)
        rows.append((name, label, split, group or name))

    for number in range(22):
        add(f"rock{number}.wav", sound(rng), group=f"band {number}")
        add(f"Jazz{number}.wav", sound(rng), "Jazz")
    for number in range(4):
        add(f"rock held out {number}.wav", sound(rng), split="valid", group="band 3" if number == 0 else None)
        add(f"Jazz held out {number}.wav", sound(rng), "Jazz", split="valid")
    add("spelling.wav", sound(rng), "JAZZ")
    add("typo.wav", sound(rng), "rokc")
    first = soundfile.read(root / "rock0.wav")[0]
    add("leak.ogg", 0.5 * first[RATE // 5 :], split="valid")
    add("twice.wav", soundfile.read(root / "rock1.wav")[0])
    add("near.wav", 0.5 * soundfile.read(root / "rock2.wav")[0])
    add("disagree.wav", soundfile.read(root / "Jazz5.wav")[0])
    add("silent.wav", np.zeros(RATE))
    add("mostly silent.wav", np.concatenate([np.zeros(19 * RATE // 10), sound(rng, 0.1)]))
    add("clipped.wav", np.clip(10 * sound(rng), -1, 1))
    add("offset.wav", sound(rng) + 0.1)
    add("short.wav", sound(rng, 0.02))
    add("long.wav", sound(rng, 4.0))
    (root / "broken.wav").write_text("no sound")
    rows.append(("broken.wav", "rock", "train", "broken"))
    with open(root / "clips.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split", "group"), *rows])
    return root / "clips.csv"


@pytest.fixture(scope="module")
def inspection(faulty) -> audioclf.Inspection:
    splits = audioclf.load_dataset(faulty, group_column="group")
    return audioclf.inspect(splits, max_seconds=3.5, cache_dir=faulty.parent / "cache")


EXPECTED = {
    "groups-across-parts": ("error", {"rock3.wav", "rock held out 0.wav"}),
    "copies-across-parts": ("error", {"rock0.wav", "leak.ogg"}),
    "copies-with-other-labels": ("error", {"Jazz5.wav", "disagree.wav"}),
    "exact-copies": ("warning", {"rock1.wav", "twice.wav"}),
    "near-copies": ("warning", {"rock2.wav", "near.wav"}),
    "unreadable": ("error", {"broken.wav"}),
    "label-spellings": ("error", {"spelling.wav"}),
    "label-typo": ("warning", {"typo.wav"}),
    "missing-classes": ("warning", set()),
    "rare-classes": ("warning", {"spelling.wav", "typo.wav"}),
    "imbalance": ("warning", set()),
    "silent": ("warning", {"silent.wav"}),
    "mostly-silent": ("note", {"mostly silent.wav"}),
    "clipped": ("warning", {"clipped.wav"}),
    "dc-offset": ("note", {"offset.wav"}),
    "short": ("warning", {"short.wav"}),
    "long": ("note", {"long.wav"}),
}


def test_finds_each_fault_and_no_other(inspection):
    found = {f.kind: (f.severity, {Path(clip.file).name for clip in f.clips}) for f in inspection.findings}
    assert found == EXPECTED
    assert len(inspection.findings) == len(EXPECTED)
    order = [finding.severity for finding in inspection.findings]
    assert order == sorted(order, key=("error", "warning", "note").index)
    assert all(finding.message.endswith(".") and finding.fix.endswith(".") for finding in inspection.findings)


def test_the_guide_has_every_kind():
    page = (Path(__file__).parent.parent / "docs" / "inspect.md").read_text(encoding="utf-8")
    assert [kind for kind in EXPECTED if f"`{kind}`" not in page] == []


def test_tables(inspection):
    assert inspection.parts["train"]["clips"] == sum(clip.part == "train" for clip in inspection.clips)
    assert inspection.parts["valid"]["clips"] == 9
    assert inspection.classes["Jazz"]["valid"] == {"clips": 4, "hours": pytest.approx(4 / 3600, rel=1e-3)}
    assert sum(clips for _, clips in inspection.durations) == len(inspection.clips)
    assert dict(inspection.durations)[2.0] == 2  # the long one, and the one that is mostly silent
    assert inspection.sampling_rates == {RATE: len(inspection.clips)}
    hours = sum(clip.seconds for clip in inspection.clips) / 3600
    assert sum(part["hours"] for part in inspection.parts.values()) == pytest.approx(hours)


def test_text_and_json_on_the_command_line(faulty, inspection, capsys):
    options = ["--group-column", "group", "--max-seconds", "3.5", "--cache-dir", str(faulty.parent / "cache")]
    assert main(["inspect", str(faulty), *options]) == 0
    text = capsys.readouterr().out
    assert text == f"{inspection}\n"
    for finding in inspection.findings:
        assert finding.message in text
        assert f"  {finding.fix}\n" in text
    assert "clipped.wav (train, rock): " in text
    assert main(["inspect", str(faulty), *options, "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert read == json.loads(json.dumps(inspection.to_dict()))
    assert {finding["kind"] for finding in read["findings"]} == set(EXPECTED)
    assert read["findings"][0]["clips"][0].keys() == {"file", "part", "label", "set", "detail"}


def test_sound_data_has_no_findings(tones, tmp_path, capsys):
    assert main(["inspect", str(tones), "--cache-dir", str(tmp_path)]) == 0
    assert "Findings: none." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["./nowhere"], "audioclf: './nowhere': no such file or folder."),
        (["{tones}", "--max-seconds", "0"], "audioclf: max_seconds=0.0 must be a number above 0."),
        (["{tones}", "--min-clips", "-1"], "audioclf: min_clips=-1 must be a whole number of at least 0."),
    ],
)
def test_bad_input_is_one_sentence(arguments, sentence, tones, tmp_path, capsys):
    words = [word.format(tones=tones) for word in arguments]
    assert main(["inspect", *words, "--cache-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"{sentence}\n"


def test_a_name_that_is_not_utf8(tmp_path):
    """As training reads it."""
    rng = np.random.default_rng(0)
    for label in ("low", "high"):
        for number in range(3):
            write_tone(tmp_path / label / f"{number}.wav", 300, 0.5, rng)
    os.rename(tmp_path / "low" / "0.wav", os.fsencode(tmp_path / "low") + b"/caf\xe9.wav")
    found = audioclf.inspect(tmp_path, cache_dir=tmp_path / "cache")
    assert found.sampling_rates == {22_050: 6}


def test_a_datasets_object_and_several_labels(tmp_path):
    import datasets

    rng = np.random.default_rng(0)
    waves = [sound(rng) for _ in range(4)]
    waves[3] = 0.5 * waves[0]
    paths = [str(tmp_path / f"{number}.wav") for number in range(4)]
    for path, wave in zip(paths, waves, strict=True):
        soundfile.write(path, wave, RATE)
    rows = {"audio": paths, "labels": [["a", "b"], ["a"], [], ["a", "b"]]}
    data = datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio())
    found = audioclf.inspect(data, cache_dir=tmp_path, min_clips=0)
    (copies,) = found.findings
    assert (copies.kind, [clip.label for clip in copies.clips]) == ("near-copies", [("a", "b")] * 2)
    assert found.sampling_rates == {RATE: 4}
    assert found.classes["a"]["train"]["clips"] == 3
    assert "(train, a, b)" in str(found)


def test_nothing_readable(tmp_path):
    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / "x.wav").write_text("no sound")
    found = audioclf.inspect(tmp_path / "data", cache_dir=tmp_path / "cache", min_clips=0)
    assert [finding.kind for finding in found.findings] == ["unreadable"]
    assert "no clip can be read" in str(found)


class TestTable:
    @staticmethod
    def kinds(counts: dict[str, int], **parts: dict[str, int]) -> Counter[str]:
        clips = [
            audioclf.Example(f"{part} {label} {number}", label, part)
            for part, of_part in {"train": counts, **parts}.items()
            for label, count in of_part.items()
            for number in range(count)
        ]
        return Counter(finding.kind for finding in of_table(audioclf.make_splits(clips, name="x")))

    @pytest.mark.parametrize(
        "labels",
        [
            ("Jazz", "jazz"),
            ("jazz", " jazz "),
            ("hip-hop", "hip_hop"),
            ("caf\u00e9", "cafe\u0301"),
            ("a \u2013 b", "A - b"),
        ],
    )
    def test_spellings(self, labels):
        assert self.kinds(dict.fromkeys(labels, 20)) == {"label-spellings": 1}

    def test_spellings_that_look_alike(self):
        for labels, alike in ((("caf\u00e9", "cafe\u0301"), True), (("cafe", "Cafe"), False)):
            clips = [audioclf.Example(f"{label} {number}", label) for label in labels for number in range(20)]
            (found,) = of_table(audioclf.make_splits(clips, name="x"))
            assert ("differ in their Unicode form (NFC, NFD)" in str(found)) == alike

    @pytest.mark.parametrize("typo", ["rokc", "roc", "rocck", "rick"])
    def test_typos(self, typo):
        expected = {"imbalance": 1, "rare-classes": 1} | ({"label-typo": 1} if len(typo) > 3 else {})
        assert self.kinds({"rock": 20, typo: 2}) == expected
        assert "label-typo" not in self.kinds({"rock": 20, typo: 19})

    @pytest.mark.parametrize("other", ["dock 1", "dock 12", "rack", "duck 2x"])
    def test_numbers_and_other_words_are_no_typos(self, other):
        assert "label-typo" not in self.kinds({"dock 2": 200, other: 2})

    def test_missing_and_rare(self):
        assert self.kinds({"a": 20, "b": 20}, valid={"a": 3, "b": 3}) == {}
        assert self.kinds({"a": 20, "b": 20}, valid={"a": 3}) == {"missing-classes": 1}
        assert self.kinds({"a": 20, "b": 9}, valid={"a": 3, "b": 2}) == {"rare-classes": 2}

    def test_groups(self):
        clips = [audioclf.Example(f"{i}", "ab"[i % 2], ["train", "valid"][i // 3], group="gh"[i % 2]) for i in range(6)]
        splits = audioclf.make_splits(clips, name="x")
        (finding,) = of_groups(splits)
        assert finding.clips[0] == audioclf.findings.FoundClip("0", "train", "a", None, "group 'g'")
        assert len(finding.clips) == 6


class TestLevels:
    def test_levels(self):
        wave = np.concatenate([0.5 * np.sin(np.arange(16_000) / 10), np.zeros(48_000)]).astype(np.float32)
        found = levels(wave, 16_000)
        assert found.peak == pytest.approx(0.5, abs=1e-3)
        assert found.rms_db == pytest.approx(20 * np.log10(0.5 / np.sqrt(2) / 2), abs=0.01)
        assert found.silent_share == 0.75
        assert abs(found.dc_offset) < 1e-3
        assert levels(np.zeros(10, np.float32), 16_000).rms_db == -np.inf

    @pytest.mark.parametrize("frequency", [50, 440, 3000])
    @pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
    def test_only_flat_tops_are_clipping(self, tmp_path, frequency, subtype):
        sine = np.sin(2 * np.pi * frequency * np.arange(16_000) / 44_100)
        for factor in (0.99, 3.0):
            soundfile.write(tmp_path / "x.wav", np.clip(factor * sine, -1, 1), 44_100, subtype=subtype)
            found = original(str(tmp_path / "x.wav"), None, None, look_for_clipping=True)
            assert (found.sampling_rate, found.channels) == (44_100, 1)
            assert found.clipped_share == 0 if factor < 1 else found.clipped_share > 0.5

    def test_one_channel_and_a_segment(self, tmp_path):
        wave = np.random.default_rng(0).uniform(-0.5, 0.5, (30_000, 2))
        wave[20_000:20_005, 1] = 1.0
        soundfile.write(tmp_path / "x.wav", wave, 10_000)
        assert clipped_share(wave) == 5 / 30_000
        assert original(str(tmp_path / "x.wav"), 1.0, 3.0, True).clipped_share == 5 / 20_000
        assert original(str(tmp_path / "x.wav"), 0.0, 1.0, True).clipped_share == 0

    def test_what_cannot_be_told(self, tmp_path):
        (tmp_path / "x.wav").write_text("no sound")
        nothing = (None, None, None)
        for source in (str(tmp_path / "x.wav"), str(tmp_path / "nowhere.wav"), b"x", 3):
            found = original(source, None, None, True)
            assert (found.sampling_rate, found.channels, found.clipped_share) == nothing

    def test_lengths_without_clips(self):
        assert of_lengths([], 30.0) == []


def test_train_tells_what_the_table_tells(faulty, quick, tmp_path, capsys):
    splits = audioclf.load_dataset(faulty, group_column="group")
    options = {
        **quick,
        "num_epochs": 1,
        "bad_audio": "skip",
        "max_seconds": 0.2,
        "output_dir": tmp_path / "run",
        "progress": True,
    }
    audioclf.train(splits, **options)
    told = capsys.readouterr().out
    for finding in of_table(splits):
        assert told.count(f"note: {finding}") == 1
    assert told.count("group(s)") == 1
