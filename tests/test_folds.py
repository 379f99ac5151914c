"""Dividing clips into folds: disjoint, of whole groups, each class in proportion, as scikit-learn does it or better."""

import random
import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conftest import random_cases
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from audioclf import AudioSource, ConfigError, DatasetError, Example, make_splits
from audioclf.datasets.folds import divide


def counts(labels, folds) -> np.ndarray:
    """Clips of each class in each fold, (K, C)."""
    rows, columns = (np.unique(values, return_inverse=True)[1] for values in (folds, labels))
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(table, (rows, columns), 1)
    return table


def imbalance(labels, folds) -> float:
    """How much a class's share differs from fold to fold, averaged over classes: StratifiedGroupKFold's own measure."""
    table = counts(labels, folds)
    return float((table / table.sum(axis=0)).std(axis=0).mean())


def sklearns(splitter, clips) -> list[int]:
    labels, groups = [clip.label for clip in clips], [clip.group for clip in clips]
    folds = [0] * len(clips)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class with fewer clips than folds
        for number, (_, test) in enumerate(splitter.split(labels, labels, groups)):
            for index in test:
                folds[index] = number
    return folds


def check(folds, clips) -> None:
    """Every clip in one fold, no group in two, and each fold's test part nothing but the fold."""
    assert Counter(clip.name for clip in folds.clips) == Counter(clip.name for clip in clips)
    groups = {(clip.group, fold) for clip, fold in zip(folds.clips, folds.fold_of, strict=True) if clip.group}
    assert len(groups) == len({group for group, _ in groups})
    tested = Counter()
    for name in folds.names:
        splits = folds.splits(name)
        assert not splits.valid
        assert Counter(e.name for e in (*splits.train, *splits.test)) == Counter(clip.name for clip in clips)
        assert not {e.group for e in splits.train if e.group} & {e.group for e in splits.test if e.group}
        assert splits.labels == folds.labels
        tested.update(e.name for e in splits.test)
    assert set(tested.values()) == {1}
    assert len(tested) == len(clips)


@random_cases(120, few=30)
def test_groups_are_shared_out_as_well_as_by_sklearn(cases):
    """Groups of one class each (recordings) and of several (speakers)."""
    ours, theirs = [], []
    for case in cases:
        rng = random.Random(case)
        num_folds, num_classes = rng.randint(2, 10), rng.randint(2, 8)
        clips = []
        for group in range(rng.randint(2 * max(num_folds, num_classes), 50)):
            own = group % num_classes if group < 2 * num_classes else rng.randrange(num_classes)
            for number in range(rng.randint(1, 12)):
                label = own if case % 2 else rng.randrange(num_classes)
                clips.append(Example(f"{group}/{number}.wav", f"c{label}", group=f"g{group}"))
        rng.shuffle(clips)
        folds = divide(make_splits(clips, name="mine"), num_folds, seed=case)  # no class lies in one fold
        assert len(folds.names) == num_folds
        labels = [clip.label for clip in clips]
        ours.append(imbalance(labels, folds.fold_of))
        splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=case)
        theirs.append(imbalance(labels, sklearns(splitter, clips)))
    ours, theirs = np.array(ours), np.array(theirs)
    assert ours.mean() <= theirs.mean()
    assert (ours <= theirs + 1e-9).mean() > 0.85
    assert (ours <= 1.5 * theirs + 1e-9).all()


@random_cases(120, few=30)
def test_clips_without_groups_are_shared_out_as_by_sklearn(cases):
    """Classes differ by a clip at most from fold to fold, and so do the folds."""
    for case in cases:
        rng = random.Random(case)
        num_folds, num_classes, skew = rng.randint(2, 10), rng.randint(2, 8), rng.random()
        labels = [f"c{rng.randrange(num_classes) if rng.random() < skew else 0}" for _ in range(rng.randint(30, 150))]
        clips = [Example(f"{number}.wav", label) for number, label in enumerate([*labels, "c0", "c1", "c0", "c1"])]
        clips = [clip for clip in clips if sum(other.label == clip.label for other in clips) > 1]
        folds = divide(make_splits(clips, name="mine"), num_folds, seed=case)
        table = counts([clip.label for clip in folds.clips], folds.fold_of)
        assert np.ptp(table, axis=0).max() <= 1
        assert np.ptp(table.sum(axis=1)) <= 1
        theirs = sklearns(StratifiedKFold(num_folds, shuffle=True, random_state=case), clips)
        assert np.array_equal(np.sort(table, axis=0), np.sort(counts([c.label for c in clips], theirs), axis=0))


@pytest.mark.parametrize("how", [3, 5, "group", "official"])
def test_every_clip_is_tested_once_and_no_group_is_on_both_sides(how):
    rng = random.Random(0)
    clips = [
        Example(f"{speaker}/{label}{take}.wav", label, group=f"s{speaker}", fold=str(speaker % 11))
        for speaker in range(20)
        for label in "abc"
        for take in range(rng.randint(1, 4))
    ]
    folds = divide(make_splits(clips, name="mine"), how, seed=1)
    check(folds, clips)
    assert folds.notes == ()
    if how == "group":
        assert folds.names == tuple(f"s{speaker}" for speaker in range(20))
    if how == "official":
        assert folds.names == tuple(map(str, range(11)))
        assert all(clip.fold == fold for clip, fold in zip(folds.clips, folds.fold_of, strict=True))


def test_seeded():
    clips = make_splits([Example(f"{n}.wav", "ab"[n % 2]) for n in range(40)], name="mine")
    once, again, other = (divide(clips, 4, seed) for seed in (5, 5, 6))
    assert once == again
    assert once.fold_of != other.fold_of
    shuffled = replace(clips, train=clips.train[::-1])
    assert once.fingerprint() == again.fingerprint() != other.fingerprint() != divide(shuffled, 4, 5).fingerprint()


def test_the_draw_brings_all_clips_together():
    clips = make_splits([Example(f"{n}.wav", "ab"[n % 2]) for n in range(12)], name="mine")
    together = Counter()
    for seed in range(100):
        fold_of = divide(clips, 3, seed).fold_of
        together.update(other for other in range(1, 12) if fold_of[other] == fold_of[0])
    assert set(together) == set(range(1, 12))


@random_cases(100, few=30)
def test_multi_label(cases):
    """Each tag by itself is in proportion; clips without any are a class of their own."""
    for case in cases:
        rng = random.Random(case)
        rates = [rng.uniform(0.05, 0.6) for _ in "abcde"]
        clips = [
            Example(f"{n}.wav", tuple(tag for tag, rate in zip("abcde", rates, strict=True) if rng.random() < rate))
            for n in range(200)
        ]
        folds = divide(make_splits(clips, name="mine"), 5, seed=case)
        check(folds, clips)
        assert folds.multi_label
        for tag in folds.labels:
            held = Counter(fold for clip, fold in zip(folds.clips, folds.fold_of, strict=True) if tag in clip.label)
            total = sum(held.values())
            assert all(abs(held[name] - total / 5) <= 1 + 0.1 * total for name in folds.names), (case, tag, held)
        bare = Counter(fold for clip, fold in zip(folds.clips, folds.fold_of, strict=True) if not clip.label)
        assert max(bare.values(), default=0) - min((bare[name] for name in folds.names), default=0) <= 3


def test_pieces_of_one_file_stay_together():
    """A recording cut in pieces is one piece of evidence, named as a group or not."""
    source = AudioSource("row", "row 1", lambda: b"")
    clips = [Example(f"{f}.wav", "ab"[f % 2], start=s / 2, end=s / 2 + 1) for f in range(8) for s in range(5)]
    clips += [Example(source, "a", start=float(s), end=s + 1.0) for s in range(3)]
    folds = divide(make_splits(clips, name="mine"), 4, seed=0)
    files = {(str(clip.audio), fold) for clip, fold in zip(folds.clips, folds.fold_of, strict=True)}
    assert len(files) == 9


def test_the_data_sets_own_parts():
    """Its test part is left alone by folds of ours; official folds are of all clips that have one."""
    clips = [Example(f"{n}.wav", "ab"[n % 2], split=("train", "train", "valid", "test")[n // 8]) for n in range(32)]
    splits = make_splits(clips, name="mine", notes=["noted"], split_notes=["of the split"])
    assert splits.notes == ("noted", "of the split")
    folds = divide(splits, 4, seed=0)
    check(folds, [clip for clip in clips if clip.split != "test"])
    assert folds.notes == (
        "noted",
        "The valid part of mine (8 clips) is divided into folds too.",
        "The test part of mine (8 clips) is left out, for a final test.",
    )
    some = [replace(clip, fold=str(n % 3) if n >= 4 else None) for n, clip in enumerate(clips)]
    folds = divide(make_splits(some, name="mine"), "official", seed=0)
    check(folds, some[4:])
    assert folds.notes == ("4 clip(s) have no fold and are left out.",)


def test_what_is_not_as_one_would_wish_is_noted():
    clips = [Example(f"{n}.wav", "ab"[n % 2], fold=str(n % 5), group=f"g{n // 2}") for n in range(40)]
    clips += [Example("c.wav", "c", fold="0"), Example("d.wav", "c", fold="1")]
    folds = divide(make_splits(clips, name="mine"), "official", seed=0)
    assert folds.notes == (
        "1 class(es), for example 'c', are not in every fold: the scores of single folds are of other classes each, "
        "and the one over all clips is of all.",
        "20 group(s), for example 'g0', are in more than one fold: the scores will look better than they are.",
    )


def clips_of(*rows: tuple) -> list[Example]:
    return [Example(f"{n}.wav", label, group=group, fold=fold) for n, (label, group, fold) in enumerate(rows)]


TWO = clips_of(*[(label, f"s{n}", "1") for n in range(2) for label in "ab"])


@pytest.mark.parametrize(
    ("clips", "how", "sentence"),
    [
        (
            clips_of(("a", "x", None), ("b", "y", None)),
            "official",
            "mine has no official folds: give a number of folds",
        ),
        (TWO, "official", r"mine: all clips are in one fold \('1'\); cross-validation takes two."),
        (clips_of(("a", "x", None), ("b", "x", None)), "group", r"all clips are in one group \('x'\)"),
        (
            clips_of(("a", "x", None), ("b", None, None)),
            "group",
            "mine: 1 of 2 clips, for example 1.wav, have no group, which folds='group' leaves out in turn: name",
        ),
        (TWO, 3, r"mine: folds=3, but there are only 2 groups \(or files without one\) of clips: give fewer folds."),
        (
            clips_of(*[("a", f"s{n}", None) for n in range(4)], ("b", "s1", None)),
            "group",
            "mine: all clips of 'b' are in fold 's1', so the run that tests it could not learn this class; add clips",
        ),
        (
            [*TWO, Example("c.wav", "c", split="test")],
            2,
            "mine: there is no clip of 'c' among those to divide, so a run could not learn this class",
        ),
        ([replace(clip, split="test") for clip in TWO], 2, "mine: has no train part to divide, only test."),
        (
            [
                Example("x.wav", "a", start=0.0, end=2.0, fold="1"),
                Example("x.wav", "a", start=1.0, end=3.0, fold="2"),
                *clips_of(("b", None, "1"), ("b", None, "2")),
            ],
            "official",
            r"mine: x.wav \[1.0-3.0 s\] is in fold 1 and in fold 2; leave it in one of them.",
        ),
    ],
)
def test_impossible(clips, how, sentence):
    with pytest.raises(DatasetError, match=sentence):
        divide(make_splits(clips, name="mine"), how, seed=0)


@pytest.mark.parametrize("how", ["offical", 1, 0, -3, 2.5, True, None, (1, 2)])
def test_no_way_to_fold(how):
    with pytest.raises(ConfigError, match=r"must be 'official', 'group' or a whole number of at least 2\."):
        divide(make_splits(TWO, name="mine"), how, seed=0)
