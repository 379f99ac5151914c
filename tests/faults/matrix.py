"""The rows of the matrix: what each injures and measures."""

from pathlib import Path
from typing import Any

from .killing import kill_a_worker, kill_at_random, signals
from .numbers import no_memory, no_numbers
from .refusals import refusals
from .resuming import resume_after_every_step, trainer_with_the_same_cut
from .sounds import damaged_sounds
from .storing import damaged_checkpoints, full_disk
from .trust import evil_files


def resuming(workspace: Path, data: Path, quick: bool) -> dict[str, Any]:
    """A: ours, and beside it Trainer cut in the same way."""
    figures = resume_after_every_step(workspace, data, quick)
    if not quick:
        for noise in (False, True):
            name = f"Trainer's largest difference {'with' if noise else 'without'} random augmentation"
            figures[name] = trainer_with_the_same_cut(workspace, data, noise)
    return figures


def killing(workspace: Path, data: Path, quick: bool) -> dict[str, Any]:
    """B."""
    figures = kill_at_random(workspace, data, quick)
    return figures if quick else figures | {"a killed worker": kill_a_worker(workspace, data)}


ROWS = {
    "A": resuming,
    "B": killing,
    "C": full_disk,
    "D": damaged_checkpoints,
    "E": signals,
    "F": no_numbers,
    "G": no_memory,
    "H": damaged_sounds,
    "I": refusals,
    "J": evil_files,
}
