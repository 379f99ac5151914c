"""What a run has made, and its history as it lies in its folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HISTORY_FILE = "history.jsonl"


@dataclass(frozen=True)
class TrainResult:
    """What a run has made.

    Attributes:
        best_metrics: Validation metrics of the best epoch: `loss`, `ece`, and those of `audioclf.metrics`, for example
            `accuracy`, with their 95 % intervals, for example `accuracy_ci`.
        best_epoch: The epoch they are from, counted from 1.
        test_metrics: Metrics of the best checkpoint on the test part; None when the data has none.
        history: The rows of history.jsonl.
        checkpoint_dir: The best checkpoint, a Hugging Face folder.
        output_dir: The run's folder.
    """

    best_metrics: dict[str, Any]
    best_epoch: int
    test_metrics: dict[str, Any] | None
    history: list[dict[str, Any]]
    checkpoint_dir: Path
    output_dir: Path

    @classmethod
    def of(cls, history: list[dict[str, Any]], output_dir: Path) -> "TrainResult":
        """That of a run whose history has come to its end."""
        values = {name: history[-1][name] for name in ("best_metrics", "best_epoch", "test_metrics")}
        return cls(**values, history=history, checkpoint_dir=output_dir / "best", output_dir=output_dir)


def read_history(output_dir: Path) -> list[dict[str, Any]]:
    """The rows of a run's history.jsonl; none where it is not there, or cut short on the way."""
    try:
        return [json.loads(line) for line in (output_dir / HISTORY_FILE).read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []


def finished_result(output_dir: Path) -> TrainResult | None:
    """The result of the run in a folder, from its history; None when it has not come to its end."""
    history = read_history(output_dir)
    return TrainResult.of(history, output_dir) if history and history[-1]["event"] == "end" else None
