"""Gradient accumulation by windows: an optimizer step owns the list of its micro-batches.

The last window of an epoch is simply a shorter list, so no micro-batch is ever dropped, carried into the next
epoch or weighted by a number of micro-batches that did not come.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def windows(micro_batches: Iterable[T], sizes: Iterable[int]) -> Iterator[list[T]]:
    """Yields lists of so many consecutive micro-batches each.

    A size is asked for once the next micro-batch is there, or there are no more.

    >>> list(windows("abcde", [2, 2, 1]))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    iterator, sizes = iter(micro_batches), iter(sizes)
    following: list[T] = []
    while True:
        following = following or list(islice(iterator, 1))
        size = next(sizes, None)
        if size is None:
            return
        window = [*following[:size], *islice(iterator, max(0, size - 1))]
        following = [] if size else following
        yield window
