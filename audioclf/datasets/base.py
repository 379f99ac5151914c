"""What a data set is to us: examples with a label and maybe a split and a group, and how they are divided."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..errors import DatasetError

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev"), "valid"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""The partition each usual name stands for."""
PARTS = ("train", "valid", "test")


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled clip.

    Attributes:
        audio: Path of an audio file, or an `AudioSource` for audio that lies elsewhere.
        label: Name of its class; in multi-label data a tuple of names, which may be empty.
        split: `train`, `valid` or `test`; None when the data set does not say.
        group: What must not be on two sides of a split (speaker, artist, recording); None when there is none.
        start, end: Part of the file that is the clip, in seconds; the whole when None.
        fold: Its part in the data set's official cross-validation; None when there is none.
    """

    audio: "str | AudioSource"
    label: str | tuple[str, ...]
    split: str | None = None
    group: str | None = None
    start: float | None = None
    end: float | None = None
    fold: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of all its classes."""
        return (self.label,) if isinstance(self.label, str) else self.label

    @property
    def name(self) -> str:
        """What to call the clip in a message: its path, and its part where it is one."""
        name = self.audio if isinstance(self.audio, str) else self.audio.name
        if self.start is None and self.end is None:
            return name
        return f"{name} [{self.start or 0.0}-{'' if self.end is None else self.end} s]"

    def source(self) -> Any:
        """The sound that it is, or is a part of, in a form that `audioclf.audio.load` takes.

        Raises:
            OSError: when what it is read from is gone.
            AudioError: when that cannot be read.
        """
        return self.audio if isinstance(self.audio, str) else self.audio.read()

    def identity(self) -> str:
        """A string that changes when the clip's sound may have."""
        if not isinstance(self.audio, str):
            return f"{self.audio.identity}|{self.start}|{self.end}"
        return f"{file_state(self.audio)}|{self.start}|{self.end}"


@dataclass(frozen=True)
class AudioSource:
    """Audio that is no file of its own, such as a row of a `datasets.Dataset`.

    Attributes:
        name: What to call it in a message.
        identity: A string that changes when its content does.
        read: Returns the audio in a form that `audioclf.audio.load` takes.
    """

    name: str
    identity: str
    read: Callable[[], Any] = field(compare=False)


@dataclass(frozen=True)
class AudioSplits:
    """A data set divided into parts that share no clip.

    Attributes:
        train, valid, test: The examples of each part; empty where the data set has no such part.
        labels: Class names; their order gives the ids.
        name: What to call the data set.
        notes: Sentences on what the loader noticed, to be shown to the user.
        metric: The metric that is usual for this data, a key of an evaluation; None for the task's own.
        split_notes: Those of the notes that are about this split, and untrue of another one.
        stream: The training clips as a `RowStream`, in place of `train`, where they come one after another.
    """

    train: tuple[Example, ...]
    valid: tuple[Example, ...]
    test: tuple[Example, ...]
    labels: tuple[str, ...]
    name: str
    notes: tuple[str, ...] = ()
    metric: str | None = None
    split_notes: tuple[str, ...] = ()
    stream: Any = None

    def __post_init__(self) -> None:
        for part in PARTS:
            object.__setattr__(self, part, tuple(getattr(self, part)))
        object.__setattr__(self, "labels", tuple(self.labels))

    @property
    def parts(self) -> dict[str, tuple[Example, ...]]:
        """The parts that are not empty, by name."""
        return {part: getattr(self, part) for part in PARTS if getattr(self, part)}

    @property
    def multi_label(self) -> bool:
        """Whether a clip may have several classes, or none."""
        if self.stream is not None:
            return self.stream.multi_label
        return any(isinstance(example.label, tuple) for part in self.parts.values() for example in part[:1])

    @property
    def id2label(self) -> dict[int, str]:
        """Name of each class by its id."""
        return dict(enumerate(self.labels))

    @property
    def label2id(self) -> dict[str, int]:
        """Id of each class by its name."""
        return {label: index for index, label in enumerate(self.labels)}

    def fingerprint(self) -> str:
        """sha256 of labels, parts, and each clip's identity and label: the same data gives the same string."""
        digest = hashlib.sha256(repr(self.labels).encode())
        for part, examples in self.parts.items():
            rows = sorted(f"{part}|{example.label}|{example.identity()}" for example in examples)
            digest.update("\n".join(rows).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def file_state(path: str) -> str:
    """A string that changes when a file's content may have: its path, size and time of change."""
    try:
        status = os.stat(path)
    except OSError:
        return f"{os.path.abspath(path)}|missing"
    return f"{os.path.abspath(path)}|{status.st_size}|{status.st_mtime_ns}"


def split_name(name: str, where: str) -> str:
    """`train`, `valid` or `test` for any of their usual names.

    Raises:
        DatasetError: for another name.
    """
    split = SPLIT_NAMES.get(str(name).strip().lower())
    if split is None:
        raise DatasetError(f"{where}: {name!r} is no split; use train, valid (or val, validation, dev) or test.")
    return split


def refuse_stream(splits: AudioSplits, what: str) -> None:
    """Raises for data whose training clips are a stream, where something needs all of them at hand.

    Raises:
        DatasetError: naming what needs them.
    """
    if splits.stream is not None:
        raise DatasetError(
            f"{splits.name}: {what} needs all clips at hand, and the training clips are a stream: load the data set "
            "without streaming."
        )
