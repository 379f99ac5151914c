"""The page `report.html`: what evaluations say, with sounds to listen to, in one file that needs nothing else.

Shapes: T samples, N clips, C classes.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from jinja2 import Environment, PackageLoader
from matplotlib.image import imsave

from .audio import num_samples
from .checkpoint import write_file
from .clips import Clips
from .evaluation import Evaluation, probabilities
from .figures import MAX_MATRIX_CLASSES, curves_svg, reliability_svg
from .findings import Finding
from .intervals import wilson_interval
from .levels import levels
from .metrics import NAMES
from .pictures import spectrogram_image
from .review import by_group, by_value, label_quality, likely_wrong, right

REPORT_FILE = "report.html"
"""What the page is called in a run's folder."""
MAX_SHOWN = 24
"""Clips of a part that can be listened to."""
MAX_SECONDS = 10.0
"""What is embedded of each, from its start."""
NUM_GUESSES = 3
MAX_PAIRS = 20
MAX_LEVELS = 5000
"""Clips whose level is measured, spread over the part; reading more would take longer than it tells."""


@dataclass(frozen=True)
class Judged:
    """A part of a data set that a checkpoint was evaluated on.

    Attributes:
        title: What to call it.
        evaluation: What came of it, with logits.
        clips: The clips, whole.
        groups: Name of each one's group, None where it has none.
    """

    title: str
    evaluation: Evaluation
    clips: Clips
    groups: Sequence[str | None]


def write_page(
    path: Path,
    *,
    title: str,
    labels: Sequence[str],
    sampling_rate: int,
    parts: Sequence[Judged],
    findings: Sequence[Finding],
    facts: dict[str, Any],
    options: dict[str, Any],
    history: Sequence[dict[str, Any]] = (),
    metric: str | None = None,
) -> None:
    """Writes the page.

    Args:
        path: The file.
        title: Its heading.
        labels: Class names by id.
        sampling_rate: Rate of the clips' waveforms, in Hz.
        parts: What is judged, the most important last.
        findings: What may be wrong with the data.
        facts: Versions, times and the like, by name.
        options: Those of the run.
        history: Rows of history.jsonl, for the curves; none when they are not known.
        metric: The metric that chose the best epoch.

    Raises:
        OSError: when it cannot be written.
    """
    environment = Environment(loader=PackageLoader("audioclf"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    page = environment.get_template("report.html.j2").render(
        title=title,
        curves=curves_svg(history, metric) if metric and any(row["event"] == "epoch" for row in history) else None,
        sections=[_section(part, labels, sampling_rate) for part in parts],
        findings=findings,
        facts=facts,
        options=options,
        max_seconds=MAX_SECONDS,
    )
    write_file(path, page.encode("utf-8", "backslashreplace"))  # half characters, as names of files may hold


def _section(part: Judged, labels: Sequence[str], sampling_rate: int) -> dict[str, Any]:
    evaluation, clips = part.evaluation, part.clips
    multi_label = evaluation.confusion is None
    targets = clips.labels > 0 if multi_label else clips.labels
    scores = probabilities(torch.from_numpy(evaluation.logits), multi_label).numpy()
    hits = right(targets, evaluation, scores)
    sure = (scores.ravel(), targets.ravel()) if multi_label else (scores.max(axis=1), hits)
    quality, wrong = label_quality(targets, scores), likely_wrong(targets, scores)
    order = np.argsort(quality, kind="stable")
    shown = order[(~hits | wrong)[order]][:MAX_SHOWN]
    names = [name for name in evaluation.metrics if f"{name}_ci" in evaluation.metrics]
    return {
        "title": part.title,
        "num_clips": len(hits),
        "multi_label": multi_label,
        "metrics": [
            (NAMES[name], evaluation.metrics[name], evaluation.metrics[f"{name}_ci"])
            for name in names
            if evaluation.metrics[name] is not None
        ],
        "loss": evaluation.metrics["loss"],
        "ece": evaluation.metrics["ece"],
        "classes": _classes(evaluation, labels),
        "confusion": _confusion(evaluation.confusion, labels),
        "reliability": reliability_svg(*sure),
        "slices": _slices(part, hits, sampling_rate),
        "num_wrong": int((~hits).sum()),
        "num_likely_wrong": int(wrong.sum()),
        "clips": [
            {
                "name": clips.names[row],
                "label": _text(targets[row], labels),
                "guesses": _guesses(scores[row], labels),
                "quality": float(quality[row]),
                "likely_wrong": bool(wrong[row]),
                **_sound(clips, row, sampling_rate),
            }
            for row in shown.tolist()
        ],
    }


def _classes(evaluation: Evaluation, labels: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for index, label in enumerate(labels):
        row = {name: float(values[index]) for name, values in evaluation.classes.items()}
        low, high = wilson_interval(row["recall"] * row["support"], int(row["support"]))
        rows.append({"label": label, **row, "support": int(row["support"]), "low": low, "high": high})
    return rows


def _confusion(confusion: np.ndarray | None, labels: Sequence[str]) -> dict[str, Any] | None:
    if confusion is None:
        return None
    if len(labels) <= MAX_MATRIX_CLASSES:
        shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
        rows = [
            (label, [(int(count), float(share), i == j) for j, (count, share) in enumerate(zip(*pair, strict=True))])
            for i, (label, pair) in enumerate(zip(labels, zip(confusion, shares, strict=True), strict=True))
        ]
        return {"labels": labels, "rows": rows}
    mistakes = confusion - np.diag(np.diag(confusion))
    pairs = sorted(np.argwhere(mistakes).tolist(), key=lambda pair: -mistakes[tuple(pair)])[:MAX_PAIRS]
    return {"pairs": [(labels[true], labels[guess], int(mistakes[true, guess])) for true, guess in pairs]}


def _slices(part: Judged, hits: np.ndarray, sampling_rate: int) -> list[tuple[str, list]]:
    clips = part.clips
    rows = np.unique(np.linspace(0, len(hits) - 1, min(len(hits), MAX_LEVELS)).astype(int))
    rms_db = [levels(np.asarray(_waveform(clips, row)), sampling_rate).rms_db for row in rows.tolist()]
    found = [
        ("length", by_value(clips.lengths / sampling_rate, hits, "s")),
        ("level", by_value(np.maximum(rms_db, -100.0), hits[rows], "dB")),
        ("group", by_group(part.groups, hits)),
    ]
    return [(name, slices) for name, slices in found if slices]


def _text(target: Any, labels: Sequence[str]) -> str:
    if np.ndim(target):
        return ", ".join(labels[index] for index in np.flatnonzero(target)) or "none"
    return labels[target]


def _guesses(scores: np.ndarray, labels: Sequence[str]) -> list[tuple[str, float]]:
    order = np.argsort(-scores, kind="stable")[:NUM_GUESSES]
    return [(labels[index], float(scores[index])) for index in order]


def _waveform(clips: Clips, row: int) -> np.ndarray:
    start = int(clips.starts[row])
    return clips.store.array(clips.positions[row])[start : start + int(clips.lengths[row])]


def _sound(clips: Clips, row: int, sampling_rate: int) -> dict[str, Any]:
    """A clip's player and picture, as data URIs."""
    waveform = np.asarray(_waveform(clips, row), dtype=np.float32)
    heard = waveform[: num_samples(MAX_SECONDS, sampling_rate)]
    audio, picture = io.BytesIO(), io.BytesIO()
    peak = max(1.0, float(np.abs(heard).max()))
    soundfile.write(audio, heard / peak, sampling_rate, format="MP3", subtype="MPEG_LAYER_III")
    imsave(picture, spectrogram_image(heard, sampling_rate), format="png")
    return {
        "seconds": len(waveform) / sampling_rate,
        "audio": f"data:audio/mpeg;base64,{base64.b64encode(audio.getvalue()).decode()}",
        "picture": f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}",
    }
