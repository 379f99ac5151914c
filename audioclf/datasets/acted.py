"""Acted emotions: corpora whose clips' names say the emotion and the actor, and that are tested actor by actor."""

from collections.abc import Callable, Sequence
from pathlib import Path

from .base import AudioSplits, Example
from .corpus import hold_out, present
from .folder import audio_files
from .making import make_splits


def acted_splits(
    folder: Path,
    parse: Callable[[Path], tuple[str, str] | None],
    *,
    name: str,
    labels: Sequence[str],
    num_clips: int,
    fold: int | str | None,
) -> AudioSplits:
    """The clips below a folder, each once; group and fold are the actor.

    Args:
        folder: Where the clips lie, at any depth.
        parse: The emotion and the actor of a clip; None for a file that is none of the corpus.
        name: The corpus.
        labels: Its emotions in the order of their ids.
        num_clips: Clips of a whole copy.
        fold: The actor that is test; no test part when None, with a note.

    Raises:
        DatasetError: for an emotion not in `labels` or without a clip, or an actor that there is not.
    """
    clips: dict[str, Example] = {}
    twice, others = [], []
    for path in audio_files(folder):
        parsed = parse(path)
        if parsed is None:
            others.append(path.name)
        elif path.name in clips:
            twice.append(path.name)
        else:
            emotion, actor = parsed
            clips[path.name] = Example(str(path), label=emotion, group=actor, fold=actor)
    found, notes = present(list(clips.values()), labels, repr(str(folder)))
    if twice:
        notes.append(f"{len(twice)} clip(s) lie there again, for example {twice[0]!r}; each is taken once.")
    if others:
        notes.append(f"{len(others)} file(s) are none of its clips, for example {others[0]!r}; they are left out.")
    if len(found) < num_clips:
        notes.append(f"{len(found)} of the {num_clips} clips of {name} are here.")
    split_notes = []
    if fold is None:
        split_notes.append(
            f"{name} has no official split, so there is no test part: fold= makes one actor the test part; published "
            "scores leave out each actor, or some of them, in turn, as audioclf.cross_validate does."
        )
    else:
        found = hold_out(found, fold, name)
    return make_splits(found, name=name, labels=labels, notes=notes, metric="uar", split_notes=split_notes)
