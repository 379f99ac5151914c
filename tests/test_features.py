"""Cached features of a frozen encoder: the run is the one without them, only faster."""

import json
import shutil

import pytest
import torch
from conftest import tiny_config
from safetensors.torch import load_file
from transformers import WavLMConfig

import audioclf
from audioclf import AudioclfError, ConfigError
from audioclf.clips import Clips
from audioclf.models.classifier import build_classifier, freeze
from audioclf.models.heads import MeanHead

LABELS = ["high", "low", "mid"]
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


def run(tones, quick, folder, **options) -> tuple[list[dict], dict]:
    """The history without its clock, and the last weights."""
    result = audioclf.train(tones, output_dir=folder, **{**quick, "num_epochs": 1, **options})
    history = [{key: value for key, value in row.items() if key != "time"} for row in result.history]
    return history, load_file(folder / "last" / "model.safetensors")


def numbers(history: list[dict]) -> list[float]:
    return [row[name] for row in history for name in ("loss", "grad_norm", "accuracy") if name in row]


@pytest.mark.parametrize("part", ["feature_encoder", "backbone"])
@pytest.mark.parametrize(("head", "family"), [("mean", {}), ("attention", LAYER_NORM)])
def test_training_is_the_same_with_and_without(part, head, family, tones, quick, tmp_path):
    """The clips are of different lengths: so are their features, and the batches are padded."""
    model = tiny_config(apply_spec_augment=True, mask_time_length=4, hidden_dropout=0.1, **family)
    options = {"freeze": part, "head": head, "model": model, "num_epochs": 2}
    live, weights = run(tones, quick, tmp_path / "live", cache_features=False, **options)
    cached, cached_weights = run(tones, quick, tmp_path / "cached", cache_features=True, **options)
    assert numbers(cached) == pytest.approx(numbers(live), abs=1e-5)
    assert cached[-1]["test_metrics"]["accuracy"] == live[-1]["test_metrics"]["accuracy"]
    assert cached[-1]["test_metrics"]["loss"] == pytest.approx(live[-1]["test_metrics"]["loss"], abs=1e-5)
    for name, value in weights.items():
        if name.endswith("attention.2.bias"):
            continue  # a softmax does not see it: its gradient is rounding, which AdamW takes for a direction
        assert torch.allclose(cached_weights[name], value, atol=1e-4), name


@pytest.mark.parametrize(
    ("precision", "size"), [("fp32", 4), ("bf16", 2), pytest.param("fp16", 2, marks=pytest.mark.slow)]
)
def test_store(precision, size, tones, quick, tmp_path):
    """One array a clip in the run's precision, computed once for all later runs with these weights."""
    cache = tmp_path / "cache"
    options = {"freeze": "feature_encoder", "precision": precision, "cache_dir": str(cache), "max_seconds": 0.5}
    first, _ = run(tones, quick, tmp_path / "first", **options)
    (store,) = (cache / "features").iterdir()
    lines = (store / "journal.jsonl").read_text().splitlines()
    assert len(lines) == 60  # of train, valid and test
    frames = [json.loads(line)["length"] / 16 for line in lines]
    assert max(frames) == 24  # (8,000 - 400) / 320 + 1
    assert (store / "values.bin").stat().st_size == sum(frames) * 16 * size
    before = (store / "values.bin").stat().st_mtime_ns
    second, _ = run(tones, quick, tmp_path / "second", **options, num_workers=2)
    assert second == first
    assert (store / "values.bin").stat().st_mtime_ns == before
    run(tones, quick, tmp_path / "other", **{**options, "seed": 2})  # other random weights
    assert len(list((cache / "features").iterdir())) == 2


def test_interrupted_store_goes_on(tones, quick, tmp_path):
    options = {"freeze": "backbone", "cache_dir": str(tmp_path / "cache")}
    expected, _ = run(tones, quick, tmp_path / "first", **options)
    (store,) = (tmp_path / "cache" / "features").iterdir()
    lines = (store / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (store / "journal.jsonl").write_bytes(b"".join(lines[:20]) + lines[20][:5])
    again, _ = run(tones, quick, tmp_path / "second", **options)
    assert again == expected
    assert (store / "journal.jsonl").read_bytes() == b"".join(lines)


def test_a_random_crop_is_computed_live(tones, quick, tmp_path):
    options = {"freeze": "feature_encoder", "random_crop": True, "max_seconds": 0.2, "cache_dir": str(tmp_path / "c")}
    run(tones, quick, tmp_path / "out", **options)
    assert not (tmp_path / "c" / "features").exists()


def test_a_small_disk_is_not_filled(tones, quick, tmp_path, monkeypatch, capsys):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    options = {"freeze": "feature_encoder", "cache_dir": str(tmp_path / "cache"), "progress": True}
    run(tones, quick, tmp_path / "out", **options)
    assert not (tmp_path / "cache" / "features").exists()
    assert "The disk has no room to keep what the frozen encoder gives" in capsys.readouterr().out


def test_what_is_there_already_needs_no_room(tones, quick, tmp_path, monkeypatch, capsys):
    options = {"freeze": "feature_encoder", "cache_dir": str(tmp_path / "cache"), "progress": True}
    run(tones, quick, tmp_path / "first", **options)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    run(tones, quick, tmp_path / "second", **options)
    assert "no room" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "options", [{"num_attention_heads": 4}, {"hidden_act": "relu"}, {"conv_stride": (5, 2, 2, 2, 2, 2, 1)}]
)
def test_another_encoder_with_the_same_weights(options, tones, quick, tmp_path):
    """Its tensors have the same shapes and, from one seed, the same values; what it computes is another thing."""
    fixed = {"freeze": "backbone"}
    run(tones, quick, tmp_path / "a", **fixed, cache_dir=str(tmp_path / "shared"))
    changed = {**fixed, "model": tiny_config(**options)}
    after, _ = run(tones, quick, tmp_path / "b", **changed, cache_dir=str(tmp_path / "shared"))
    alone, _ = run(tones, quick, tmp_path / "c", **changed, cache_dir=str(tmp_path / "own"))
    assert after == alone


def test_decoded_audio_that_is_gone(tones, quick, tmp_path, monkeypatch):
    monkeypatch.setattr(Clips, "__getitem__", lambda *_: (_ for _ in ()).throw(FileNotFoundError(2, "No such file")))
    options = {"freeze": "backbone", "cache_dir": str(tmp_path / "cache")}
    with pytest.raises(AudioclfError, match=r"\.wav: its decoded audio in .* cannot be read .*; run again"):
        run(tones, quick, tmp_path / "out", **options)
    monkeypatch.undo()
    run(tones, quick, tmp_path / "again", **options)


def test_a_clip_that_goes_before_its_features_are_made(tones, quick, tmp_path):
    shutil.copytree(tones, tmp_path / "tones")
    gone = next((tmp_path / "tones").rglob("*.wav"))

    def head(config):
        gone.unlink()
        return MeanHead(config)

    options = {"freeze": "backbone", "max_cache_gb": 0, "cache_dir": str(tmp_path / "cache"), "head": head}
    with pytest.raises(AudioclfError, match=f"can be no longer:\n  '{gone}': no such file"):
        run(tmp_path / "tones", quick, tmp_path / "out", **options)


def test_the_run_tells_of_its_features(tones, quick, tmp_path, capsys):
    run(tones, quick, tmp_path / "out", freeze="backbone", progress=True, cache_dir=str(tmp_path / "cache"))
    assert "Features of the frozen encoder: 1 MiB on disk." in capsys.readouterr().out
    from audioclf import cache

    kinds = {row["folder"].split("/")[-2] for row in cache.report(tmp_path / "cache")}
    assert kinds == {"features", "waveforms"}
    assert cache.clear(tmp_path / "cache") > 100_000


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"cache_features": True}, "with freeze='none' all of it is trained: set freeze='feature_encoder'"),
        (
            {"cache_features": True, "freeze": "backbone", "random_crop": True},
            "random_crop changes the clip in every epoch: choose one of them",
        ),
        ({"cache_features": "yes"}, "cache_features='yes' must be True or False, or left out"),
    ],
)
def test_refusals(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        audioclf.TrainConfig(**options)


@pytest.mark.parametrize("config", [tiny_config(), tiny_config(**LAYER_NORM), tiny_config(WavLMConfig)])
def test_features_lead_to_the_same_logits(config):
    torch.manual_seed(0)
    model = build_classifier(config, "attention", LABELS)
    values = torch.randn(2, 4000)
    for part in ("feature_encoder", "backbone"):
        freeze(model, part)
        with torch.no_grad():
            model.eval()
            features = model.features(values)
            assert features.shape[-1] == model.feature_size
            assert torch.allclose(model.from_features(features, None), model(values), atol=1e-6)


def test_a_frozen_encoder_is_a_fixed_function():
    torch.manual_seed(0)
    model = build_classifier(tiny_config(hidden_dropout=0.5, attention_dropout=0.5), "mean", LABELS)
    freeze(model, "backbone")
    model.train()
    values = torch.randn(1, 4000)
    assert torch.equal(model(values), model(values))
    assert model.head.training
