"""Windows: every micro-batch once, in order, none carried over."""

import pytest

from audioclf.accumulate import num_windows, windows


@pytest.mark.parametrize("size", range(1, 17))
def test_every_length(size):
    for length in range(81):
        made = list(windows(iter(range(length)), size))
        assert [item for window in made for item in window] == list(range(length))
        assert all(len(window) == size for window in made[:-1])
        assert all(0 < len(window) <= size for window in made)
        assert len(made) == num_windows(length, size)


def test_no_more_is_taken_than_a_step_needs():
    """Else a step would wait for the next one's clips, and an interrupted epoch lose some."""
    taken = []
    stream = windows((taken.append(i) or i for i in range(10)), 3)
    assert taken == []
    assert next(stream) == [0, 1, 2]
    assert taken == [0, 1, 2]


def test_windows_are_lists_of_their_own():
    first, second = windows([1, 2, 3, 4], 2)
    first.clear()
    assert second == [3, 4]


def test_an_error_of_the_loader_is_not_the_end_of_the_epoch():
    def loader():
        yield from range(4)
        raise RuntimeError("worker died")

    stream = windows(loader(), 3)
    assert next(stream) == [0, 1, 2]
    with pytest.raises(RuntimeError, match="worker died"):
        next(stream)
