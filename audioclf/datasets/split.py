"""Dividing clips: whole groups only, each class in proportion, seeded."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import DatasetError
from .base import AudioSplits, Example


def cut_valid(splits: AudioSplits, fraction: float, seed: int) -> AudioSplits:
    """Moves a share of train to valid: seeded, each class in proportion, no group and no file on both sides.

    Without groups every class of two or more clips gives at least one, and keeps one. With groups the shares are as
    near to the fraction as whole groups allow; where every group is larger, one is held out.

    Raises:
        DatasetError: when train has too few clips or groups to be cut.
    """
    chosen = _choose(splits.train, fraction, np.random.default_rng(seed))
    if not chosen:
        raise DatasetError(
            f"{splits.name}: {len(splits.train)} training clips in {len({unit(e) for e in splits.train})} group(s) or "
            f"file(s) cannot be cut into {1 - fraction:.0%} train and {fraction:.0%} valid; give a valid part of its "
            "own, or another valid_fraction."
        )
    return replace(
        splits,
        train=[replace(example, split="train") for i, example in enumerate(splits.train) if i not in chosen],
        valid=[replace(example, split="valid") for i, example in enumerate(splits.train) if i in chosen],
    )


def _choose(examples: Sequence[Example], fraction: float, rng: np.random.Generator) -> set[int]:
    """Indices of about `fraction` of the examples, stratified by label, whole groups only."""
    members: dict[Any, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        members[unit(example)].append(index)
    totals = Counter(label for example in examples for label in strata(example))
    target = {label: max(1, round(count * fraction)) if count > 1 else 0 for label, count in totals.items()}
    target = {label: min(number, totals[label] - 1) for label, number in target.items()}
    held: Counter[str] = Counter()

    def change(counts: Counter[str]) -> float:
        """What a group with these labels adds to the squared distance from the target; inf if it empties a class."""
        if any(held[label] + count >= totals[label] for label, count in counts.items()):
            return float("inf")
        return sum(count * (count - 2 * (target[label] - held[label])) for label, count in counts.items())

    groups = list(members.values())
    counts = [Counter(label for index in group for label in strata(examples[index])) for group in groups]
    # Large groups first, in random order among equals: the small ones then fill what is missing.
    order = sorted(rng.permutation(len(groups)), key=lambda number: -len(groups[number]))
    chosen = []
    for number in order:
        if change(counts[number]) < 0:
            chosen.append(number)
            held.update(counts[number])
    if not chosen:  # every group is far too large: the least bad one is better than none
        best = min(order, key=lambda number: change(counts[number]))
        if change(counts[best]) < float("inf"):
            chosen = [best]
    return {index for number in chosen for index in groups[number]}


def unit(example: Example) -> tuple[str, str]:
    """What must not be on two sides: its group, or else its file, of which there may be other pieces."""
    if example.group is not None:
        return "group", example.group
    return "file", os.path.abspath(example.audio) if isinstance(example.audio, str) else example.audio.identity


def strata(example: Example) -> tuple[str, ...]:
    """The labels to share out; clips without one are shared out as a class of their own."""
    return example.labels or ("",)
