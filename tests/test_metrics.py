"""Every figure against scikit-learn and SciPy, or a brute-force count."""

import json
import math
import typing
import warnings

import numpy as np
import pytest
from conftest import random_cases
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import binomtest
from sklearn import metrics as sklearn_metrics

from audioclf.config import Metric
from audioclf.intervals import bootstrap, share_interval, wilson_interval
from audioclf.metrics import (
    LOWER_IS_BETTER,
    NAMES,
    average_precisions,
    best_thresholds,
    class_metrics,
    confusion_matrix,
    is_better,
    metrics_of,
    multi_label_metrics,
    single_label_metrics,
)
from audioclf.ranking import Ranking, auroc, average_precision, equal_error_rate

LEVELS = (1, 2, 5, 1000)
"""How many different scores there are: few give many ties."""


@pytest.fixture
def few_resamples(monkeypatch):
    monkeypatch.setattr("audioclf.intervals.NUM_RESAMPLES", (2, 2))


def single_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets and scores, good, bad or constant, with classes missing in the targets."""
    rng = np.random.default_rng(seed)
    num_classes = int(rng.integers(2, 12))
    num_clips = int(rng.choice([1, 2, 5, 30, 200]))
    targets = rng.choice(rng.integers(0, num_classes, rng.integers(1, num_classes + 1)), num_clips)
    scores = rng.integers(0, rng.choice(LEVELS), (num_clips, num_classes)) / 1000.0
    if seed % 3 == 1:
        scores[np.arange(num_clips), targets] += rng.random(num_clips)
    return targets, scores


def multi_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets and scores in [0, 1], with clips and classes that have none or all."""
    rng = np.random.default_rng(seed)
    shape = int(rng.choice([1, 2, 10, 60])), int(rng.integers(2, 9))
    targets = rng.random(shape) < rng.choice([0.1, 0.5, 0.9])
    scores = expit(rng.integers(0, rng.choice(LEVELS), shape) / 300.0 + rng.choice([0.0, 2.0]) * targets - 1)
    return targets, scores


def eer_by_scipy(targets: np.ndarray, scores: np.ndarray) -> float:
    false, hit, _ = sklearn_metrics.roc_curve(targets, scores)
    return brentq(lambda rate: 1 - rate - np.interp(rate, false, hit), 0.0, 1.0)


def lwlrap_by_counting(targets: np.ndarray, scores: np.ndarray) -> float:
    precisions = []
    for own, row in zip(targets, scores, strict=True):
        for label in np.flatnonzero(own):
            as_high = row >= row[label]
            precisions.append(own[as_high].mean())
    return float(np.mean(precisions))


@pytest.mark.usefixtures("few_resamples")
@random_cases(600, few=80)
def test_single_label_equals_scikit_learn(cases):
    warnings.simplefilter("ignore")  # predictions of classes that are not in the targets
    for seed in cases:
        targets, scores = single_case(seed)
        num_classes, predictions = scores.shape[1], scores.argmax(axis=1)
        figures = single_label_metrics(targets, scores, np.arange(len(targets)))
        confusion = confusion_matrix(targets, predictions, num_classes)
        labels = range(num_classes)
        wanted = sklearn_metrics.confusion_matrix(targets, predictions, labels=labels)
        np.testing.assert_array_equal(confusion, wanted, strict=False)
        assert confusion.dtype == np.int64
        assert figures["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(targets, predictions))
        assert figures["uar"] == pytest.approx(sklearn_metrics.balanced_accuracy_score(targets, predictions))
        assert figures["macro_f1"] == pytest.approx(
            sklearn_metrics.f1_score(targets, predictions, average="macro", zero_division=0)
        )
        precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
            targets, predictions, labels=labels, zero_division=0
        )
        per_class = class_metrics(np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0))
        np.testing.assert_allclose(per_class["precision"], precision)
        np.testing.assert_allclose(per_class["recall"], recall)
        np.testing.assert_allclose(per_class["f1"], f1)
        np.testing.assert_array_equal(per_class["support"], support)
        assert ("top5_accuracy" in figures) == (num_classes > 5)
        if num_classes > 5 and len(np.unique(scores)) == scores.size:  # of ties scikit-learn takes some
            assert figures["top5_accuracy"] == pytest.approx(
                sklearn_metrics.top_k_accuracy_score(targets, scores, k=5, labels=labels)
            )


@pytest.mark.usefixtures("few_resamples")
@random_cases(400, few=80)
def test_two_classes_equal_scikit_learn(cases):
    warnings.simplefilter("ignore")
    num_defined = 0
    for seed in cases:
        rng = np.random.default_rng(seed)
        num_clips = int(rng.choice([1, 2, 5, 30, 200]))
        targets = rng.integers(0, 2, num_clips)
        scores = rng.integers(0, rng.choice(LEVELS), (num_clips, 2)) + 0.7 * rng.choice(LEVELS) * np.eye(2)[targets]
        figures = single_label_metrics(targets, scores, np.arange(num_clips))
        if len(set(targets)) < 2:
            assert figures["auroc"] is figures["auroc_ci"] is figures["eer"] is None
            continue
        num_defined += 1
        margin = scores[:, 1] - scores[:, 0]
        assert figures["auroc"] == pytest.approx(sklearn_metrics.roc_auc_score(targets, margin))
        assert figures["eer"] == pytest.approx(eer_by_scipy(targets, margin), abs=1e-9)
    assert num_defined > 0.6 * len(cases)


@pytest.mark.usefixtures("few_resamples")
@random_cases(400, few=50)
def test_multi_label_equals_scikit_learn(cases):
    warnings.simplefilter("ignore")
    for seed in cases:
        targets, scores = multi_case(seed)
        thresholds = np.random.default_rng(seed).random(targets.shape[1])
        figures = multi_label_metrics(targets, scores, np.arange(len(targets)), thresholds)
        present = targets.any(axis=0)
        if not present.any():
            assert figures["map"] is figures["lwlrap"] is figures["map_micro"] is None
            continue
        wanted = sklearn_metrics.average_precision_score(targets[:, present], scores[:, present], average=None)
        np.testing.assert_allclose(average_precisions(targets, scores)[present], np.atleast_1d(wanted))
        assert np.isnan(average_precisions(targets, scores)[~present]).all()
        assert figures["map"] == pytest.approx(np.mean(wanted))
        assert figures["map_micro"] == pytest.approx(
            sklearn_metrics.average_precision_score(targets.ravel(), scores.ravel())
        )
        assert figures["lwlrap"] == pytest.approx(lwlrap_by_counting(targets, scores))
        some = targets.any(axis=1)
        assert figures["lwlrap"] == pytest.approx(
            sklearn_metrics.label_ranking_average_precision_score(
                targets[some], scores[some], sample_weight=targets[some].sum(axis=1)
            )
        )
        mixed = present & ~targets.all(axis=0)
        if mixed.any():
            wanted = [sklearn_metrics.roc_auc_score(targets[:, c], scores[:, c]) for c in np.flatnonzero(mixed)]
            assert figures["auroc"] == pytest.approx(np.mean(wanted))
        detected = scores >= thresholds
        counted = present | detected.any(axis=0)
        f1 = sklearn_metrics.f1_score(targets, detected, average=None, zero_division=0)
        assert figures["macro_f1"] == pytest.approx(f1[counted].mean())
        assert figures["micro_f1"] == pytest.approx(
            sklearn_metrics.f1_score(targets, detected, average="micro", zero_division=0)
        )


@random_cases(100, few=30)
def test_weights_count_clips_more_than_once(cases):
    for seed in cases:
        rng = np.random.default_rng(seed)
        targets, scores = rng.random(40) < 0.4, rng.integers(0, rng.choice([3, 30]), 40) / 30
        weights = rng.multinomial(40, np.full(40, 1 / 40))
        counts = Ranking(targets, scores).counts(weights[None].astype(float))
        again = np.repeat(np.arange(40), weights)
        for metric, reference in (
            (average_precision, sklearn_metrics.average_precision_score),
            (auroc, sklearn_metrics.roc_auc_score),
            (equal_error_rate, eer_by_scipy),
        ):
            assert metric(*counts)[0] == pytest.approx(reference(targets[again], scores[again]), abs=1e-9)


@random_cases(60, few=15)
def test_thresholds_have_the_best_f1(cases):
    for seed in cases:
        targets, scores = multi_case(seed)
        thresholds = best_thresholds(targets, scores)
        for c in range(targets.shape[1]):
            if not targets[:, c].any():
                assert thresholds[c] == 0.5
                continue
            reached = sklearn_metrics.f1_score(targets[:, c], scores[:, c] >= thresholds[c])
            precision, recall, _ = sklearn_metrics.precision_recall_curve(targets[:, c], scores[:, c])
            possible = 2 * precision * recall / np.maximum(precision + recall, 1e-12)  # at every threshold there is
            assert reached == pytest.approx(possible.max())


def test_figures_are_plain_numbers():
    rng = np.random.default_rng(0)
    figures = single_label_metrics(rng.integers(0, 7, 30), rng.random((30, 7)), np.arange(30))
    assert json.loads(json.dumps(figures)) == figures
    assert set(figures) == {f"{m}{ci}" for m in metrics_of(False, 7) if m != "loss" for ci in ("", "_ci")}
    figures = multi_label_metrics(rng.random((9, 3)) < 0.5, rng.random((9, 3)), np.arange(9), np.full(3, 0.5))
    assert json.loads(json.dumps(figures)) == figures
    assert set(figures) == {f"{m}{ci}" for m in metrics_of(True, 3) if m != "loss" for ci in ("", "_ci")}


def test_every_metric_can_be_chosen():
    names = {name for multi_label in (False, True) for n in (2, 3, 6) for name in metrics_of(multi_label, n)}
    assert names == set(NAMES) == set(typing.get_args(Metric)) - {"auto"}


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


class TestIntervals:
    def test_accuracy_of_independent_clips_is_wilsons(self):
        targets, scores = np.zeros(100, dtype=int), np.eye(2)[np.repeat([0, 1], [87, 13])]
        figures = single_label_metrics(targets, scores, np.arange(100))
        assert figures["accuracy_ci"] == list(wilson_interval(87, 100))

    def test_clips_of_one_group_are_no_independent_evidence(self):
        """Twenty speakers of fifty clips, each all right or all wrong, are worth twenty clips."""
        hits, groups = np.repeat(np.arange(20) < 14, 50), np.repeat(np.arange(20), 50)
        low, high = share_interval(hits, groups)
        apart, alone = wilson_interval(700, 1000), wilson_interval(14, 20)
        assert high - low > 5 * (apart[1] - apart[0])
        assert (low, high) == pytest.approx(alone, abs=0.06)

    def test_without_a_mistake_it_is_not_a_point(self):
        targets, scores = np.repeat([0, 1], 6), np.eye(2)[np.repeat([0, 1], 6)]
        figures = single_label_metrics(targets, scores, np.arange(12))
        assert figures["uar_ci"] == pytest.approx(wilson_interval(12, 12))
        assert figures["eer_ci"] == pytest.approx(wilson_interval(0, 12))
        by_speaker = single_label_metrics(targets, scores, np.arange(12) % 3)
        assert by_speaker["accuracy_ci"] == pytest.approx(wilson_interval(3, 3))

    def test_same_data_same_interval(self):
        targets, scores = multi_case(3)
        figures = [
            multi_label_metrics(targets, scores, np.arange(len(targets)), np.full(8, 0.5)[: targets.shape[1]])
        ] * 2
        assert figures[0] == figures[1]

    @pytest.mark.parametrize("metric", ["uar", "macro_f1", "map", "lwlrap"])
    def test_coverage(self, metric, monkeypatch):
        """Of 120 samples of a population, about 95 % have its value in their interval."""

        def draw(rng: np.random.Generator, num_clips: int) -> float | list[float]:
            shift = 1.2
            if metric in ("uar", "macro_f1"):
                targets = rng.choice(4, num_clips, p=[0.4, 0.3, 0.2, 0.1])
                scores = rng.standard_normal((num_clips, 4)) + shift * np.eye(4)[targets]
                return single_label_metrics(targets, scores, np.arange(num_clips))
            targets = rng.random((num_clips, 4)) < [0.5, 0.3, 0.2, 0.1]
            scores = expit(rng.standard_normal((num_clips, 4)) + shift * targets)
            return multi_label_metrics(targets, scores, np.arange(num_clips), np.full(4, 0.5))

        monkeypatch.setattr("audioclf.intervals.NUM_RESAMPLES", (2, 2))  # the truth needs no interval
        truth = draw(np.random.default_rng(0), 50_000)[metric]
        monkeypatch.setattr("audioclf.intervals.NUM_RESAMPLES", (200, 200))
        covered = 0
        for seed in range(1, 121):
            low, high = draw(np.random.default_rng(seed), 150)[f"{metric}_ci"]
            covered += low <= truth <= high
        assert 0.88 <= covered / 120 <= 0.99, covered

    def test_memory_of_many_clips(self, monkeypatch):
        """Blocks of resamples: no more than some 20 million values at a time."""
        monkeypatch.setattr("audioclf.intervals.BUDGET", 0)  # the fewest resamples
        sizes = []

        def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
            sizes.append(weights.shape)
            return {"mean": weights.mean(axis=1)}

        bootstrap(statistics, np.arange(300_000))
        assert max(rows * clips for rows, clips in sizes) <= 2e7
        assert sum(rows for rows, _ in sizes[1:]) >= 100


@pytest.mark.parametrize("metric", NAMES)
def test_is_better(metric):
    worse, better = (0.9, 0.1) if metric in LOWER_IS_BETTER else (0.1, 0.9)
    assert is_better(metric, better, worse)
    assert not is_better(metric, worse, better)
    assert not is_better(metric, better, better)  # of equals the earlier stays
    assert is_better(metric, worse, None)
    for undefined in (math.nan, None):
        assert not is_better(metric, undefined, worse)
        assert not is_better(metric, undefined, None)
