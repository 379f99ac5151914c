"""The quick part of `python -m tests.faults`; all of it under the mark `slow`."""

import pytest
from faults.harness import write_corpus
from faults.matrix import ROWS


@pytest.mark.parametrize("row", sorted(ROWS))
def test_quick(row, tmp_path):
    figures = ROWS[row](tmp_path, write_corpus(tmp_path / "data"), True)
    assert figures  # each row asserts what has to hold by itself


@pytest.mark.slow
@pytest.mark.parametrize("row", sorted(ROWS))
def test_whole(row, tmp_path):
    figures = ROWS[row](tmp_path, write_corpus(tmp_path / "data"), False)
    assert figures
