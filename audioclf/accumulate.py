"""Gradient accumulation by windows: an optimizer step owns the list of its micro-batches.

The last window of an epoch is simply a shorter list, so no micro-batch is ever dropped, carried into the next
epoch or weighted by a number of micro-batches that did not come.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def windows(micro_batches: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yields lists of `size` consecutive micro-batches; the last one holds what is left.

    >>> list(windows("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    iterator = iter(micro_batches)
    while window := list(islice(iterator, size)):
        yield window


def num_windows(num_micro_batches: int, size: int) -> int:
    """Windows that `windows` yields for that many micro-batches."""
    return -(-num_micro_batches // size)
