"""Cutting a valid part out of train, and the string that tells data sets apart."""

import os
import random
from collections import Counter
from dataclasses import replace

import pytest
from conftest import random_cases

from audioclf import AudioSource, AudioSplits, DatasetError, Example, make_splits
from audioclf.datasets.split import cut_valid


def data(counts: dict[str, int], groups=None) -> AudioSplits:
    """So many clips a class; `groups` gives a clip's group from its label and number."""
    clips = [
        Example(f"{label}/{number}.wav", label, group=groups and groups(label, number))
        for label, count in counts.items()
        for number in range(count)
    ]
    return make_splits(clips, name="mine")


def check_partition(before: AudioSplits, after: AudioSplits) -> None:
    """Nothing lost, doubled, or put on both sides; what is not train or valid stays."""
    assert Counter(e.audio for e in (*after.train, *after.valid)) == Counter(e.audio for e in before.train)
    assert {e.split for e in after.train} == {"train"}
    assert {e.split for e in after.valid} == {"valid"}
    assert not {e.group for e in after.train if e.group} & {e.group for e in after.valid if e.group}
    assert (after.test, after.labels, after.name) == (before.test, before.labels, before.name)
    order = {example.audio: place for place, example in enumerate(before.train)}
    for part in (after.train, after.valid):
        assert [order[e.audio] for e in part] == sorted(order[e.audio] for e in part)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.25, 0.5, 0.8])
def test_each_class_in_proportion(fraction):
    counts = {"a": 200, "b": 50, "c": 7, "d": 2, "e": 1}
    splits = data(counts)
    after = cut_valid(splits, fraction, seed=3)
    check_partition(splits, after)
    held = Counter(example.label for example in after.valid)
    for label, count in counts.items():
        if count > 1:
            assert 1 <= held[label] <= max(1, count * fraction + 0.5)
            assert held[label] >= min(count - 1, count * fraction - 0.5)
        else:
            assert held[label] == 0  # its only clip is there to be learned


@pytest.mark.parametrize("fraction", [0.8, 0.99])
def test_no_class_leaves_train(fraction):
    """A class that is only in valid cannot be learned."""
    counts = {"a": 100, "b": 3, "c": 2}
    after = cut_valid(data(counts), fraction, seed=0)
    assert {example.label for example in after.train} == set(counts)
    assert {example.label for example in after.valid} == set(counts)


def test_seeded():
    splits = data({"a": 30, "b": 30})
    once, again, other = (cut_valid(splits, 0.2, seed) for seed in (5, 5, 6))
    assert once == again
    assert once.valid != other.valid


def test_the_draw_covers_all_clips():
    splits = data({"a": 10, "b": 10})
    drawn = Counter(e.audio for seed in range(200) for e in cut_valid(splits, 0.2, seed).valid)
    assert set(drawn) == {e.audio for e in splits.train}
    assert min(drawn.values()) > 15  # 40 are expected, with a standard deviation of 5.7
    assert max(drawn.values()) < 65


def test_other_parts_stay():
    clips = [*data({"a": 10, "b": 10}).train, Example("t.wav", "a", split="test")]
    splits = make_splits(clips, name="mine", notes=["noted"])
    after = cut_valid(splits, 0.1, 0)
    check_partition(splits, after)
    assert "noted" in after.notes


@random_cases(250, few=80)
def test_whole_groups_of_one_class(cases):
    """With groups inside classes a class is off by half a group at most: one group more or less would not help."""
    for case in cases:
        rng = random.Random(case)
        counts = {label: rng.randint(2, 60) for label in "abc"}
        size = rng.randint(1, 12)
        owner = {
            (label, number): f"{label}{rng.randrange(1 + count // size)}"
            for label, count in counts.items()
            for number in range(count)
        }
        splits = data(counts, lambda label, number, owner=owner: owner[label, number])
        sizes = Counter(owner.values())
        fraction = rng.uniform(0.05, 0.5)
        target = {label: max(1, round(count * fraction)) for label, count in counts.items()}
        try:
            after = cut_valid(splits, fraction, case)
        except DatasetError:  # only where no group is nearer to its class's share than nothing
            assert all(size >= 2 * target[group[0]] for group, size in sizes.items())
            continue
        check_partition(splits, after)
        held = Counter(example.label for example in after.valid)
        if len({example.group for example in after.valid}) == 1:  # every group is too large: the least bad one
            continue
        for label in counts:
            largest = max(size for group, size in sizes.items() if group[0] == label)
            assert abs(held[label] - target[label]) <= largest / 2, (case, label)


@random_cases(150, few=30)
def test_whole_groups_across_classes(cases):
    """Speakers who say every word: nobody on both sides, every word on both, and about the share asked for."""
    for case in cases:
        rng = random.Random(1000 + case)
        labels = "abcdef"[: rng.randint(2, 6)]
        clips = [
            Example(f"{speaker}/{label}/{take}.wav", label, group=f"s{speaker}")
            for speaker in range(rng.randint(12, 40))
            for label in labels
            for take in range(rng.randint(1, 6))
        ]
        rng.shuffle(clips)
        splits = make_splits(clips, name="mine")
        fraction = rng.uniform(0.1, 0.4)
        after = cut_valid(splits, fraction, case)
        check_partition(splits, after)
        largest = max(Counter(example.group for example in clips).values())
        assert abs(len(after.valid) - fraction * len(clips)) <= largest, case
        assert {e.label for e in after.train} == {e.label for e in after.valid} == set(labels), case


def test_clips_without_a_group_are_free():
    clips = [Example(f"{n}.wav", "ab"[n % 2], group="big" if n < 10 else None) for n in range(100)]
    splits = make_splits(clips, name="mine")
    after = cut_valid(splits, 0.1, 0)
    check_partition(splits, after)
    assert Counter(e.label for e in after.valid) == {"a": 5, "b": 5}


def test_pieces_of_one_file_stay_together():
    """Though nobody has said that they are a group."""
    clips = [Example(f"{n // 6}.wav", "ab"[n // 6 % 2], start=n % 6, end=n % 6 + 1) for n in range(120)]
    splits = cut_valid(make_splits(clips, name="x"), 0.2, seed=3)
    assert splits.valid
    assert not {clip.audio for clip in splits.train} & {clip.audio for clip in splits.valid}


def test_clips_that_stand_there_twice_are_told():
    clips = [Example("1.wav", "a"), Example("2.wav", "b"), Example("./1.wav", "a"), Example("1.wav", "a")]
    (note,) = make_splits(clips, name="x").notes
    assert note == "2 clip(s) stand there more than once, for example ./1.wav: each counts as often."


@pytest.mark.parametrize("num_speakers", [2, 3, 5, 8])
def test_few_speakers(num_speakers):
    """With few groups one of them is held out, or the sentence says what would help."""
    splits = data({"a": 40, "b": 40}, lambda label, number: f"s{number % num_speakers}")
    try:
        after = cut_valid(splits, 0.1, 0)
        told = f"valid_fraction was enough for {len({example.group for example in after.valid})} group"
    except DatasetError as error:
        told = str(error)
    assert "valid_fraction" in told


@pytest.mark.parametrize(
    ("splits", "sentence"),
    [
        (
            data({"a": 30, "b": 30}, lambda label, number: "one"),
            r"mine: 60 training clips in 1 group\(s\) or file\(s\) cannot be cut into 90% train and 10% valid; give",
        ),
        (data({"a": 1, "b": 1}), r"mine: 2 training clips .*cannot be cut into 90% train and 10% valid"),
    ],
)
def test_impossible(splits, sentence):
    with pytest.raises(DatasetError, match=sentence):
        cut_valid(splits, 0.1, 0)


class TestFingerprint:
    def clips(self, folder) -> list[Example]:
        for number in range(4):
            (folder / f"{number}.wav").write_bytes(b"x" * (number + 1))
        return [Example(str(folder / f"{n}.wav"), "ab"[n % 2], split=("train", "test")[n // 2]) for n in range(4)]

    def test_same_data_same_string(self, tmp_path):
        clips = self.clips(tmp_path)
        whole = make_splits(clips, name="one")
        assert make_splits(clips[::-1], name="other", notes=["x"]).fingerprint() == whole.fingerprint()
        assert len(whole.fingerprint()) == 64

    def test_it_sees_every_change(self, tmp_path):
        clips = self.clips(tmp_path)
        one, *rest = clips
        seen = {make_splits(clips, name="m").fingerprint()}
        variants = [
            [replace(one, label="b"), *rest],
            [replace(one, split="valid"), *rest],
            [replace(one, end=0.5), *rest],
            [replace(one, start=0.5), *rest],
            [replace(one, audio=str(tmp_path / "missing.wav")), *rest],
            [replace(one, audio=AudioSource("n", "identity 1", lambda: b"")), *rest],
            [replace(one, audio=AudioSource("n", "identity 2", lambda: b"")), *rest],
            rest,
        ]
        seen |= {make_splits(variant, name="m").fingerprint() for variant in variants}
        seen.add(make_splits(clips, name="m", labels=["b", "a"]).fingerprint())
        seen.add(make_splits(clips, name="m", labels=["a", "b", "c"]).fingerprint())
        (tmp_path / "0.wav").write_bytes(b"longer")
        seen.add(make_splits(clips, name="m").fingerprint())
        status = os.stat(tmp_path / "0.wav")
        os.utime(tmp_path / "0.wav", ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
        seen.add(make_splits(clips, name="m").fingerprint())
        assert len(seen) == 1 + len(variants) + 4

    def test_names_that_are_no_utf8(self, tmp_path):
        clips = [Example(str(tmp_path / "caf\udce9.wav"), "a"), Example("2.wav", "b")]
        assert len(make_splits(clips, name="m").fingerprint()) == 64
