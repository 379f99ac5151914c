"""Dividing clips into the folds of a cross-validation. Shapes: K folds, C labels."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..errors import ConfigError, DatasetError
from .base import AudioSplits, Example, refuse_stream
from .overlap import refuse_shared_clips
from .split import strata, unit

HowToFold = int | Literal["official", "group"]
"""Official folds, one fold a group, or a number of folds."""


@dataclass(frozen=True)
class Folds:
    """Clips in folds, each of which is the test part of one run.

    Attributes:
        name, labels, metric: As in the data set they are from.
        names: The folds, in order.
        clips: All the clips.
        fold_of: The fold of each clip.
        notes: Sentences for the user, on the clips and on their folds.
    """

    name: str
    labels: tuple[str, ...]
    metric: str | None
    names: tuple[str, ...]
    clips: tuple[Example, ...]
    fold_of: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def multi_label(self) -> bool:
        """Whether a clip may have several classes, or none."""
        return any(isinstance(clip.label, tuple) for clip in self.clips[:1])

    def splits(self, name: str) -> AudioSplits:
        """One fold as test, all other clips as train."""
        parts: dict[str, list[Example]] = {"train": [], "test": []}
        for clip, fold in zip(self.clips, self.fold_of, strict=True):
            part = "test" if fold == name else "train"
            parts[part].append(replace(clip, split=part))
        return AudioSplits(**parts, valid=(), labels=self.labels, name=f"{self.name}, fold {name}", metric=self.metric)

    def fingerprint(self) -> str:
        """sha256 of labels, folds, and each clip's identity, label and fold."""
        digest = hashlib.sha256(repr((self.labels, self.names)).encode())
        rows = zip(self.clips, self.fold_of, strict=True)
        rows = sorted(f"{fold}|{clip.label}|{clip.identity()}" for clip, fold in rows)
        digest.update("\n".join(rows).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def fold_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names of folds in the order of a person: 9 before 10."""
    return tuple(sorted(set(names), key=lambda name: (len(name), name)))


def divide(splits: AudioSplits, how: HowToFold, seed: int) -> Folds:
    """Divides the clips of a data set into folds.

    Args:
        splits: The data set. Its valid part counts as train; so does its test part for official folds, which are of
            all clips, while otherwise it is left out.
        how: `official`: each clip's own `fold`. `group`: a fold for each group. A number: so many folds, whole groups
            only, each class in proportion, seeded; clips of one file, without a group, are a group.
        seed: Of the draw where `how` is a number.

    Raises:
        ConfigError: for a `how` that is none.
        DatasetError: for clips without folds or groups, too few groups, a class that lies in one fold only, and a
            clip that lies in two.
    """
    refuse_stream(splits, "cross_validate")
    pool, notes = _pool(splits, how)
    if not pool:
        raise DatasetError(f"{splits.name}: has no train part to divide, only {' and '.join(splits.parts)}.")
    if how == "official":
        fold_of = [clip.fold for clip in pool]
    elif how == "group":
        if bare := [clip for clip in pool if clip.group is None]:
            raise DatasetError(
                f"{splits.name}: {len(bare)} of {len(pool)} clips, for example {bare[0].name}, have no group, which "
                "folds='group' leaves out in turn: name their column by group_column, or give a number of folds."
            )
        fold_of = [clip.group for clip in pool]
    else:
        fold_of = [str(number + 1) for number in _balanced(splits.name, pool, how, seed)]
    names = fold_names(fold_of)
    if len(names) < 2:
        what = "group" if how == "group" else "fold"
        raise DatasetError(f"{splits.name}: all clips are in one {what} ({names[0]!r}); cross-validation takes two.")
    by_fold: dict[str, list[Example]] = {f"fold {name}": [] for name in names}
    for clip, fold in zip(pool, fold_of, strict=True):
        by_fold[f"fold {fold}"].append(clip)
    refuse_shared_clips(splits.name, by_fold)
    notes += _notes(splits.name, pool, fold_of, names, splits.labels)
    shared = (splits.name, splits.labels, splits.metric)
    return Folds(*shared, names, tuple(pool), tuple(fold_of), tuple(dict.fromkeys(notes)))


def _pool(splits: AudioSplits, how: HowToFold) -> tuple[list[Example], list[str]]:
    """The clips to divide, and sentences for the user."""
    notes = [note for note in splits.notes if note not in splits.split_notes]
    if how != "official":
        if how != "group" and (not isinstance(how, int) or isinstance(how, bool) or how < 2):
            raise ConfigError(f"folds={how!r} must be 'official', 'group' or a whole number of at least 2.")
        if splits.valid:
            notes.append(f"The valid part of {splits.name} ({len(splits.valid)} clips) is divided into folds too.")
        if splits.test:
            notes.append(f"The test part of {splits.name} ({len(splits.test)} clips) is left out, for a final test.")
        return [*splits.train, *splits.valid], notes
    clips = [clip for part in splits.parts.values() for clip in part]
    # In one order, whichever fold was test when the data was loaded.
    pool = sorted((clip for clip in clips if clip.fold is not None), key=lambda clip: clip.fold)
    if not pool:
        raise DatasetError(
            f"{splits.name} has no official folds: give a number of folds, or folds='group' to leave out one group "
            "after the other."
        )
    if len(pool) < len(clips):
        notes.append(f"{len(clips) - len(pool)} clip(s) have no fold and are left out.")
    return pool, notes


def _balanced(name: str, pool: Sequence[Example], num_folds: int, seed: int) -> list[int]:
    """Number of the fold of each clip, from 0: whole groups, each class in proportion.

    Group after group goes where it adds least to the squared distance of the folds from equal shares of each class,
    in units of the class: those that weigh most first, so that the small ones fill what is missing.
    """
    members: dict[tuple, list[int]] = defaultdict(list)
    for index, clip in enumerate(pool):
        members[unit(clip)].append(index)
    groups = list(members.values())
    if len(groups) < num_folds:
        raise DatasetError(
            f"{name}: folds={num_folds}, but there are only {len(groups)} groups (or files without one) of clips: "
            "give fewer folds."
        )
    numbers = {label: number for number, label in enumerate(sorted({label for c in pool for label in strata(c)}))}
    totals = np.zeros(len(numbers))
    counts: list[tuple[np.ndarray, np.ndarray]] = []  # of each group, the labels that it has and how often
    for group in groups:
        found = Counter(numbers[label] for index in group for label in strata(pool[index]))
        counts.append((np.array(sorted(found)), np.array([found[label] for label in sorted(found)], dtype=float)))
        totals[counts[-1][0]] += counts[-1][1]
    weights = [float((times**2 / totals[labels]).sum()) for labels, times in counts]
    shuffled = np.random.default_rng(seed).permutation(len(groups))
    # Groups that weigh the same go class by class: then the folds are of one size too.
    order = sorted(shuffled, key=lambda number: (-weights[number], counts[number][0].tolist()))
    held, sizes = np.zeros((num_folds, len(numbers))), np.zeros(num_folds)
    fold_of = [0] * len(pool)
    for number in order:
        labels, times = counts[number]
        cost = ((2 * held[:, labels] + times) * times / totals[labels]).sum(axis=1)
        cheapest = np.flatnonzero(cost <= cost.min() * (1 + 1e-9))
        fold = int(cheapest[np.argmin(sizes[cheapest])])
        held[fold, labels] += times
        sizes[fold] += len(groups[number])
        for index in groups[number]:
            fold_of[index] = fold
    return fold_of


def _notes(
    name: str, pool: Sequence[Example], fold_of: Sequence[str], names: Sequence[str], labels: Sequence[str]
) -> list[str]:
    """Sentences on folds that are not what one would wish.

    Raises:
        DatasetError: for a class with all its clips in one fold, without which the rest could not learn it.
    """
    folds_of_label: dict[str, set[str]] = defaultdict(set)
    folds_of_group: dict[str, set[str]] = defaultdict(set)
    for clip, fold in zip(pool, fold_of, strict=True):
        for label in clip.labels:
            folds_of_label[label].add(fold)
        if clip.group is not None:
            folds_of_group[clip.group].add(fold)
    for label in labels:
        if len(folds := folds_of_label[label]) < 2:
            where = f"there is no clip of {label!r} among those to divide, so a run"
            if folds:
                where = f"all clips of {label!r} are in fold {min(folds)!r}, so the run that tests it"
            raise DatasetError(
                f"{name}: {where} could not learn this class; add clips of it (of other groups, if there are groups), "
                "or leave it out."
            )
    notes = []
    if few := [label for label in labels if len(folds_of_label[label]) < len(names)]:
        notes.append(
            f"{len(few)} class(es), for example {few[0]!r}, are not in every fold: the scores of single folds are of "
            "other classes each, and the one over all clips is of all."
        )
    if shared := [group for group, folds in folds_of_group.items() if len(folds) > 1]:
        notes.append(
            f"{len(shared)} group(s), for example {min(shared)!r}, are in more than one fold: the scores will look "
            "better than they are."
        )
    return notes
