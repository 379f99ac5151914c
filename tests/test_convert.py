"""Our data sets as `datasets` objects: what they hold, and that nothing is lost on the way out, to disk and back."""

import io
from dataclasses import replace

import datasets
import numpy as np
import pytest
import soundfile
from datasets import Audio, ClassLabel, Dataset, List, Value

import audioclf
from audioclf import AudioError, Example, load_dataset, make_splits, to_datasets
from audioclf.clips import decode

RATE = 16_000


def heard(splits, folder) -> dict[str, list[tuple[str, bytes]]]:
    """Label and samples of each clip, as training hears them."""
    decoded = decode(splits, sampling_rate=RATE, max_seconds=None, bad_audio="error", cache_dir=folder)
    return {
        part: [(str(clip.label), clips[row, 0]["waveform"].tobytes()) for row, clip in enumerate(splits.parts[part])]
        for part, clips in ((part, decoded.parts[part]) for part in splits.parts)
    }


def test_there_and_back(tones, tmp_path):
    splits = load_dataset(tones, labels=["mid", "low", "high"])
    given = to_datasets(splits)
    assert set(given) == {"train", "validation", "test"}
    assert given["train"].features == {"audio": Audio(), "label": ClassLabel(names=["mid", "low", "high"])}
    again = load_dataset(given)
    assert again.labels == splits.labels
    assert heard(again, tmp_path / "a") == heard(splits, tmp_path / "b")


def test_through_parquet(tones, tmp_path):
    """What is pushed to the hub: the files' bytes are in it."""
    splits = load_dataset(tones)
    to_datasets(splits)["train"].to_parquet(tmp_path / "train.parquet")
    table = datasets.load_dataset("parquet", data_files=str(tmp_path / "train.parquet"), cache_dir=str(tmp_path / "hf"))
    assert heard(load_dataset(table), tmp_path / "a")["train"] == heard(splits, tmp_path / "b")["train"]


def test_groups_folds_and_several_labels(tmp_path):
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, np.zeros(800), RATE)
    clips = [
        Example(str(tmp_path / "a.wav"), ("dog", "rain"), "train", group="anna", fold="1"),
        Example(str(tmp_path / "b.wav"), (), "valid", fold="2"),
    ]
    given = to_datasets(make_splits(clips, name="two"))
    assert set(given) == {"train", "validation"}
    names = ClassLabel(names=["dog", "rain"])
    assert given["train"].features == {
        "audio": Audio(), "labels": List(names), "group": Value("string"), "fold": Value("string"),
    }  # fmt: skip
    assert given["validation"].select_columns("labels")[:] == {"labels": [[]]}
    assert given["train"].select_columns(["group", "fold"])[0] == {"group": "anna", "fold": "1"}
    again = load_dataset(given, group_column="group")
    assert again.multi_label
    assert again.train[0].label == ("dog", "rain")
    assert again.train[0].group == "anna"


def test_parts_of_files_and_rows_of_other_data(tmp_path):
    """A part is cut at the file's own rate; arrays and bytes are kept as they are."""
    rng = np.random.default_rng(0)
    samples = rng.uniform(-0.5, 0.5, (44_100, 2)).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", samples, 44_100, subtype="FLOAT")
    part = Example(str(tmp_path / "long.wav"), "a", "train", start=0.25, end=0.75)
    file = io.BytesIO()
    soundfile.write(file, samples[:500, 0], 8000, format="FLAC")
    rows = load_dataset(
        Dataset.from_dict({"audio": [{"bytes": file.getvalue(), "path": None}] * 2, "label": ["b", "c"]}).cast_column(
            "audio", Audio()
        )
    )
    whole, tail = (replace(part, start=start, end=None) for start in (None, 0.9))
    splits = make_splits([part, whole, tail, *(replace(clip, split="train") for clip in rows.train)], name="mixed")
    given = to_datasets(splits)["train"].cast_column("audio", Audio(decode=False))
    stored = [row["audio"]["path"] or io.BytesIO(row["audio"]["bytes"]) for row in given]
    read = [soundfile.read(file, dtype="float32") for file in stored]
    assert [rate for _, rate in read] == [44_100, 44_100, 44_100, 8000, 8000]
    expected = samples[11_025:33_075], samples, samples[39_690:], samples[:500, 0], samples[:500, 0]
    for (found, _), own in zip(read, expected, strict=True):
        assert np.allclose(found, own, atol=1e-4)
    assert heard(load_dataset(to_datasets(splits)), tmp_path / "a").keys() == {"train"}


def test_a_part_of_what_is_no_sound(tmp_path):
    (tmp_path / "no.wav").write_text("no sound")
    splits = make_splits(
        [
            Example(str(tmp_path / "no.wav"), label, "train", None, start, start + 1.0)
            for start, label in enumerate("ab")
        ],
        name="one",
    )
    with pytest.raises(AudioError, match=r"no\.wav \[0\.0-1\.0 s\]: libsndfile cannot read it"):
        audioclf.to_datasets(splits)
