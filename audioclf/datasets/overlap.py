"""Clips and groups that stand where they should not: in two parts, or twice."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain, combinations

from ..errors import DatasetError
from .base import AudioSplits, Example


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
        path = audio if audio.startswith("/") or os.path.isabs(audio) else here + audio
        # Asked for millions of times: most need no work, and then are one string rather than two.
        return os.path.normpath(path) if os.sep != "/" or "/." in path or "//" in path else path

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
