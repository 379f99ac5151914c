"""Every figure against scikit-learn and SciPy."""

import json
import math
import warnings

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sklearn_metrics

from audioclf.metrics import (
    METRICS,
    class_metrics,
    classification_metrics,
    confusion_matrix,
    is_better,
    wilson_interval,
)


def random_case(seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Targets and predictions, good, bad or constant, with classes missing in one of them or in both."""
    rng = np.random.default_rng(seed)
    num_classes = int(rng.integers(2, 12))
    num_clips = int(rng.choice([1, 2, 5, 30, 200]))
    targets = rng.choice(rng.integers(0, num_classes, rng.integers(1, num_classes + 1)), num_clips)
    kind = seed % 4
    predictions = rng.integers(0, num_classes, num_clips)
    if kind == 1:
        predictions = np.where(rng.random(num_clips) < 0.8, targets, predictions)
    elif kind == 2:
        predictions = np.full(num_clips, rng.integers(num_classes))
    elif kind == 3 and seed % 8 == 3:
        predictions = targets.copy()
    return targets, predictions, num_classes


@pytest.mark.parametrize("block", range(6))
def test_equals_scikit_learn(block):
    for seed in range(40 * block, 40 * block + 40):
        targets, predictions, num_classes = random_case(seed)
        confusion = confusion_matrix(targets, predictions, num_classes)
        labels = range(num_classes)
        np.testing.assert_array_equal(
            confusion, sklearn_metrics.confusion_matrix(targets, predictions, labels=labels), strict=False
        )
        assert confusion.dtype == np.int64
        figures = classification_metrics(confusion)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # predictions of classes that are not in the targets
            uar = sklearn_metrics.balanced_accuracy_score(targets, predictions)
        present = sorted(set(targets))
        assert figures["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(targets, predictions))
        assert figures["uar"] == pytest.approx(uar)
        assert figures["uar"] == pytest.approx(
            sklearn_metrics.recall_score(targets, predictions, labels=present, average="macro", zero_division=0)
        )
        assert figures["macro_f1"] == pytest.approx(
            sklearn_metrics.f1_score(targets, predictions, average="macro", zero_division=0)
        )
        precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
            targets, predictions, labels=labels, zero_division=0
        )
        per_class = class_metrics(confusion)
        np.testing.assert_allclose(per_class["precision"], precision)
        np.testing.assert_allclose(per_class["recall"], recall)
        np.testing.assert_allclose(per_class["f1"], f1)
        np.testing.assert_array_equal(per_class["support"], support)


def test_figures_are_plain_numbers():
    figures = classification_metrics(confusion_matrix([0, 1, 1], [0, 1, 0], 2))
    assert json.loads(json.dumps(figures)) == figures
    assert set(figures) == {"accuracy", "accuracy_ci", "uar", "macro_f1"}


def test_no_clips():
    confusion = confusion_matrix([], [], 3)
    assert confusion.shape == (3, 3)
    assert classification_metrics(confusion) == {
        "accuracy": 0.0,
        "accuracy_ci": [0.0, 1.0],
        "uar": 0.0,
        "macro_f1": 0.0,
    }


@pytest.mark.parametrize("trials", [1, 2, 3, 10, 93, 1000, 100_000])
def test_wilson_equals_scipy(trials):
    for successes in sorted({0, 1, trials // 3, trials // 2, trials - 1, trials}):
        wanted = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
        low, high = wilson_interval(successes, trials)
        assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
        assert 0 <= low <= high <= 1
        assert low - 1e-12 <= successes / trials <= high + 1e-12
        wanted = binomtest(successes, trials).proportion_ci(0.9, method="wilson")
        assert wilson_interval(successes, trials, z=1.6448536269514722) == pytest.approx(
            (wanted.low, wanted.high), abs=1e-12
        )


def test_wilson_interval_is_that_of_accuracy():
    confusion = np.array([[40, 10], [3, 47]])
    assert classification_metrics(confusion)["accuracy_ci"] == list(wilson_interval(87, 100))


@pytest.mark.parametrize("metric", METRICS)
def test_is_better(metric):
    worse, better = (0.9, 0.1) if metric == "loss" else (0.1, 0.9)
    assert is_better(metric, better, worse)
    assert not is_better(metric, worse, better)
    assert not is_better(metric, better, better)  # of equals the earlier stays
    assert is_better(metric, worse, None)
    assert not is_better(metric, math.nan, worse)
    assert not is_better(metric, math.nan, None)
