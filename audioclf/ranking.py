"""Metrics of scores that need no threshold, for clips that count with weights.

Shapes: N clips, C classes, K scores, P thresholds, R sets of weights.
"""

import numpy as np


class Ranking:
    """Scores in falling order, for counting what lies above a threshold.

    Of the thresholds only those matter that stand right before or right after a positive score: in between only the
    others grow, so every curve goes straight. Equal scores are passed together.

    Args:
        targets: Which scores are of the class, (K,) bool.
        scores: (K,).
        clips: Clip that each score is of, (K,); each of one of its own when not given.
    """

    def __init__(self, targets: np.ndarray, scores: np.ndarray, clips: np.ndarray | None = None) -> None:
        order = np.argsort(-scores, kind="stable")
        self._clips = order if clips is None else clips[order]
        self._positives = np.flatnonzero(targets[order])
        ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
        own = np.searchsorted(ends, self._positives)  # the step that holds each positive score
        points = np.unique(np.concatenate([own, own[own > 0] - 1, [len(ends) - 1]]))
        self._ends = ends[points]
        self._num_positives = np.searchsorted(self._positives, self._ends, side="right")
        self.thresholds = scores[order][self._ends]
        """Thresholds (P,), falling."""

    def counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight of the scores at or above each threshold that are of the class, and that are not; (R, P) each.

        Args:
            weights: Of the clips, (R, N).
        """
        total = np.cumsum(weights[:, self._clips], axis=1)[:, self._ends]
        hits = np.zeros((len(weights), len(self._positives) + 1))
        np.cumsum(weights[:, self._clips[self._positives]], axis=1, out=hits[:, 1:])
        hits = hits[:, self._num_positives]
        return hits, total - hits


def average_precision(hits: np.ndarray, misses: np.ndarray) -> np.ndarray:
    """Area (R,) under the precision of falling thresholds over recall; NaN without a clip of the class.

    Args:
        hits, misses: As from `Ranking.counts`.

    Source: `sklearn.metrics.average_precision_score`, without interpolation.
    """
    precision = hits / np.maximum(hits + misses, 1e-300)
    return (np.diff(hits, axis=1, prepend=0.0) * precision).sum(axis=1) / _or_nan(hits[:, -1])


def auroc(hits: np.ndarray, misses: np.ndarray) -> np.ndarray:
    """Chance (R,) that a clip of the class scores above another, ties counting half; NaN when there is no such pair."""
    steps = np.diff(misses, axis=1, prepend=0.0)
    middles = hits - np.diff(hits, axis=1, prepend=0.0) / 2
    return (steps * middles).sum(axis=1) / _or_nan(hits[:, -1] * misses[:, -1])


def equal_error_rate(hits: np.ndarray, misses: np.ndarray) -> np.ndarray:
    """Error rate (R,) at which as large a share of the class is missed as of the others is taken for it.

    Between two thresholds the rates go straight, as on a ROC curve.
    """
    origin = np.zeros((len(hits), 1))
    missed = 1 - np.hstack([origin, hits]) / _or_nan(hits[:, -1:])
    false = np.hstack([origin, misses]) / _or_nan(misses[:, -1:])
    after = np.maximum(np.argmax(false >= missed, axis=1), 1)
    rows = np.arange(len(hits))
    gap, gap_after = (missed - false)[rows, after - 1], (missed - false)[rows, after]
    share = gap / np.where(gap == gap_after, 1.0, gap - gap_after)
    return false[rows, after - 1] + share * (false[rows, after] - false[rows, after - 1])


def label_precisions(targets: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each clip, the precision of the ranking down to each of its own classes, summed; and how many it has.

    The first divided by the second, both summed over clips, is lwlrap: label-weighted label-ranking average precision.

    Args:
        targets: (N, C) bool.
        scores: (N, C).

    Source: Fonseca et al. (2019), "Audio tagging with noisy labels and minimal supervision".
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    rows = np.arange(len(scores))[:, None]
    ranked, values = targets[rows, order], scores[rows, order]
    # Classes of equal score share the last of their places.
    last = np.ones_like(ranked, dtype=bool)
    last[:, :-1] = values[:, :-1] != values[:, 1:]
    columns = np.arange(scores.shape[1])
    place = np.minimum.accumulate(np.where(last, columns, scores.shape[1])[:, ::-1], axis=1)[:, ::-1]
    hits = np.cumsum(ranked, axis=1)
    precision = np.take_along_axis(hits, place, axis=1) / (place + 1)
    return (precision * ranked).sum(axis=1), targets.sum(axis=1)


def best_threshold(targets: np.ndarray, scores: np.ndarray) -> float:
    """The threshold of a class's scores (N,) with the highest F1, half-way to the next lower score; 0.5 without clips.

    Args:
        targets: Whether each clip is of the class, (N,) bool.
        scores: In [0, 1], (N,).
    """
    if not targets.any():
        return 0.5
    ranking = Ranking(targets, scores)
    hits, misses = (counts[0] for counts in ranking.counts(np.ones((1, len(scores)))))
    best = ranking.thresholds[np.argmax(2 * hits / (hits + misses + hits[-1]))]
    return float((best + max(scores[scores < best], default=0.0)) / 2)


def _or_nan(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values, np.nan)
