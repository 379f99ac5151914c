"""Classification metrics from the confusion matrix. Shapes: N clips, C classes."""

import math
from collections.abc import Sequence

import numpy as np

METRICS = ("accuracy", "uar", "macro_f1", "loss")
LOWER_IS_BETTER = frozenset({"loss"})


def confusion_matrix(targets: Sequence[int], predictions: Sequence[int], num_classes: int) -> np.ndarray:
    """Counts (C, C) int64: row the true class, column the predicted one."""
    pairs = np.asarray(targets, dtype=np.int64) * num_classes + np.asarray(predictions, dtype=np.int64)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def classification_metrics(confusion: np.ndarray) -> dict[str, float | list[float]]:
    """Accuracy with its 95 % Wilson interval, unweighted average recall and macro F1, each in [0, 1].

    `uar` averages recall over the classes that occur in the targets; `macro_f1` averages F1 over the classes that
    occur in the targets or the predictions (as scikit-learn does), an F1 of 0/0 being 0.

    Args:
        confusion: Counts (C, C) as from `confusion_matrix`.
    """
    total, correct = int(confusion.sum()), int(np.trace(confusion))
    per_class = class_metrics(confusion)
    in_targets = confusion.sum(axis=1) > 0
    seen = in_targets | (confusion.sum(axis=0) > 0)
    return {
        "accuracy": correct / total if total else 0.0,
        "accuracy_ci": list(wilson_interval(correct, total)),
        "uar": float(per_class["recall"][in_targets].mean()) if total else 0.0,
        "macro_f1": float(per_class["f1"][seen].mean()) if total else 0.0,
    }


def class_metrics(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall, F1 (floats) and support (counts) of each class, (C,) each; 0/0 counts as 0."""
    hits = np.diag(confusion).astype(np.float64)
    support, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    return {
        "precision": hits / np.maximum(predicted, 1),
        "recall": hits / np.maximum(support, 1),
        "f1": 2 * hits / np.maximum(support + predicted, 1),
        "support": support,
    }


def wilson_interval(successes: int, trials: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The Wilson score interval of a proportion; (0, 1) when there were no trials.

    Args:
        z: Normal quantile of the coverage, by default that of 95 %.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    if trials == 0:
        return 0.0, 1.0
    p = successes / trials
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def is_better(metric: str, value: float, best: float | None) -> bool:
    """Whether `value` improves on `best`; a tie does not, so the earlier stays, and NaN never does."""
    if math.isnan(value):
        return False
    if best is None:
        return True
    return value < best if metric in LOWER_IS_BETTER else value > best
