"""What a data set is to us: examples with a label and maybe a split and a group, and how they are divided."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import DatasetError

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev"), "valid"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""The partition each usual name stands for."""


@dataclass(frozen=True)
class Example:
    """One labelled clip.

    Attributes:
        audio: Path of an audio file, or an `AudioSource` for audio that lies elsewhere.
        label: Name of its class.
        split: `train`, `valid` or `test`; None when the data set does not say.
        group: What must not be on two sides of a split (speaker, artist, recording); None when there is none.
        start, end: Part of the file that is the clip, in seconds; the whole when None.
    """

    audio: "str | AudioSource"
    label: str
    split: str | None = None
    group: str | None = None
    start: float | None = None
    end: float | None = None

    @property
    def name(self) -> str:
        """What to call the clip in a message: its path, and its part where it is one."""
        name = self.audio if isinstance(self.audio, str) else self.audio.name
        if self.start is None and self.end is None:
            return name
        return f"{name} [{self.start or 0.0}-{'' if self.end is None else self.end} s]"

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
    """

    train: tuple[Example, ...]
    valid: tuple[Example, ...]
    test: tuple[Example, ...]
    labels: tuple[str, ...]
    name: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part in ("train", "valid", "test"):
            object.__setattr__(self, part, tuple(getattr(self, part)))
        object.__setattr__(self, "labels", tuple(self.labels))

    @property
    def parts(self) -> dict[str, tuple[Example, ...]]:
        """The parts that are not empty, by name."""
        return {part: getattr(self, part) for part in ("train", "valid", "test") if getattr(self, part)}

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
    examples: Iterable[Example], *, name: str, labels: Sequence[str] | None = None, notes: Sequence[str] = ()
) -> AudioSplits:
    """Divides examples by their `split`; those without one are train.

    Args:
        labels: Class names in the order wanted; all that occur, sorted, when not given.

    Raises:
        DatasetError: for no examples, a label not in `labels`, fewer than two classes, or a clip in two parts.
    """
    examples = [replace(e, split=e.split and split_name(e.split, name)) for e in examples]
    if not examples:
        raise DatasetError(f"{name}: holds no clips.")
    if isinstance(labels, str):
        raise DatasetError(f"{name}: labels={labels!r} must be a list of class names.")
    found = {example.label for example in examples}
    if labels is None:
        labels = sorted(found, key=int) if all(label.isdecimal() for label in found) else sorted(found)
    if len(set(labels)) < len(labels):
        raise DatasetError(f"{name}: {_first_repeated(labels)!r} stands twice in labels.")
    known = set(labels)
    for example in examples:
        if example.label not in known:
            raise DatasetError(f"{name}: {example.name} has the label {example.label!r}, which is not among labels.")
    if len(labels) < 2:
        raise DatasetError(f"{name}: has one class only ({labels[0]!r}); a classifier needs two or more.")
    parts: dict[str, list[Example]] = {"train": [], "valid": [], "test": []}
    for example in examples:
        parts[example.split or "train"].append(example)
    splits = AudioSplits(**parts, labels=labels, name=name, notes=notes)
    _check_no_shared_clip(splits)
    return replace(splits, notes=(*notes, *_shared_group_notes(splits)))


def cut_valid(splits: AudioSplits, fraction: float, seed: int) -> AudioSplits:
    """Moves a share of train to valid: seeded, each class in proportion, no group on both sides.

    Without groups every class of two or more clips gives at least one, and keeps one. With groups the shares are as
    near to the fraction as whole groups allow; where every group is larger, one is held out.

    Raises:
        DatasetError: when train has too few clips or groups to be cut.
    """
    chosen = _choose(splits.train, fraction, np.random.default_rng(seed))
    if not chosen:
        raise DatasetError(
            f"{splits.name}: {len(splits.train)} training clips in {len({e.group for e in splits.train})} group(s) "
            f"cannot be cut into {1 - fraction:.0%} train and {fraction:.0%} valid; give a valid part of its own, "
            "or another valid_fraction."
        )
    return replace(
        splits,
        train=[replace(example, split="train") for i, example in enumerate(splits.train) if i not in chosen],
        valid=[replace(example, split="valid") for i, example in enumerate(splits.train) if i in chosen],
    )


def _choose(examples: Sequence[Example], fraction: float, rng: np.random.Generator) -> set[int]:
    """Indices of about `fraction` of the examples, stratified by label, whole groups only."""
    members: dict[Any, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        members[example.group if example.group is not None else index].append(index)
    totals = Counter(example.label for example in examples)
    target = {label: max(1, round(count * fraction)) if count > 1 else 0 for label, count in totals.items()}
    target = {label: min(number, totals[label] - 1) for label, number in target.items()}
    held: Counter[str] = Counter()

    def change(counts: Counter[str]) -> float:
        """What a group with these labels adds to the squared distance from the target; inf if it empties a class."""
        if any(held[label] + count >= totals[label] for label, count in counts.items()):
            return float("inf")
        return sum(count * (count - 2 * (target[label] - held[label])) for label, count in counts.items())

    groups = list(members.values())
    counts = [Counter(examples[index].label for index in group) for group in groups]
    # Large groups first, in random order among equals: the small ones then fill what is missing.
    order = sorted(rng.permutation(len(groups)), key=lambda number: -len(groups[number]))
    chosen = []
    for number in order:
        if change(counts[number]) < 0:
            chosen.append(number)
            held.update(counts[number])
    if not chosen:  # every group is far too large: the least bad one is better than none
        best = min(order, key=lambda number: change(counts[number]))
        if change(counts[best]) < float("inf"):
            chosen = [best]
    return {index for number in chosen for index in groups[number]}


def _check_no_shared_clip(splits: AudioSplits) -> None:
    """Raises when a clip, or overlapping pieces of one file, stand in two parts, or twice with different labels."""
    files: dict[str, list[tuple[float, float, str, Example]]] = defaultdict(list)
    for part, examples in splits.parts.items():
        for example in examples:
            key = os.path.abspath(example.audio) if isinstance(example.audio, str) else example.audio.identity
            end = float("inf") if example.end is None else example.end
            files[key].append((example.start or 0.0, end, part, example))
    for pieces in files.values():
        pieces.sort(key=lambda piece: piece[:2])
        reach: dict[str, float] = {}  # how far the pieces of each part go, of those that begin no later
        before: tuple[float, float, str, Example] | None = None
        for begin, end, part, example in pieces:
            for other, other_end in reach.items():
                if other != part and begin < other_end:
                    raise DatasetError(
                        f"{splits.name}: {example.name} is in {other} and in {part}; leave it in one of them."
                    )
            if before and before[:2] == (begin, end) and before[3].label != example.label:
                raise DatasetError(
                    f"{splits.name}: {example.name} has two labels, {before[3].label!r} and {example.label!r}; "
                    "leave it with one."
                )
            reach[part] = max(reach.get(part, 0.0), end)
            before = (begin, end, part, example)


def _shared_group_notes(splits: AudioSplits) -> list[str]:
    groups = {part: {e.group for e in examples if e.group is not None} for part, examples in splits.parts.items()}
    notes = []
    parts = list(groups)
    for i, first in enumerate(parts):
        for second in parts[i + 1 :]:
            shared = groups[first] & groups[second]
            if shared:
                notes.append(
                    f"{len(shared)} group(s), for example {min(shared)!r}, are in both {first} and {second}: "
                    f"scores on {second} will look better than they are."
                )
    return notes


def _first_repeated(labels: Sequence[str]) -> str:
    return next(label for label, count in Counter(labels).items() if count > 1)
