"""From examples to a data set: divided, its labels checked, and notes on what looks wrong."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..errors import DatasetError
from .base import PARTS, AudioSplits, Example, split_name
from .overlap import refuse_shared_clips, shared_group_note, shared_groups


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


def _first_repeated(labels: Sequence[str]) -> str:
    return next(label for label, count in Counter(labels).items() if count > 1)
