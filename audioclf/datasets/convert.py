"""Our data sets as `datasets` objects, for programs that take those."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import soundfile

from ..audio import load, source_and_name
from ..errors import AudioError
from ..sound_file import open_sound
from .base import AudioSplits, Example, refuse_stream

SPLIT_NAMES = {"train": "train", "valid": "validation", "test": "test"}
"""What the parts are called on the hub."""


def to_datasets(splits: AudioSplits) -> Any:
    """A `datasets.DatasetDict` with the same clips, labels and parts; `load_dataset` reads it back.

    Its columns are `audio`, `label` (a ClassLabel; in multi-label data `labels`, lists of them), and `group` and `fold`
    where the data has these. Files are named, not copied, until it is written or pushed. Clips that are parts of files
    or rows of other data are held in memory, as they are: parts as 32-bit wav at the file's rate.

    Args:
        splits: What `load_dataset` returns.

    Raises:
        AudioError: naming a file of which a part is wanted and that cannot be read.

    Example:
        >>> to_datasets(load_dataset("clips")).push_to_hub("user/clips")
    """
    import datasets

    refuse_stream(splits, "to_datasets")
    return datasets.DatasetDict({SPLIT_NAMES[part]: _part(splits, clips) for part, clips in splits.parts.items()})


def _part(splits: AudioSplits, clips: Sequence[Example]) -> Any:
    from datasets import Audio, ClassLabel, Dataset, Features, List, Value

    features: dict[str, Any] = {"audio": {"bytes": Value("binary"), "path": Value("string")}}
    columns: dict[str, list] = {"audio": [_audio(clip) for clip in clips]}
    ids = [[splits.label2id[label] for label in clip.labels] for clip in clips]
    of_class = ClassLabel(names=list(splits.labels))
    if splits.multi_label:
        features["labels"], columns["labels"] = List(of_class), ids
    else:
        features["label"], columns["label"] = of_class, [own for (own,) in ids]
    for name in ("group", "fold"):
        if any(getattr(clip, name) is not None for part in splits.parts.values() for clip in part):
            features[name], columns[name] = Value("string"), [getattr(clip, name) for clip in clips]
    # Cast afterwards: to encode a column datasets would ask for torchcodec, though these sounds are encoded already.
    return Dataset.from_dict(columns, features=Features(features)).cast_column("audio", Audio())


def _audio(clip: Example) -> dict[str, Any]:
    source, _ = source_and_name(clip.source())
    is_part = clip.start is not None or clip.end is not None
    if isinstance(source, Mapping):
        rate = int(source["sampling_rate"])
        return {"bytes": _wav(load(source, rate, clip.start, clip.end), rate), "path": None}
    if is_part:
        return {"bytes": _wav(*_cut(source, clip)), "path": None}
    return {"bytes": None, "path": source} if isinstance(source, str) else {"bytes": bytes(source), "path": None}


def _cut(source: Any, clip: Example) -> tuple[Any, int]:
    try:
        with open_sound(source) as file:
            first = file.seek(min(len(file), round((clip.start or 0.0) * file.samplerate)))
            last = len(file) if clip.end is None else round(clip.end * file.samplerate)
            return file.read(last - first, dtype="float32"), file.samplerate
    except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
        raise AudioError(f"{clip.name}: libsndfile cannot read it ({error}); repair it or leave it out.") from error


def _wav(samples: Any, rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()
