"""Windows: every micro-batch once, in order, none carried over."""

import numpy as np
import pytest

from audioclf.accumulate import windows


@pytest.mark.parametrize("seed", range(20))
def test_as_many_as_are_wanted(seed):
    sizes = np.random.default_rng(seed).integers(0, 5, 30).tolist()
    made = list(windows(iter(range(sum(sizes))), sizes))
    assert [item for window in made for item in window] == list(range(sum(sizes)))
    assert [len(window) for window in made] == sizes


def test_no_more_is_taken_than_a_step_needs():
    """Else a step would wait for the next one's clips, and an interrupted epoch lose some."""
    taken = []
    stream = windows((taken.append(i) or i for i in range(10)), [3, 3, 3, 1])
    assert taken == []
    assert next(stream) == [0, 1, 2]
    assert taken == [0, 1, 2]


def test_windows_are_lists_of_their_own():
    first, second = windows([1, 2, 3, 4], [2, 2])
    first.clear()
    assert second == [3, 4]


def test_an_error_of_the_loader_is_not_the_end_of_the_epoch():
    def loader():
        yield from range(4)
        raise RuntimeError("worker died")

    stream = windows(loader(), [3, 3])
    assert next(stream) == [0, 1, 2]
    with pytest.raises(RuntimeError, match="worker died"):
        next(stream)
