"""What the runs of a cross-validation say together. Shapes: S seeds, K folds, N clips."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .datasets.folds import Folds
from .evaluation import probabilities
from .export import read_metadata
from .metrics import metrics_of, multi_label_metrics, single_label_metrics
from .predictions import PREDICTIONS_FILE, read_predictions
from .progress import folds_table, interval_lines
from .result import TrainResult


@dataclass(frozen=True)
class FoldRun:
    """One run of a cross-validation.

    Attributes:
        seed: Its seed.
        fold: The fold that it was tested on.
        result: What it has made; `test_metrics` are those of the fold.
    """

    seed: int
    fold: str
    result: TrainResult


@dataclass(frozen=True)
class CrossValidation:
    """What the runs of a cross-validation say together.

    With x[s, k] a metric of the run with seed s on test fold k, and x[k] its mean over the seeds:

    Attributes:
        runs: All runs, seed by seed.
        fold_metrics: Metrics of each fold, x[k]; None where one is not defined for the fold.
        mean: Of each metric the mean of x[k] over the folds for which it is defined; None when there is none.
        std: The sample standard deviation (n - 1) of x[k] over these folds: how much the folds differ, and not the
            error of the mean, as the runs share most of their training clips. None for fewer than two.
        seed_std: The sample standard deviation over the seeds of each seed's mean over the folds: how much chance
            in training does. None for one seed.
        pooled: Metrics of all predictions together, each clip being tested once a seed, with their 95 % intervals
            (`NAME_ci`), for which a group, or a clip without one, is one piece of evidence. A metric that ranks clips
            (`auroc`, `eer`, `map`, `map_micro`) compares scores of several models here. None when predictions are
            missing.
        notes: Sentences for the user.
        output_dir: Where `cross_validation.json` and the runs lie.
    """

    runs: tuple[FoldRun, ...]
    fold_metrics: dict[str, dict[str, float | None]]
    mean: dict[str, float | None]
    std: dict[str, float | None]
    seed_std: dict[str, float | None]
    pooled: dict[str, Any] | None
    notes: tuple[str, ...]
    output_dir: Path


def summarise(folds: Folds, runs: Sequence[FoldRun], output_dir: Path) -> CrossValidation:
    """All that `CrossValidation` has, of the runs of all seeds and folds, seed by seed."""
    seeds = list(dict.fromkeys(run.seed for run in runs))
    fold_metrics: dict[str, dict[str, float | None]] = {fold: {} for fold in folds.names}
    mean, std, seed_std = {}, {}, {}
    for name in metrics_of(folds.multi_label, len(folds.labels)):
        found = [run.result.test_metrics[name] for run in runs]
        values = np.array([np.nan if value is None else value for value in found]).reshape(len(seeds), -1)  # (S, K)
        by_fold = values.mean(axis=0)
        for fold, value in zip(folds.names, by_fold, strict=True):
            fold_metrics[fold][name] = None if np.isnan(value) else float(value)
        values = values[:, ~np.isnan(by_fold)]
        mean[name] = float(values.mean()) if values.size else None
        std[name] = _deviation(values.mean(axis=0))
        seed_std[name] = _deviation(values.mean(axis=1)) if values.size else None
    pooled = _pooled(folds, runs)
    return CrossValidation(tuple(runs), fold_metrics, mean, std, seed_std, pooled, folds.notes, output_dir)


def cross_validation_table(folds: Folds, result: CrossValidation, metric: str) -> str:
    """The metrics of each fold, mean and deviation, and the figures over all clips, as text.

    Args:
        folds: The folds.
        result: What the runs say.
        metric: The metric of the first column.
    """
    names = [name for name in dict.fromkeys((metric, *result.mean)) if name != "loss"]
    num_seeds = len({run.seed for run in result.runs})
    summary = {"mean": result.mean, "deviation": result.std}
    if num_seeds > 1:
        summary["deviation of the seeds"] = result.seed_std
    summary = {title: {name: values[name] for name in names} for title, values in summary.items()}
    means, times = (f", means over {num_seeds} seeds", f"{num_seeds} times") if num_seeds > 1 else ("", "once")
    lines = [f"Test fold by fold{means}:", folds_table(result.fold_metrics, Counter(folds.fold_of), summary)]
    if result.pooled is None:
        lines += ["", "There are no figures over all clips, as the predictions of a run, or its 'best', are gone."]
    else:
        lines += ["", f"All clips, each tested {times}, with 95 % intervals:", *interval_lines(result.pooled, names)]
    return "\n".join(lines)


def _deviation(values: np.ndarray) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None


def _pooled(folds: Folds, runs: Sequence[FoldRun]) -> dict[str, Any] | None:
    """Metrics of the predictions of all runs together; None when those of a run are gone."""
    groups = {(fold, clip.name): clip.group for clip, fold in zip(folds.clips, folds.fold_of, strict=True)}
    ids = {label: number for number, label in enumerate(folds.labels)}
    numbers: dict[tuple, int] = {}
    members, targets, logits, thresholds = [], [], [], []
    for run in runs:
        try:
            clips, labels, values = read_predictions(run.result.output_dir / PREDICTIONS_FILE)
            if folds.multi_label:
                own = read_metadata(str(run.result.checkpoint_dir))["thresholds"]
                thresholds.append(np.tile(own, (len(values), 1)))
        except (OSError, ValueError, KeyError):
            return None
        for clip, label in zip(clips, labels, strict=True):
            group = groups.get((run.fold, clip))
            key = ("clip", run.fold, clip) if group is None else ("group", group)
            members.append(numbers.setdefault(key, len(numbers)))
            targets.append([name in label for name in folds.labels] if folds.multi_label else ids[label])
        logits.append(values.astype(np.float64))
    if not folds.multi_label:
        return single_label_metrics(np.array(targets), np.concatenate(logits), np.array(members))
    scores = probabilities(torch.from_numpy(np.concatenate(logits)), multi_label=True).numpy()
    return multi_label_metrics(np.array(targets), scores, np.array(members), np.concatenate(thresholds))
