"""Ways through a stream of clips: all of them again and again, each pass in another order, from anywhere once more."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from .datasets.base import Example
from .datasets.rows import RowStream, told
from .errors import ConfigError, DatasetError


class StreamedClip(NamedTuple):
    """A clip on its way into training, not decoded yet.

    Attributes:
        example: The clip.
        number: What it is known by in its pass.
        pass_number: The pass, counted from 1: as the epochs of other data, what augmentation is drawn for.
    """

    example: Example
    number: int
    pass_number: int


class Reader(Protocol):
    """One process's way through a stream.

    Attributes:
        is_shared: Whether all processes of a job read the same clips, and share them out.
    """

    is_shared: bool

    def read(self, count: int) -> list[StreamedClip]:
        """The next clips of the pass; fewer, or none, only at its end, after which the next one begins."""

    def state(self) -> dict[str, Any]:
        """Where it stands, in plain types."""

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to where another one stood."""


class TableReader:
    """Reads clips that are known beforehand in a random order.

    Args:
        examples: The clips.
        seed: Seed of the order.
    """

    is_shared = True

    def __init__(self, examples: Sequence[Example], seed: int) -> None:
        self.examples, self.seed = examples, seed
        self._order = np.zeros(0, dtype=np.int64)
        self.restore({"pass": 1, "row": 0})

    def read(self, count: int) -> list[StreamedClip]:
        """As `Reader.read`."""
        if not len(self._order):
            self._order = np.random.default_rng([self.seed, self._pass]).permutation(len(self.examples))
        rows = self._order[self._row : self._row + count].tolist()
        clips = [StreamedClip(self.examples[row], row, self._pass) for row in rows]
        at_end = len(clips) < count
        self.restore({"pass": self._pass + at_end, "row": 0 if at_end else self._row + count})
        return clips

    def state(self) -> dict[str, Any]:
        """As `Reader.state`."""
        return {"pass": self._pass, "row": self._row}

    def restore(self, state: dict[str, Any]) -> None:
        """As `Reader.restore`."""
        if state["pass"] != getattr(self, "_pass", None):
            self._order = self._order[:0]
        self._pass, self._row = state["pass"], state["row"]


class RowReader:
    """Reads the shards of a stream in a random order, each by one of the processes that a run began with.

    A process that has fewer clips than another begins the next pass earlier. Where a run began alone, or with more
    processes than there are shards, all read all of them and share the clips out.

    Args:
        stream: The stream.
        seed: Seed of the order of shards.
        rank, num_ranks: Which of the processes this is for.
        begun_with: Processes that the run began with.

    Raises:
        ConfigError: when shards were dealt out to another number of processes.
    """

    def __init__(
        self, stream: RowStream, seed: int, rank: int = 0, num_ranks: int = 1, begun_with: int | None = None
    ) -> None:
        begun_with = num_ranks if begun_with is None else begun_with
        self.is_shared = begun_with == 1 or stream.num_shards < begun_with
        if not self.is_shared and num_ranks != begun_with:
            raise ConfigError(
                f"{stream.name}: its shards were dealt out to {begun_with} processes, and a run on it goes on with as "
                f"many: start {begun_with}, or a new run in another output_dir."
            )
        self.stream, self.seed = stream, seed
        self._place, self._step = (0, 1) if self.is_shared else (rank, num_ranks)
        self.restore({"pass": 1, "shard": 0, "row": 0, "inner": None, "number": 0})

    def read(self, count: int) -> list[StreamedClip]:
        """As `Reader.read`.

        Raises:
            DatasetError: when the stream breaks off or has no clips, or a row is none.
        """
        clips: list[StreamedClip] = []
        while len(clips) < count:
            own = self._own_shards()
            if self._shard == len(own):
                if not self._number:
                    raise DatasetError(f"{self.stream.name}: the stream, or this process's share of it, has no clips.")
                self.restore({"pass": self._pass + 1, "shard": 0, "row": 0, "inner": None, "number": 0})
                break
            shard = int(own[self._shard])
            if self._rows is None:
                self._data = self.stream.shard(shard, self._inner)
                self._rows = told(self.stream, self._data)
            row = next(self._rows, None)
            if row is None:
                self._shard, self._row, self._rows, self._inner = self._shard + 1, 0, None, None
                continue
            example = self.stream.example(row, f"shard {shard}, row {self._row}")
            # Apart from those of the other processes, so that augmentation is.
            clips.append(StreamedClip(example, self._number * self._step + self._place, self._pass))
            self._row += 1
            self._number += 1
        return clips

    def state(self) -> dict[str, Any]:
        """As `Reader.state`; where the shard being read stands is its own `state_dict`."""
        inner = self._inner if self._rows is None else self._data.state_dict()
        counts = {"pass": self._pass, "shard": self._shard, "row": self._row, "number": self._number}
        return {**counts, "inner": inner}

    def restore(self, state: dict[str, Any]) -> None:
        """As `Reader.restore`."""
        self._pass, self._shard, self._row = state["pass"], state["shard"], state["row"]
        self._number, self._inner = state["number"], state["inner"]
        self._rows: Iterator[Any] | None = None

    def _own_shards(self) -> np.ndarray:
        order = np.random.default_rng([self.seed, self._pass]).permutation(self.stream.num_shards)
        return order[self._place :: self._step]
