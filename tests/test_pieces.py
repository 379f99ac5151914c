"""Clips in pieces: trained on piece by piece, scored by the mean of their probabilities, the same everywhere."""

import numpy as np
import pytest
import soundfile
from conftest import tiny_config, write_tone
from scipy.special import expit, softmax
from transformers import WhisperConfig

import audioclf
from audioclf import ConfigError
from audioclf.audio import load
from audioclf.augment import Augmentation
from audioclf.clips import decode
from audioclf.pieces import piece_starts, pool

RATE = 16_000
CHUNK = 0.3


@pytest.fixture(scope="module")
def run(tones, quick, tmp_path_factory) -> audioclf.TrainResult:
    """On the tones of 0.3 to 0.9 s, in pieces of 0.3 s."""
    folder = tmp_path_factory.mktemp("pieces") / "out"
    return audioclf.train(tones, output_dir=folder, **{**quick, "chunk_seconds": CHUNK, "num_epochs": 3})


def by_hand(checkpoint, waveform: np.ndarray) -> np.ndarray:
    """Mean of the probabilities (C,) that the model gives for pieces cut by hand."""
    classifier = audioclf.load(checkpoint)
    classifier.chunk_seconds = None
    size = int(CHUNK * RATE)
    count = max(1, int(np.ceil(len(waveform) / size)))
    starts = [int(number * (len(waveform) - size) / max(1, count - 1)) for number in range(count)]
    pieces = [waveform[max(0, start) : max(0, start) + size] for start in starts]
    return np.mean([classifier.probabilities([{"array": p, "sampling_rate": RATE}])[0] for p in pieces], axis=0)


def test_pieces_cover_the_clip():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        num_samples, size = rng.integers(1, 5000), rng.integers(1, 1000)
        starts = piece_starts(int(num_samples), int(size))
        assert starts[0] == 0
        assert (np.diff(starts) > 0).all()
        assert (np.diff(starts) <= size).all()  # no sample between two pieces
        assert starts[-1] == max(0, num_samples - size)  # nor after them
        assert len(starts) == max(1, -(-num_samples // size))  # as few as do


def test_pooling_is_the_mean_of_probabilities():
    rng = np.random.default_rng(1)
    for _ in range(200):
        counts = rng.integers(1, 5, rng.integers(1, 6))
        firsts = np.cumsum(counts) - counts
        logits = rng.normal(0, 5, (counts.sum(), 4))
        parts = np.split(logits, firsts[1:])
        shared = softmax(pool(logits, firsts, multi_label=False), axis=1)
        apart = expit(pool(logits, firsts, multi_label=True))
        np.testing.assert_allclose(shared, [softmax(p, axis=1).mean(0) for p in parts], rtol=1e-12)
        np.testing.assert_allclose(apart, [expit(p).mean(0) for p in parts], rtol=1e-12)


@pytest.mark.parametrize("multi_label", [False, True])
def test_pooling_of_certainty_stays_finite(multi_label):
    pooled = pool(np.array([[900.0, -900.0], [800.0, -950.0]]), np.array([0]), multi_label)
    assert np.isfinite(pooled).all()
    assert pooled[0, 0] - pooled[0, 1] > 1000


def test_a_checkpoint_scores_files_by_their_pieces(run, tones):
    classifier = audioclf.load(run.checkpoint_dir)
    files = sorted((tones / "test").rglob("*.wav"))
    scores = classifier.probabilities(files, batch_size=5)
    for file, score in zip(files, scores, strict=True):
        np.testing.assert_allclose(score, by_hand(run.checkpoint_dir, load(str(file), RATE)), atol=1e-6)


def test_metrics_are_of_clips(run, tones):
    files = sorted((tones / "valid").rglob("*.wav"))
    labels = [file.parent.name for file in files]
    scores = np.array([by_hand(run.checkpoint_dir, load(str(file), RATE)) for file in files])
    names = audioclf.load(run.checkpoint_dir).labels
    own = scores[np.arange(12), [names.index(label) for label in labels]]
    assert run.best_metrics["loss"] == pytest.approx(-np.log(own).mean(), abs=1e-5)
    right = [names[row.argmax()] == label for row, label in zip(scores, labels, strict=True)]
    assert run.best_metrics["accuracy"] == pytest.approx(np.mean(right))
    again = audioclf.evaluate(run.checkpoint_dir, tones, split="valid")
    for name in ("loss", "ece"):
        assert again.pop(name) == pytest.approx(run.best_metrics[name], abs=1e-6)
    assert again == {name: value for name, value in run.best_metrics.items() if name not in ("loss", "ece")}
    predicted = (run.output_dir / "test_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(predicted) == 12


def test_training_goes_over_pieces(run, tones, quick):
    """As many as cover the clips, so more steps than clips alone would give."""
    pieces = sum(
        len(piece_starts(len(load(str(file), RATE)), int(CHUNK * RATE))) for file in (tones / "train").rglob("*.wav")
    )
    assert pieces > 60
    steps = [row for row in run.history if row["event"] == "step"]
    assert len(steps) == 3 * -(-pieces // quick["batch_size"])


def decoded(tones, quick, augmentation):
    return decode(
        audioclf.load_dataset(tones),
        sampling_rate=RATE,
        max_seconds=0.7,
        chunk_seconds=CHUNK,
        augmentation=augmentation,
        cache_dir=quick["cache_dir"],
    )


def test_fixed_pieces_are_stretches_of_the_clip_as_it_is_used(tones, quick):
    clips = decoded(tones, quick, None).parts["train"]
    size = int(CHUNK * RATE)
    for row in range(len(clips)):
        waveform = load(clips.names[row].rsplit(" from ", 1)[0], RATE)[: int(0.7 * RATE)]
        start = clips.starts[row]
        assert np.array_equal(clips[row, 1]["waveform"], waveform[start : start + size])
        assert clips.lengths[row] == min(size, len(waveform))


def test_random_pieces_are_drawn_anew_each_epoch(tones, quick):
    clips = decoded(tones, quick, Augmentation(0, random_crop=True)).parts["train"]
    long = int(np.argmax(clips.store.lengths[list(clips.positions)]))
    first, again, second = (clips[long, epoch]["waveform"] for epoch in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    assert len(first) == len(second) == int(CHUNK * RATE)


def test_features_of_pieces_are_cached(tones, quick, tmp_path):
    options = {**quick, "chunk_seconds": CHUNK, "freeze": "feature_encoder", "num_epochs": 2}
    cached, live = (
        audioclf.train(tones, output_dir=tmp_path / str(kept), cache_features=kept, **options) for kept in (True, False)
    )
    for one, other in zip(cached.history, live.history, strict=True):
        if "loss" in one:
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    assert cached.best_metrics["loss"] == pytest.approx(live.best_metrics["loss"], rel=1e-5)


def test_several_labels_a_clip(tmp_path, quick):
    """The scores of each class are averaged over the pieces, and so are those that its threshold is tuned on."""
    rng = np.random.default_rng(0)
    rows = ["path\tlabels"]
    for number in range(40):
        chosen = [("low", "high")[index] for index in range(2) if rng.random() < 0.5]
        sounds = [300 if label == "low" else 3000 for label in chosen]
        time = np.arange(int(rng.uniform(0.4, 0.9) * RATE)) / RATE
        clip = sum((np.sin(2 * np.pi * f * time) for f in sounds), 0.1 * rng.standard_normal(len(time)))
        soundfile.write(tmp_path / f"{number}.wav", clip / 4, RATE)
        rows.append(f"{number}.wav\t{','.join(chosen)}")
    (tmp_path / "clips.tsv").write_text("\n".join(rows))
    options = {**quick, "chunk_seconds": CHUNK, "num_epochs": 3, "valid_fraction": 0.3}
    result = audioclf.train(tmp_path / "clips.tsv", output_dir=tmp_path / "out", **options)
    clip = load(str(tmp_path / "3.wav"), RATE)
    scores = audioclf.load(result.checkpoint_dir).probabilities([tmp_path / "3.wav"])[0]
    np.testing.assert_allclose(scores, by_hand(result.checkpoint_dir, clip), atol=1e-6)


def test_pieces_let_an_encoder_of_one_window_hear_all(tmp_path, quick):
    """Whisper's would else be cut to its window, 1 s here."""
    rng = np.random.default_rng(0)
    for label, frequency in (("low", 300), ("high", 3000)):
        for number in range(6):
            write_tone(tmp_path / f"data/{label}/{number}.wav", frequency, 2.5, rng)
    config = WhisperConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=48, decoder_ffn_dim=48, max_source_positions=50, num_mel_bins=40, classifier_proj_size=16,
        vocab_size=60, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    options = {**quick, "model": config, "num_epochs": 1, "chunk_seconds": 5.0}
    result = audioclf.train(tmp_path / "data", output_dir=tmp_path / "out", **options)
    classifier = audioclf.load(result.checkpoint_dir)
    assert (classifier.max_seconds, classifier.chunk_seconds) == (30.0, 1.0)
    clip = load(str(tmp_path / "data/low/0.wav"), RATE)
    other = np.concatenate([clip[: int(1.6 * RATE)], np.zeros(int(0.9 * RATE), np.float32)])
    sounds = [{"array": sound, "sampling_rate": RATE} for sound in (clip, other)]
    assert not np.allclose(*classifier.probabilities(sounds))


def test_what_cannot_be_is_refused(tones, quick, tmp_path):
    for wrong in (0, -1.0, "15"):
        with pytest.raises(ConfigError, match=r"chunk_seconds=.* must be a number above 0"):
            audioclf.TrainConfig(chunk_seconds=wrong)
    with pytest.raises(ConfigError, match="chunk_seconds=30 cuts no clip, as none is longer than max_seconds=30"):
        audioclf.TrainConfig(chunk_seconds=30.0)
    options = {**quick, "model": tiny_config(), "num_epochs": 1}
    audioclf.train(tones, output_dir=tmp_path, chunk_seconds=0.4, **options)
    with pytest.raises(ConfigError, match="chunk_seconds"):
        audioclf.train(tones, output_dir=tmp_path, chunk_seconds=0.5, resume=True, **{**options, "num_epochs": 2})
