"""A run's folder: made, locked, refused when it is another's, and emptied of an earlier run."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from . import checkpoint
from .config import TrainConfig
from .distributed import barrier, is_first_process
from .errors import ConfigError
from .predictions import PREDICTIONS_FILE
from .report_page import REPORT_FILE
from .result import HISTORY_FILE

RUN_FILES = ("best", "last", "tensorboard", "config.json", PREDICTIONS_FILE, REPORT_FILE, HISTORY_FILE)
"""What a run leaves in its output folder, and what `overwrite` deletes there.

By the last one a folder is known as a run's: it is the first to be written and the last to go.
"""
LOCK_FILE = ".lock"


def clear(output_dir: Path) -> None:
    """Deletes an earlier run: only once nothing can be refused any more."""
    for name in RUN_FILES:
        path = output_dir / name
        for folder in checkpoint.generations(path):
            shutil.rmtree(folder)
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def output_folder(config: TrainConfig, known_by: str = RUN_FILES[-1], what: str = "run") -> Iterator[Path]:
    """The run's folder, made if need be and locked. An earlier run in it stays until the new one is ready to begin.

    In a job the first process does all that; the others wait for it.

    Args:
        config: Names the folder, and says what may be in it.
        known_by: The file by which an earlier run is known.
        what: What to call one.

    Raises:
        ConfigError: when it is in use or cannot be made.
    """
    folder = Path(config.output_dir).expanduser()
    if not is_first_process():
        barrier()
        yield folder
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE, timeout=0)
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"output_dir={config.output_dir!r} is being written by another {what}: wait for it, or name another folder."
        ) from None
    except OSError as error:
        raise unusable(config, error) from error
    try:
        names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
        if names and not (config.overwrite or config.resume):
            raise ConfigError(
                f"output_dir={config.output_dir!r} is not empty: name another folder, set resume=True to go on with "
                f"the {what} in it, or overwrite=True to replace it."
            )
        if names and known_by not in names:
            raise ConfigError(
                f"output_dir={config.output_dir!r} holds no earlier {what}, but something else: name another folder."
            )
        barrier()
        yield folder
    finally:
        lock.release()


def unusable(config: TrainConfig, error: OSError) -> ConfigError:
    """What is raised for a folder that cannot be written."""
    return ConfigError(f"output_dir={config.output_dir!r} cannot be used ({error.strerror or error}).")
