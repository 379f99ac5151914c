"""What a data set is to us: examples with a label and maybe a split and a group, and how they are divided."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, combinations
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


def make_splits(
    examples: Iterable[Example],
    *,
    name: str,
    labels: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    metric: str | None = None,
    split_notes: Sequence[str] = (),
) -> AudioSplits:
    """Divides examples by their `split`; those without one are train.

    Args:
        examples: The clips, all with one label each or all with a tuple of them.
        name: What to call the data set.
        labels: Class names in the order wanted; all that occur, sorted, when not given.
        notes: Sentences for the user.
        metric: The metric that is usual for this data.
        split_notes: More of them, which are about the split and untrue of another one.

    Raises:
        DatasetError: for no examples, a label not in `labels`, fewer than two classes, a clip in two parts, or labels
            that are measurements.
    """
    usual = (None, *PARTS)
    examples = [e if e.split in usual else replace(e, split=split_name(e.split, name)) for e in examples]
    if not examples:
        raise DatasetError(f"{name}: holds no clips.")
    if isinstance(labels, str):
        raise DatasetError(f"{name}: labels={labels!r} must be a list of class names.")
    if len({isinstance(example.label, tuple) for example in examples}) > 1:
        raise DatasetError(
            f"{name}: some clips have one label and some a tuple of labels; in multi-label data give every clip a "
            "tuple, such as ('dog',) or ()."
        )
    found = {label for example in examples for label in example.labels}
    if labels is None:
        _refuse_measurements(found, name)
        labels = sorted(found, key=int) if all(label.isdecimal() for label in found) else sorted(found)
    if len(set(labels)) < len(labels):
        raise DatasetError(f"{name}: {_first_repeated(labels)!r} stands twice in labels.")
    known = set(labels)
    for example in examples:
        for label in example.labels:
            if label not in known:
                raise DatasetError(f"{name}: {example.name} has the label {label!r}, which is not among labels.")
    if len(labels) < 2:
        only = f"one class only ({labels[0]!r})" if labels else "no labels"
        raise DatasetError(f"{name}: has {only}; a classifier needs two or more.")
    parts: dict[str, list[Example]] = {"train": [], "valid": [], "test": []}
    for example in examples:
        parts[example.split or "train"].append(example)
    splits = AudioSplits(**parts, labels=labels, name=name, metric=metric)
    notes = [*notes, *refuse_shared_clips(name, splits.parts)]
    shared = [shared_group_note(*parts, groups) for parts, groups in shared_groups(splits).items()]
    split_notes = tuple(dict.fromkeys([*split_notes, *shared]))
    return replace(splits, notes=tuple(dict.fromkeys([*notes, *split_notes])), split_notes=split_notes)


def _refuse_measurements(labels: set[str], name: str) -> None:
    """Raises for labels that are numbers with fractions, as what a regression would predict."""
    try:
        fractions = [label for label in labels if not float(label).is_integer()]
    except (ValueError, OverflowError):
        return
    if fractions:
        raise DatasetError(
            f"{name}: its labels are measurements ({min(fractions)}, ...), and predicting those, regression, is not "
            "classification: name another label_column, or divide them into classes. If they are names of classes, "
            "give these as labels."
        )


def refuse_shared_clips(name: str, parts: Mapping[str, Sequence[Example]]) -> list[str]:
    """Raises when a clip, or overlapping pieces of one file, stand in two parts, or twice with different labels.

    Returns:
        Sentences on clips that stand twice in one part with one label.

    Raises:
        DatasetError: of the data set of that name, naming the clip and the parts.
    """
    here = os.path.join(os.getcwd(), "")

    def file_of(example: Example) -> str:
        audio = example.audio
        if not isinstance(audio, str):
            return audio.identity
        path = os.path.normpath(audio if os.path.isabs(audio) else here + audio)
        return audio if path == audio else path  # one string rather than two, millions of times

    seen: set[str] = set()
    repeated: set[str] = set()
    for example in chain.from_iterable(parts.values()):
        file = file_of(example)
        (repeated if file in seen else seen).add(file)
    files: dict[str, list[tuple[float, float, str, Example]]] = defaultdict(list)
    if repeated:
        for part, examples in parts.items():
            for example in examples:
                if (file := file_of(example)) in repeated:
                    end = float("inf") if example.end is None else example.end
                    files[file].append((example.start or 0.0, end, part, example))
    again: list[Example] = []
    for pieces in files.values():
        pieces.sort(key=lambda piece: piece[:2])
        reach: dict[str, float] = {}  # how far the pieces of each part go, of those that begin no later
        before: tuple[float, float, str, Example] | None = None
        for begin, end, part, example in pieces:
            for other, other_end in reach.items():
                if other != part and begin < other_end:
                    raise DatasetError(f"{name}: {example.name} is in {other} and in {part}; leave it in one of them.")
            if before and before[:2] == (begin, end) and before[3].label != example.label:
                raise DatasetError(
                    f"{name}: {example.name} has two labels, {before[3].label!r} and {example.label!r}; "
                    "leave it with one."
                )
            again += [example] if before and before[:2] == (begin, end) else []
            reach[part] = max(reach.get(part, 0.0), end)
            before = (begin, end, part, example)
    if not again:
        return []
    return [f"{len(again)} clip(s) stand there more than once, for example {again[0].name}: each counts as often."]


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


def shared_groups(splits: AudioSplits) -> dict[tuple[str, str], set[str]]:
    """The groups that stand in two parts, for each two parts that share any."""
    groups = {part: {e.group for e in examples if e.group is not None} for part, examples in splits.parts.items()}
    pairs = combinations(groups, 2)
    return {(first, second): shared for first, second in pairs if (shared := groups[first] & groups[second])}


def shared_group_note(first: str, second: str, shared: set[str]) -> str:
    """What `notes` say of groups that stand in two parts."""
    return (
        f"{len(shared)} group(s), for example {min(shared)!r}, are in both {first} and {second}: "
        f"scores on {second} will look better than they are."
    )


def _first_repeated(labels: Sequence[str]) -> str:
    return next(label for label, count in Counter(labels).items() if count > 1)
