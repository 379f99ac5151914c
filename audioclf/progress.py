"""What a run tells: progress bar, TensorBoard, history.jsonl, and the tables at the end."""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from .checkpoint import write_file
from .distributed import is_first_process
from .evaluation import Evaluation
from .figures import MAX_MATRIX_CLASSES, confusion_figure, precision_figure
from .findings import shorten
from .metrics import NAMES, metrics_of
from .result import HISTORY_FILE

COLUMNS = {"ap": "avg. prec.", "threshold": "threshold", "precision": "precision", "recall": "recall", "f1": "f1"}
"""Heads of the table of classes."""
HEADINGS = {
    "accuracy": "accuracy", "uar": "UAR", "macro_f1": "macro F1", "top5_accuracy": "top-5", "auroc": "AUROC",
    "eer": "EER", "map": "mAP", "map_micro": "micro mAP", "lwlrap": "lwlrap", "micro_f1": "micro F1",
}  # fmt: skip
"""Heads of the table of folds."""


class Reporter:
    """Tells each step, epoch and the end to the terminal, TensorBoard and history.jsonl.

    In a job the first process does; those of the others only keep the history.

    Args:
        output_dir: Where `history.jsonl` and `tensorboard/` go.
        labels: Class names by id.
        metric: The metric that chooses the best epoch.
        num_windows: Windows, and so optimizer steps if none is skipped, of the whole run.
        show: Whether to use the terminal.
        history: Rows of a run that goes on; later ones, of steps that are taken again, disappear from its files.
        num_done: Windows that it has behind it.
    """

    def __init__(
        self,
        output_dir: Path,
        labels: Sequence[str],
        metric: str,
        num_windows: int,
        show: bool,
        history: Sequence[dict[str, Any]] = (),
        num_done: int = 0,
    ) -> None:
        self.labels = labels
        self.metric = metric
        self.show = show
        self.history = list(history)
        self._path = output_dir / HISTORY_FILE if is_first_process() else None
        self._behind = False
        self._board: SummaryWriter | None = None
        if is_first_process():
            self._write_history()
            purge_step = history[-1]["step"] + 1 if history else None
            self._board = SummaryWriter(str(output_dir / "tensorboard"), purge_step=purge_step)
        self._bar = tqdm(
            total=num_windows, initial=num_done, desc="training", unit="step", disable=not show, dynamic_ncols=True
        )
        self._start = time.monotonic()

    def advance(self) -> None:
        """Moves the bar by one window: an optimizer step, or one that was left out."""
        self._show(self._bar.update)

    def step(
        self, *, epoch: int, step: int, loss: float, learning_rate: float, grad_norm: float, clips_per_second: float
    ) -> None:
        """A row of the training: means since the last one."""
        values = {"loss": loss, "learning_rate": learning_rate, "grad_norm": grad_norm}
        self._record("step", epoch, step, values, clips_per_second=clips_per_second)
        for name, value in {**values, "clips_per_second": clips_per_second}.items():
            self._plot("add_scalar", f"train/{name}", value, step)
        self._bar.set_postfix_str(
            f"loss {loss:.3f}, lr {learning_rate:.1e}, {clips_per_second:.1f} clips/s", refresh=False
        )

    def epoch(self, *, epoch: int, step: int, evaluation: Evaluation, skipped_steps: int, is_best: bool) -> None:
        """The validation after an epoch."""
        metrics = evaluation.metrics
        self._record("epoch", epoch, step, {**metrics, "skipped_steps": skipped_steps, "is_best": is_best})
        for name, value in metrics.items():
            if isinstance(value, float):
                self._plot("add_scalar", f"valid/{name}", value, step)
        # Drawing takes a tenth of a second, which every epoch of a small run would feel.
        if is_best and self._board is not None:
            self._draw(evaluation, step)
        self.flush()
        own = metrics_of(evaluation.confusion is None, len(self.labels))[0]
        shown = dict.fromkeys((own, self.metric, "macro_f1"))
        self.say(
            f"epoch {epoch}: valid loss {metrics['loss']:.4f}"
            + "".join(f", {NAMES[name]} {_with_interval(metrics, name, 3)}" for name in shown if name != "loss")
            + (" *" if is_best else "")
            + (f" ({skipped_steps} step(s) skipped so far: their numbers were not finite)" if skipped_steps else "")
        )

    def _draw(self, evaluation: Evaluation, step: int) -> None:
        """A figure of the classes for TensorBoard."""
        if evaluation.confusion is None:
            figure = ("valid/average_precision", precision_figure(evaluation.classes["ap"], self.labels))
        else:
            figure = ("valid/confusion", confusion_figure(evaluation.confusion, self.labels))
        self._plot("add_figure", *figure, step)

    def end(self, *, epoch: int, step: int, **values: Any) -> None:
        """The last row."""
        self._record("end", epoch, step, values)

    def say(self, text: str) -> None:
        """Prints above the bar."""
        if self.show:
            self._show(tqdm.write, printable(text))

    def flush(self) -> None:
        """Hands to the disk what TensorBoard holds back, so that a checkpoint has all that came before it."""
        self._plot("flush")

    def close(self) -> None:
        """Ends the bar and TensorBoard's file."""
        self._show(self._bar.close)
        self._plot("close")

    def _show(self, draw: Callable[..., Any], *values: Any) -> None:
        """Uses the terminal; one that is gone, or a full disk behind it, is no reason to end a run."""
        try:
            draw(*values)
        except OSError:
            self.show, self._bar.disable = False, True

    def _record(self, event: str, epoch: int, step: int, values: dict[str, Any], **timings: float) -> None:
        seconds = time.monotonic() - self._start
        row = {"event": event, "epoch": epoch, "step": step, **values, "time": {"seconds": seconds, **timings}}
        self.history.append(row)
        if self._path is None:
            return
        try:
            if self._behind:
                self._write_history()
            else:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            self._behind = False
        except OSError as error:
            if not self._behind:
                self.say(
                    f"{str(self._path)!r} cannot be written ({error.strerror or error}); its rows are kept and written "
                    "once that is possible."
                )
            self._behind = True

    def _write_history(self) -> None:
        """The whole file anew: the old one stays until the new one is there."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_file(self._path, "".join(json.dumps(row) + "\n" for row in self.history))

    def _plot(self, method: str, *values: Any) -> None:
        """Calls a method of TensorBoard's writer; a full disk ends the plots, not the run."""
        if self._board is not None:
            try:
                getattr(self._board, method)(*values)
            except OSError as error:
                self._board = None
                self.say(f"TensorBoard's file cannot be written ({error.strerror or error}); its plots end here.")


def printable(text: str) -> str:
    """The text with what the terminal's encoding lacks escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


@contextlib.contextmanager
def board_errors_told_once() -> Iterator[None]:
    """Inside, what ends TensorBoard's own thread is not printed by Python too; `Reporter` tells it in a sentence."""
    before = threading.excepthook

    def hook(ended: Any) -> None:
        of_the_board = type(ended.thread).__module__.startswith("tensorboard.")
        if not (of_the_board and issubclass(ended.exc_type, OSError)):
            before(ended)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def results_table(evaluation: Evaluation, labels: Sequence[str], title: str) -> str:
    """A row for each class, the confusion matrix if there is one, and the metrics with their intervals, as text."""
    rows, width = evaluation.classes, max(8, *(len(shorten(label)) for label in labels))
    columns = [name for name in COLUMNS if name in rows]
    lines = [title, f"{'class':<{width}}" + "".join(f"  {COLUMNS[name]:>10}" for name in columns) + "    clips"]
    for index, label in enumerate(labels):
        values = "".join(f"  {rows[name][index]:10.3f}" for name in columns)
        lines.append(f"{shorten(label):<{width}}{values}  {int(rows['support'][index]):7d}")
    if evaluation.confusion is not None:
        lines += ["", *_confusion_lines(evaluation.confusion, labels, width)]
    names = [name for name in metrics_of(evaluation.confusion is None, len(labels)) if name != "loss"]
    return "\n".join([*lines, "", "with 95 % intervals:", *interval_lines(evaluation.metrics, names)])


def calibration_line(evaluation: Evaluation, temperature: float | None, uncalibrated: dict[str, float]) -> str:
    """What calibrating has come to: the temperature, and loss and ECE of before and after."""
    if temperature is None:
        return "note: calibrate: no temperature is best for the clips of validation, so the scores stay as they are."
    before, after = uncalibrated, evaluation.metrics
    return (
        f"Calibrated by temperature {temperature:.3g}: validation loss {before['loss']:.4f} -> {after['loss']:.4f}, "
        f"calibration error {before['ece']:.4f} -> {after['ece']:.4f}"
    )


def folds_table(
    rows: dict[str, dict[str, float | None]], num_clips: dict[str, int], summary: dict[str, dict[str, float | None]]
) -> str:
    """A row of metrics for each fold, and under a line those of the summary, as text.

    Args:
        rows: Metrics of each fold; its columns are those of `summary`.
        num_clips: Clips of each fold.
        summary: Metrics of each last row, by its name.
    """
    columns = list(next(iter(summary.values())))
    width = max(8, *(len(shorten(name)) for name in (*rows, *summary)))
    lines = [f"{'fold':<{width}}  {'clips':>7}" + "".join(f"  {HEADINGS[name]:>9}" for name in columns)]
    for title, metrics in (*rows.items(), *summary.items()):
        if metrics is next(iter(summary.values())):
            lines.append("-" * len(lines[0]))
        values = (metrics[name] for name in columns)
        cells = "".join(f"  {'-' if value is None else format(value, '.3f'):>9}" for value in values)
        count = num_clips[title] if title in rows and metrics is rows[title] else ""
        lines.append(f"{shorten(title):<{width}}  {count:>7}{cells}")
    return "\n".join(lines)


def interval_lines(metrics: dict[str, Any], names: Sequence[str]) -> list[str]:
    """A line for each of the metrics, with its interval."""
    return [f"  {NAMES[name]:<26}{_with_interval(metrics, name, 4)}" for name in names]


def _with_interval(metrics: dict[str, Any], name: str, digits: int) -> str:
    if metrics[name] is None:
        return "not defined"
    low, high = metrics[f"{name}_ci"]
    return f"{metrics[name]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _confusion_lines(confusion: np.ndarray, labels: Sequence[str], width: int) -> list[str]:
    if len(labels) <= MAX_MATRIX_CLASSES:
        cell = max(4, len(str(confusion.max())) + 1)
        header = "".join(f"{number:>{cell}}" for number in range(len(labels)))
        lines = [f"{'confusion':<{width + 4}}{header}"]
        for index, label in enumerate(labels):
            cells = "".join(f"{count:>{cell}}" for count in confusion[index])
            lines.append(f"{shorten(label):<{width}}{index:>3} {cells}")
        return [*lines, "(rows: true class, columns: predicted class)"]
    mistakes = confusion - np.diag(np.diag(confusion))
    pairs = sorted(np.argwhere(mistakes), key=lambda pair: -mistakes[tuple(pair)])[:MAX_MATRIX_CLASSES]
    return ["most often confused:"] + [
        f"  {shorten(labels[true])} taken for {shorten(labels[predicted])}: {mistakes[true, predicted]}"
        for true, predicted in pairs
    ]
