"""`datasets.Dataset` and `DatasetDict` objects, and data sets of the Hugging Face hub that are parquet.

Audio columns are cast to `Audio(decode=False)` and decoded by us, so that neither torchcodec nor FFmpeg is needed.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..checks import nearest
from ..errors import DatasetError
from .base import AudioSource, Example, file_state, split_name
from .manifest import LABEL_COLUMNS, LABELS_COLUMNS, label_names


def fetch(hub_id: str, config_name: str | None = None, streaming: bool = False) -> Any:
    """The data set of that id as `datasets` loads it.

    Args:
        config_name: Which of the data set's configurations, where it has several.
        streaming: Whether its files are read while they are wanted, rather than fetched first.

    Raises:
        DatasetError: when it cannot be fetched, with what to do.
    """
    import datasets

    try:
        return datasets.load_dataset(hub_id, config_name, streaming=streaming)
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


@contextmanager
def fetching(what: str, advice: str) -> Iterator[None]:
    """Tells in one sentence whatever goes wrong while something is fetched from the hub.

    Args:
        what: What is fetched, as the beginning of the sentence.
        advice: What the user can do, as a sentence of its own.

    Raises:
        DatasetError: with the client's reason.
    """
    try:
        yield
    except Exception as error:  # what a network client may raise has no common base
        reason = str(error).strip().split("\n")[0]
        raise DatasetError(
            f"{what} could not be fetched from the hub ({type(error).__name__}: {reason}). {advice}"
        ) from error


def examples(
    data: Any,
    *,
    name: str,
    label_column: str | None = None,
    group_column: str | None = None,
    multi_label: bool | None = None,
) -> tuple[list[Example], list[str] | None]:
    """The clips of a Dataset or DatasetDict, and its class names in their official order where it has them.

    Args:
        label_column: Column of the labels; the ClassLabel column, or one with a usual name, when not given.
        group_column: Column of the groups.
        multi_label: Whether a clip may have several labels, or none; when not given, it may where the column holds
            lists.

    Raises:
        DatasetError: for a column that is missing, or a row without a label.
    """
    import datasets

    parts = parts_of(data, name) if isinstance(data, datasets.DatasetDict) else {None: data}
    found: list[Example] = []
    labels: list[str] | None = None
    for split, part in parts.items():
        clips, class_names = _part_examples(part, split, name, label_column, group_column, multi_label)
        found += clips
        labels = labels or class_names
    return found, labels


def parts_of(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The parts of a `DatasetDict` or `IterableDatasetDict` by our names for them.

    Raises:
        DatasetError: for two of the same meaning, or a name that means none.
    """
    parts = {split_name(key, name): part for key, part in data.items()}
    if len(parts) < len(data):
        raise DatasetError(f"{name}: two of its splits ({', '.join(data)}) mean the same part; merge them first.")
    return parts


def audio_rows(part: Any, columns: Sequence[str], name: str) -> Iterator[tuple[AudioSource, tuple[Any, ...]]]:
    """The audio of each row of a Dataset, not read yet, with the values of some columns.

    Raises:
        DatasetError: when it has no Audio column, or lacks one of these.
    """
    import datasets

    audio_column = next((key for key, feature in part.features.items() if isinstance(feature, datasets.Audio)), None)
    if audio_column is None:
        raise DatasetError(
            f"{name}: has no Audio column, only {', '.join(part.features)}; "
            "cast the column of paths with dataset.cast_column(column, datasets.Audio())."
        )
    missing = [column for column in columns if column not in part.features]
    if missing:
        raise DatasetError(f"{name}: has no column {missing[0]!r}{nearest(missing[0], list(part.features))}")
    audio = (
        part.with_format(None).select_columns([audio_column]).cast_column(audio_column, datasets.Audio(decode=False))
    )
    # Audio given by path may change under an unchanged data set, so the file's own state counts.
    paths = _values(audio.flatten(), f"{audio_column}.path")
    values = zip(*(_values(part, column) for column in columns), strict=True) if columns else [()] * len(part)
    for row, (path, row_values) in enumerate(zip(paths, values, strict=True)):
        source = AudioSource(
            name=f"{name}, row {row}",
            identity=f"{part._fingerprint}:{row}:{file_state(path) if path else ''}",
            read=functools.partial(_read, audio, row, audio_column),
        )
        yield source, row_values


def _part_examples(
    part: Any,
    split: str | None,
    name: str,
    label_column: str | None,
    group_column: str | None,
    multi_label: bool | None,
) -> tuple[list[Example], list[str] | None]:
    where = f"{name}, {split}" if split else name
    label_column = column_of_labels(part, name, label_column)
    if group_column is not None and group_column not in part.features:
        raise DatasetError(
            f"{name}: has no column {group_column!r} (group_column){nearest(group_column, list(part.features))}"
        )
    feature = part.features[label_column]
    label_of = label_reader(feature, multi_label)
    columns = [label_column] if group_column is None else [label_column, group_column]
    found = []
    for source, (value, *group) in audio_rows(part, columns, where):
        group = None if not group or group[0] is None else str(group[0])
        found.append(Example(audio=source, label=label_of(value, source.name), split=split, group=group))
    return found, class_names_of(feature)


def class_names_of(feature: Any) -> list[str] | None:
    """The names of the classes that a column of labels, or of lists of them, has ids of; None where it has none."""
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return None if names is None else list(names)


def holds_lists(feature: Any) -> bool:
    """Whether a column of that type has several labels a row."""
    return getattr(feature, "feature", None) is not None


def label_reader(feature: Any, multi_label: bool | None) -> Callable[[Any, str], str | tuple[str, ...]]:
    """What makes an `Example.label` of a value in a column of that type; its second argument names the row.

    The function raises `DatasetError` for a value that is no label.
    """
    class_names, lists = class_names_of(feature), holds_lists(feature)
    multi_label = lists if multi_label is None else multi_label

    def label_of(value: Any, where: str) -> str | tuple[str, ...]:
        if multi_label:
            ids = value if lists else [] if value is None else [value]
            return label_names([name_of(i, where) for i in ids] if class_names else value, where)
        if value in (None, "") or isinstance(value, (list, dict)) or (class_names and value < 0):
            advice = "; for several labels a clip give multi_label=True" if isinstance(value, list) else ""
            raise DatasetError(f"{where}: has no single label ({value!r}){advice}.")
        return name_of(value, where) if class_names else str(value)

    def name_of(number: int, where: str) -> str:
        if not 0 <= number < len(class_names):
            raise DatasetError(
                f"{where}: has the label id {number}, but there are {len(class_names)} names of classes."
            )
        return class_names[number]

    return label_of


def _read(audio: Any, row: int, column: str) -> Any:
    return audio[row][column]


def _values(part: Any, column: str) -> list:
    """A column as plain Python values, whatever format the data set gives out."""
    return part.with_format(None).select_columns([column])[:][column]


def column_of_labels(part: Any, name: str, wanted: str | None) -> str:
    """The column of the labels: the one wanted, or the one that is called so or typed so.

    Raises:
        DatasetError: when there is none, or it is not clear which.
    """
    import datasets

    columns = list(part.features)
    if wanted is not None:
        if wanted not in columns:
            raise DatasetError(f"{name}: has no column {wanted!r} (label_column){nearest(wanted, columns)}")
        return wanted
    by_type = [key for key, feature in part.features.items() if isinstance(feature, datasets.ClassLabel)]
    by_name = [column for column in (*LABEL_COLUMNS, *LABELS_COLUMNS) if column in columns]
    candidates = by_name or by_type
    if not candidates or (not by_name and len(by_type) > 1):
        raise DatasetError(
            f"{name}: which column holds the labels? Name one of {', '.join(columns)} with label_column."
        )
    return candidates[0]
