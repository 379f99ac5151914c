"""`datasets.Dataset` and `DatasetDict` objects, and data sets of the Hugging Face hub that are parquet.

Audio columns are cast to `Audio(decode=False)` and decoded by us, so that neither torchcodec nor FFmpeg is needed.
"""

from typing import Any

from ..config import nearest
from ..errors import DatasetError
from .base import AudioSource, Example, file_state, split_name
from .manifest import LABEL_COLUMNS


def fetch(hub_id: str, config_name: str | None = None) -> Any:
    """The data set of that id as `datasets` loads it.

    Args:
        config_name: Which of the data set's configurations, where it has several.

    Raises:
        DatasetError: when it cannot be fetched, with what to do.
    """
    import datasets

    try:
        return datasets.load_dataset(hub_id, config_name)
    except Exception as error:  # what a network client may raise has no common base
        if "scripts are no longer supported" in str(error):
            raise DatasetError(
                f"{hub_id!r} is a data set with a loading script, which no longer runs: load its parquet form with "
                f"datasets.load_dataset({hub_id!r}, revision='refs/convert/parquet') and give the result instead."
            ) from error
        if "Config name is missing" in str(error) or "BuilderConfig" in str(error):
            choices = " ".join(str(error).split())
            raise DatasetError(
                f"{hub_id!r} has several configurations; choose one with protocol= ({choices})."
            ) from error
        reason = str(error).strip().split("\n")[0]
        raise DatasetError(
            f"{hub_id!r} is no file or folder here, and could not be fetched from the hub "
            f"({type(error).__name__}: {reason}); check the name and the network."
        ) from error


def examples(
    data: Any, *, name: str, label_column: str | None = None, group_column: str | None = None
) -> tuple[list[Example], list[str] | None]:
    """The clips of a Dataset or DatasetDict, and its class names in their official order where it has them.

    Args:
        label_column: Column of the labels; the ClassLabel column, or one with a usual name, when not given.
        group_column: Column of the groups.

    Raises:
        DatasetError: for a streaming data set, a column that is missing, or a row without a label.
    """
    import datasets

    if isinstance(data, (datasets.IterableDataset, datasets.IterableDatasetDict)):
        raise DatasetError(f"{name}: a streaming data set cannot be shuffled and split; load it with streaming=False.")
    if isinstance(data, datasets.DatasetDict):
        parts = {split_name(key, name): part for key, part in data.items()}
        if len(parts) < len(data):
            raise DatasetError(f"{name}: two of its splits ({', '.join(data)}) mean the same part; merge them first.")
    else:
        parts = {None: data}
    found: list[Example] = []
    labels: list[str] | None = None
    for split, part in parts.items():
        clips, class_names = _part_examples(part, split, name, label_column, group_column)
        found += clips
        labels = labels or class_names
    return found, labels


def _part_examples(
    part: Any, split: str | None, name: str, label_column: str | None, group_column: str | None
) -> tuple[list[Example], list[str] | None]:
    import datasets

    audio_column = next((key for key, feature in part.features.items() if isinstance(feature, datasets.Audio)), None)
    if audio_column is None:
        raise DatasetError(
            f"{name}: has no Audio column, only {', '.join(part.features)}; "
            "cast the column of paths with dataset.cast_column(column, datasets.Audio())."
        )
    label_column = _label_column(part, name, label_column)
    if group_column is not None and group_column not in part.features:
        raise DatasetError(
            f"{name}: has no column {group_column!r} (group_column){nearest(group_column, list(part.features))}"
        )
    feature = part.features[label_column]
    class_names = list(feature.names) if isinstance(feature, datasets.ClassLabel) else None
    values = _values(part, label_column)
    groups = [None] * len(part) if group_column is None else _values(part, group_column)
    audio = (
        part.with_format(None).select_columns([audio_column]).cast_column(audio_column, datasets.Audio(decode=False))
    )
    # Audio given by path may change under an unchanged data set, so the file's own state counts.
    paths = _values(audio.flatten(), f"{audio_column}.path")
    where = f"{name}, {split}" if split else name
    found = []
    for row, (value, group, path) in enumerate(zip(values, groups, paths, strict=True)):
        if value in (None, "") or isinstance(value, (list, dict)) or (class_names and value < 0):
            raise DatasetError(f"{name}: row {row} of {split or 'the data'} has no single label ({value!r}).")
        source = AudioSource(
            name=f"{where}, row {row}",
            identity=f"{part._fingerprint}:{row}:{file_state(path) if path else ''}",
            read=lambda row=row: audio[row][audio_column],
        )
        label = class_names[value] if class_names else str(value)
        found.append(Example(audio=source, label=label, split=split, group=None if group is None else str(group)))
    return found, class_names


def _values(part: Any, column: str) -> list:
    """A column as plain Python values, whatever format the data set gives out."""
    return part.with_format(None).select_columns([column])[:][column]


def _label_column(part: Any, name: str, wanted: str | None) -> str:
    import datasets

    columns = list(part.features)
    if wanted is not None:
        if wanted not in columns:
            raise DatasetError(f"{name}: has no column {wanted!r} (label_column){nearest(wanted, columns)}")
        return wanted
    by_type = [key for key, feature in part.features.items() if isinstance(feature, datasets.ClassLabel)]
    by_name = [column for column in LABEL_COLUMNS if column in columns]
    candidates = by_name or by_type
    if not candidates or (not by_name and len(by_type) > 1):
        raise DatasetError(
            f"{name}: which column holds the labels? Name one of {', '.join(columns)} with label_column."
        )
    return candidates[0]
