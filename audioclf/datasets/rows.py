"""Rows of a `datasets.IterableDataset`, shard by shard: training clips of which nobody has to hold all at once."""

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from ..audio import EXTENSIONS
from ..cache import KEPT_ROWS
from ..errors import DatasetError
from .base import AudioSource, Example
from .hub import class_names_of, column_of_labels, holds_lists, label_reader


@dataclass(frozen=True)
class RowStream:
    """The training clips of a stream.

    Attributes:
        name: What to call the stream.
        data: The `datasets.IterableDataset`; its audio is given as it is encoded.
        audio_column: Column of the audio.
        label_column: Column of the labels.
        multi_label: Whether a clip may have several labels, or none.
        labels: The classes that there may be.
    """

    name: str
    data: Any
    audio_column: str
    label_column: str
    multi_label: bool
    labels: tuple[str, ...]

    @property
    def num_shards(self) -> int:
        """Parts that can be read one by one: files, or what the stream was made of."""
        return self.data.num_shards

    def shard(self, number: int, state: dict[str, Any] | None = None) -> Any:
        """One shard, an `IterableDataset`, from its beginning or where its `state_dict` says."""
        shard = self.data.shard(self.num_shards, number)
        if state is not None:
            shard.load_state_dict(state)
        return shard

    def example(self, row: Mapping[str, Any], place: str) -> Example:
        """The clip of a row.

        Args:
            row: The row.
            place: What to call it where its audio has no name.

        Raises:
            DatasetError: for a row without audio, without a label, or with one that is not among the labels.
        """
        value = row[self.audio_column]
        if value is None or (isinstance(value, Mapping) and all(part is None for part in value.values())):
            raise DatasetError(f"{self.name}, {place}: has no audio; filter such rows out.")
        path = value.get("path") if isinstance(value, Mapping) else None
        name = f"{self.name}, {path or row.get('__key__') or place}"  # the key that tar shards name a clip by
        source = AudioSource(name=name, identity=name, read=functools.partial(_given, value))
        example = Example(source, self._label_of(row[self.label_column], name))
        for label in example.labels:
            if label not in self.labels:
                raise DatasetError(f"{name}: has the label {label!r}, which is not among labels.")
        return example

    @functools.cached_property
    def _label_of(self) -> Callable[[Any, str], str | tuple[str, ...]]:
        return label_reader(self.data.features[self.label_column], self.multi_label)


def row_stream(
    data: Any, name: str, label_column: str | None, multi_label: bool | None, labels: Sequence[str] | None
) -> RowStream:
    """The clips of a `datasets.IterableDataset`.

    Args:
        data: The stream.
        name: What to call it.
        label_column, multi_label, labels: As in `load_dataset`.

    Raises:
        DatasetError: when its columns or classes are not known, or it lacks audio or labels.
    """
    import datasets

    data = data.with_format(None)
    if data.features is None:
        raise DatasetError(
            f"{name}: the types of its columns are not known; say them where the "
            "stream is made, or to the last map, by features=datasets.Features(...)."
        )
    audio_column = next((key for key, feature in data.features.items() if isinstance(feature, datasets.Audio)), None)
    if audio_column is not None:
        data = data.cast_column(audio_column, datasets.Audio(decode=False))
    else:
        audio_column = next((key for key, feature in data.features.items() if _holds_files(key, feature)), None)
    if audio_column is None:
        raise DatasetError(
            f"{name}: has no Audio column, and none of bytes that is called audio, wav or the like, only "
            f"{', '.join(data.features)}; cast one with dataset.cast_column(column, datasets.Audio())."
        )
    label_column = column_of_labels(data, name, label_column)
    feature = data.features[label_column]
    labels = labels or class_names_of(feature)
    if not labels:
        raise DatasetError(
            f"{name}: which classes a stream has is not known before its end: give labels=, or cast the column with "
            f"dataset.cast_column({label_column!r}, datasets.ClassLabel(names=[...]))."
        )
    multi_label = holds_lists(feature) if multi_label is None else multi_label
    return RowStream(name, data, audio_column, label_column, multi_label, tuple(labels))


def refuse_what_shards_change(stream: RowStream) -> None:
    """Raises for a training stream that, read shard by shard or gone back to, would not be the clips it says.

    `skip` and `take` mean other rows in a shard than in the whole; a shuffled stream forgets what is in its buffer; an
    interleaved one leaves clips out or repeats them, and may not come to its end when it is gone on with.

    Raises:
        DatasetError: naming the step.
    """
    by_files = "divide it by its files"
    joined = "join the streams by datasets.concatenate_datasets()"
    steps = {
        "SkipExamplesIterable": ("skip()", by_files),
        "TakeExamplesIterable": ("take()", by_files),
        "BufferShuffledExamplesIterable": ("shuffle()", "leave it out, as every pass is shuffled anyway"),
        "CyclingMultiSourcesExamplesIterable": ("interleave_datasets()", joined),
        "RandomlyCyclingMultiSourcesExamplesIterable": ("interleave_datasets()", joined),
    }
    pending = [stream.data._ex_iterable]  # datasets has no public name for the steps that a stream is made of
    while pending:
        part = pending.pop()
        step, instead = steps.get(type(part).__name__, ("", ""))
        if step and (instead != by_files or stream.num_shards > 1):
            raise DatasetError(
                f"{stream.name}: a training stream is read shard by shard, which {step} does not allow: {instead}."
            )
        pending += [*getattr(part, "ex_iterables", ()), *filter(None, [getattr(part, "ex_iterable", None)])]


def kept(stream: RowStream, split: str, cache_dir: Path) -> Iterator[Example]:
    """The clips of a held-out part, which is read to its end; what is no file yet becomes one in the cache.

    Files are named by their content, so that the next run finds the same ones.

    Raises:
        DatasetError: when the stream breaks off, a row has no label or audio, or the cache cannot be written.
    """
    folder = cache_dir / KEPT_ROWS
    for number, row in enumerate(told(stream, stream.data)):
        example = stream.example(row, f"{split}, row {number}")
        value = example.audio.read()
        content = value.get("bytes") if isinstance(value, Mapping) else value
        if content is None:
            audio = value["path"] if value.get("array") is None else example.audio
        else:
            audio = _file_of(content, folder)
        yield Example(audio, example.label, split=split)


def _file_of(content: bytes, folder: Path) -> str:
    """A file of that content, whole or not there, whoever else writes it at the same time."""
    path = folder / hashlib.sha256(content).hexdigest()[:32]
    partial = folder / f".{path.name}-{uuid4().hex}"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise DatasetError(
            f"The cache of held-out clips in {str(folder)!r} cannot be written ({error.strerror or error}): free some "
            "space or choose another folder with cache_dir."
        ) from error
    return str(path)


def told(stream: RowStream, rows: Any) -> Iterator[Mapping[str, Any]]:
    """The rows; whatever goes wrong on the way is told in a sentence.

    Raises:
        DatasetError: when the stream breaks off.
    """
    try:
        yield from rows
    except Exception as error:  # what a network client or a user's own map may raise has no common base
        advice = "read it again; a run goes on from its last checkpoint by resume=True"
        if "torchcodec" in str(error):
            advice = (
                "leave its audio as it is before any other step: dataset.cast_column(column, "
                "datasets.Audio(decode=False)), or for tar shards features= with datasets.Value('binary')"
            )
        reason = (str(error).strip() or "no reason given").split("\n")[0]
        raise DatasetError(
            f"{stream.name}: the stream broke off ({type(error).__name__}: {reason}); {advice}."
        ) from error


def _holds_files(column: str, feature: Any) -> bool:
    """Whether a column has the bytes of audio files, as tar shards have where nobody decodes them."""
    ending = f".{column.rsplit('.', 1)[-1].lower()}"
    return getattr(feature, "dtype", None) in ("binary", "large_binary") and (column == "audio" or ending in EXTENSIONS)


def _given(value: Any) -> Any:
    return value
