"""`audioclf predict`: which files, and how what is found in them is written."""

import csv
import glob
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tqdm import tqdm
from tyro.conf import Positional

from ..config import Device, Precision
from ..errors import AudioError, ConfigError
from .options import AsJson, Checkpoint

if TYPE_CHECKING:
    from ..inference import Classifier

MAX_NAME = 60
"""Width that names of files get in the table; longer ones push their line to the right."""
Rows = list[dict[str, Any]]
"""What is found in a file: its classes, likeliest first, or its segments."""
Results = Iterable[tuple[str, Rows | AudioError]]
"""Of each file what is found, or why it cannot be read."""


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
    """
    windows = {"window_seconds": window_seconds, "hop_seconds": hop_seconds, "threshold": threshold}
    _check_combination(timeline, top_k, min_score, windows)
    if as_csv and as_json:
        raise ConfigError("csv and json are two forms of one output: choose one of them.")
    paths = list(_expand(files))
    if not paths:
        raise ConfigError("name at least one audio file, folder or pattern.")
    from ..inference import load

    classifier = load(checkpoint, precision=precision, device=device)
    if timeline:
        found = _timelines(classifier, paths, {**windows, "batch_size": batch_size})
    else:
        top_k = 3 if top_k is None else top_k
        found = classifier.each(paths, top_k=top_k, min_score=min_score, batch_size=batch_size)
    # A short list is done before a bar would say anything.
    bar = tqdm(paths, unit="file", disable=not sys.stderr.isatty() or (len(paths) <= batch_size and not timeline))
    failed: list[str] = []
    results = _reported(zip(bar, found, strict=True), failed)
    if as_json:
        lines = _json_lines(results, "segments" if timeline else "scores")
    elif as_csv:
        lines = _csv_lines(results, classifier, timeline)
    elif timeline:
        lines = _segment_lines(results)
    else:
        lines = _table_lines(results, classifier, paths)
    for line in lines:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
    if failed and len(paths) > 1:
        print(f"audioclf: {len(failed)} of {len(paths)} files could not be read.", file=sys.stderr)
    return 2 if failed else 0


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


def _expand(words: Sequence[str]) -> Iterator[str]:
    """The files that are meant by names, folders, patterns, and - for standard input."""
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


def _reported(results: Results, failed: list[str]) -> Results:
    """The results; files that cannot be read are told on the way, and noted in `failed`."""
    for path, outcome in results:
        if isinstance(outcome, AudioError):
            failed.append(path)
            tqdm.write(f"audioclf: {outcome}", file=sys.stderr)
        yield path, outcome


def _json_lines(results: Results, name: str) -> Iterator[str]:
    for path, outcome in results:
        found = {"error": str(outcome)} if isinstance(outcome, AudioError) else {name: outcome}
        yield json.dumps({"file": path, **found}, ensure_ascii=False)


def _csv_lines(results: Results, classifier: "Classifier", timeline: bool) -> Iterator[str]:
    detected = [] if timeline or classifier.thresholds is None else ["detected"]
    columns = ["file", *(["start", "end"] if timeline else ["rank"]), "label", "score", *detected, "error"]
    yield ",".join(columns)
    for path, outcome in results:
        if isinstance(outcome, AudioError):
            rows = [{"error": str(outcome)}]
        else:
            rows = [row if timeline else {"rank": rank, **row} for rank, row in enumerate(outcome, 1)]
        for row in rows or [{}]:  # a file of which nothing is said is in the table too
            text = io.StringIO()
            csv.DictWriter(text, columns, lineterminator="").writerow({"file": path, **row})
            yield text.getvalue()


def _table_lines(results: Results, classifier: "Classifier", paths: Sequence[str]) -> Iterator[str]:
    width = min(MAX_NAME, max(map(len, paths)))
    label_width = max(map(len, classifier.labels))
    for path, outcome in results:
        if not isinstance(outcome, AudioError):
            cells = [
                f"{row['label']:<{label_width}} {row['score']:.3f}{'*' if row.get('detected') else ' '}"
                for row in outcome
            ]
            yield f"{path:<{width}}  {'  '.join(cells) or 'none of the classes'}".rstrip()


def _segment_lines(results: Results) -> Iterator[str]:
    """A line for each segment, below those of the file and of headings."""
    for path, outcome in results:
        if isinstance(outcome, AudioError):
            continue
        if not outcome:
            yield f"{path}: nothing reaches its threshold"
            continue
        width = max(len("label"), *(len(segment["label"]) for segment in outcome))
        yield f"{path}:\n{'start':>10} {'end':>10}  {'label':<{width}}  score"
        for segment in outcome:
            yield (
                f"{segment['start']:10.2f} {segment['end']:10.2f}  {segment['label']:<{width}}  {segment['score']:.3f}"
            )
