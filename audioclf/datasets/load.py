"""`load_dataset`: from a name, a path or a `datasets` object to parts with labels."""

import inspect
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..allocator import uncollected
from ..config import default_cache_dir
from ..errors import ConfigError, DatasetError
from . import (
    common_language,
    crema_d,
    demo,
    esc50,
    fleurs,
    folder,
    fsd50k,
    gtzan,
    hub,
    manifest,
    ravdess,
    rows,
    speech_commands,
    urbansound8k,
    voxlingua107,
)
from .base import SPLIT_NAMES, AudioSplits, Example
from .making import make_splits
from .split import cut_valid

CORPORA = {
    "demo": demo,
    "gtzan": gtzan,
    "speech_commands": speech_commands,
    "esc50": esc50,
    "urbansound8k": urbansound8k,
    "fsd50k": fsd50k,
    "ravdess": ravdess,
    "crema_d": crema_d,
    "common_language": common_language,
    "voxlingua107": voxlingua107,
    "fleurs": fleurs,
}
"""Data sets that go by a name: modules whose `load` takes, of the options of `load_dataset`, those it has a use for."""
HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")


@uncollected()
def load_dataset(
    name_or_path: Any,
    *,
    protocol: str | None = None,
    root: str | Path | None = None,
    fold: int | str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    multi_label: bool | None = None,
    labels: Sequence[str] | None = None,
    streaming: bool | None = None,
    cache_dir: str | Path | None = None,
) -> AudioSplits:
    """Finds the clips of a data set, their labels and their official split. Nothing is decoded yet.

    Args:
        name_or_path: The name of a corpus (`gtzan`, `speech_commands`, `esc50`, `urbansound8k`, `fsd50k`, `ravdess`,
            `crema_d`, `common_language`, `voxlingua107`, `fleurs`, `demo`), a folder (class folders, or with a
            metadata.csv or metadata.jsonl), a CSV, TSV or JSON-lines manifest, a `datasets.Dataset` or `DatasetDict`,
            one of their streaming kin, or the id of one on the hub.
        protocol: Which official split or variant: for gtzan `random` or `fault-filtered`, for speech_commands `35` or
            `12`, for esc50 `esc50` or `esc10`, for demo `music`, `music-hard`, `keywords`, `languages`, `emotion`,
            `environment` or `events`, for a hub data set the name of its configuration.
        root: Where a named data set lies, as a folder or an archive; for demo the folder to write it in.
        fold: For data with folds (esc50, urbansound8k, ravdess, crema_d, demo's emotion and environment, or a manifest
            with that column): the one that is test; the others are train.
        label_column: Column of the labels in a manifest or `datasets` object.
        group_column: Column of what must not be on both sides of a split (speaker, artist).
        multi_label: Whether a clip may have several labels, or none: a list, or a text that separates them by commas.
            When not given: lists are, and the columns `labels` and `tags` of a table.
        labels: Class names in the order of their ids; what the data says, or sorted, when not given. For the corpora
            of languages (common_language, voxlingua107, fleurs): those wanted.
        streaming: Whether the files of a hub data set are read as training comes to them, rather than fetched first.
        cache_dir: Where archives are unpacked and demo is written; ~/.cache/audioclf when not given.

    Raises:
        DatasetError: for data that cannot be found or used, naming the file, column or label.
        ConfigError: for an option that this kind of data has no use for.

    Example:
        >>> splits = load_dataset("clips.csv", group_column="speaker")
        >>> len(splits.train), len(splits.valid), splits.labels[:2]
    """
    options = {
        "protocol": protocol, "root": root, "fold": fold, "label_column": label_column, "group_column": group_column,
        "multi_label": multi_label, "labels": labels, "streaming": streaming or None,
    }  # fmt: skip
    cache_dir = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
    if isinstance(name_or_path, AudioSplits):
        _refuse("a data set that is already loaded", options)
        return name_or_path
    if not isinstance(name_or_path, (str, Path)):
        return _from_object(name_or_path, "the data set", options, cache_dir)
    if str(name_or_path) in CORPORA:
        return _corpus(str(name_or_path), options, cache_dir)
    if not str(name_or_path):
        raise DatasetError("'': no such file or folder.")
    path = Path(name_or_path).expanduser()
    if path.exists():
        return _from_path(path, options)
    name = str(name_or_path)
    if not HUB_ID.fullmatch(name) or path.suffix.lower() in (*manifest.EXTENSIONS, ".json", ".wav"):
        raise DatasetError(f"{name!r}: no such file or folder.")
    fetched = hub.fetch(name, protocol, bool(streaming))
    return _from_object(fetched, name, {**options, "protocol": None, "streaming": None}, cache_dir)


def load_with_valid(
    data: Any, valid: Any, *, valid_fraction: float, seed: int, cache_dir: str | Path | None
) -> AudioSplits:
    """The data set with a train and a valid part.

    Args:
        data: A data set in any form that `load_dataset` takes.
        valid: Validation data of its own, in any of these forms; None for the data's valid part, or else a share of
            its train part.
        valid_fraction, seed: How large that share is, and which clips are in it.
        cache_dir: As in `load_dataset`.

    Raises:
        DatasetError: for data that cannot be found or used, or has no train part.
        ConfigError: when there would be two valid parts.
    """
    splits = load_dataset(data, cache_dir=cache_dir)
    if splits.stream is not None:
        rows.refuse_what_shards_change(splits.stream)
    if valid is not None:
        if splits.valid:
            raise ConfigError(
                f"{splits.name} has a valid part of its own ({len(splits.valid)} clips), and valid= gives another: "
                "leave one of them out."
            )
        clips = _held_out(load_dataset(valid, cache_dir=cache_dir), cache_dir)
        joined = make_splits(
            [*splits.train, *(replace(clip, split="valid") for clip in clips), *splits.test],
            name=splits.name,
            labels=splits.labels,
            notes=splits.notes,
            metric=splits.metric,
            split_notes=splits.split_notes,
        )
        splits = replace(joined, stream=splits.stream)
    if splits.valid and isinstance(splits.valid[0].label, tuple) != splits.multi_label:
        raise DatasetError(
            f"{splits.name}: the stream has {'any number of labels' if splits.multi_label else 'one label'} a clip, "
            "and the clips given as valid= have not: read both alike, by multi_label."
        )
    if splits.stream is not None and not splits.valid:
        raise DatasetError(
            f"{splits.name}: a stream cannot be cut into train and valid, as its clips are not known beforehand: give "
            "valid=, which may be a stream too."
        )
    if not splits.train and splits.stream is None:
        raise DatasetError(f"{splits.name}: has no train part, only {' and '.join(splits.parts)}.")
    return splits if splits.valid else cut_valid(splits, valid_fraction, seed)


def _held_out(other: AudioSplits, cache_dir: str | Path | None) -> tuple[Example, ...]:
    """The clips of what was given as valid=."""
    if other.valid:
        return other.valid
    if other.stream is not None:
        return tuple(rows.kept(other.stream, "valid", Path(cache_dir or default_cache_dir()).expanduser()))
    if len(other.parts) > 1:
        raise DatasetError(
            f"{other.name}, given as valid=, has {' and '.join(other.parts)} parts but no valid part; give one part."
        )
    (clips,) = other.parts.values()
    return clips


def _corpus(name: str, options: dict[str, Any], cache_dir: Path) -> AudioSplits:
    load = CORPORA[name].load
    given = {**options, "cache_dir": cache_dir}
    accepted = [option for option in inspect.signature(load).parameters if option in given]
    _refuse(name, options, allowed=accepted)
    return load(**{option: given[option] for option in accepted})


def _from_path(path: Path, options: dict[str, Any]) -> AudioSplits:
    labels = options["labels"]
    columns = {key: options[key] for key in ("label_column", "group_column", "multi_label", "fold")}
    if path.is_dir() and not folder.metadata_files(path):
        _refuse("a folder of class folders", options, allowed=("labels",))
        return make_splits(folder.examples(path), name=path.name, labels=labels, notes=folder.loose_notes(path))
    _refuse("a manifest", options, allowed=("labels", *columns))
    if path.is_dir():
        clips = [
            clip
            for table in folder.metadata_files(path)
            for clip in manifest.examples(
                table,
                **columns,
                split=None if table.parent == path else SPLIT_NAMES[table.parent.name.lower()],
                split_folders=table.parent == path and columns["fold"] is None,
            )
        ]
        return make_splits(clips, name=path.name, labels=labels)
    if path.suffix.lower() not in manifest.EXTENSIONS:
        raise DatasetError(
            f"{str(path)!r} is no data set: give a folder, or a table that ends in {', '.join(manifest.EXTENSIONS)}."
        )
    return make_splits(manifest.examples(path, **columns), name=path.name, labels=labels)


def _from_object(data: Any, name: str, options: dict[str, Any], cache_dir: Path) -> AudioSplits:
    import datasets

    streams = (datasets.IterableDataset, datasets.IterableDatasetDict)
    if not isinstance(data, (datasets.Dataset, datasets.DatasetDict, *streams)):
        raise DatasetError(
            f"{type(data).__name__} is no data set: give a name, a path, a datasets.Dataset or what load_dataset "
            "returns."
        )
    columns = {key: options[key] for key in ("label_column", "group_column", "multi_label")}
    if isinstance(data, streams):
        _refuse("a stream", options, allowed=("labels", "label_column", "multi_label"))
        columns.pop("group_column")
        return _from_stream(data, name, options["labels"], columns, cache_dir)
    _refuse("a datasets object", options, allowed=("labels", *columns))
    clips, class_names = hub.examples(data, name=name, **columns)
    return make_splits(clips, name=name, labels=options["labels"] or class_names)


def _from_stream(
    data: Any, name: str, labels: Sequence[str] | None, columns: dict[str, Any], cache_dir: Path
) -> AudioSplits:
    """A stream to train on, and its held-out parts, which are read whole."""
    parts = hub.parts_of(data, name) if hasattr(data, "items") else {"train": data}
    if "train" not in parts:
        raise DatasetError(f"{name}: has no train part, only {' and '.join(parts)}.")
    train = rows.row_stream(parts.pop("train"), name, **columns, labels=labels)
    held_out = {split: rows.row_stream(part, name, **columns, labels=train.labels) for split, part in parts.items()}
    clips = [clip for split, part in held_out.items() for clip in rows.kept(part, split, cache_dir)]
    if clips:
        return replace(make_splits(clips, name=name, labels=train.labels), stream=train)
    return AudioSplits((), (), (), labels=train.labels, name=name, stream=train)


def _refuse(kind: str, options: dict[str, Any], allowed: Sequence[str] = ()) -> None:
    """No option is ignored: one without a meaning here is an error."""
    for option, value in options.items():
        if value is not None and option not in allowed:
            raise ConfigError(f"{option}={value!r} means nothing for {kind}; leave it out.")
