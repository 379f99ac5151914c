"""The command `audioclf`: train, cross-validate, evaluate, predict, inspect, export, cache.

Every function here is a subcommand; tyro reads its options from the signature and their help from the docstrings.
Heavy modules are imported inside, so that `--help` is quick.
"""

import argparse
import functools
import json
import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from .allocator import keep_freed_memory
from .config import Device, Precision, TrainConfig, default_cache_dir
from .errors import AudioclfError, AudioError, ConfigError
from .recipes import Recipe

USAGE_ERROR = 2


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How to read the data set."""

    protocol: str | None = None
    """Official split or variant: for gtzan random or fault-filtered, for speech_commands 35 or 12, for esc50 esc50 or
    esc10, for demo music, music-hard, keywords, languages, emotion, environment or events, for a hub data set its
    configuration."""
    root: str | None = None
    """Where a named data set lies, as a folder or an archive."""
    fold: str | None = None
    """For a corpus with official folds, or a manifest with a column fold: the one that is test."""
    label_column: str | None = None
    """Column of the labels."""
    group_column: str | None = None
    """Column of what must not be on both sides of a split (speaker, artist)."""
    multi_label: bool | None = None
    """Whether a clip may have several labels, separated by commas; so in a column labels or tags, when not given."""
    labels: tuple[str, ...] | None = None
    """Class names in the order of their ids; for a corpus of languages those wanted."""


def train(
    data: Positional[str],
    valid: str | None = None,
    recipe: Recipe = "course",
    options: OmitArgPrefixes[DataOptions] = DataOptions(),
    config: OmitArgPrefixes[TrainConfig] = TrainConfig(),
) -> int:
    """Fine-tune an encoder on labelled clips and keep the best checkpoint.

    Args:
        data: A corpus by name (gtzan, speech_commands, esc50, ...: docs/corpora.md), demo, a folder of class folders,
            a CSV, TSV or JSON-lines manifest, or a hub data set id.
        valid: Validation data of its own, read with the same columns and labels; else the data's valid part, else a
            share of train.
        recipe: Options that go together and take the place of the defaults: the course's, fast (its waveform CNN
            frozen, and computed once) or best (augmentation, random pieces, more epochs).
        options: How to read the data set.
        config: Options of the run.
    """
    from .datasets.load import load_dataset

    splits = load_dataset(data, **vars(options), cache_dir=config.cache_dir)
    held_out = None
    if valid is not None:
        shared = {name: getattr(options, name) for name in ("label_column", "group_column", "multi_label", "labels")}
        held_out = load_dataset(valid, **shared, cache_dir=config.cache_dir)
    from .training import train as run  # torch is slow to import; a wrong path is told before

    run(splits, held_out, config=config)
    return 0


def cross_validate(
    data: Positional[str],
    folds: str = "official",
    seeds: tuple[int, ...] | None = None,
    recipe: Recipe = "course",
    options: OmitArgPrefixes[DataOptions] = DataOptions(),
    config: OmitArgPrefixes[TrainConfig] = TrainConfig(),
) -> int:
    """Train and test a model for each fold, and print the mean and deviation over the folds.

    Args:
        data: A data set, as for train.
        folds: official (those that the data brings), group (leave out one group, a speaker, after the other), or a
            number of folds.
        seeds: A run with each of them for every fold; the one of --seed when not given.
        recipe: As for train.
        options: How to read the data set.
        config: Options of each run.
    """
    if folds == "official" and options.fold is not None:
        raise ConfigError(f"fold={options.fold!r} makes one fold the test part, but each is in turn: leave it out.")
    from .datasets.load import load_dataset

    splits = load_dataset(data, **vars(options), cache_dir=config.cache_dir)
    from .crossval import cross_validate as run

    run(splits, int(folds) if folds.isdecimal() else folds, seeds=seeds, config=config)
    return 0


def evaluate(
    checkpoint: Positional[str],
    data: Positional[str],
    split: str = "test",
    batch_size: int = 8,
    precision: Precision = "fp32",
    device: Device = "auto",
    bad_audio: Literal["auto", "skip", "error"] = "auto",
    cache_dir: str | None = None,
    options: OmitArgPrefixes[DataOptions] = DataOptions(),
) -> int:
    """Score a checkpoint on one part of a data set; prints the metrics as JSON.

    Args:
        checkpoint: A folder or hub id.
        data: A data set, as for train.
        split: The part: train, valid or test.
        batch_size: Clips in one forward pass.
        precision: Arithmetic of the forward pass.
        device: Where to compute.
        bad_audio: Unreadable clips: skip them, stop (error), or skip up to 1 % (auto).
        cache_dir: Folder for decoded audio.
        options: How to read the data set.
    """
    from .datasets.load import load_dataset
    from .inference import load
    from .scoring import evaluate as score

    metrics = score(
        load(checkpoint, precision=precision, device=device),
        load_dataset(data, **vars(options), cache_dir=cache_dir),
        split,
        batch_size=batch_size,
        bad_audio=bad_audio,
        cache_dir=cache_dir,
        progress=sys.stderr.isatty(),
    )
    print(json.dumps(metrics, indent=2))
    return 0


def predict(
    checkpoint: Positional[str],
    files: Positional[tuple[str, ...]],
    top_k: int | None = None,
    min_score: float | None = None,
    timeline: bool = False,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
    threshold: float | None = None,
    precision: Precision = "fp32",
    device: Device = "auto",
    json_lines: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Classify audio files; one that cannot be read is reported and the rest go on.

    In a multi-label task a star marks the classes that are detected: whose score reaches their threshold.

    Args:
        checkpoint: A folder or hub id.
        files: Audio files.
        top_k: Classes to show for each file; 3 if not given.
        min_score: A file whose likeliest class has a lower score is none of them.
        timeline: Show what is heard when: a line for each segment, with its start and end in seconds, its label and
            its score. Files may be of any length.
        window_seconds: With timeline, what is classified at a time; by default as long as the training clips.
        hop_seconds: With timeline, from the start of one window to that of the next; by default half a window.
        threshold: With timeline, the score from which a class counts as heard; by default the checkpoint's thresholds,
            or none in a single-label task.
        precision: Arithmetic of the forward pass.
        device: Where to compute.
        json_lines: Print one JSON object a file.
    """
    options = {"window_seconds": window_seconds, "hop_seconds": hop_seconds, "threshold": threshold}
    if timeline and min_score is not None:
        raise ConfigError(f"min_score={min_score:g} means nothing with --timeline: give threshold instead.")
    if timeline and top_k is not None:
        raise ConfigError(f"top_k={top_k} means nothing with --timeline, which names all that it hears: leave it out.")
    for name, value in options.items():
        if value is not None and not timeline:
            raise ConfigError(f"{name}={value:g} means nothing without --timeline: add that, or leave it out.")
    if not files:
        print("audioclf: name at least one audio file.", file=sys.stderr)
        return USAGE_ERROR
    from .inference import load

    classifier = load(checkpoint, precision=precision, device=device)
    num_failed = 0
    for file in files:
        try:
            if timeline:
                found = [vars(segment) for segment in classifier.timeline(file, **options).segments]
                row, shown = {"segments": found}, _table(found)
            else:
                found = classifier(file, top_k=3 if top_k is None else top_k, min_score=min_score)
                row, shown = {"scores": found}, f" {', '.join(map(_entry, found)) or 'none of the classes'}"
        except AudioError as error:
            num_failed += 1
            print(f"audioclf: {error}", file=sys.stderr)
            continue
        print(json.dumps({"file": file, **row}, ensure_ascii=False) if json_lines else f"{file}:{shown}", flush=True)
    return USAGE_ERROR if num_failed else 0


def _entry(scored: dict[str, Any]) -> str:
    return f"{scored['label']} {scored['score']:.3f}{'*' * scored.get('detected', False)}"


def _table(segments: list[dict[str, Any]]) -> str:
    """A line for each segment, below one of headings."""
    if not segments:
        return " nothing reaches its threshold"
    width = max(len("label"), *(len(segment["label"]) for segment in segments))
    lines = [f"{s['start']:10.2f} {s['end']:10.2f}  {s['label']:<{width}}  {s['score']:.3f}" for s in segments]
    return "\n".join(["", f"{'start':>10} {'end':>10}  {'label':<{width}}  score", *lines])


def export(checkpoint: Positional[str], output: Positional[str | None] = None) -> int:
    """Write a checkpoint as an ONNX file, from waveforms to scores, for programs without torch.

    Args:
        checkpoint: A folder or hub id, with an encoder of waveforms.
        output: The file, which is replaced if it is there; model.onnx in the checkpoint's folder when not given.
    """
    if output is None and not Path(checkpoint).is_dir():
        raise ConfigError(f"{checkpoint!r} is no folder that model.onnx could go into: name the file after it.")
    from .onnx_export import OPSET, export_onnx

    path = Path(checkpoint) / "model.onnx" if output is None else Path(output)
    difference = export_onnx(checkpoint, path)
    size = path.stat().st_size / 2**20
    print(f"{path}: {size:.1f} MiB, opset {OPSET}; onnxruntime's scores are within {difference:.1g} of PyTorch's")
    return 0


def inspect(
    data: Positional[str],
    max_seconds: float = TrainConfig.max_seconds,
    min_clips: int = 10,
    cache_dir: str | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    options: OmitArgPrefixes[DataOptions] = DataOptions(),
) -> int:
    """Tell what a data set holds and what may be wrong with it, before training; the status is 0 whatever is found.

    Args:
        data: A data set, as for train.
        max_seconds: What training will hear of a clip.
        min_clips: Clips that each class should have in train.
        cache_dir: Folder for decoded audio, which training then finds there.
        as_json: Print one JSON object, with all clips of each finding.
        options: How to read the data set.
    """
    from .datasets.load import load_dataset
    from .inspecting import inspect as look

    found = look(
        load_dataset(data, **vars(options), cache_dir=cache_dir),
        max_seconds=max_seconds,
        min_clips=min_clips,
        cache_dir=cache_dir,
        progress=sys.stderr.isatty(),
    )
    print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) if as_json else found)
    return 0


def cache(cache_dir: str | None = None, clear: bool = False) -> int:
    """Show what the cache of decoded audio and features holds, or clear it.

    Args:
        cache_dir: Folder of the cache; ~/.cache/audioclf when not given.
        clear: Delete all decoded audio and features. Fetched archives stay.
    """
    from . import cache as stores

    folder = Path(cache_dir) if cache_dir else default_cache_dir()
    rows = stores.report(folder)
    for row in rows:
        print(f"{row['bytes'] / 2**20:10.1f} MiB  {row['clips']:8,} clips  {row['folder']}")
    print(f"{sum(row['bytes'] for row in rows) / 2**20:10.1f} MiB in {len(rows)} sets of clips below {str(folder)!r}")
    if clear:
        print(f"freed {stores.clear(folder) / 2**20:.1f} MiB")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM."""
    arguments = sys.argv[1:] if arguments is None else arguments
    keep_freed_memory()  # the process is ours to tune
    config = TrainConfig.from_overrides(None, {"recipe": _recipe_in(arguments)})
    commands = {
        "train": functools.partial(train, config=config),
        "cross-validate": functools.partial(cross_validate, config=config),
        "evaluate": evaluate,
        "predict": predict,
        "export": export,
        "inspect": inspect,
        "cache": cache,
    }
    try:
        return tyro.extras.subcommand_cli_from_dict(
            commands, prog="audioclf", description="Fine-tune audio classifiers in plain PyTorch.", args=arguments
        )
    except AudioclfError as error:
        print(f"audioclf: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        _tell_how_to_resume(arguments)
        return 128 + signal.SIGINT
    except SystemExit as end:
        if end.code == 128 + signal.SIGTERM:
            _tell_how_to_resume(arguments)
        raise
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        sys.stderr.close()
        return 0


def _recipe_in(arguments: list[str]) -> str:
    """The recipe that is asked for, found before the rest is parsed, as the defaults of other options depend on it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--recipe", choices=get_args(Recipe), default="course")
    try:
        return parser.parse_known_args(arguments)[0].recipe
    except argparse.ArgumentError:
        return "course"  # tyro says what is wrong with it


def _tell_how_to_resume(arguments: list[str]) -> None:
    if arguments[:1] in (["train"], ["cross-validate"]):
        again = [argument for argument in arguments if argument not in ("--overwrite", "--resume")]
        print(f"Go on with: {shlex.join(['audioclf', *again, '--resume'])}", file=sys.stderr)


def entry_point() -> None:
    """What the installed command `audioclf` calls."""
    status = main()
    # All is said and saved: a second Ctrl-C would only fill the screen with how Python ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(status)
