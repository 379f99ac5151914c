"""From examples to clips: unreadable ones are judged and named, long ones cut, crops drawn for the clip alone."""

import re

import numpy as np
import pytest
import soundfile

from audioclf import audio, cache, clips
from audioclf.augment import Augmentation
from audioclf.datasets.base import AudioSource, Example
from audioclf.datasets.making import make_splits
from audioclf.errors import AudioError, DatasetError

RATE = 16_000
SAY_SKIP = "Repair or remove them, or go on without them by bad_audio='skip':"


def write(path, content="noise", seconds=0.02) -> str:
    """A wav file of noise, silence or a ramp (sample i has the value i / 2**20); or one that is broken."""
    samples = {
        "noise": np.random.default_rng(len(path.name)).uniform(-0.5, 0.5, round(seconds * RATE)),
        "silence": np.zeros(round(seconds * RATE)),
        "constant": np.full(round(seconds * RATE), -0.25),
        "ramp": (1 + np.arange(round(seconds * RATE))) / 2**20,
    }
    if content == "broken":
        path.write_bytes(b"")
    else:
        soundfile.write(path, samples[content], RATE, subtype="FLOAT")
    return str(path)


def splits_of(tmp_path, contents, split="train", **options):
    """One clip for each content, in turn of class a and b."""
    examples = [
        Example(write(tmp_path / f"{split} {i}.wav", content, **options), "ab"[i % 2], split)
        for i, content in enumerate(contents)
    ]
    return examples


def decode(tmp_path, examples, **options):
    options = {"sampling_rate": RATE, "max_seconds": None, **options}
    return clips.decode(make_splits(examples, name="Things"), cache_dir=tmp_path / "cache", **options)


def listed(examples) -> str:
    return "\n".join(f"  {example.audio!r}: is empty (0 bytes); remove it from the data." for example in examples)


# --- what a clip is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16_000, 8000])
def test_clips_are_what_audio_loads(tmp_path, rate):
    path = write(tmp_path / "long.wav", seconds=1.0)
    examples = [
        Example(path, "a", "train", start=0.1, end=0.3),
        Example(path, "b", "train", start=0.5),
        Example(write(tmp_path / "v.wav", seconds=0.3), "b", "valid"),
        Example(
            AudioSource("row 7", "row-7", lambda: {"array": np.linspace(0, 0.9, 800), "sampling_rate": RATE}),
            "a",
            "test",
        ),
    ]
    decoded = decode(tmp_path, examples, sampling_rate=rate)
    assert list(decoded.parts) == ["train", "valid", "test"]
    assert decoded.set_aside == {}
    assert decoded.notes == ()
    for part in ("train", "valid", "test"):
        for index, example in enumerate(e for e in examples if e.split == part):
            source = example.audio if isinstance(example.audio, str) else example.audio.read()
            item = decoded.parts[part][index, 0]
            np.testing.assert_array_equal(item["waveform"], audio.load(source, rate, example.start, example.end))
            assert item["label"] == "ab".index(example.label)
            assert item["index"] == index
            assert decoded.parts[part].names[index] == example.name
            assert decoded.parts[part].lengths[index] == len(item["waveform"])


def test_waveform_may_be_changed_without_harm(tmp_path):
    part = decode(tmp_path, splits_of(tmp_path, ["noise"] * 2)).parts["train"]
    before = part[0, 0]["waveform"]
    part[0, 0]["waveform"][:] = 9.0
    np.testing.assert_array_equal(part[0, 0]["waveform"], before)


def test_another_split_of_the_same_clips_decodes_nothing(tmp_path):
    paths = [write(tmp_path / f"{i}.wav") for i in range(6)]
    reads = []

    def example(i, split):
        def read():
            reads.append(i)
            return paths[i]

        return Example(AudioSource(paths[i], f"id {i}", read), "ab"[i % 2], split)

    one = decode(tmp_path, [example(i, "train" if i < 4 else "valid") for i in range(6)])
    other = decode(tmp_path, [example(i, "valid" if i < 3 else "train") for i in reversed(range(6))])
    assert sorted(reads) == list(range(6))
    assert len(cache.report(tmp_path / "cache")) == 1
    np.testing.assert_array_equal(one.parts["train"][2, 0]["waveform"], other.parts["valid"][0, 0]["waveform"])


# --- unreadable clips ------------------------------------------------------------------------------------------------


def test_auto_sets_one_of_a_hundred_aside(tmp_path):
    examples = splits_of(tmp_path, ["noise"] * 60 + ["broken"] + ["noise"] * 39)
    decoded = decode(tmp_path, examples)
    assert decoded.notes == (f"1 of 100 clips cannot be used and are set aside:\n{listed([examples[60]])}",)
    assert decoded.set_aside == {
        examples[60].audio: f"{examples[60].audio!r}: is empty (0 bytes); remove it from the data."
    }
    assert len(decoded.parts["train"]) == 99
    assert examples[60].audio not in decoded.parts["train"].names


def test_auto_stops_at_two_of_a_hundred(tmp_path):
    examples = splits_of(tmp_path, ["broken"] * 2 + ["noise"] * 98)
    with pytest.raises(AudioError) as caught:
        decode(tmp_path, examples)
    assert str(caught.value) == f"2 of 100 clips (2.0%) cannot be used. {SAY_SKIP}\n{listed(examples[:2])}"


def test_error_stops_at_one(tmp_path):
    examples = splits_of(tmp_path, ["broken"] + ["noise"] * 99)
    with pytest.raises(AudioError) as caught:
        decode(tmp_path, examples, bad_audio="error")
    assert str(caught.value) == f"1 of 100 clips (1.0%) cannot be used. {SAY_SKIP}\n{listed(examples[:1])}"


def test_skip_sets_any_number_aside_and_names_ten(tmp_path):
    examples = splits_of(tmp_path, ["broken"] * 14 + ["noise"] * 4)
    decoded = decode(tmp_path, examples, bad_audio="skip")
    assert len(decoded.parts["train"]) == 4
    assert set(decoded.set_aside) == {example.audio for example in examples[:14]}
    (note,) = decoded.notes
    first, *named, last = note.splitlines()
    assert first == "14 of 18 clips cannot be used and are set aside:"
    assert len(named) == 10
    assert set(named) <= set(listed(examples[:14]).splitlines())
    assert last == "  ... and 4 more."


@pytest.mark.parametrize("bad_audio", ["auto", "skip", "error"])
def test_all_readable_needs_no_note(tmp_path, bad_audio):
    assert decode(tmp_path, splits_of(tmp_path, ["noise"] * 4), bad_audio=bad_audio).notes == ()


def test_a_verdict_is_not_cached(tmp_path):
    examples = splits_of(tmp_path, ["broken"] + ["noise"] * 3)
    for _ in range(2):
        with pytest.raises(AudioError, match=r"1 of 4 clips \(25\.0%\)"):
            decode(tmp_path, examples)
        assert len(decode(tmp_path, examples, bad_audio="skip").parts["train"]) == 3
    write(tmp_path / "train 0.wav")  # repaired
    assert decode(tmp_path, examples).set_aside == {}


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_part_without_a_readable_clip(tmp_path, part):
    examples = []
    for split in ("train", "valid", "test"):
        examples += splits_of(tmp_path, ["broken" if split == part else "noise"] * 2, split)
    with pytest.raises(DatasetError, match=rf"^Things: no clip of its {part} part could be read\.$"):
        decode(tmp_path, examples, bad_audio="skip")


def test_class_without_a_readable_training_clip(tmp_path):
    """A model would be trained that can never answer `b`."""
    examples = splits_of(tmp_path, ["noise", "broken"] * 3) + splits_of(tmp_path, ["noise"] * 4, "valid")
    with pytest.raises(DatasetError, match=r"^Things: .*'?b'?"):
        decode(tmp_path, examples, bad_audio="skip")


@pytest.mark.parametrize("rate", [RATE, 22_050])
def test_clips_without_sound_are_kept_and_named(tmp_path, rate):
    """Also where resampling lets a constant swing in and out."""
    examples = splits_of(tmp_path, ["silence", "noise", "constant", "ramp"], seconds=0.2)
    decoded = decode(tmp_path, examples, sampling_rate=rate)
    assert len(decoded.parts["train"]) == 4
    (note,) = decoded.notes
    words = r"2 clip\(s\) are silent, or one constant, from start to end \(they are kept\): (.+)\."
    assert re.fullmatch(words, note)
    assert examples[0].audio in note
    assert examples[2].audio in note


def test_read_error_of_a_row_names_the_row(tmp_path):
    """Bytes that fail to come (a network share, a parquet file) are the row's fault, not the cache's."""

    def read():
        raise OSError("stale file handle")

    examples = splits_of(tmp_path, ["noise"] * 4)
    examples.append(Example(AudioSource("row 7", "row-7", read), "a", "train"))
    with pytest.raises(Exception, match="stale file handle") as caught:
        decode(tmp_path, examples)
    assert "cannot be written" not in str(caught.value)


# --- cuts and crops --------------------------------------------------------------------------------------------------


def ramps(tmp_path, **options):
    """Four training and two validation clips of one second whose values tell where a crop began."""
    examples = splits_of(tmp_path, ["ramp"] * 4, seconds=1.0) + splits_of(tmp_path, ["ramp"] * 2, "valid", seconds=1.0)
    return decode(tmp_path, examples, **options).parts


def begin_of(part, index, epoch) -> int:
    """Where the crop began; asserts that it is a contiguous piece of the clip."""
    waveform = part[index, epoch]["waveform"]
    assert len(waveform) == part.lengths[index]
    begin = round(float(waveform[0]) * 2**20) - 1
    np.testing.assert_array_equal(waveform, ((1 + begin + np.arange(len(waveform))) / 2**20).astype(np.float32))
    return begin


def test_max_seconds_cuts_at_the_start(tmp_path):
    parts = ramps(tmp_path, max_seconds=0.25)
    for part in parts.values():
        assert part.lengths.tolist() == [4000] * len(part)
        assert {begin_of(part, i, epoch) for i in range(len(part)) for epoch in range(5)} == {0}


@pytest.mark.parametrize("max_seconds", [None, 1.0, 30.0])
def test_what_is_short_enough_is_whole(tmp_path, max_seconds):
    for part in ramps(tmp_path, max_seconds=max_seconds, augmentation=Augmentation(3, random_crop=True)).values():
        assert part.lengths.tolist() == [RATE] * len(part)
        assert {begin_of(part, i, epoch) for i in range(len(part)) for epoch in range(5)} == {0}


def test_crops_are_a_function_of_seed_epoch_and_index(tmp_path):
    drawn = {}
    for seed in (1, 2):
        for attempt in range(2):
            part = ramps(tmp_path, max_seconds=0.25, augmentation=Augmentation(seed, random_crop=True))["train"]
            keys = [(i, epoch) for i in range(4) for epoch in range(5)]
            np.random.seed(attempt)  # noqa: NPY002 - the global stream must not matter
            order = keys if attempt == 0 else keys[::-1]
            drawn[seed, attempt] = {key: begin_of(part, *key) for key in order}
    assert drawn[1, 0] == drawn[1, 1]
    assert drawn[2, 0] == drawn[2, 1]
    begins = [*drawn[1, 0].values(), *drawn[2, 0].values()]
    assert len(set(begins)) > 35  # 40 draws of 12,001 places


def test_crops_reach_every_place(tmp_path):
    part = ramps(tmp_path, max_seconds=1.0 - 4 / RATE, augmentation=Augmentation(0, random_crop=True))["train"]
    begins = [begin_of(part, 0, epoch) for epoch in range(200)]
    counts = np.bincount(begins, minlength=5)
    assert len(counts) == 5
    assert counts.min() > 20


def test_only_train_is_cropped_at_random(tmp_path):
    part = ramps(tmp_path, max_seconds=0.25, augmentation=Augmentation(0, random_crop=True))["valid"]
    assert {begin_of(part, i, epoch) for i in range(2) for epoch in range(5)} == {0}
