"""The clips of a demonstration set, and their files: all written, or none."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import soundfile as sf

from ...errors import DatasetError
from ..base import Example


@dataclass(frozen=True)
class Clip:
    """One clip of a set, before it is heard.

    Attributes:
        path: Where it lies below the set's folder.
        make: Returns its samples, float32, (T,), within [-1, 1]; the same every time.
        label, split, group, fold: As in `Example`.
    """

    path: str
    make: Callable[[], np.ndarray]
    label: str | tuple[str, ...]
    split: str
    group: str | None = None
    fold: str | None = None

    def example(self, folder: Path) -> Example:
        """The clip as an example whose file lies, or will lie, below `folder`."""
        return Example(str(folder / self.path), self.label, self.split, self.group, fold=self.fold)


def write(folder: Path, clips: Sequence[Clip], sampling_rate: int) -> None:
    """Writes all clips as 16-bit wav files below `folder`, unless it is there.

    Raises:
        DatasetError: when they cannot be written.
    """
    if folder.is_dir():
        return
    # Into a sibling that is renamed: `folder` is never there by half.
    temporary = folder.with_name(f".{folder.name}-{uuid4().hex}")
    try:
        for clip in clips:
            path = temporary / clip.path
            path.parent.mkdir(parents=True, exist_ok=True)
            sf.write(path, clip.make(), sampling_rate, subtype="PCM_16")
        os.replace(temporary, folder)
    except (OSError, sf.SoundFileError) as error:
        if not folder.is_dir():  # else another process put the same corpus there first, which is as good
            reason = getattr(error, "strerror", None) or error
            raise DatasetError(
                f"{str(folder)!r} cannot be written ({reason}): free some space, or choose another root or cache_dir."
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
