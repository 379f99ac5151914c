"""The Python of the guides runs: each page's blocks one after the other, on small data laid out as they say."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import write_tone

import audioclf

DOCS = Path(__file__).parent.parent / "docs"


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def small_runs(quick, monkeypatch):
    """The blocks' own options, with a tiny encoder and one epoch."""
    small = {**quick, "num_epochs": 1}
    for name in ("train", "cross_validate"):
        call = partial(getattr(audioclf, name), **small)
        monkeypatch.setattr(audioclf, name, lambda data, call=call, num_epochs=None, **options: call(data, **options))


def test_extending(tmp_path, monkeypatch, small_runs):
    rng = np.random.default_rng(0)
    for speaker in ("03", "08", "09", "10"):
        for number, code in enumerate("WLEAFNT"):
            write_tone(tmp_path / f"EmoDB/wav/{speaker}a01{code}a.wav", 300 * (number + 1), 0.3, rng, rate=16_000)
    for speaker in ("anna", "ben", "chris", "dora"):
        write_tone(tmp_path / f"recordings/wake/{speaker}-01.wav", 900, 0.5, rng)
        write_tone(tmp_path / f"recordings/other/{speaker}-01.wav", 300, 0.5, rng)
        write_tone(tmp_path / f"recordings/rooms/{speaker}'s room.wav", 3000, 3.2, rng)
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks("extending.md"):
        exec(compile(block, "extending.md", "exec"), names)
    emotions = names["emodb"]("EmoDB/wav")
    assert len(emotions.train) == 28
    assert emotions.train[0] == audioclf.Example("EmoDB/wav/03a01Aa.wav", "fear", group="03", fold="03")
    assert len(names["scores"].runs) == 4
    words = names["wake_word"]("recordings")
    assert len(words.train) == 4 + 4 + 4 * 3
    assert names["result"].best_metrics["accuracy"] >= 0
