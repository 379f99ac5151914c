"""`compare`: recipes against each other, on the same seeds and clips, with intervals of the differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t
from tqdm import tqdm

from .checks import check_int
from .config import TrainConfig
from .crossval import cross_validate
from .datasets.base import AudioSplits
from .datasets.folds import HowToFold
from .datasets.load import load_dataset
from .distributed import is_first_process, joined, one_a_machine_first
from .errors import ConfigError
from .export import keep_json
from .metrics import NAMES
from .objective import choose_metric
from .progress import printable
from .runtime import choose_device
from .training import train

RESULT_FILE = "comparison.json"
"""What `compare` leaves beside the runs."""


@dataclass(frozen=True)
class Difference:
    """How a recipe does beside the first one.

    Attributes:
        mean: Mean of the paired differences of the metric.
        low, high: Its 95 % interval.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        metric: The metric compared.
        part: The part it is of, `test`, or `valid` where there is no test part.
        scores: Of each recipe, its metric in each run, (seeds,), or (seeds * folds,) fold by fold.
        differences: Of each recipe but the first, the paired differences to the first.
    """

    metric: str
    part: str
    scores: dict[str, tuple[float, ...]]
    differences: dict[str, Difference]


def compare(
    recipes: Mapping[str, Mapping[str, Any]],
    data: Any,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    folds: HowToFold | None = None,
    config: TrainConfig | None = None,
    **overrides: Any,
) -> Comparison:
    """Trains every recipe with every seed on the same clips, and compares each with the first.

    A seed draws the same validation clips, order and new head for all recipes, so that differences are paired. Runs
    lie in `output_dir/RECIPE/seed-S`; with `resume=True`, which may be given from the start, those that are finished
    are skipped.

    Args:
        recipes: Options of each recipe by its name; the first is what the others are compared with.
        data: A data set in any form that `train` takes.
        seeds: At least two.
        folds: Cross-validate each recipe, as `cross_validate` does, instead of testing on the data's test part.
        config: Options of all recipes.
        **overrides: Single options of all recipes, which go before those in `config`.

    Raises:
        ConfigError: for options that cannot be.
        AudioclfError: whatever else ends a run; the finished ones are kept.

    Example:
        >>> recipes = {"plain": {}, "pieces": {"chunk_seconds": 15}}
        >>> found = compare(recipes, "gtzan", output_dir="runs/pieces")
        >>> found.differences["pieces"].low > 0
    """
    shared = TrainConfig.from_overrides(config, overrides)
    configs = _configs(recipes, shared, seeds)
    with joined(choose_device(shared.device)):
        with one_a_machine_first():
            splits = load_dataset(data, cache_dir=shared.cache_dir)
        metric = choose_metric(shared, splits)
        part = "test" if folds is not None or splits.test else "valid"
        scores = _scores(configs, splits, seeds, folds, metric, part)
        names = list(scores)
        num_folds = len(scores[names[0]]) // len(seeds)
        differences = {
            name: paired_difference(np.array(scores[name]), np.array(scores[names[0]]), num_folds) for name in names[1:]
        }
        comparison = Comparison(metric, part, scores, differences)
        if shared.progress and is_first_process():
            tqdm.write(printable(comparison_table(comparison)))
        _keep(comparison, Path(shared.output_dir).expanduser())
        return comparison


def _scores(
    configs: dict[str, TrainConfig],
    splits: AudioSplits,
    seeds: Sequence[int],
    folds: HowToFold | None,
    metric: str,
    part: str,
) -> dict[str, tuple[float, ...]]:
    """The metric of each recipe's runs, seed by seed."""
    scores: dict[str, tuple[float, ...]] = dict.fromkeys(configs, ())
    for seed in seeds:
        for name, config in configs.items():
            own = replace(config, seed=seed, output_dir=str(Path(config.output_dir) / name / f"seed-{seed}"))
            if folds is None:
                result = train(splits, config=own)
                found = [result.test_metrics if part == "test" else result.best_metrics]
            else:
                found = [run.result.test_metrics for run in cross_validate(splits, folds, config=own).runs]
            scores[name] += tuple(_value(metrics, metric) for metrics in found)
    return scores


def paired_difference(scores: np.ndarray, baseline: np.ndarray, num_folds: int = 1) -> Difference:
    """Mean of the differences of paired scores (N,), with its 95 % interval by Student's t.

    Runs of several folds share training clips, which makes their differences alike: their variance is raised as Nadeau
    and Bengio have it.

    Source: Nadeau & Bengio (2003), "Inference for the generalization error".
    """
    differences = np.asarray(scores) - np.asarray(baseline)
    mean, count = float(differences.mean()), len(differences)
    share = 1 / count + (1 / (num_folds - 1) if num_folds > 1 else 0.0)
    half = float(student_t.ppf(0.975, count - 1) * np.sqrt(share * differences.var(ddof=1)))
    return Difference(mean, mean - half, mean + half)


def comparison_table(comparison: Comparison) -> str:
    """The mean of each recipe and its difference to the first, as text."""
    width = max(8, *map(len, comparison.scores))
    count = len(next(iter(comparison.scores.values())))
    lines = [
        "",
        f"{NAMES[comparison.metric]} ({comparison.part}), {count} paired runs each:",
        f"{'recipe':<{width}}  {'mean':>6}  {'least':>6}  {'most':>6}  difference, 95 % interval",
    ]
    for name, values in comparison.scores.items():
        row = f"{name:<{width}}  {np.mean(values):6.3f}  {min(values):6.3f}  {max(values):6.3f}"
        if name in comparison.differences:
            d = comparison.differences[name]
            row += f"  {d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
        lines.append(row)
    if comparison.part == "valid":
        lines.append("There is no test part: these are the clips that chose each run's best epoch.")
    return "\n".join(lines)


def _configs(
    recipes: Mapping[str, Mapping[str, Any]], shared: TrainConfig, seeds: Sequence[int]
) -> dict[str, TrainConfig]:
    if not isinstance(recipes, Mapping) or len(recipes) < 2:
        raise ConfigError('recipes= must have two or more, by name: {"plain": {}, "pieces": {"chunk_seconds": 15}}.')
    if isinstance(seeds, (str, int)) or len(set(seeds)) != len(seeds) or len(seeds) < 2:
        raise ConfigError(f"seeds={seeds!r} must be two or more different whole numbers: one run tells no difference.")
    for seed in seeds:
        check_int("seeds", seed, minimum=0, maximum=2**32 - 1)
    configs = {}
    for name, options in recipes.items():
        if not name or Path(name).name != name or name.startswith("."):
            raise ConfigError(f"The recipe {name!r} cannot be the name of a folder: call it otherwise.")
        for option in ("seed", "output_dir", "valid_fraction", "metric_for_best"):
            if option in options:
                raise ConfigError(f"The recipe {name!r} has {option}, which all share: give it to compare itself.")
        configs[name] = TrainConfig.from_overrides(shared, dict(options))
    return configs


def _value(metrics: dict[str, Any], metric: str) -> float:
    if metrics[metric] is None:
        raise ConfigError(
            f"metric_for_best={metric!r} is not defined for the clips of a test fold, which lack a class: choose "
            "another metric, or fewer folds."
        )
    return metrics[metric]


def _keep(comparison: Comparison, output_dir: Path) -> None:
    content = {
        "metric": comparison.metric,
        "part": comparison.part,
        "scores": {name: list(values) for name, values in comparison.scores.items()},
        "differences": {name: vars(difference) for name, difference in comparison.differences.items()},
    }
    keep_json(output_dir / RESULT_FILE, content)
