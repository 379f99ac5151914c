"""Training clips that are read as training comes to them: none is looked at before, and few are held at a time.

A reader goes through all clips again and again, each pass in another order. What it reads is cut into blocks, and each
block into batches of like length, whose order is random; lengths are those that the files' headers tell. The order
depends on seed, pass and the number of processes alone, not on workers, and any place in it can be gone back to.

Shapes: T samples, C classes.
"""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from . import audio
from .allocator import trim
from .augment import Augmentation
from .clips import decode_example
from .collate import Collator
from .datasets.base import Example
from .errors import AudioError
from .readers import Reader, StreamedClip
from .sampling import LengthBucketSampler, Share

BLOCK_CLIPS = 1024
"""Clips that are mixed, and sorted by length, together."""
BLOCK_BYTES = 2**26
"""Bytes of encoded audio in memory from which a block is not made larger."""
HEADER_THREADS = 8
"""Headers read at a time: on a network each of them is a wait."""


class StreamSampler:
    """Batches of a stream's clips for a DataLoader's `batch_sampler`, in place of a `LengthBucketSampler`.

    An epoch is so many windows, wherever in a pass they are.

    Args:
        make_reader: Makes the reader, standing at the beginning.
        windows_per_epoch: Windows, and so optimizer steps, of an epoch.
        batch_size: Clips a batch, at most.
        seed: Seed of the order of batches.
        num_samples: How long a clip will be, in samples.
        max_samples: Samples a batch, padding included, at most.
        share: The share of each window that is yielded, where all processes read the same.
    """

    def __init__(
        self,
        make_reader: Callable[[], Reader],
        windows_per_epoch: int,
        batch_size: int,
        seed: int,
        num_samples: Callable[[Example], int],
        max_samples: float,
        share: Share,
    ) -> None:
        self.make_reader = make_reader
        self.windows_per_epoch = windows_per_epoch
        self.batch_size = batch_size
        self.seed = seed
        self.num_samples = num_samples
        self.max_samples = max_samples
        self.share = share
        self._begin = self._end = 0
        self._sizes: list[int] = []
        self._begun: Iterator[Any] = iter(())
        self._positions = {0: {"reader": make_reader().state(), "window": 0}}

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Chooses the windows of the next iteration: an epoch's, from so many on, which must have been reached.

        The first block is read now: an error while a DataLoader is starting would leave its processes behind.
        """
        self._begin, self._end = (epoch - 1) * self.windows_per_epoch + start, epoch * self.windows_per_epoch
        self._positions = {self._begin: self._positions[self._begin]}
        self._sizes = []
        self._begun = iter(())
        if self._begin < self._end:
            windows = self._windows(self._positions[self._begin])
            self._begun = itertools.chain([next(windows)], windows)

    def num_windows(self, _epoch: int) -> int:
        """Windows of that epoch."""
        return self.windows_per_epoch

    def position(self, epoch: int, windows: int) -> dict[str, Any]:
        """Where the stream stands after so many windows of an epoch, in plain types."""
        return self._positions[(epoch - 1) * self.windows_per_epoch + windows]

    def restore(self, epoch: int, windows: int, position: dict[str, Any]) -> None:
        """Goes on where a `position` was taken."""
        self._positions[(epoch - 1) * self.windows_per_epoch + windows] = position

    def __iter__(self) -> Iterator[list[StreamedClip]]:
        for number in range(self._begin + 1, self._end + 1):
            window, self._positions[number] = next(self._begun)
            self._sizes.append(len(window))
            yield from window
        self._begun = iter(())

    def window_sizes(self) -> Iterator[int]:
        """Batches of each window; to be asked for when the first batch of that window is there, or of one after it."""
        for number in range(self._end - self._begin):
            yield self._sizes[number]

    def _windows(self, position: dict[str, Any]) -> Iterator[tuple[list[list[StreamedClip]], dict[str, Any]]]:
        """Windows without end, each with the position after it."""
        reader, done = self.make_reader(), position["window"]
        reader.restore(position["reader"])
        with ThreadPoolExecutor(HEADER_THREADS, thread_name_prefix="headers") as pool:
            while True:
                trim()  # of the block before, whose clips are of sizes that leave holes
                begun = reader.state()
                windows = self._cut(self._block(reader), pool, done)
                while windows:  # each is let go of as soon as it is given away
                    done += 1
                    position = {"reader": begun, "window": done}
                    if len(windows) == 1:
                        position = {"reader": reader.state(), "window": 0}
                    yield windows.popleft(), position
                done = 0

    def _cut(self, clips: list[StreamedClip], pool: ThreadPoolExecutor, start: int) -> deque[list[list[StreamedClip]]]:
        """The windows of a block from so many on."""
        lengths = list(pool.map(self.num_samples, [clip.example for clip in clips]))
        batches = LengthBucketSampler(
            lengths, self.batch_size, self.seed, self.max_samples, share=self.share, min_buckets=1
        )
        batches.set_epoch(clips[0].pass_number * 2**40 + clips[0].number, start=start)  # a number of the block's own
        return deque([[clips[index] for index, _ in batch] for batch in window] for window in batches.windows())

    def _block(self, reader: Reader) -> list[StreamedClip]:
        """Clips of one pass, a whole number of windows unless it ends."""
        count, held, ended = self.share.window * self.batch_size, 0, False
        clips: list[StreamedClip] = []
        while len(clips) < BLOCK_CLIPS and held < BLOCK_BYTES and not (ended and clips):
            read = reader.read(count)
            clips += read
            held += sum(_num_bytes(clip.example) for clip in read)
            ended = len(read) < count
        return clips


@dataclass(frozen=True)
class StreamClips:
    """What makes an item of a streamed clip: a dataset whose keys are the clips themselves.

    Attributes:
        label2id: Id of each class by its name.
        multi_label: Whether a clip may have several.
        sampling_rate: Of the waveforms, in Hz.
        max_seconds: Longer clips are cut.
        augmentation: What changes them from pass to pass.
    """

    label2id: dict[str, int]
    multi_label: bool
    sampling_rate: int
    max_seconds: float
    augmentation: Augmentation

    def __getitem__(self, clip: StreamedClip) -> dict[str, Any]:
        """`waveform` (T,), `label` as in `Clips`, `index` and `name`; or only `name` and `error`, why it is no use."""
        example, crop = clip.example, self.augmentation.random_crop
        try:
            waveform = decode_example(example, self.sampling_rate, None if crop else self.max_seconds)
        except AudioError as error:
            return {"name": example.name, "error": str(error)}
        longest = min(len(waveform), audio.num_samples(self.max_seconds, self.sampling_rate))
        waveform = self.augmentation(waveform, longest, clip.pass_number, clip.number)
        return {"waveform": waveform, "label": self._target(example), "index": clip.number, "name": example.name}

    def num_samples(self, example: Example) -> int:
        """How long a clip will be, by its header; as long as any where that does not tell."""
        begin, longest = example.start or 0.0, self.max_seconds
        seconds = example.end - begin if example.end is not None else None
        if seconds is None or seconds > 0:
            whole = audio.header_seconds(_source(example))
            known = (seconds, None if whole is None else whole - begin, longest)
            longest = min(value for value in known if value is not None)
        return audio.num_samples(max(0.0, longest), self.sampling_rate)

    def _target(self, example: Example) -> np.ndarray:
        if not self.multi_label:
            return np.int64(self.label2id[example.label])
        target = np.zeros(len(self.label2id), dtype=np.float32)
        target[[self.label2id[label] for label in example.labels]] = 1.0
        return target


@dataclass(frozen=True)
class StreamCollator:
    """Collates the clips that could be read, if any.

    Attributes:
        collator: What collates them.
    """

    collator: Collator

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Their batch, with their `names`, and of each that is `unreadable` its name and the sentence that says why."""
        readable = [item for item in items if "error" not in item]
        batch: dict[str, Tensor] = self.collator(readable) if readable else {}
        unreadable = {item["name"]: item["error"] for item in items if "error" in item}
        return {**batch, "names": [item["name"] for item in readable], "unreadable": unreadable}


def _source(example: Example) -> Any:
    """Its audio, not decoded yet; None where it cannot be read, which decoding will say."""
    try:
        return example.source()
    except (AudioError, OSError):
        return None


def _num_bytes(example: Example) -> int:
    """Memory that its audio takes; none where that is in a file."""
    value = _source(example)
    if isinstance(value, Mapping):
        value = value.get("array") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return len(value)
    return 0 if value is None or isinstance(value, (str, os.PathLike)) else np.asarray(value).nbytes
