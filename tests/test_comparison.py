"""Recipes against each other: paired over seeds and folds, with intervals."""

import json

import numpy as np
import pytest
from scipy.stats import ttest_rel

import audioclf
from audioclf import CheckpointError, ConfigError
from audioclf.comparison import paired_difference


def test_interval_is_that_of_the_paired_t_test():
    rng = np.random.default_rng(0)
    for _ in range(50):
        first = rng.normal(0.8, 0.05, rng.integers(2, 12))
        second = first + rng.normal(0.02, 0.03, len(first))
        expected = ttest_rel(second, first).confidence_interval(0.95)
        found = paired_difference(second, first)
        assert found.mean == pytest.approx((second - first).mean())
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_interval_covers_as_it_says():
    """95 % of intervals hold the true difference, of independent runs."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(4000):
        found = paired_difference(rng.normal(0.3, 1.0, 5), rng.normal(0.1, 1.0, 5))
        held += found.low <= 0.2 <= found.high
    assert 0.94 < held / 4000 < 0.96


def test_folds_widen_the_interval():
    """Nadeau and Bengio: the variance of the mean is (1/n + test/train) of the sample's instead of 1/n."""
    rng = np.random.default_rng(2)
    first, second = rng.normal(0, 1, 10), rng.normal(0, 1, 10)
    alone, folds = paired_difference(second, first), paired_difference(second, first, num_folds=10)
    ratio = (folds.high - folds.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(np.sqrt((1 / 10 + 1 / 9) / (1 / 10)))


def test_recipes_are_trained_on_the_same_seeds(tones, quick, tmp_path, capsys):
    quick = {**quick, "num_epochs": 1, "batch_size": 12}
    shared = {**quick, "output_dir": tmp_path / "c", "progress": True}
    recipes = {"plain": {}, "slow": {"learning_rate": 1e-6}}
    found = audioclf.compare(recipes, tones, seeds=(1, 2), **shared)
    assert found.part == "test"
    for name, options in recipes.items():
        for seed, score in zip((1, 2), found.scores[name], strict=True):
            alone = audioclf.train(tones, output_dir=tmp_path / f"{name}{seed}", **{**quick, "seed": seed, **options})
            assert alone.test_metrics["accuracy"] == score
    difference = np.subtract(found.scores["slow"], found.scores["plain"])
    assert found.differences["slow"].mean == pytest.approx(difference.mean())
    told = capsys.readouterr().out
    assert "accuracy (test), 2 paired runs each:" in told
    kept = json.loads((tmp_path / "c/comparison.json").read_text())
    assert kept["scores"] == {name: list(values) for name, values in found.scores.items()}

    begun = (tmp_path / "c/plain/seed-1/history.jsonl").stat().st_mtime_ns
    more = {**recipes, "frozen": {"freeze": "backbone"}}
    again = audioclf.compare(more, tones, seeds=(1, 2), resume=True, **shared)
    assert again.scores["plain"] == found.scores["plain"]
    assert len(again.scores["frozen"]) == 2
    assert (tmp_path / "c/plain/seed-1/history.jsonl").stat().st_mtime_ns == begun


def test_over_folds(tones, quick, tmp_path):
    shared = {**quick, "num_epochs": 1, "batch_size": 12, "output_dir": tmp_path}
    found = audioclf.compare({"a": {}, "b": {"learning_rate": 1e-6}}, tones, folds=2, seeds=(1, 2), **shared)
    assert len(found.scores["a"]) == 4
    difference = np.subtract(found.scores["b"], found.scores["a"])
    assert found.differences["b"].mean == pytest.approx(difference.mean())


def test_a_folder_that_cannot_be_written_loses_no_result(tones, quick, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    options = {**quick, "num_epochs": 1, "seeds": (0, 1), "resume": True, "progress": True}
    recipes = {"a": {}, "b": {"batch_size": 4}}
    audioclf.compare(recipes, tones, output_dir="~/out", **options)
    kept = tmp_path / "out" / "comparison.json"
    kept.unlink()
    kept.mkdir()
    capsys.readouterr()
    with pytest.raises(CheckpointError, match=r"comparison.json' cannot be written \(.*\): free some space"):
        audioclf.compare(recipes, tones, output_dir="~/out", **options)
    assert "2 paired runs each" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("recipes", "options", "sentence"),
    [
        ({"one": {}}, {}, "must have two or more, by name"),
        ({"a": {}, "b": {"seed": 3}}, {}, "has seed, which all share"),
        ({"a": {}, "b/c": {}}, {}, "cannot be the name of a folder"),
        ({"a": {}, "b": {"lerning_rate": 1.0}}, {}, "did you mean 'learning_rate'"),
        ({"a": {}, "b": {}}, {"seeds": (1,)}, "two or more different whole numbers"),
        ({"a": {}, "b": {}}, {"seeds": (1, 1)}, "two or more different whole numbers"),
    ],
)
def test_what_cannot_be_compared(tones, quick, tmp_path, recipes, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        audioclf.compare(recipes, tones, output_dir=tmp_path / "never", **options, **quick)
    assert not (tmp_path / "never").exists()
