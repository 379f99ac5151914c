"""Mixup: the weights of sounds and labels, their draws, and runs with it."""

import dataclasses

import numpy as np
import pytest
import soundfile
import torch
from conftest import TONES, tiny_config

import audioclf
from audioclf import cache
from audioclf.augment import Augmentation
from audioclf.clips import Clips
from audioclf.mixup import MixedClips, mix

LENGTHS = [2000, 2000, 900, 2000, 3000, 2000, 400, 2000]
SILENT = 5


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Clips:
    """Eight clips of noise, each at a level of its own, one of them silent."""

    def sound(i):
        level = 0.0 if i == SILENT else 0.01 * 2**i
        return level * np.random.default_rng(i).standard_normal(LENGTHS[i], dtype=np.float32)

    store = cache.build([str(i) for i in range(8)], sound, recipe="noise", cache_dir=tmp_path_factory.mktemp("cache"))
    return Clips(
        store=store,
        positions=tuple(range(8)),
        starts=np.zeros(8, np.int64),
        names=tuple("abcdefgh"),
        groups=np.arange(8),
        labels=np.arange(8) % 3,
        lengths=np.array(LENGTHS),
        augmentation=Augmentation(0),
    )


def shares(item) -> dict[int, float]:
    return {i: float(share) for i, share in enumerate(item["label"]) if share}


def power(waveform) -> float:
    return float(np.mean(np.square(waveform, dtype=np.float64)))


def test_two_sounds_are_mixed_at_equal_power():
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal(50_000, dtype=np.float32), 37 * rng.standard_normal(50_000, dtype=np.float32)
    for weight in (0.0, 0.2, 0.5, 1.0):
        mixed = mix(first, second, weight).astype(np.float64)
        parts = np.linalg.lstsq(np.stack([first, second], axis=1).astype(np.float64), mixed, rcond=None)[0]
        assert parts[0] * (1 - weight) == pytest.approx(
            parts[1] * np.sqrt(power(second) / power(first)) * weight, abs=1e-6
        )
        assert power(mixed) == pytest.approx(power(first), rel=0.02)  # the two are nearly, but not quite, uncorrelated
    np.testing.assert_allclose(mix(first, second, 1.0), first, rtol=1e-6)
    short = mix(first, second[:100], 0.5, start=400)
    np.testing.assert_allclose(
        np.delete(short, slice(400, 500)), np.delete(first, slice(400, 500)) * 0.5**0.5, rtol=1e-6
    )


def test_clips_and_labels_get_the_same_weights(clips):
    """The weight that a sound can be seen to have is that of its label."""
    mixed = MixedClips(clips, seed=1, num_classes=3)
    for epoch in range(20):
        for index in (0, 1, 3, 7):
            item = mixed[index, epoch]
            own = clips[index, epoch]["waveform"]
            assert item["label"].dtype == np.float32
            assert item["label"].sum() == pytest.approx(1, abs=1e-6)
            assert len(item["waveform"]) == len(own)
            assert item["waveform"].dtype == np.float32
            if len(shares(item)) == 2:
                (other,) = set(shares(item)) - {index % 3}
                weight = float(item["label"][index % 3])
                assert 0 < weight <= 1  # a share may be too small to be seen
                expected = weight / np.hypot(weight, 1 - weight)
                seen = np.dot(item["waveform"].astype(np.float64), own) / np.dot(own.astype(np.float64), own)
                assert seen == pytest.approx(expected, abs=0.15)  # noise of 2,000 samples is nearly orthogonal
                assert other != index % 3


def test_draws_depend_on_seed_epoch_and_clip_alone(clips):
    seen = {}
    for seed in (0, 1):
        for epoch in (1, 2):
            mixed = MixedClips(clips, seed, num_classes=3)
            for index in (0, 1):
                item = mixed[index, epoch]
                np.random.rand(3)  # noqa: NPY002
                again = MixedClips(clips, seed, num_classes=3)[index, epoch]
                np.testing.assert_array_equal(again["waveform"], item["waveform"])
                np.testing.assert_array_equal(again["label"], item["label"])
                seen[seed, epoch, index] = item["waveform"].tobytes()
    assert len(set(seen.values())) == 8


def test_any_other_clip_is_drawn_and_weights_are_beta(clips):
    """Each clip of a class of its own: the label then tells the partner."""
    own = dataclasses.replace(clips, labels=np.arange(8))
    mixed = MixedClips(own, seed=0, num_classes=8, alpha=0.5)
    items = [mixed[0, epoch] for epoch in range(700)]
    partners = [set(shares(item)) - {0} for item in items]
    counts = np.bincount([partner for found in partners for partner in found], minlength=8)
    assert counts[0] == counts[SILENT] == 0
    assert (np.abs(np.delete(counts, [0, SILENT]) - 100) < 40).all()
    from scipy import stats

    weights = [float(item["label"][0]) for item, found in zip(items, partners, strict=True) if found]
    assert stats.kstest(weights, stats.beta(0.5, 0.5).cdf).pvalue > 0.01


def test_silence_and_single_clips_stay_as_they_are(clips):
    mixed = MixedClips(clips, seed=0, num_classes=3)
    for epoch in range(5):
        item = mixed[SILENT, epoch]
        assert not item["waveform"].any()
        assert shares(item) == {SILENT % 3: 1.0}
    alone = dataclasses.replace(
        clips, positions=(2,), starts=np.array([0]), labels=np.array([1]), lengths=np.array([900])
    )
    item = MixedClips(alone, seed=0, num_classes=3)[0, 1]
    np.testing.assert_array_equal(item["waveform"], clips[2, 1]["waveform"])
    assert shares(item) == {1: 1.0}


def test_labels_of_multi_label_clips_are_added_by_weight(clips):
    labels = np.zeros((8, 4), np.float32)
    labels[0, [0, 1]] = 1
    labels[1:, [1, 2]] = 1
    mixed = MixedClips(dataclasses.replace(clips, labels=labels), seed=0, num_classes=4)
    for epoch in range(10):
        target = mixed[0, epoch]["label"]
        assert target.dtype == np.float32
        if target[2] > 0:
            assert target[0] + target[2] == pytest.approx(1, abs=1e-6)
            assert target[1] == pytest.approx(1, abs=1e-6)
        else:
            np.testing.assert_array_equal(target, labels[0])


class TestARun:
    @pytest.mark.parametrize(
        "class_weights", [pytest.param(None, marks=pytest.mark.slow), {"high": 1.0, "low": 3.0, "mid": 0.5}]
    )
    def test_learns(self, tones, quick, tmp_path, class_weights):
        options = {**quick, "augment": ["mixup", "noise"], "class_weights": class_weights}
        result = audioclf.train(tones, output_dir=tmp_path / "out", **options)
        assert result.best_metrics["accuracy"] >= 0.75

    def test_a_loss_of_ones_own_gets_shares(self, tones, quick, tmp_path):
        seen = []

        def loss(logits, labels):
            seen.append((torch.is_grad_enabled(), labels.dtype, labels.shape[1:]))
            return torch.nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=0.1)

        few = {**quick, "num_epochs": 1, "loss": lambda config: loss}
        audioclf.train(tones, output_dir=tmp_path / "out", augment="mixup", **few)
        assert {found[1:] for found in seen if found[0]} == {(torch.float32, (3,))}
        assert {found[1:] for found in seen if not found[0]} == {(torch.int64, ())}

    def test_multi_label_with_strong(self, quick, tmp_path):
        rng, time, rows = np.random.default_rng(0), np.arange(8000) / 16_000, ["path\tlabels\tsplit"]
        for number in range(56):
            there = [label for bit, label in enumerate(TONES) if number >> bit & 1]
            sound = 0.02 * rng.standard_normal(len(time))
            for label in there:
                sound += 0.3 * np.sin(2 * np.pi * TONES[label] * rng.uniform(0.9, 1.1) * time + rng.uniform(0, 6.28))
            soundfile.write(tmp_path / f"{number}.wav", sound / 2, 16_000)
            rows.append(f"{number}.wav\t{','.join(there)}\t{'train' if number < 40 else 'valid'}")
        (tmp_path / "clips.tsv").write_text("\n".join(rows) + "\n")
        options = {**quick, "model": tiny_config(), "num_epochs": 9, "batch_size": 8, "augment": ["strong", "mixup"]}
        result = audioclf.train(tmp_path / "clips.tsv", output_dir=tmp_path / "out", **options)
        assert result.best_metrics["map"] > 0.75  # chance is about 0.5
