"""What single clips say of a model and its data: likely wrong labels, where it fails. Shapes: N clips, C classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .evaluation import Evaluation
from .intervals import wilson_interval

NUM_BINS = 4
"""Slices that a length or level is divided into, of as many clips each."""
MIN_GROUP_CLIPS = 3
MAX_GROUPS = 10


@dataclass(frozen=True)
class Slice:
    """Some of the clips, and how many of them are right.

    Attributes:
        name: Which they are.
        num_clips: How many.
        share: Share of those that are right, in multi-label data of those whose every class is.
        low, high: Its 95 % interval, by Wilson.
    """

    name: str
    num_clips: int
    share: float
    low: float
    high: float


def label_quality(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """How well each clip's label agrees with the model, in [0, 1], (N,): the lower, the likelier it is wrong.

    The normalised margin (1 + p[label] - max p[other]) / 2; in multi-label data the least, over the classes, of the
    score that the class has, or lacks where the clip is not of it.

    Args:
        targets: Class ids (N,), or of multi-label data bools (N, C).
        scores: (N, C), of clips that the model was not trained on.

    Source: Northcutt, Jiang & Chuang (2021), "Confident learning"; Thyagarajan et al. (2022), for several labels.
    """
    if targets.ndim == 2:
        return np.where(targets, scores, 1 - scores).min(axis=1)
    rows = np.arange(len(targets))
    others = scores.copy()
    others[rows, targets] = -np.inf
    return (1 + scores[rows, targets] - others.max(axis=1)) / 2


def likely_wrong(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Whether each clip's label is likely wrong, (N,) bool.

    So it is when the model is as sure of another class as it usually is of clips of that class; in multi-label data of
    a class that the clip is said to lack, or as sure that it lacks one.

    Args:
        targets, scores: As for `label_quality`.

    Source: Northcutt, Jiang & Chuang (2021), "Confident learning".
    """
    num_classes = scores.shape[1]
    if targets.ndim == 2:
        found = np.zeros(len(targets), dtype=bool)
        for c in range(num_classes):
            has, score = targets[:, c], scores[:, c]
            if has.any() and not has.all():
                found |= (~has & (score >= score[has].mean())) | (has & (score <= score[~has].mean()))
        return found
    usual = np.array([scores[targets == c, c].mean() if (targets == c).any() else np.inf for c in range(num_classes)])
    sure = np.where(scores >= usual, scores, -np.inf)
    return (sure.max(axis=1) > -np.inf) & (sure.argmax(axis=1) != targets)


def right(targets: np.ndarray, evaluation: Evaluation, scores: np.ndarray) -> np.ndarray:
    """Whether the model is right about each clip, (N,) bool: in multi-label data about every class of it."""
    if targets.ndim == 2:
        return ((scores >= evaluation.classes["threshold"]) == targets).all(axis=1)
    return scores.argmax(axis=1) == targets


def by_value(values: np.ndarray, hits: np.ndarray, unit: str) -> list[Slice]:
    """Slices by a length or level (N,), of as many clips each, the least first."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, NUM_BINS + 1)))
    if len(edges) < 3:
        return []
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    names = [f"{low:.3g} to {high:.3g} {unit}" for low, high in pairwise(edges)]
    return [_slice(name, hits[bins == number]) for number, name in enumerate(names) if (bins == number).any()]


def by_group(groups: Sequence[str | None], hits: np.ndarray) -> list[Slice]:
    """Slices by group (N,), of those with enough clips the ones with the least share."""
    named = np.array([group or "" for group in groups])
    found = [_slice(group, hits[named == group]) for group in np.unique(named) if group]
    found = [part for part in found if part.num_clips >= MIN_GROUP_CLIPS]
    return sorted(found, key=lambda part: part.share)[:MAX_GROUPS]


def _slice(name: str, hits: np.ndarray) -> Slice:
    return Slice(str(name), len(hits), float(hits.mean()), *wilson_interval(int(hits.sum()), len(hits)))
