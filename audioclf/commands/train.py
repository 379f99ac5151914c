"""`audioclf train`, `audioclf cross-validate` and `audioclf compare`: what a file of options can be given to."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro
from tyro.conf import Positional

from ..config import TrainConfig
from ..errors import ConfigError
from ..recipes import Recipe
from .config_file import names_of, read, to_yaml
from .options import AsJson, ConfigFile, Data, DataOptions, HowToRead, PrintConfig, RecipeName, Training


def train(
    data: Data,
    valid: str | None = None,
    recipe: RecipeName = "course",
    config: ConfigFile = None,
    print_config: PrintConfig = False,
    as_json: AsJson = False,
    reading: HowToRead = DataOptions(),
    training: Training = TrainConfig(),
) -> int:
    """Fine-tune an encoder on labelled clips and keep the best checkpoint.

    Args:
        valid: Validation data of its own, read with the same columns and labels; else the data's valid part, else a
            share of train.
        as_json: Print the metrics as one JSON object, and nothing while it runs.
        reading: How to read the data set.
        training: Options of the run.
    """
    if print_config:
        return _print_config({"data": data, "valid": valid}, reading, training)
    splits = reading.load(data, training.cache_dir)
    held_out = None
    if valid is not None:
        held_out = replace(reading, protocol=None, root=None, fold=None, streaming=None).load(valid, training.cache_dir)
    from ..training import train as run

    result = run(splits, held_out, config=_quiet(training, as_json))
    if as_json:
        values = ("best_epoch", "best_metrics", "test_metrics")
        _print_json(checkpoint=str(result.checkpoint_dir), **{name: getattr(result, name) for name in values})
    return 0


def cross_validate(
    data: Data,
    folds: str = "official",
    seeds: tuple[int, ...] | None = None,
    recipe: RecipeName = "course",
    config: ConfigFile = None,
    print_config: PrintConfig = False,
    as_json: AsJson = False,
    reading: HowToRead = DataOptions(),
    training: Training = TrainConfig(),
) -> int:
    """Train and test a model for each fold, and print the mean and deviation over the folds.

    Args:
        folds: official (those that the data brings), group (leave out one group, a speaker, after the other), or a
            number of folds.
        seeds: A run with each of them for every fold; the one of --seed when not given.
        as_json: Print the metrics as one JSON object, and nothing while it runs.
        reading: How to read the data set.
        training: Options of each run.
    """
    if folds == "official" and reading.fold is not None:
        raise ConfigError(f"fold={reading.fold!r} makes one fold the test part, but each is in turn: leave it out.")
    if print_config:
        return _print_config({"data": data, "folds": folds, "seeds": seeds and list(seeds)}, reading, training)
    splits = reading.load(data, training.cache_dir)
    from ..crossval import cross_validate as run

    result = run(splits, _folds(folds), seeds=seeds, config=_quiet(training, as_json))
    if as_json:
        _print_json(mean=result.mean, std=result.std, pooled=result.pooled)
    return 0


def compare(
    data: Data,
    recipes: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="RECIPE...")],
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    folds: str | None = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
    reading: HowToRead = DataOptions(),
    training: Training = TrainConfig(),
) -> int:
    """Train each recipe with the same seeds on the same clips, and print how they differ from the first.

    Args:
        recipes: Two or more: course, fast, best, or YAML files of options, which go by the file's name.
        seeds: Two or more.
        folds: Cross-validate each recipe, as cross-validate does, instead of testing on the data's test part.
        as_json: Print the metrics as one JSON object, and nothing while it runs.
        reading: How to read the data set.
        training: Options of all recipes.
    """
    splits = reading.load(data, training.cache_dir)
    from ..comparison import compare as run

    found = run(_recipes(recipes), splits, seeds=seeds, folds=folds and _folds(folds), config=_quiet(training, as_json))
    if as_json:
        differences = {name: vars(difference) for name, difference in found.differences.items()}
        _print_json(metric=found.metric, part=found.part, scores=found.scores, differences=differences)
    return 0


def _recipes(words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Options of each recipe by its name."""
    found: dict[str, dict[str, Any]] = {}
    for word in words:
        is_ours = word in get_args(Recipe)
        name = word if is_ours else Path(word).stem
        if name in found:
            raise ConfigError(f"{word!r}: there is another recipe {name!r}; call the file otherwise.")
        found[name] = {"recipe": word} if is_ours else read(word, [*names_of(TrainConfig), "recipe"])
    return found


def _folds(folds: str) -> str | int:
    return int(folds) if folds.isdecimal() else folds


def _quiet(config: TrainConfig, as_json: bool) -> TrainConfig:
    return replace(config, progress=False) if as_json else config


def _print_json(**values: Any) -> None:
    from ..distributed import is_first_process

    if is_first_process():
        print(json.dumps(values, indent=2, ensure_ascii=False))


def _print_config(own: dict[str, Any], reading: DataOptions, config: TrainConfig) -> int:
    given = {name: value for name, value in {**own, **vars(reading)}.items() if value is not None}
    print(to_yaml({**given, **config.to_dict()}), end="")
    return 0
