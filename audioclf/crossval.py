"""`cross_validate`: the folds, a run for each of them and each seed, and going on where that was cut."""

import contextlib
import itertools
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from . import __version__, resume
from .checks import check_int
from .config import TrainConfig
from .datasets.folds import Folds, HowToFold, divide
from .datasets.load import load_dataset
from .datasets.split import cut_valid, unit
from .distributed import is_first_process, joined, on_first, one_a_machine_first
from .errors import AudioclfError, CheckpointError, ConfigError, DatasetError
from .export import keep_json
from .foldstats import CrossValidation, FoldRun, cross_validation_table, summarise
from .interrupt import Interrupt
from .models.loading import load_config, resolve
from .objective import choose_metric
from .output_folder import output_folder
from .progress import printable
from .result import finished_result
from .runtime import choose_device
from .training import train

RESULT_FILE = "cross_validation.json"
MAY_CHANGE = {*resume.MAY_CHANGE, "seed"} - {"num_epochs", "patience"}
"""Options that may be others when it goes on; runs of more epochs than others could not be compared with them."""
SAFE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,60}[A-Za-z0-9_-])?")
"""Names of folds that can be part of a folder's name on any system."""


def cross_validate(
    data: Any,
    folds: HowToFold = "official",
    *,
    seeds: Sequence[int] | None = None,
    config: TrainConfig | None = None,
    **overrides: Any,
) -> CrossValidation:
    """Trains and tests a model for each fold: one that has not seen the fold, and was not chosen by it.

    Each is an ordinary run of `train` in `output_dir/seed-S/fold-F`, whose validation part is cut from the other folds
    (`valid_fraction`; whole groups only, each class in proportion). Audio is decoded once for all of them. With
    `resume=True`, which may be given from the start, runs that are finished are skipped and the one that was cut goes
    on; seeds may be added at the end.

    Args:
        data: A data set in any form that `train` takes.
        folds: `official`: those that the data brings (esc50, urbansound8k, ravdess, crema_d, a manifest's column
            `fold`), of all clips that have one. A number: so many, whole groups only, each class in proportion, drawn
            by the first seed; a test part that the data has is left out. `group`: leaves out one group (a speaker)
            after the other.
        seeds: A run with each of them for every fold; `seed` alone when not given.
        config: The options of each run.
        **overrides: Single options, which go before those in `config`.

    Raises:
        ConfigError: for options that cannot be, or are not those of the cross-validation to go on with.
        DatasetError: for data without such folds, or in which one fold has all clips of a class.
        AudioclfError: whatever else ends a run, as in `train`; the finished ones are kept.
        KeyboardInterrupt, SystemExit: after Ctrl-C or SIGTERM, with all saved.

    Example:
        >>> result = cross_validate("clips.csv", folds=5, output_dir="runs/cv")
        >>> result.mean["accuracy"], result.std["accuracy"], result.pooled["accuracy_ci"]
    """
    config = TrainConfig.from_overrides(config, overrides)
    seeds = _check_seeds(seeds, config)
    device = choose_device(config.device)
    with joined(device), Interrupt(), output_folder(config, RESULT_FILE, "cross-validation") as output_dir:
        config = replace(config, progress=config.progress and is_first_process())
        with one_a_machine_first():
            splits = load_dataset(data, cache_dir=config.cache_dir)
        divided = divide(splits, folds, seeds[0])
        load_config(resolve(config.model))
        metric = choose_metric(config, splits)
        _check_cut(divided, config)
        plan = {
            "audioclf_version": __version__,
            "data": divided.name,
            "folds": folds,
            "seeds": list(seeds),
            "fingerprint": divided.fingerprint(),
            "config": config.to_dict(),
            "notes": list(divided.notes),
        }
        if not on_first(_goes_on, output_dir, plan, config):
            on_first(_clear, output_dir)
            _write(output_dir, plan, ())
        num_runs = len(seeds) * len(divided.names)
        _say(config, f"{divided.name}: {len(divided.names)} folds of {len(divided.clips)} clips, {num_runs} runs.")
        for note in divided.notes:
            _say(config, f"note: {note}")
        runs = _run_all(divided, seeds, plan, config, output_dir)
        result = summarise(divided, runs, output_dir)
        _write(output_dir, plan, runs, result)
        _say(config, f"\n{cross_validation_table(divided, result, metric)}\n\nKept in {output_dir / RESULT_FILE}")
        return result


def _run_all(
    folds: Folds, seeds: Sequence[int], plan: dict[str, Any], config: TrainConfig, output_dir: Path
) -> list[FoldRun]:
    """The runs that are missing, and all their results."""
    todo, runs = list(itertools.product(seeds, folds.names)), []
    folders = _folder_names(folds.names)
    try:
        for number, (seed, fold) in enumerate(todo, start=1):
            where = output_dir / f"seed-{seed}" / folders[fold]
            result = finished_result(where)
            _say(config, f"\nRun {number} of {len(todo)}: fold {fold}, seed {seed}{', is done' if result else ''}.")
            if result is None:
                own = replace(config, seed=seed, output_dir=str(where), resume=True, overwrite=False)
                result = train(folds.splits(fold), config=own)
            runs.append(FoldRun(seed, fold, result))
            _write(output_dir, plan, runs)
    except AudioclfError:
        # Refused: then nothing is to be in the way.
        if is_first_process() and not any(output_dir.glob("seed-*/fold-*/history.jsonl")):
            _clear(output_dir)
            (output_dir / RESULT_FILE).unlink(missing_ok=True)
        raise
    except (KeyboardInterrupt, SystemExit):
        done = f"{len(runs)} of {len(todo)} runs are done"
        _say(config, f"\nThe cross-validation was interrupted: {done}; resume=True goes on from there.")
        raise
    return runs


def _check_seeds(seeds: Sequence[int] | None, config: TrainConfig) -> tuple[int, ...]:
    if seeds is None:
        return (config.seed,)
    if isinstance(seeds, (str, int)) or not len(seeds):
        raise ConfigError(f"seeds={seeds!r} must be a list of whole numbers, such as (1, 2, 3).")
    for seed in seeds:
        check_int("seeds", seed, minimum=0, maximum=2**32 - 1)
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds={list(seeds)!r} has a seed twice: its runs would be the same.")
    if config.seed not in (TrainConfig.seed, *seeds):
        raise ConfigError(f"seed={config.seed} is not among seeds={list(seeds)!r}: leave one of the two options out.")
    return tuple(seeds)


def _check_cut(folds: Folds, config: TrainConfig) -> None:
    """Refuses before the first run what would end a later one; whether a cut is possible does not hang on the seed.

    Raises:
        DatasetError: naming the fold.
    """
    units = [unit(clip) for clip in folds.clips]
    for name in folds.names:
        num_groups = len({own for own, fold in zip(units, folds.fold_of, strict=True) if fold != name})
        # Only where each group has all clips of a class is none free to leave; one class more: clips without labels.
        if num_groups > len(folds.labels) + 1:
            continue
        splits = folds.splits(name)
        try:
            cut_valid(splits, config.valid_fraction, config.seed)
        except DatasetError as error:
            raise DatasetError(
                f"{splits.name}: the {len(splits.train)} clips of other folds, in {num_groups} group(s) or file(s), "
                "cannot be cut into train and valid: give more folds, another valid_fraction, or clips of more groups."
            ) from error


def _goes_on(output_dir: Path, plan: dict[str, Any], config: TrainConfig) -> bool:
    """Whether there is a cross-validation to go on with.

    Raises:
        ConfigError: when it is another one.
        CheckpointError: when its file is damaged.
    """
    path = output_dir / RESULT_FILE
    if not (config.resume and path.exists()):
        return False
    try:
        then = json.loads(path.read_text(encoding="utf-8"))
        earlier = {name: then[name] for name in plan}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read, so there is nothing to go on with: start anew with "
                              "overwrite=True.") from error  # fmt: skip
    advice = "or start a new one in another output_dir"
    began = f"is not what the cross-validation in {config.output_dir!r} began with"
    if earlier["folds"] != plan["folds"]:
        raise ConfigError(f"folds={plan['folds']!r} {began}: give folds={earlier['folds']!r}, {advice}.")
    if plan["seeds"][: len(earlier["seeds"])] != earlier["seeds"]:
        raise ConfigError(
            f"seeds={plan['seeds']} {began}: give {earlier['seeds']}, after which there may be more, {advice}."
        )
    resume.refuse_other_options(earlier["config"], config, MAY_CHANGE)
    if earlier["fingerprint"] != plan["fingerprint"]:
        raise ConfigError(
            f"resume: the clips or their folds have changed since the cross-validation in {config.output_dir!r} began: "
            f"bring back what was, {advice}."
        )
    return True


def _clear(output_dir: Path) -> None:
    """Deletes an earlier cross-validation."""
    for folder in output_dir.glob("seed-*/fold-*"):
        shutil.rmtree(folder)
    for folder in output_dir.glob("seed-*"):
        with contextlib.suppress(OSError):  # something else is in it
            folder.rmdir()


def _folder_names(folds: Sequence[str]) -> dict[str, str]:
    """A folder for each fold: by its name, or, when one of these can be no folder's, by its number."""
    if all(SAFE_NAME.fullmatch(name) for name in folds) and len({name.lower() for name in folds}) == len(folds):
        return {name: f"fold-{name}" for name in folds}
    return {name: f"fold-{number}" for number, name in enumerate(folds, start=1)}


def _write(
    output_dir: Path, plan: dict[str, Any], runs: Sequence[FoldRun], result: CrossValidation | None = None
) -> None:
    """Keeps what is known so far."""
    rows = [
        {
            "seed": run.seed,
            "fold": run.fold,
            "folder": run.result.output_dir.relative_to(output_dir).as_posix(),
            "best_epoch": run.result.best_epoch,
            "best_metrics": run.result.best_metrics,
            "test_metrics": run.result.test_metrics,
        }
        for run in runs
    ]
    parts = ("fold_metrics", "mean", "std", "seed_std", "pooled")
    content = {**plan, "runs": rows, **({name: getattr(result, name) for name in parts} if result else {})}
    keep_json(output_dir / RESULT_FILE, content)


def _say(config: TrainConfig, text: str) -> None:
    if config.progress:
        with contextlib.suppress(OSError):  # a terminal that is gone is no reason to end the runs
            tqdm.write(printable(text))
