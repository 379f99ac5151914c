"""`audioclf predict`: which files, and where the results go."""

import glob
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tqdm import tqdm
from tyro.conf import Positional

from ..config import Device, Precision
from ..errors import AudioError, ConfigError
from .options import AsJson, Checkpoint
from .result_lines import Results, Rows, csv_lines, json_rows, segment_lines, table_lines

if TYPE_CHECKING:
    from ..inference import Classifier


def predict(
    checkpoint: Checkpoint,
    files: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="FILE...")],
    top_k: int | None = None,
    min_score: float | None = None,
    timeline: bool = False,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
    threshold: float | None = None,
    batch_size: int = 8,
    precision: Precision = "fp32",
    device: Device = "auto",
    as_csv: Annotated[bool, tyro.conf.arg(name="csv")] = False,
    as_json: AsJson = False,
    output: str | None = None,
) -> int:
    """Classify audio files; those that cannot be read are reported, the rest go on, and the status is 2 then.

    In a multi-label task a star marks the classes that are detected: whose score reaches their threshold.

    Args:
        files: Audio files, folders of them (with all folders within), patterns such as "calls/**/*.wav", or - for
            names on standard input, one a line.
        top_k: Classes to show for each file; 3 if not given.
        min_score: A file whose likeliest class has a lower score is none of them.
        timeline: Show what is heard when: a line for each segment, with its start and end in seconds, its label and
            its score. Files may be of any length.
        window_seconds: With timeline, what is classified at a time; by default as long as the training clips.
        hop_seconds: With timeline, from the start of one window to that of the next; by default half a window.
        threshold: With timeline, the score from which a class counts as heard; by default the checkpoint's thresholds,
            or none in a single-label task.
        batch_size: Sounds in one forward pass.
        precision: Arithmetic of the forward pass.
        device: Where to compute.
        as_csv: Write CSV: a row for each class shown, with its rank, or for each segment; those of files that cannot be
            read have a text in the column error.
        as_json: Write JSON lines: an object for each file, with its scores or segments, or its error.
        output: File for JSON lines, an object for each file. What broke off goes on by the same command, and under
            torchrun each process takes its share of the files.
    """
    windows = {"window_seconds": window_seconds, "hop_seconds": hop_seconds, "threshold": threshold}
    _check_combination(timeline, top_k, min_score, windows)
    if as_csv and (as_json or output):
        raise ConfigError(f"csv and {'json' if as_json else 'output'} are two forms of one output: choose one of them.")
    if output is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("under torchrun predict needs a file for the results of all processes: add --output FILE.")
    options = windows if timeline else {"top_k": 3 if top_k is None else top_k, "min_score": min_score}
    task = Task(checkpoint, precision, device, timeline, options, batch_size)
    if output is not None:
        return _into_file(task, files, output)
    return _onto_screen(task, files, "json" if as_json else "csv" if as_csv else "table")


@dataclass(frozen=True)
class Task:
    """What is asked of each file, and of which checkpoint."""

    checkpoint: str
    precision: Precision
    device: Device
    timeline: bool
    options: dict[str, Any]
    batch_size: int

    def load(self) -> "Classifier":
        """The classifier, where it is to compute."""
        from ..inference import load

        return load(self.checkpoint, precision=self.precision, device=self.device)

    def results(self, classifier: "Classifier", paths: Sequence[str], shows_progress: bool = True) -> Results:
        """What is found in each file; those that cannot be read are told on the way."""
        if self.timeline:
            found = _timelines(classifier, paths, {**self.options, "batch_size": self.batch_size})
        else:
            found = classifier.each(paths, **self.options, batch_size=self.batch_size)
        # A short list is done before a bar would say anything.
        is_short = len(paths) <= self.batch_size and not self.timeline
        bar = tqdm(paths, unit="file", disable=is_short or not shows_progress or not sys.stderr.isatty())
        for path, outcome in zip(bar, found, strict=True):
            if isinstance(outcome, AudioError):
                tqdm.write(f"audioclf: {outcome}", file=sys.stderr)
            yield path, outcome


def _onto_screen(task: Task, files: Sequence[str], form: str) -> int:
    paths = _expanded(files)
    classifier = task.load()
    failed: list[str] = []

    def counted() -> Results:
        for path, outcome in task.results(classifier, paths):
            if isinstance(outcome, AudioError):
                failed.append(path)
            yield path, outcome

    if form == "json":
        lines = (json.dumps(row, ensure_ascii=False) for row in json_rows(counted(), task.timeline))
    elif form == "csv":
        lines = csv_lines(counted(), classifier, task.timeline)
    else:
        lines = segment_lines(counted()) if task.timeline else table_lines(counted(), classifier, paths)
    for line in lines:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
    return _status(len(failed), len(paths))


def _into_file(task: Task, files: Sequence[str], output: str) -> int:
    """Each process of a job takes its share of the files that have no result yet."""
    from .. import distributed
    from ..models.loading import weights_digest
    from ..runtime import choose_device
    from .results_file import ResultsFile

    with distributed.joined(choose_device(task.device)):
        paths = distributed.on_first(lambda: list(dict.fromkeys(_expanded(files))))
        classifier = task.load()
        model = {"weights": weights_digest(classifier.model), "labels": list(classifier.labels)}
        settings = {**model, "precision": classifier.precision, "timeline": task.timeline, **task.options}
        file = ResultsFile(output, settings)
        done = distributed.on_first(file.open)
        is_first, num_ranks = distributed.is_first_process(), distributed.num_ranks()
        began = time.perf_counter()
        try:
            rest = [path for path in paths if path not in done]
            share = rest[distributed.rank() :: num_ranks]
            rows = json_rows(task.results(classifier, share, shows_progress=is_first), task.timeline)
            file.write(rows, distributed.rank())
            distributed.barrier()
            num_failed = distributed.on_first(file.close, paths)
        finally:
            if is_first:
                file.leave()
    if is_first:
        seconds = time.perf_counter() - began
        earlier = f" ({len(paths) - len(rest):,} of them earlier)" if done else ""
        speed = f"{len(rest):,} in {seconds:.0f} s, {len(rest) / seconds:.1f} a second"
        print(f"{len(paths):,} files in {output}{earlier}: {speed}.")
        status = _status(num_failed, len(paths))
        # To torchrun any other status is a process that broke.
        return status if num_ranks == 1 else 0
    return 0


def _status(num_failed: int, num_files: int) -> int:
    if num_failed and num_files > 1:
        print(f"audioclf: {num_failed} of {num_files} files could not be read.", file=sys.stderr)
    return 2 if num_failed else 0


def _check_combination(
    timeline: bool, top_k: int | None, min_score: float | None, windows: dict[str, float | None]
) -> None:
    if timeline and min_score is not None:
        raise ConfigError(f"min_score={min_score:g} means nothing with --timeline: give threshold instead.")
    if timeline and top_k is not None:
        raise ConfigError(f"top_k={top_k} means nothing with --timeline, which names all that it hears: leave it out.")
    for name, value in windows.items():
        if value is not None and not timeline:
            raise ConfigError(f"{name}={value:g} means nothing without --timeline: add that, or leave it out.")


def _expanded(words: Sequence[str]) -> list[str]:
    """The files that are meant by names, folders, patterns, and - for standard input.

    Raises:
        ConfigError: when there are none.
    """
    paths = list(_expand(words))
    if not paths:
        raise ConfigError("name at least one audio file, folder or pattern.")
    return paths


def _expand(words: Sequence[str]) -> Iterator[str]:
    from ..datasets.folder import audio_files

    for word in words:
        if word == "-":
            yield from (name for line in sys.stdin if (name := line.rstrip("\r\n")))
        elif Path(word).is_dir():
            found = audio_files(word)
            if not found:
                raise ConfigError(f"{word!r} is a folder without audio files: name another.")
            yield from map(str, found)
        elif glob.has_magic(word) and not Path(word).exists():
            found = sorted(path for path in glob.glob(word, recursive=True) if Path(path).is_file())
            if not found:
                raise ConfigError(f"{word!r}: no file matches this pattern.")
            yield from found
        else:
            yield word  # if it is not there, that is told among the results, and the rest goes on


def _timelines(classifier: "Classifier", paths: Sequence[str], options: dict[str, Any]) -> Iterator[Rows | AudioError]:
    for path in paths:
        try:
            yield [vars(segment) for segment in classifier.timeline(path, **options).segments]
        except AudioError as error:
            yield error
