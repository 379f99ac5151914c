"""What an evaluation says: metrics with 95 % intervals, and a row for each class. Shapes: N clips, C classes."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .intervals import Statistics, bootstrap, share_interval
from .ranking import Ranking, auroc, average_precision, best_threshold, equal_error_rate, label_precisions

LOWER_IS_BETTER = frozenset({"loss", "eer"})
TOP_K = 5
CALIBRATION_BINS = 15
NAMES = {
    "loss": "loss",
    "accuracy": "accuracy",
    "uar": "unweighted average recall",
    "macro_f1": "macro F1",
    "top5_accuracy": "top-5 accuracy",
    "auroc": "area under the ROC curve",
    "eer": "equal error rate",
    "map": "mean average precision",
    "map_micro": "micro average precision",
    "lwlrap": "lwlrap",
    "micro_f1": "micro F1",
}
"""What a person calls each metric."""


def metrics_of(multi_label: bool, num_classes: int) -> tuple[str, ...]:
    """The metrics that an evaluation has, the task's own first."""
    if multi_label:
        return "map", "map_micro", "lwlrap", "macro_f1", "micro_f1", "auroc", "loss"
    top_k = ("top5_accuracy",) if num_classes > TOP_K else ()
    two_classes = ("auroc", "eer") if num_classes == 2 else ()
    return "accuracy", "uar", "macro_f1", *top_k, *two_classes, "loss"


def single_label_metrics(targets: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """Metrics of clips with one class each, all in [0, 1], each with its interval under `NAME_ci`.

    `accuracy`; `uar`, recall averaged over the classes that occur; `macro_f1`, F1 averaged over the classes that occur
    or are predicted, as scikit-learn does; with more than five classes `top5_accuracy`; with two `auroc` and `eer`, of
    the second class's score.

    Args:
        targets: Class of each clip, (N,).
        scores: Logits or probabilities (N, C).
        groups: Clips of one group are no independent evidence, (N,).
    """
    predictions, num_classes = scores.argmax(axis=1), scores.shape[1]
    hits = {"accuracy": predictions == targets}
    if num_classes > TOP_K:
        own = scores[np.arange(len(scores)), targets][:, None]
        hits["top5_accuracy"] = (scores > own).sum(axis=1) < TOP_K
    metrics: dict[str, Any] = {}
    for name, hit in hits.items():
        metrics |= {name: float(hit.mean()), f"{name}_ci": list(share_interval(hit, groups))}
    ranking = Ranking(targets == 1, scores[:, 1] - scores[:, 0]) if num_classes == 2 else None

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        correct = _class_sums(weights * (predictions == targets), targets, num_classes)
        support, predicted = (_class_sums(weights, classes, num_classes) for classes in (targets, predictions))
        values = {
            "uar": _mean_where(support > 0, correct / np.maximum(support, 1e-300)),
            "macro_f1": _mean_where(support + predicted > 0, 2 * correct / np.maximum(support + predicted, 1e-300)),
        }
        if ranking is not None:
            counts = ranking.counts(weights)
            values |= {"auroc": auroc(*counts), "eer": equal_error_rate(*counts)}
        return values

    return metrics | _with_intervals(statistics, groups)


def multi_label_metrics(
    targets: np.ndarray, scores: np.ndarray, groups: np.ndarray, thresholds: np.ndarray
) -> dict[str, Any]:
    """Metrics of clips with any number of classes each, all in [0, 1], each with its interval under `NAME_ci`.

    `map`, average precision, and `auroc`, both averaged over the classes that occur; `map_micro`, average precision of
    all pairs of clip and class together; `lwlrap`; `macro_f1`, averaged over the classes that occur or are detected,
    and `micro_f1`, of all pairs, both at the thresholds. A metric that is not defined is None.

    Args:
        targets: (N, C) bool.
        scores: Probabilities (N, C).
        groups: Clips of one group are no independent evidence, (N,).
        thresholds: A class is detected where its score is at least that, (C,).
    """
    detected = scores >= thresholds
    rankings = [Ranking(targets[:, c], scores[:, c]) for c in range(scores.shape[1])]
    pairs = Ranking(targets.ravel(), scores.ravel(), clips=np.repeat(np.arange(len(scores)), scores.shape[1]))
    precisions, num_labels = label_precisions(targets, scores)

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        counts = [ranking.counts(weights) for ranking in rankings]
        correct, sizes = weights @ (detected & targets), weights @ detected + weights @ targets
        ap, roc = (np.stack([metric(*count) for count in counts], axis=1) for metric in (average_precision, auroc))
        return {
            "map": _mean_where(~np.isnan(ap), ap),
            "map_micro": average_precision(*pairs.counts(weights)),
            "lwlrap": weights @ precisions / np.where(weights @ num_labels > 0, weights @ num_labels, np.nan),
            "macro_f1": _mean_where(sizes > 0, 2 * correct / np.maximum(sizes, 1e-300)),
            "micro_f1": 2 * correct.sum(axis=1) / np.maximum(sizes.sum(axis=1), 1e-300),
            "auroc": _mean_where(~np.isnan(roc), roc),
        }

    return _with_intervals(statistics, groups, width=scores.shape[1])


def confusion_matrix(targets: Sequence[int], predictions: Sequence[int], num_classes: int) -> np.ndarray:
    """Counts (C, C) int64: row the true class, column the predicted one."""
    pairs = np.asarray(targets, dtype=np.int64) * num_classes + np.asarray(predictions, dtype=np.int64)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_metrics(hits: np.ndarray, support: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall, F1 and support of each class, (C,) each; 0/0 counts as 0.

    Args:
        hits, support, predicted: Clips that are of each class and predicted so, are of it, are predicted so; (C,).
    """
    return {
        "precision": hits / np.maximum(predicted, 1),
        "recall": hits / np.maximum(support, 1),
        "f1": 2 * hits / np.maximum(support + predicted, 1),
        "support": support,
    }


def calibration_error(scores: np.ndarray, hits: np.ndarray) -> float:
    """Expected calibration error: how far scores are from the share of hits, in 15 bins of equal width, (low, high].

    Args:
        scores: In [0, 1], (N,).
        hits: Whether each was right, (N,) bool.

    Source: Naeini, Cooper & Hauskrecht (2015); Guo et al. (2017), "On calibration of modern neural networks".
    """
    bins = np.digitize(scores, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1], right=True)
    return float(np.abs(np.bincount(bins, weights=hits - scores)).sum() / len(scores))


def best_thresholds(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The thresholds (C,) with the highest F1 of each class on these clips: targets (N, C) bool, scores (N, C)."""
    return np.array([best_threshold(targets[:, c], scores[:, c]) for c in range(scores.shape[1])])


def average_precisions(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Average precision of each class (C,), NaN for those without clips: targets (N, C) bool, scores (N, C)."""
    rankings = (Ranking(targets[:, c], scores[:, c]) for c in range(scores.shape[1]))
    return np.array([average_precision(*ranking.counts(np.ones((1, len(scores)))))[0] for ranking in rankings])


def is_better(metric: str, value: float | None, best: float | None) -> bool:
    """Whether `value` improves on `best`; a tie does not, so the earlier stays, and NaN or None never does."""
    if value is None or math.isnan(value):
        return False
    if best is None:
        return True
    return value < best if metric in LOWER_IS_BETTER else value > best


def _with_intervals(statistics: Statistics, groups: np.ndarray, width: int = 1) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for name, (value, low, high) in bootstrap(statistics, groups, width).items():
        defined = not math.isnan(value)
        metrics |= {name: value if defined else None, f"{name}_ci": [low, high] if defined else None}
    return metrics


def _class_sums(weights: np.ndarray, classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Sums (R, C) of the clips' weights (R, N) over the clips of each class (N,)."""
    sums = np.zeros((len(weights), num_classes))
    order = np.argsort(classes, kind="stable")
    present, starts = np.unique(classes[order], return_index=True)
    sums[:, present] = np.add.reduceat(weights[:, order], starts, axis=1)
    return sums


def _mean_where(counted: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means (R,) of those of the values (R, C) that count; NaN where none does."""
    number = counted.sum(axis=1)
    return np.where(counted, values, 0.0).sum(axis=1) / np.where(number > 0, number, np.nan)
