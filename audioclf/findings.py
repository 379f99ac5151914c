"""What may be wrong with a data set, with its remedy; here what its table tells, before any sound is read."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from .datasets.base import AudioSplits, Example
from .datasets.overlap import shared_groups

SEVERITIES = ("error", "warning", "note")
"""From what makes scores wrong, over what makes them worse, to what is good to know."""
MIN_CLIPS = 10
"""Clips of a class in train below which a word is said."""
MIN_HELD_OUT_CLIPS = 3
"""Clips of a class in valid or test below which a word is said."""
IMBALANCE = 10
"""Times as many clips as the rarest class has, from which the most frequent one makes classes unequal."""
TYPO_RATIO = 10
"""Times as many clips from which a label of almost the same letters is taken for the right spelling."""
MIN_TYPO_LETTERS = 4
LABEL_WIDTH = 24
"""Letters of a label in a table."""
NUM_NAMED = 5
"""Labels or groups named in a sentence; the rest are counted."""

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class FoundClip:
    """A clip that a finding is about.

    Attributes:
        file: Its name: the path, with its segment where it is one.
        part: `train`, `valid` or `test`.
        label: Its class, or a tuple of them in multi-label data.
        set: Number of the set of copies it belongs to; None where there are no sets.
        detail: What is particular about this clip.
    """

    file: str
    part: str
    label: str | tuple[str, ...]
    set: int | None = None
    detail: str = ""


@dataclass(frozen=True)
class Finding:
    """Something that may be wrong.

    Attributes:
        kind: Its name for programs, such as `near-copies`.
        severity: `error`: scores will be wrong; `warning`: the model may get worse; `note`: good to know.
        message: What was found, a sentence.
        fix: What to do about it, a sentence.
        clips: All clips it is about; none where it is about classes that lack them.
    """

    kind: str
    severity: Severity
    message: str
    fix: str
    clips: tuple[FoundClip, ...] = ()

    def __str__(self) -> str:
        return f"{self.message} {self.fix}"


def found_clip(example: Example, part: str, set: int | None = None, detail: str = "") -> FoundClip:
    """The clip of an example."""
    return FoundClip(example.name, part, example.label, set, detail)


def first_names(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return ", ".join(map(repr, names[:NUM_NAMED])) + more


def shorten(label: str) -> str:
    """A label on one line of bounded width."""
    label = " ".join(label.split())
    return label if len(label) <= LABEL_WIDTH else label[: LABEL_WIDTH - 1] + "…"


def class_counts(splits: AudioSplits) -> dict[str, Counter[str]]:
    """Clips of each class in each part."""
    return {
        part: Counter(label for example in examples for label in example.labels)
        for part, examples in splits.parts.items()
    }


def of_table(splits: AudioSplits, min_clips: int = MIN_CLIPS, made_up_for: bool = False) -> list[Finding]:
    """What the labels tell: spellings, classes that are missing, rare or unequal. Groups are `of_groups`.

    Args:
        splits: The data set.
        min_clips: Clips that each class should have in train.
        made_up_for: Whether weights or the sampling make up for unequal classes, which then are no finding.
    """
    counts = class_counts(splits)
    totals = sum(counts.values(), Counter())
    unequal = [] if made_up_for else _imbalance(splits, counts.get("train", Counter()))
    found = [*_spellings(splits, totals), *_typos(splits, totals), *_missing(splits, counts)]
    return [*found, *_rare(splits, counts, min_clips), *unequal]


def of_groups(splits: AudioSplits) -> list[Finding]:
    """Groups that stand on both sides of a split."""
    return [
        Finding(
            "groups-across-parts",
            "error",
            f"{len(groups)} group(s) are in both {first} and {second}: {first_names(sorted(groups))}.",
            f"Move each group to one part, else scores on {second} will look better than they are.",
            tuple(
                found_clip(example, part, detail=f"group {example.group!r}")
                for part in (first, second)
                for example in getattr(splits, part)
                if example.group in groups
            ),
        )
        for (first, second), groups in shared_groups(splits).items()
    ]


def _spellings(splits: AudioSplits, totals: Counter[str]) -> list[Finding]:
    """Labels that differ in case, spaces, punctuation between words, or the form of their characters."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in sorted(splits.labels, key=lambda label: -totals[label]):
        spellings[_normalised(label)].append(label)
    return [
        Finding(
            "label-spellings",
            "error",
            f"The labels {', '.join(f'{label!r} ({totals[label]} clips)' for label in same)} are one name in "
            f"{len(same)} spellings, and so {len(same)} classes{_look_alike(same)}.",
            f"Write {same[0]!r} for all of them.",
            _labelled(splits, same[1:]),
        )
        for same in spellings.values()
        if len(same) > 1
    ]


def _look_alike(labels: Sequence[str]) -> str:
    if len({unicodedata.normalize("NFC", label) for label in labels}) == len(labels):
        return ""
    return "; some look alike, and differ in their Unicode form (NFC, NFD)"


def _typos(splits: AudioSplits, totals: Counter[str]) -> list[Finding]:
    """A rare label that is a frequent one but for one letter."""
    found = []
    for pair in combinations(splits.labels, 2):
        rare, frequent = sorted(pair, key=lambda label: totals[label])
        is_unequal = 0 < TYPO_RATIO * totals[rare] <= totals[frequent]
        if is_unequal and _differ_by_one_letter(_normalised(rare), _normalised(frequent)):
            found.append(
                Finding(
                    "label-typo",
                    "warning",
                    f"The label {rare!r} ({totals[rare]} clips) is {frequent!r} ({totals[frequent]} clips) but for "
                    "one letter.",
                    f"If it is a slip of the pen, write {frequent!r}.",
                    _labelled(splits, [rare]),
                )
            )
    return found


def _missing(splits: AudioSplits, counts: dict[str, Counter[str]]) -> list[Finding]:
    found = []
    for part, of_part in counts.items():
        missing = [label for label in splits.labels if not of_part[label]]
        if not missing:
            continue
        message = f"{part} has no clip of {len(missing)} class(es): {first_names(missing)}."
        if part == "train":
            fix = "Add clips, or leave these classes out of labels, as they cannot be learnt."
        else:
            fix = f"Move whole groups of clips there from another part, else scores on {part} say nothing about them."
        found.append(Finding("missing-classes", "error" if part == "train" else "warning", message, fix))
    return found


def _rare(splits: AudioSplits, counts: dict[str, Counter[str]], min_clips: int) -> list[Finding]:
    found = []
    for part, of_part in counts.items():
        least = min_clips if part == "train" else MIN_HELD_OUT_CLIPS
        rare = [label for label in splits.labels if 0 < of_part[label] < least]
        if not rare:
            continue
        if part == "train":
            fix = "Collect more of them, use augment='strong', or merge them with a class that is near."
        else:
            fix = f"Do not read much into their own scores on {part}; cross_validate tests on all clips."
        message = f"{len(rare)} class(es) have fewer than {least} clips in {part}: {first_names(rare)}."
        severity = "warning" if part == "train" else "note"
        found.append(Finding("rare-classes", severity, message, fix, _labelled(splits, rare, [part])))
    return found


def _imbalance(splits: AudioSplits, counts: Counter[str]) -> list[Finding]:
    present = {label: count for label, count in counts.items() if count}
    if not present:
        return []
    most, least = max(present, key=present.get), min(present, key=present.get)
    if present[most] < IMBALANCE * present[least]:
        return []
    remedy = "Give class_weights='balanced' or balanced_sampling=True, and choose by macro F1 or UAR, not by accuracy."
    if splits.multi_label:
        remedy = "Look at the average precision of each class, not at the mean alone."
    ratio = present[most] / present[least]
    message = (
        f"Classes are unequal: train has {ratio:.0f} times as many clips of {most!r} ({present[most]}) as of "
        f"{least!r} ({present[least]})."
    )
    return [Finding("imbalance", "warning", message, remedy)]


def _labelled(splits: AudioSplits, labels: Sequence[str], parts: Sequence[str] | None = None) -> tuple[FoundClip, ...]:
    """The clips that have one of these labels."""
    wanted = set(labels)
    return tuple(
        found_clip(example, part)
        for part, examples in splits.parts.items()
        if parts is None or part in parts
        for example in examples
        if wanted.intersection(example.labels)
    )


def _normalised(label: str) -> str:
    folded = unicodedata.normalize("NFKC", label).casefold()
    return re.sub(r"[\s_\-\u2010-\u2015]+", " ", unicodedata.normalize("NFKC", folded)).strip() or label


def _differ_by_one_letter(one: str, other: str) -> bool:
    """Whether a letter that is added, dropped or changed, or two that change places, make one into the other."""
    one, other = sorted((one, other), key=len)
    if len(one) < MIN_TYPO_LETTERS or len(other) - len(one) > 1 or one == other:
        return False
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
    if len(one) < len(other):
        return one[start:] == other[start + 1 :] and other[start].isalpha()
    if one[start + 1 :] == other[start + 1 :]:
        return one[start].isalpha() and other[start].isalpha()  # "class 1" and "class 2" are no slips
    swapped = one[start + 1 : start + 2] + one[start : start + 1] + one[start + 2 :]
    return swapped == other[start:]
