"""Sounds in time: windows are clips like any other, a stream is the whole sound, segments are where labels hold."""

import gc
import itertools
import json
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from conftest import RATE, TONES, random_cases, tiny_config, write_tone
from transformers import HubertForSequenceClassification, Wav2Vec2FeatureExtractor, pipeline

import audioclf
from audioclf import AudioError, ConfigError
from audioclf.cli import main
from audioclf.timeline import batched, choose_window, find_segments, windows

MODEL_RATE = 16_000
PLAN = (("high", 2.0), ("low", 3.0), ("mid", 1.5), ("low", 1.0), ("high", 2.5))
"""What sounds for how many seconds in the glued file."""


@pytest.fixture(scope="module")
def classifier(trained):
    return audioclf.load(trained.checkpoint_dir, device="cpu")


@pytest.fixture(scope="module")
def tags(tmp_path_factory):
    """A multi-label checkpoint with random weights, scores around 0.5 and thresholds of its own, and no limit."""
    folder = tmp_path_factory.mktemp("tags")
    torch.manual_seed(0)
    names = dict(enumerate("abcd"))
    config = tiny_config(
        id2label=names,
        label2id={name: number for number, name in names.items()},
        problem_type="multi_label_classification",
        initializer_range=0.2,
    )
    HubertForSequenceClassification(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    (folder / "audioclf.json").write_text(json.dumps({"thresholds": [0.5, 0.48, 0.52, 0.55]}))
    return audioclf.load(folder, device="cpu")


@pytest.fixture(scope="module")
def glued(tmp_path_factory):
    """A file in which one tone follows another."""
    folder = tmp_path_factory.mktemp("glued")
    rng = np.random.default_rng(7)
    pieces = []
    for label, seconds in PLAN:
        write_tone(folder / "piece.wav", TONES[label], seconds, rng)
        pieces.append(soundfile.read(folder / "piece.wav", dtype="float32")[0])
    soundfile.write(folder / "glued.wav", np.concatenate(pieces), RATE, subtype="FLOAT")
    return folder / "glued.wav"


def noise(seconds: float, rate: int = MODEL_RATE, seed: int = 0) -> np.ndarray:
    """Noise whose loudness and colour change all the time, (T,) float32."""
    rng = np.random.default_rng(seed)
    sound = rng.standard_normal(round(seconds * rate))
    time = np.arange(len(sound)) / rate
    sound *= 0.2 + 0.1 * np.sin(3 * time)
    return (sound + 0.3 * np.sin(2 * np.pi * (200 + 300 * time) * time)).astype(np.float32) / 3


def sound_of(array: np.ndarray, rate: int = MODEL_RATE) -> dict:
    return {"array": array, "sampling_rate": rate}


def in_pieces(array: np.ndarray, rng: np.random.Generator, longest: int):
    """Blocks of random lengths, empty ones too."""
    position = 0
    while position < len(array):
        length = int(rng.integers(0, longest + 1))
        yield array[position : position + length]
        position += length


class TestWindows:
    @pytest.mark.parametrize("which", ["classifier", "tags"])
    def test_each_is_a_clip_of_its_own(self, which, request, tmp_path):
        """Cut by hand and classified alone: the same scores, for one label and for many."""
        classifier = request.getfixturevalue(which)
        sound = noise(5.33)
        soundfile.write(tmp_path / "sound.wav", sound, MODEL_RATE, subtype="FLOAT")
        timeline = classifier.timeline(tmp_path / "sound.wav", window_seconds=0.7, hop_seconds=0.3)
        samples = (timeline.times * MODEL_RATE).round().astype(int)
        starts = [*range(0, len(sound) - 11_200 + 1, 4800), len(sound) - 11_200]
        np.testing.assert_array_equal(samples, [[start, start + 11_200] for start in starts])
        assert timeline.labels == classifier.labels
        assert timeline.scores.dtype == np.float32
        for (start, end), row in zip(samples, timeline.scores, strict=True):
            alone = classifier.probabilities([sound_of(sound[start:end])])[0]
            np.testing.assert_allclose(row, alone, atol=1e-6)

    def test_transformers_says_the_same(self, trained, classifier):
        pipe = pipeline("audio-classification", model=str(trained.checkpoint_dir), device="cpu")
        sound = noise(2.0)
        timeline = classifier.timeline(sound_of(sound), window_seconds=0.5)
        assert len(timeline.times) == 7
        for (start, end), row in zip((timeline.times * MODEL_RATE).round().astype(int), timeline.scores, strict=True):
            theirs = {entry["label"]: entry["score"] for entry in pipe(sound_of(sound[start:end]))}
            assert dict(zip(timeline.labels, row, strict=True)) == pytest.approx(theirs, abs=1e-5)

    def test_another_rate_and_two_channels(self, classifier, tmp_path):
        """Windows are cut after resampling the whole; resampling each alone differs by the filter's edges."""
        rate = 44_100
        stereo = np.stack([noise(4.0, rate, 1), noise(4.0, rate, 2)], axis=1)
        soundfile.write(tmp_path / "stereo.flac", stereo, rate, subtype="PCM_24")
        timeline = classifier.timeline(str(tmp_path / "stereo.flac"), window_seconds=1.0, hop_seconds=0.5)
        mono = soundfile.read(tmp_path / "stereo.flac", dtype="float32")[0].mean(axis=1)
        whole = soxr.resample(mono, rate, MODEL_RATE, quality="HQ")
        assert timeline.times.tolist() == [[start / 2, start / 2 + 1] for start in range(7)]
        for (start, end), row in zip(timeline.times, timeline.scores, strict=True):
            cut = whole[round(start * MODEL_RATE) : round(end * MODEL_RATE)]
            np.testing.assert_allclose(row, classifier.probabilities([sound_of(cut)])[0], atol=1e-6)
            early = mono[round(start * rate) : round(end * rate)]
            np.testing.assert_allclose(row, classifier.probabilities([sound_of(early, rate)])[0], atol=1e-3)

    def test_batches_and_forms_do_not_matter(self, classifier, glued):
        one = classifier.timeline(glued, batch_size=1, hop_seconds=0.2)
        many = classifier.timeline(glued.read_bytes(), batch_size=64, hop_seconds=0.2)
        samples, rate = soundfile.read(glued, dtype="float32")
        array = classifier.timeline(sound_of(np.stack([samples, samples]), rate), hop_seconds=0.2)
        for other in (many, array):
            np.testing.assert_array_equal(other.times, one.times)
            np.testing.assert_allclose(other.scores, one.scores, atol=1e-6)

    def test_defaults(self, classifier, tags, glued, tones):
        """As long as the clips of training, or 5 s; half of one window is also the next one's."""
        clips = [soundfile.info(clip.audio).duration for clip in audioclf.load_dataset(tones).train]
        assert classifier.clip_seconds == pytest.approx(np.median(clips), abs=1e-3)
        times = classifier.timeline(glued).times
        assert times[0, 1] == pytest.approx(classifier.clip_seconds, abs=1e-4)
        assert times[1, 0] == pytest.approx(classifier.clip_seconds / 2, abs=1e-4)
        assert tags.clip_seconds is None
        assert tags.timeline(sound_of(noise(11.0))).times.tolist() == [[0, 5], [2.5, 7.5], [5, 10], [6, 11]]

    @pytest.mark.parametrize("num_samples", [1, 399, 400, 4000, 7999])
    def test_a_sound_shorter_than_a_window_is_one(self, classifier, num_samples):
        sound = noise(1.0)[:num_samples]
        timeline = classifier.timeline(sound_of(sound), window_seconds=0.5)
        assert timeline.times.tolist() == [[0, num_samples / MODEL_RATE]]
        np.testing.assert_allclose(timeline.scores, classifier.probabilities([sound_of(sound)]), atol=1e-6)
        (segment,) = timeline.segments
        assert (segment.start, segment.end) == (0, num_samples / MODEL_RATE)

    @random_cases(3000, few=500)
    def test_cutting_against_a_plain_loop(self, cases):
        """Many sounds, windows, hops and blocks: every sample is heard, every window in its place."""
        for case in cases:
            rng = np.random.default_rng(case)
            sound = np.arange(rng.integers(1, 200), dtype=np.float32)
            window = int(rng.integers(1, 60))
            hop = int(rng.integers(1, window + 1))
            starts = list(range(0, len(sound) - window + 1, hop))
            if not starts:
                expected = [(0, len(sound))]
            else:
                expected = [(start, start + window) for start in starts]
                if expected[-1][1] < len(sound):
                    expected.append((len(sound) - window, len(sound)))
            ready = list(windows(in_pieces(sound, rng, int(rng.integers(1, 100))), window, hop))
            assert all(ready)
            found = list(itertools.chain.from_iterable(ready))
            assert [(start, start + len(samples)) for start, samples in found] == expected
            for start, samples in found:
                np.testing.assert_array_equal(samples, sound[start : start + len(samples)])
            assert set(np.concatenate([samples for _, samples in found])) == set(sound)

    def test_cutting_holds_little(self):
        """Ten minutes in blocks of 10 ms, 38 MB: no more than windows, hops and blocks are in memory at a time."""
        blocks = (np.zeros(160, dtype=np.float32) for _ in range(60_000))
        tracemalloc.start()
        num_windows = sum(len(ready) for ready in windows(blocks, 16_000, 8000))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert num_windows == 1199
        assert peak < 1e6

    def test_batched(self):
        assert list(batched(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
        assert list(batched([], 3)) == []


class TestStream:
    @pytest.mark.parametrize(("rate", "channels"), [(16_000, None), (44_100, 2), (8000, 1), (48_000, None)])
    def test_equals_the_whole(self, rate, channels, classifier):
        """Ten random divisions each, blocks from nothing to two seconds."""
        rng = np.random.default_rng(rate)
        mono = noise(3.21, rate, seed=rate)
        sound = mono if channels is None else np.stack([mono, 0.5 * mono[::-1]], axis=1)[:, :channels]
        options = {"window_seconds": 0.4, "hop_seconds": 0.15}
        whole = classifier.timeline(sound_of(sound, rate), **options)
        for longest in (40, 1000, 1000, 5000, 5000, 5000, 20_000, 2 * rate, 2 * rate, 10**6):
            found = list(classifier.stream(in_pieces(sound, rng, longest), sampling_rate=rate, top_k=2, **options))
            np.testing.assert_array_equal([(window.start, window.end) for window in found], whole.times)
            np.testing.assert_allclose([window.scores for window in found], whole.scores, atol=1e-5)
            for window in found:
                order = np.argsort(-window.scores)[:2]
                assert [entry["label"] for entry in window.top] == [classifier.labels[index] for index in order]
                assert [entry["score"] for entry in window.top] == window.scores[order].tolist()

    def test_integers(self, classifier):
        """As sound cards give them."""
        sound = (noise(1.5) * 2**15).round().astype(np.int16)
        options = {"window_seconds": 0.5, "hop_seconds": 0.5}
        whole = classifier.timeline(sound_of(sound), **options).scores
        pieces = [sound[:9000], sound[9000:].astype(np.int32) * 2**16]
        found = list(classifier.stream(pieces, sampling_rate=MODEL_RATE, **options))
        np.testing.assert_allclose([window.scores for window in found], whole, atol=1e-6)

    def test_a_window_does_not_wait(self, classifier):
        """Each is there before the next block is asked for, as soon as its last sample has come."""
        given = []

        def microphone():
            for number in range(40):
                given.append(number)
                yield noise(0.05, seed=number)

        counts = []
        for window in classifier.stream(microphone(), sampling_rate=MODEL_RATE, window_seconds=0.5, hop_seconds=0.1):
            counts.append((round(window.end, 3), len(given)))
        assert counts == [(round(0.5 + 0.1 * number, 3), 10 + 2 * number) for number in range(16)]

    def test_resampling_holds_back_little(self, classifier):
        """At another rate the filter needs to see a little further."""
        given = []

        def microphone():
            for number in range(300):
                given.append(number)
                yield noise(0.01, 44_100, seed=number)

        options = {"sampling_rate": 44_100, "window_seconds": 0.5, "hop_seconds": 0.5}
        for window in itertools.islice(classifier.stream(microphone(), **options), 4):
            assert 0 <= len(given) * 0.01 - window.end < 0.06  # seconds

    def test_detected(self, tags):
        (window,) = tags.stream([noise(1.0)], sampling_rate=MODEL_RATE, top_k=None)
        expected = tags(sound_of(noise(1.0)), top_k=None)
        assert [(e["label"], e["detected"]) for e in window.top] == [(e["label"], e["detected"]) for e in expected]
        assert len({entry["detected"] for entry in expected}) == 2


def by_nearest_centre(times, active, scores, labels):
    """Every instant belongs to the window with the nearest centre; stretches of instants with a label are segments."""
    step = 0.5
    instants = np.arange(times[0, 0] + step / 2, times[-1, 1], step)
    owners = np.abs(instants[:, None] - times.mean(axis=1)).argmin(axis=1)
    found = []
    for column, label in enumerate(labels):
        position = 0
        for holds, run in itertools.groupby(active[owners, column].tolist()):
            length = len(list(run))
            if holds:
                heard = sorted(set(owners[position : position + length].tolist()))
                score = sum(float(scores[window, column]) for window in heard) / len(heard)
                start = times[0, 0] + position * step
                found.append((start, column, start + length * step, label, score))
            position += length
    return [(start, end, label, score) for start, _, end, label, score in sorted(found)]


class TestSegments:
    @pytest.mark.parametrize("multi_label", [False, True])
    def test_against_a_plain_reference(self, multi_label):
        rng = np.random.default_rng(int(multi_label))
        for _ in range(600):
            num_windows, num_classes = rng.integers(1, 30), rng.integers(1, 6)
            labels = [f"label {number}" for number in range(num_classes)]
            hop, window = 2 * int(rng.integers(1, 5)), 2 * int(rng.integers(4, 10))
            starts = np.arange(num_windows) * float(hop)
            if num_windows > 1:
                starts[-1] -= 2 * rng.integers(0, hop // 2)  # moved back, to end with the sound
            times = np.stack([starts, starts + window], axis=1)
            scores = rng.integers(0, 6, (num_windows, num_classes)).astype(np.float32) / 5  # with ties
            if multi_label:
                threshold = rng.integers(0, 7, num_classes) / 5
                active = np.array([[s >= t for s, t in zip(row, threshold, strict=True)] for row in scores])
            else:
                threshold = float(rng.integers(0, 7)) / 5
                best = [row.tolist().index(max(row.tolist())) for row in scores]
                active = np.array(
                    [
                        [c == b and row[c] >= threshold for c in range(num_classes)]
                        for row, b in zip(scores.astype(np.float64), best, strict=True)
                    ]
                )
            found = find_segments(times, scores, labels, threshold, multi_label)
            expected = by_nearest_centre(times, active, scores, labels)
            assert [(s.start, s.end, s.label) for s in found] == [row[:3] for row in expected]
            assert [s.score for s in found] == pytest.approx([row[3] for row in expected])
            if not multi_label:
                assert all(a.end <= b.start for a, b in itertools.pairwise(found))

    def test_a_trained_model_finds_what_sounds(self, classifier, glued):
        """Each change to half a window; a window across a change may say anything, for less than its length."""
        timeline = classifier.timeline(glued, window_seconds=0.5, hop_seconds=0.1)
        assert timeline.segments[0].start == 0
        assert timeline.segments[-1].end == pytest.approx(sum(seconds for _, seconds in PLAN))
        long = [segment for segment in timeline.segments if segment.end - segment.start > 0.5]
        assert [segment.label for segment in long] == [label for label, _ in PLAN]
        changes = np.cumsum([seconds for _, seconds in PLAN])[:-1]
        for (before, after), change in zip(itertools.pairwise(long), changes, strict=True):
            assert abs(before.end - change) <= 0.25
            assert abs(after.start - change) <= 0.25

    def test_threshold(self, classifier, tags, glued):
        """The checkpoint's own, or one for all; scores do not change."""
        least = classifier.timeline(glued)
        assert sum(s.end - s.start for s in least.segments) == pytest.approx(10)
        highest = least.scores.max(axis=0)
        most = classifier.timeline(glued, threshold=float(np.sort(highest)[-2:].mean()))
        np.testing.assert_array_equal(most.scores, least.scores)
        assert {segment.label for segment in most.segments} == {classifier.labels[highest.argmax()]}
        assert classifier.timeline(glued, threshold=1.0).segments == ()

        own = tags.timeline(sound_of(noise(9.0)), window_seconds=0.5)
        assert own.segments == find_segments(own.times, own.scores, "abcd", [0.5, 0.48, 0.52, 0.55], True)
        lower = tags.timeline(sound_of(noise(9.0)), window_seconds=0.5, threshold=0.1)
        assert own.segments != lower.segments == find_segments(own.times, own.scores, "abcd", 0.1, True)


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"window_seconds": 0.01}, r"window_seconds=0.01 is less than the encoder needs .* at least 0.025\."),
            ({"window_seconds": 31}, r"window_seconds=31 is more than the 30 s to which .* give at most 30\."),
            ({"window_seconds": 0}, "window_seconds=0 must be a number above 0"),
            ({"window_seconds": float("nan")}, "window_seconds=nan must be a number above 0"),
            ({"window_seconds": 1.0, "hop_seconds": 0}, "hop_seconds=0 must be a number above 0"),
            ({"window_seconds": 1.0, "hop_seconds": -1}, "hop_seconds=-1 must be a number above 0"),
            ({"window_seconds": 1.0, "hop_seconds": 1.5}, "hop_seconds=1.5 is more than the window of 1 s, so that"),
            ({"hop_seconds": 3.0}, r"hop_seconds=3 is more than the window of 0\.5\d+ s"),
            ({"batch_size": 0}, "batch_size=0 must be a whole number"),
        ],
    )
    def test_options(self, options, sentence, classifier, glued):
        with pytest.raises(ConfigError, match=sentence):
            classifier.timeline(glued, **options)
        with pytest.raises(ConfigError, match=sentence):  # right away, not at the first window
            classifier.stream([], sampling_rate=MODEL_RATE, **options)

    def test_more_options(self, classifier, glued):
        with pytest.raises(ConfigError, match="threshold=2 must be a number at least 0 and at most 1"):
            classifier.timeline(glued, threshold=2)
        with pytest.raises(ConfigError, match="top_k=0 must be a whole number"):
            classifier.stream([], sampling_rate=MODEL_RATE, top_k=0)
        with pytest.raises(AudioError, match="sampling_rate=0 is no rate in Hz; give that of the stream's blocks"):
            classifier.stream([], sampling_rate=0)

    def test_without_a_limit_a_window_may_be_long(self):
        known = {"sampling_rate": 100, "min_samples": 5, "clip_seconds": None, "max_seconds": None}
        assert choose_window(600, None, **known) == (60_000, 30_000)
        assert choose_window(None, 5.0, **known) == (500, 500)
        assert choose_window(None, None, **{**known, "max_seconds": 2.0}) == (200, 100)
        assert choose_window(None, None, **{**known, "clip_seconds": 0.01}) == (5, 2)

    def test_sounds(self, classifier, tmp_path):
        (tmp_path / "bad.wav").write_bytes(b"nothing")
        broken = noise(3.0)
        broken[40_000] = np.nan
        soundfile.write(tmp_path / "nan.wav", broken, MODEL_RATE, subtype="FLOAT")
        soundfile.write(tmp_path / "none.wav", broken[:0], MODEL_RATE)
        for sound, sentence in [
            (tmp_path / "bad.wav", r"bad\.wav.*libsndfile cannot read it"),
            (tmp_path / "nowhere.wav", r"nowhere\.wav': no such file"),
            (tmp_path / "nan.wav", r"nan\.wav': holds NaN or infinite samples"),
            (tmp_path / "none.wav", r"none\.wav': holds no samples"),
            (sound_of(np.zeros(0)), "'<array>': holds no samples"),
            ([tmp_path / "nan.wav"], "list is no audio: give a path"),
        ]:
            with pytest.raises(AudioError, match=sentence):
                classifier.timeline(sound, window_seconds=0.5)

    @pytest.mark.parametrize(
        ("blocks", "sentence"),
        [
            ([np.zeros(9000), np.array([0.0, np.inf])], "Block 2 of the stream: holds NaN or infinite samples"),
            ([np.zeros(9000), np.zeros((5, 2))], r"Block 2 of the stream: has 2 channel\(s\), those before it 1"),
            ([np.zeros((10, 2)), np.zeros(9)], r"Block 2 of the stream: has 1 channel\(s\), those before it 2"),
            ([np.zeros((2, 1024))], "Block 1 of the stream: has 1024 channels; give arrays"),
            ([np.zeros((2, 0))], "Block 1 of the stream: has 0 channels"),
            ([np.zeros((2, 3, 4))], r"Block 1 of the stream: expected an array .* got float64 of shape \(2, 3, 4\)"),
            ([0.5], r"Block 1 of the stream: expected an array .* got float64 of shape \(\)"),
            ([np.zeros(9, dtype=np.uint8)], "Block 1 of the stream: expected an array .* got uint8"),
            ([b"bytes"], "Block 1 of the stream: expected an array"),
            ([], "The stream ended without any samples"),
            ([np.zeros(0), np.zeros((0, 2))], "The stream ended without any samples"),
            (np.zeros(9000), "ndarray is no stream: give an iterable of blocks"),
            ("song.wav", "str is no stream: give an iterable of blocks"),
            (7, "int is no stream: give an iterable of blocks"),
        ],
    )
    def test_blocks(self, blocks, sentence, classifier):
        with pytest.raises(AudioError, match=sentence):
            list(classifier.stream(blocks, sampling_rate=MODEL_RATE, window_seconds=0.5))

    def test_windows_before_a_bad_block_were_given(self, classifier):
        blocks = [noise(1.0), np.full(10, np.nan, dtype=np.float32)]
        stream = classifier.stream(blocks, sampling_rate=MODEL_RATE, window_seconds=0.5, hop_seconds=0.5)
        assert [window.end for window in itertools.islice(stream, 2)] == [0.5, 1.0]
        with pytest.raises(AudioError, match="Block 2"):
            next(stream)

    def test_no_thread_and_no_file_is_left(self, classifier, tmp_path, monkeypatch):
        """After a fault of the file, and after an interrupt in the middle of it."""

        def interrupted(*_):
            raise KeyboardInterrupt

        def num_open():
            return sum(type(o) is soundfile.SoundFile and not o.closed for o in gc.get_objects())

        soundfile.write(tmp_path / "cut.wav", noise(4.0), MODEL_RATE)
        with open(tmp_path / "cut.wav", "r+b") as file:
            file.truncate(60_000)
        soundfile.write(tmp_path / "long.wav", np.tile(noise(10.0), 30), MODEL_RATE)
        threads, files = threading.active_count(), num_open()
        with pytest.raises(AudioError, match=r"cut\.wav': is truncated"):
            classifier.timeline(tmp_path / "cut.wav", window_seconds=0.5)
        monkeypatch.setattr(type(classifier), "_probabilities", interrupted)
        with pytest.raises(KeyboardInterrupt):
            classifier.timeline(tmp_path / "long.wav", window_seconds=0.5)
        assert threading.active_count() == threads
        assert num_open() == files


class TestCommand:
    def test_table_and_json(self, trained, classifier, glued, tmp_path, capsys):
        (tmp_path / "bad.wav").write_text("no sound")
        files, options = [str(glued)], ["--timeline", "--window-seconds", "0.5"]
        words = ["predict", str(trained.checkpoint_dir)]
        segments = classifier.timeline(glued, window_seconds=0.5).segments
        assert main([*words, *files, *options]) == 0
        first, headings, *lines = capsys.readouterr().out.splitlines()
        assert first == f"{glued}:"
        assert headings.split() == ["start", "end", "label", "score"]
        assert [line.split() for line in lines] == [
            [f"{s.start:.2f}", f"{s.end:.2f}", s.label, f"{s.score:.3f}"] for s in segments
        ]
        more = ["--json", "--hop-seconds", "0.25", "--threshold", "0.2"]
        assert main([*words, str(tmp_path / "bad.wav"), *files, *options, *more]) == 2
        told = capsys.readouterr()
        broken, found = map(json.loads, told.out.splitlines())
        assert "libsndfile cannot read it" in broken["error"]
        assert found == {"file": str(glued), "segments": [vars(segment) for segment in segments]}
        assert "bad.wav': libsndfile cannot read it" in told.err
        assert main([*words, *files, *options, "--threshold", "1"]) == 0
        assert capsys.readouterr().out == f"{glued}: nothing reaches its threshold\n"

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["--hop-seconds", "1"], "hop_seconds=1 means nothing without --timeline"),
            (["--threshold", "0.5"], "threshold=0.5 means nothing without --timeline"),
            (["--timeline", "--top-k", "2"], "top_k=2 means nothing with --timeline"),
            (["--timeline", "--window-seconds", "0.5", "--hop-seconds", "1"], "hop_seconds=1 is more than the window"),
        ],
    )
    def test_refusals(self, words, sentence, trained, glued, capsys):
        assert main(["predict", str(trained.checkpoint_dir), str(glued), *words]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert sentence in told.err


MEASURE = """
import json, sys, time
import audioclf
from peak import peak_mib
checkpoint, *files = sys.argv[1:]
classifier = audioclf.load(checkpoint, device="cpu")
rows = []
for file in files:
    began = time.perf_counter()
    timeline = classifier.timeline(file, window_seconds=1.0, hop_seconds=1.0)
    seconds = time.perf_counter() - began
    rows.append([timeline.times[-1, 1], seconds, peak_mib()])
print(json.dumps(rows))
"""


@pytest.mark.slow
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_two_hours_need_the_memory_of_ten_minutes(rate, trained, tmp_path):
    """Peak memory of a fresh process, and faster than real time. 2 h of samples alone would be 440 MiB."""
    lengths = {"short.flac": 600, "long.flac": 7200}
    minute = np.stack([noise(60.0, rate)] * (1 if rate == 16_000 else 2), axis=1)
    for name, seconds in lengths.items():
        with soundfile.SoundFile(tmp_path / name, "w", rate, minute.shape[1], subtype="PCM_16") as file:
            for _ in range(seconds // 60):
                file.write(minute)
    peaks = {}
    for name, seconds in lengths.items():
        command = [sys.executable, "-c", MEASURE, trained.checkpoint_dir, tmp_path / name]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
        assert done.returncode == 0, done.stderr
        ((end, took, peaks[name]),) = json.loads(done.stdout)
        assert end == seconds
        assert took < seconds / 10
        print(f"{rate} Hz, {seconds} s: {seconds / took:.0f} times real time, peak {peaks[name]:.0f} MiB")
    assert peaks["long.flac"] - peaks["short.flac"] < 100, peaks
