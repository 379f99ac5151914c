"""What a run's checkpoint says of each test clip, on disk: so that clips of several runs can be judged together.

Shapes: N clips, C classes.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .checkpoint import write_file
from .clips import Clips

PREDICTIONS_FILE = "test_predictions.jsonl"


def write_predictions(path: Path, clips: Clips, logits: np.ndarray, labels: Sequence[str]) -> None:
    """Writes a row for each clip: what it is called, its label (or labels), and the logits in the order of the ids.

    Args:
        path: The file.
        clips: The clips.
        logits: Of each clip, (N, C).
        labels: Class names by id.

    Raises:
        OSError: when the disk is full or refuses; what was there before is still there.
    """
    lines = []
    for name, target, values in zip(clips.names, clips.labels, logits.astype(np.float32), strict=True):
        label = [labels[index] for index in np.flatnonzero(target)] if np.ndim(target) else labels[target]
        # The fewest digits that give the same float32 again.
        lines.append(json.dumps({"clip": name, "label": label, "logits": [float(str(value)) for value in values]}))
    write_file(path, "".join(f"{line}\n" for line in lines))


def read_predictions(path: Path) -> tuple[list[str], list[str | list[str]], np.ndarray]:
    """Name, label (or labels) and logits (N, C) of each clip.

    Raises:
        OSError, ValueError: when the file is not there, or damaged.
    """
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        logits = np.array([row["logits"] for row in rows], dtype=np.float32)
        return [row["clip"] for row in rows], [row["label"] for row in rows], logits
    except (KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is damaged") from error
