"""Figures of a run or a sound: for TensorBoard and Gradio, and SVG that takes a page's own colours, light or dark."""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names

from .findings import shorten
from .metrics import CALIBRATION_BINS, NAMES
from .timeline import Timeline

MAX_MATRIX_CLASSES = 20
"""Classes up to which a confusion matrix has names and numbers; beyond, the pairs most often confused are listed."""
MAX_BARS = 60
MAX_LINES = 8
"""Classes whose scores are drawn over time: those that are heard most."""
EAST_ASIAN_FONTS = (
    *("Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo"),
    *("Noto Sans CJK JP", "Hiragino Sans", "Yu Gothic", "Noto Sans CJK SC", "Microsoft YaHei", "PingFang SC"),
)
"""Usual fonts of Linux, Windows and macOS, which matplotlib asks in turn for a character that its own font lacks."""
INK, FIRST, SECOND = "#010203", "#2e7dd7", "#e07a1f"
"""What becomes the page's colour of text; two colours that can be told apart on white and on black."""


def label_fonts() -> dict[str, list[str]]:
    """Settings with which labels in Hangul, kana or Han are more than boxes, where a font for them is installed."""
    return {"font.family": ["sans-serif", *(name for name in EAST_ASIAN_FONTS if name in get_font_names())]}


def confusion_figure(confusion: np.ndarray, labels: Sequence[str]) -> Figure:
    """A confusion matrix (C, C), rows in shares of their class."""
    size = min(12.0, 2.5 + 0.35 * len(labels))
    with matplotlib.rc_context(label_fonts()):
        figure = Figure(figsize=(size, size), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if len(labels) <= MAX_MATRIX_CLASSES:
            # Escaped: matplotlib would read a dollar sign in a label as mathematics.
            names = [shorten(label).replace("$", r"\$") for label in labels]
            axes.set_xticks(range(len(labels)), names, rotation=90)
            axes.set_yticks(range(len(labels)), names)
            for row, column in np.argwhere(confusion):
                axes.text(column, row, str(confusion[row, column]), ha="center", va="center", fontsize=7)
        return figure


def precision_figure(average_precisions: np.ndarray, labels: Sequence[str]) -> Figure:
    """Each class's average precision (C,); of very many classes the lowest."""
    shown = np.argsort(average_precisions, kind="stable")[:MAX_BARS][::-1]  # NaN, a class without clips, goes last
    with matplotlib.rc_context(label_fonts()):
        figure = Figure(figsize=(6.0, 1.5 + 0.2 * len(shown)), layout="constrained")
        axes = figure.add_subplot()
        axes.barh(range(len(shown)), np.nan_to_num(average_precisions[shown]))
        axes.set_yticks(range(len(shown)), [shorten(labels[index]).replace("$", r"\$") for index in shown])
        axes.set_xlim(0, 1)
        axes.set_xlabel("average precision")
        return figure


def timeline_figure(timeline: Timeline) -> Figure:
    """The scores over time, of the classes that are heard most."""
    order = np.argsort(-timeline.scores.max(axis=0), kind="stable")[:MAX_LINES]
    with matplotlib.rc_context(label_fonts()):
        figure = Figure(figsize=(7.0, 3.0), layout="constrained")
        axes = figure.add_subplot(title="scores over time", xlabel="seconds", ylabel="score", ylim=(0, 1.02))
        for column in order:
            label = timeline.labels[column].replace("$", r"\$")
            axes.plot(timeline.times.mean(axis=1), timeline.scores[:, column], ".-", label=label)
        axes.legend(frameon=False, fontsize=8)
        return figure


def curves_svg(history: Sequence[dict[str, Any]], metric: str) -> tuple[str, str]:
    """Loss of train and validation over the steps of a run, and the metric that chose the best epoch."""
    steps = [row for row in history if row["event"] == "step"]
    epochs = [row for row in history if row["event"] == "epoch"]
    with matplotlib.rc_context(_style()):
        losses = Figure(figsize=(5.0, 2.8), layout="constrained")
        axes = losses.add_subplot(title="loss", xlabel="step")
        axes.plot([row["step"] for row in steps], [row["loss"] for row in steps], color=FIRST, label="train")
        axes.plot([row["step"] for row in epochs], [row["loss"] for row in epochs], "o-", color=SECOND, label="valid")
        axes.legend(frameon=False)
        metrics = Figure(figsize=(5.0, 2.8), layout="constrained")
        axes = metrics.add_subplot(title=f"validation: {NAMES[metric]}", xlabel="epoch")
        values = [np.nan if row[metric] is None else row[metric] for row in epochs]
        axes.plot([row["epoch"] for row in epochs], values, "o-", color=SECOND)
        best = [row for row in epochs if row["is_best"] and row[metric] is not None][-1:]
        axes.plot([row["epoch"] for row in best], [row[metric] for row in best], "o", color=FIRST, ms=11, mfc="none")
        axes.xaxis.get_major_locator().set_params(integer=True)
        return _svg(losses, "losses"), _svg(metrics, "metrics")


def reliability_svg(scores: np.ndarray, hits: np.ndarray) -> str:
    """Share of hits of the scores in each bin, (N,) both, beside what the scores say, and how many there are."""
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    bins = np.digitize(scores, edges[1:-1], right=True)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    shares = np.bincount(bins, weights=hits, minlength=CALIBRATION_BINS) / np.maximum(counts, 1)
    middles, filled = (edges[:-1] + edges[1:]) / 2, counts > 0
    with matplotlib.rc_context(_style()):
        figure = Figure(figsize=(4.5, 4.0), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], "--", color=INK, lw=1)
        upper.bar(middles[filled], shares[filled], 0.9 / CALIBRATION_BINS, color=FIRST)
        upper.set(ylim=(0, 1), xlim=(0, 1), ylabel="share that is right")
        lower.bar(middles, counts, 0.9 / CALIBRATION_BINS, color=SECOND)
        lower.set(xlabel="score", ylabel="number")
        return _svg(figure, "reliability")


def _style() -> dict[str, Any]:
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    return {
        **dict.fromkeys(inked, INK),
        "svg.fonttype": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11,
    }


def _svg(figure: Figure, name: str) -> str:
    """The figure as an element of HTML, as wide as there is room, its text in the page's fonts and colour."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):  # also keeps the ids of several figures apart
        figure.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    text = file.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"| height="[^"]*(?=pt")pt"', lambda m: m[1] or "", text, count=2)
    return re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
