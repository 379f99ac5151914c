"""Augmentations: draws that depend on seed, epoch and clip alone, whatever is chosen, and runs with them."""

import functools
import json
from typing import get_args

import numpy as np
import pytest
import soundfile
import torch
from conftest import tiny_config

import audioclf
from audioclf import BackgroundNoise, ConfigError, Sometimes
from audioclf.augment import (
    NOISE_SNR_DB,
    PRESETS,
    SPEED_FACTOR,
    TRANSFORMS,
    Augmentation,
    make_augmentation,
    steps_of,
)
from audioclf.cli import main
from audioclf.config import Augmentations, TrainConfig

RATE = 16_000
CHOICES = [*TRANSFORMS, *PRESETS]


def snr_db(waveform, noisy) -> float:
    noise = noisy.astype(np.float64) - waveform
    return 10 * np.log10(np.mean(waveform.astype(np.float64) ** 2) / np.mean(noise**2))


@pytest.fixture
def waveform():
    return (0.3 * np.sin(np.arange(16_000) / 7)).astype(np.float32)


def halved(waveform, sampling_rate, rng):
    """A transform of a user's own."""
    return waveform / 2


def test_the_command_line_knows_every_name():
    assert set(get_args(Augmentations)) == {"none", "mixup", *PRESETS, *TRANSFORMS}


def test_levels_are_drawn_evenly(waveform):
    augmentation = make_augmentation(0, False, "noise", RATE)
    levels = [snr_db(waveform, augmentation(waveform, len(waveform), epoch, 0)) for epoch in range(200)]
    low, high = NOISE_SNR_DB
    assert min(levels) >= low - 0.01
    assert max(levels) <= high + 0.01
    assert np.mean(levels) == pytest.approx((low + high) / 2, abs=2)


@pytest.mark.parametrize("name", [*(name for name in CHOICES if name not in ("polarity", "phone")), "none"])
def test_draws_depend_on_seed_epoch_and_clip_alone(waveform, name):
    """Of the two that are left out polarity knows two results only, and phone one."""
    drawn = {}
    sound = waveform + 0.1 * np.random.default_rng(0).standard_normal(len(waveform), dtype=np.float32)
    for seed in (0, 1):
        for epoch in (1, 2):
            for index in (0, 1):
                augmentation = make_augmentation(seed, True, name, RATE)
                drawn[seed, epoch, index] = augmentation(sound, 8000, epoch, index)
                np.random.rand(3)  # noqa: NPY002 - the global stream must not matter
                torch.rand(3)
                np.testing.assert_array_equal(augmentation(sound, 8000, epoch, index), drawn[seed, epoch, index])
    assert len({values.tobytes() for values in drawn.values()}) == 8
    assert max(len(values) for values in drawn.values()) <= 8000


@pytest.mark.parametrize("name", CHOICES)
def test_the_stored_waveform_is_left_alone(waveform, name):
    before = waveform.copy()
    for random_crop in (False, True):
        for index in range(8):
            changed = make_augmentation(0, random_crop, name, RATE)(waveform, 8000, 0, index)
            changed[:] = 7
    np.testing.assert_array_equal(waveform, before)
    plain = Augmentation(0)(waveform, 8000, 0, 0)
    plain[:] = 7
    np.testing.assert_array_equal(waveform, before)


@pytest.mark.parametrize("name", CHOICES)
def test_any_sound_survives(name):
    """Silence stays silent, and the shortest clips give finite float32 samples of at most their length."""
    rng = np.random.default_rng(0)
    augmentation = make_augmentation(0, False, name, RATE)
    for num_samples in (1, 2, 3, 17, 400, 5000):
        for index in range(10):
            quiet = augmentation(np.zeros(num_samples, np.float32), num_samples, 0, index)
            assert not quiet.any()
            for sound in (rng.standard_normal(num_samples, dtype=np.float32), np.full(num_samples, 1e-20, np.float32)):
                changed = augmentation(sound, num_samples, 0, index)
                assert changed.dtype == np.float32
                assert np.isfinite(changed).all()
                assert min(num_samples, int(num_samples / SPEED_FACTOR[1])) <= len(changed) <= num_samples


def test_what_grows_is_cut_evenly_at_both_ends():
    ramp = np.arange(1000, dtype=np.float32)
    augmentation = Augmentation(0, transforms=(lambda waveform, rate, rng: np.pad(waveform, 50),))
    np.testing.assert_array_equal(augmentation(ramp, 1000, 0, 0), ramp)


def test_presets_apply_each_with_its_probability():
    assert [step for step in PRESETS["light"] if isinstance(step, str)] == ["gain", "polarity", "shift"]
    counts, clip = np.zeros(2), np.ones(100, np.float32)
    for index in range(2000):
        rng = np.random.default_rng([3, index])
        counts += [Sometimes(p, halved)(clip, RATE, rng)[0] == 0.5 for p in (0.3, 1.0)]
    assert counts[1] == 2000
    assert counts[0] == pytest.approx(600, abs=3.5 * np.sqrt(2000 * 0.3 * 0.7))
    assert Sometimes(0.0, halved)(clip, RATE, np.random.default_rng(0))[0] == 1


class TestOptions:
    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            ("none", "none"),
            (["none"], "none"),
            ("strong", "strong"),
            (["noise"], "noise"),
            (["noise", "gain", "mixup"], ("noise", "gain", "mixup")),
            (("strong", halved), ("strong", halved)),
            (halved, (halved,)),
        ],
    )
    def test_what_is_kept(self, given, kept):
        assert TrainConfig(augment=given).augment == kept

    @pytest.mark.parametrize(
        ("given", "sentence"),
        [
            ("nois", r"^augment='nois' is not one of none, light, strong, gain, .*mixup; did you mean 'noise'\?$"),
            (["gain", "coloured"], r"^augment='coloured' is not one of .*; did you mean 'coloured_noise'\?$"),
            (3, "^augment=3 is not one of"),
            ([], r"^augment=\[\] must be 'none' alone, or name what is to change\.$"),
            (["none", "gain"], "must be 'none' alone"),
            (["gain", "gain"], r"^augment has 'gain' twice: leave it in one place\.$"),
        ],
    )
    def test_what_is_refused(self, given, sentence):
        with pytest.raises(ConfigError, match=sentence):
            TrainConfig(augment=given)

    @pytest.mark.parametrize("given", ["light", "mixup", ["noise", "gain"], [halved]])
    def test_cached_features_are_refused(self, given):
        with pytest.raises(ConfigError, match="augment changes the clip in every epoch"):
            TrainConfig(augment=given, freeze="backbone", cache_features=True)

    def test_sometimes(self):
        with pytest.raises(ConfigError, match=r"^transform='revreb' is not one of .*; did you mean 'reverb'\?$"):
            Sometimes(0.5, "revreb")
        with pytest.raises(ConfigError, match="transform='mixup' is not one of"):
            Sometimes(0.5, "mixup")
        with pytest.raises(ConfigError, match=r"probability=1\.5 must be a number at least 0 and at most 1"):
            Sometimes(1.5, "reverb")

    def test_record_is_readable_and_the_same_in_every_process(self, tmp_path):
        soundfile.write(tmp_path / "a.wav", np.ones(100) / 2, RATE)
        steps = ["strong", halved, Sometimes(0.5, BackgroundNoise(tmp_path, snr_db=(0, 20))), Sometimes(0.1, "codec")]
        recorded = json.loads(json.dumps(TrainConfig(augment=steps).to_dict()))["augment"]
        assert recorded[:2] == ["strong", f"{__name__}.halved"]
        assert recorded[2].startswith("Sometimes(probability=0.5, transform=\"BackgroundNoise(folder='")
        assert "snr_db=[0, 20], fingerprint='" in recorded[2]
        assert recorded[3] == "Sometimes(probability=0.1, transform='codec')"

    def test_command_line(self, tones, quick, tmp_path, capsys):
        tiny_config().to_json_file(tmp_path / "tiny.json")
        options = ["--model", str(tmp_path / "tiny.json"), "--num-epochs", "1", "--cache-dir", quick["cache_dir"]]
        out = tmp_path / "out"
        names = ["--augment", "noise", "shift", "mixup"]
        assert main(["train", str(tones), *options, "--output-dir", str(out), *names]) == 0
        assert json.loads((out / "config.json").read_text())["augment"] == ["noise", "shift", "mixup"]
        capsys.readouterr()
        assert main(["train", str(tones), *options, "--output-dir", str(out), "--augment", "strnog", "--resume"]) == 2
        assert "did you mean 'strong'?" in capsys.readouterr().err
        assert main(["train", str(tones), *options, "--output-dir", str(out), "--augment", "noise", "--resume"]) == 2
        told = capsys.readouterr().err
        assert "augment='noise' is not what the run" in told
        assert "resume it with augment=['noise', 'shift', 'mixup']" in told


@pytest.mark.parametrize(
    ("result", "what"),
    [
        (np.zeros((2, 50), np.float32), r"float32 of shape \(2, 50\)"),
        (np.zeros(50, np.int16), r"int16 of shape \(50,\)"),
        (np.zeros(0), "no samples"),
        (np.full(50, np.nan), "NaN or infinite samples"),
        (None, r"object of shape \(\)"),
    ],
)
def test_transforms_that_give_no_waveform(result, what):
    def broken(waveform, sampling_rate, rng):
        return result

    with pytest.raises(ConfigError, match=rf"^augment: .*broken gave {what}; it must give"):
        Augmentation(0, transforms=(broken,))(np.ones(50, np.float32), 50, 0, 0)


def test_transforms_of_ones_own_get_what_they_need(waveform):
    seen = []

    def louder(given, sampling_rate, rng, by):
        seen.append((sampling_rate, rng.random()))
        given *= by  # in place: the stored clip must not change
        return given.astype(np.float64)

    augmentation = Augmentation(5, transforms=(functools.partial(louder, by=2), halved), sampling_rate=8000)
    changed = augmentation(waveform, len(waveform), 1, 2)
    np.testing.assert_array_equal(changed, waveform)
    assert changed.dtype == np.float32
    assert seen == [(8000, np.random.default_rng([5, 1, 2]).random())]


def test_steps():
    assert steps_of("none") == ()
    assert steps_of("light") == ("light",)
    assert steps_of(("noise", halved)) == ("noise", halved)
    assert make_augmentation(0, False, ("none",), RATE).transforms == ()
    assert len(make_augmentation(0, False, ("light", "mixup"), RATE).transforms) == len(PRESETS["light"])


class TestARun:
    def test_learns_with_strong(self, tones, quick, trained, tmp_path):
        result = audioclf.train(tones, output_dir=tmp_path / "out", **{**quick, "augment": "strong"})
        assert result.best_metrics["accuracy"] >= 0.75
        assert json.loads((result.output_dir / "config.json").read_text())["augment"] == "strong"
        # The first validation is of a model that has seen other clips than without it.
        assert result.history[0]["loss"] != trained.history[0]["loss"]

    def test_evaluation_sees_the_clips_as_they_are(self, tones, quick, tmp_path):
        """A model that does not change: validation is that of the same run without augmentation."""
        still = {**quick, "learning_rate": 1e-30, "num_epochs": 2}
        plain = audioclf.train(tones, output_dir=tmp_path / "plain", **still)
        changed = audioclf.train(tones, output_dir=tmp_path / "changed", augment=["strong", "mixup"], **still)
        assert plain.best_metrics == changed.best_metrics
        assert plain.test_metrics == changed.test_metrics

    def test_gain_alone_is_refused_where_nothing_hears_it(self, tones, quick, tmp_path, capsys):
        with pytest.raises(ConfigError, match="augment='gain' changes nothing for this encoder"):
            audioclf.train(tones, output_dir=tmp_path / "a", **{**quick, "augment": "gain"})
        few = {**quick, "num_epochs": 1, "progress": True}
        audioclf.train(tones, output_dir=tmp_path / "b", **{**few, "augment": ["gain", "polarity"]})
        assert "note: gain in augment changes nothing for this encoder" in capsys.readouterr().out

    def test_a_frozen_encoder_is_run_live(self, tones, quick, tmp_path, capsys):
        few = {**quick, "num_epochs": 1, "progress": True, "freeze": "backbone"}
        audioclf.train(tones, output_dir=tmp_path / "a", augment="light", **few)
        assert "Features of the frozen encoder" not in capsys.readouterr().out
        audioclf.train(tones, output_dir=tmp_path / "b", **few)
        assert "Features of the frozen encoder" in capsys.readouterr().out
