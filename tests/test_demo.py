"""The embedded music: the same everywhere, written once, and not to be told apart by loudness."""

import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audioclf import DatasetError, Example, load_dataset
from audioclf.datasets.demo import music

RACE = """
import sys, numpy as np
from audioclf import load_dataset
from audioclf.datasets.demo import music
music.synthesise = lambda style, index: np.full(100, 0.1, np.float32)  # the race is for the folder, not the sound
sys.stdin.read()
splits = load_dataset("demo", root=sys.argv[1])
print(len(splits.train) + len(splits.valid))
"""


@pytest.fixture(scope="module", params=["few", pytest.param("all", marks=pytest.mark.slow)])
def corpus(request, tmp_path_factory) -> Iterator[Path]:
    """The corpus, or one of fewer clips of each style: the whole takes a while."""
    root = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "few":
            patch.setattr(music, "CLIPS_PER_STYLE", {"train": 10, "valid": 3})
        load_dataset("demo", root=root)
        yield root


def examples(root: Path | str) -> list[Example]:
    splits = load_dataset("demo", root=root)
    return [*splits.train, *splits.valid]


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_parts(corpus):
    splits = load_dataset("demo", root=corpus)
    assert splits.labels == music.LABELS == tuple(sorted(music.LABELS))
    assert len(music.LABELS) == 10
    assert splits.test == ()
    for part in (splits.train, splits.valid):
        counts = Counter(example.label for example in part)
        assert set(counts) == set(music.LABELS)
        assert len(set(counts.values())) == 1
    assert 0.1 <= len(splits.valid) / len(splits.train) <= 0.5
    assert any("synthetic" in note and "nothing about real music" in note for note in splits.notes)


def test_processes_at_once(tmp_path):
    """All see it whole; one folder is left, and no scraps."""
    command = [sys.executable, "-c", RACE, str(tmp_path / "new" / "root")]
    racers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for racer in racers:
        racer.stdin.close()
    said = {racer.stdout.read() for racer in racers}
    assert [racer.wait() for racer in racers] == [0, 0, 0]
    (folder,) = (tmp_path / "new" / "root").iterdir()
    assert said == {f"{len(digest(folder))}\n"}


def test_written_once(corpus):
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    clips = examples(corpus)
    assert examples(str(corpus)) == clips
    assert {path: path.stat().st_mtime_ns for path in corpus.rglob("*")} == before
    assert {Path(clip.audio) for clip in clips} == {path for path in before if path.is_file()}


def test_files_are_sound(corpus):
    for clip in examples(corpus):
        info = soundfile.info(clip.audio)
        assert (info.samplerate, info.channels, info.format) == (music.SAMPLING_RATE, 1, "WAV")
    assert music.SAMPLING_RATE == 22_050


def test_no_clip_twice(corpus):
    """In particular none on both sides."""
    contents = digest(corpus)
    assert len(set(contents.values())) == len(contents)


def test_loudness_does_not_tell_the_styles(corpus):
    """Neither as the nearest mean nor as the best curve of the loudness in decibels."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import NearestCentroid
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    features, labels = {"train": [], "valid": []}, {"train": [], "valid": []}
    for clip in examples(corpus):
        samples, _ = soundfile.read(clip.audio)
        features[clip.split].append([20 * np.log10(np.sqrt(np.mean(samples**2)))])
        labels[clip.split].append(clip.label)
    curve = make_pipeline(PolynomialFeatures(2), StandardScaler(), LogisticRegression(max_iter=1000))
    for model in (NearestCentroid(), curve):
        accuracy = model.fit(features["train"], labels["train"]).score(features["valid"], labels["valid"])
        assert accuracy < 0.3, model


@pytest.mark.parametrize("style", music.LABELS)
def test_synthesis(style):
    first, second = music.synthesise(style, 0), music.synthesise(style, 1)
    assert first.dtype == np.float32
    assert first.ndim == 1
    assert len(first) == len(second) >= music.SAMPLING_RATE
    assert np.array_equal(first, music.synthesise(style, 0))
    assert not np.array_equal(first, second)
    for samples in (first, second):
        assert np.isfinite(samples).all()
        assert 0.01 < np.abs(samples).max() <= 1
        assert abs(samples.mean()) < 0.05
        blocks = np.array_split(samples, 6)
        assert all(np.abs(block).max() > 0 for block in blocks)


def test_files_hold_what_is_synthesised(corpus):
    for clip in examples(corpus)[::97]:
        style, number = Path(clip.audio).stem.rsplit(".", 1)
        assert style == clip.label
        samples, _ = soundfile.read(clip.audio, dtype="float32")
        assert np.allclose(samples, music.synthesise(style, int(number)), atol=1 / 32_000)


def test_another_process_plays_the_same():
    code = (
        "import sys; from audioclf.datasets.demo import music\n"
        "for style in music.LABELS[4], music.LABELS[3]: samples = music.synthesise(style, 7)\n"
        "sys.stdout.buffer.write(samples.tobytes())"
    )
    heard = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    assert heard == music.synthesise(music.LABELS[3], 7).tobytes()


def test_unknown_style():
    with pytest.raises(DatasetError, match=r"demo has no style 'polka'; choose one of "):
        music.synthesise("polka", 0)
