"""How what is found in files is written: as JSON objects, CSV, or for the eye."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import AudioError

if TYPE_CHECKING:
    from ..inference import Classifier

MAX_NAME = 60
"""Width that names of files get in the table; longer ones push their line to the right."""
Rows = list[dict[str, Any]]
"""What is found in a file: its classes, likeliest first, or its segments."""
Results = Iterable[tuple[str, Rows | AudioError]]
"""Of each file what is found, or why it cannot be read."""


def json_rows(results: Results, timeline: bool) -> Iterator[dict[str, Any]]:
    """An object for each file."""
    for path, outcome in results:
        error = isinstance(outcome, AudioError)
        yield {"file": path, **({"error": str(outcome)} if error else {"segments" if timeline else "scores": outcome})}


def csv_lines(results: Results, classifier: "Classifier", timeline: bool) -> Iterator[str]:
    """A heading, and a row for each class shown or segment."""
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


def table_lines(results: Results, classifier: "Classifier", paths: Sequence[str]) -> Iterator[str]:
    """A line for each file."""
    width = min(MAX_NAME, max(map(len, paths)))
    label_width = max(map(len, classifier.labels))
    for path, outcome in results:
        if not isinstance(outcome, AudioError):
            cells = [
                f"{row['label']:<{label_width}} {row['score']:.3f}{'*' if row.get('detected') else ' '}"
                for row in outcome
            ]
            yield f"{path:<{width}}  {'  '.join(cells) or 'none of the classes'}".rstrip()


def segment_lines(results: Results) -> Iterator[str]:
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
