"""LoRA in every family of encoders: what learns, and that what is exported is what was trained."""

import copy
import sys

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from test_backbones import CONFIGS, LABELS, every_family
from transformers import pipeline

import audioclf
from audioclf import ConfigError
from audioclf.collate import make_collator
from audioclf.export import save_pretrained
from audioclf.models.classifier import build_classifier, load_classifier
from audioclf.models.loading import load_feature_extractor
from audioclf.models.lora import add_lora, plain_state

RANK = 2


def batch_of(name: str) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    extractor = load_feature_extractor(CONFIGS[name])
    clips = [rng.standard_normal(length).astype(np.float32) for length in (16_000, 12_000)]
    items = [{"waveform": clip, "label": index, "index": index} for index, clip in enumerate(clips)]
    return make_collator(CONFIGS[name], extractor)(items)


def adapted(name: str) -> tuple[audioclf.models.classifier.AudioClassifier, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = build_classifier(CONFIGS[name], "mean", LABELS)
    before = copy.deepcopy(model.state_dict())
    add_lora(model.backbone, RANK)
    return model, before


def logits_of(model, batch) -> torch.Tensor:
    return model(batch["input_values"], batch.get("attention_mask"))


@every_family
class TestEveryFamily:
    def test_it_begins_as_the_encoder_itself(self, name):
        torch.manual_seed(0)
        plain = build_classifier(CONFIGS[name], "mean", LABELS).eval()
        model, _ = adapted(name)
        batch = batch_of(name)
        with torch.no_grad():
            assert torch.allclose(logits_of(model.eval(), batch), logits_of(plain, batch), atol=1e-7)

    def test_all_that_was_added_and_the_head_learn_and_nothing_else(self, name, tmp_path):
        model, before = adapted(name)
        batch = batch_of(name)
        optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.05)
        for _ in range(3):  # the second matrix begins as zero, so the first one has a gradient only after a step
            torch.nn.functional.cross_entropy(logits_of(model.train(), batch), batch["labels"]).backward()
            optimizer.step()
        learning = {key: value for key, value in model.named_parameters() if value.requires_grad}
        assert all(key.startswith("head.") or ".lora_" in key for key in learning)
        assert all(value.grad is not None and value.grad.any() for value in learning.values())

        own = {
            key.replace(".base_layer", ""): value for key, value in model.state_dict().items() if ".lora_" not in key
        }
        assert all(torch.equal(own[key], value) for key, value in before.items() if key.startswith("backbone."))
        merged = plain_state(model.backbone)
        assert merged.keys() == {key.removeprefix("backbone.") for key in before if key.startswith("backbone.")}
        factors = {key.rpartition(".lora_")[0] for key in learning if ".lora_" in key}
        assert len(factors) >= 2 * 2  # two linear layers or more in each of two layers
        for key, value in merged.items():
            layer, change = f"backbone.{key}".removesuffix(".weight"), value - before[f"backbone.{key}"]
            if layer in factors:
                first, second = (learning[f"{layer}.lora_{factor}.default.weight"] for factor in "AB")
                assert first.shape[0] == second.shape[1] == RANK
                assert torch.allclose(change, 2 * second @ first, atol=1e-7)
            else:
                assert not change.any()

        extractor = load_feature_extractor(CONFIGS[name])
        save_pretrained(model, extractor, tmp_path, {})
        again = load_classifier(str(tmp_path)).eval()
        with torch.no_grad():
            assert torch.allclose(logits_of(again, batch), logits_of(model.eval(), batch), atol=1e-5)


def test_merging_is_pefts_own():
    model, _ = adapted("hubert")
    for value in model.backbone.parameters():
        if value.requires_grad:
            torch.nn.init.normal_(value)
    linear = sorted({key.rpartition(".lora_")[0] for key, _ in model.backbone.named_parameters() if ".lora_" in key})
    torch.manual_seed(0)
    theirs = build_classifier(CONFIGS["hubert"], "mean", LABELS).backbone
    theirs = get_peft_model(theirs, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=linear))
    theirs.base_model.model.load_state_dict(model.backbone.state_dict())
    merged = theirs.merge_and_unload().state_dict()
    for key, value in plain_state(model.backbone).items():
        assert torch.allclose(value, merged[key], atol=1e-6)


class TestTraining:
    def test_a_run_learns_and_its_checkpoint_is_a_plain_one(self, tones, quick, tmp_path):
        """Frozen to all but what is added, features of the CNN from the cache; transformers opens what comes out."""
        options = {**quick, "freeze": "feature_encoder", "lora_rank": 4, "learning_rate": 2e-2}
        result = audioclf.train(tones, output_dir=tmp_path / "out", **options)
        assert result.best_metrics["accuracy"] >= 0.7  # of three, with a CNN of random weights
        weights = load_file(result.checkpoint_dir / "model.safetensors")
        assert not any("lora" in key or "base_layer" in key for key in weights)
        scored = audioclf.evaluate(result.checkpoint_dir, tones, "valid", cache_dir=quick["cache_dir"])
        assert scored["loss"] == pytest.approx(result.best_metrics["loss"], rel=1e-4)
        clip = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
        classify = pipeline("audio-classification", model=str(result.checkpoint_dir))
        theirs = {row["label"]: row["score"] for row in classify({"raw": clip.copy(), "sampling_rate": 16_000})}
        ours = audioclf.load(result.checkpoint_dir)({"array": clip, "sampling_rate": 16_000})
        assert all(theirs[row["label"]] == pytest.approx(row["score"], abs=1e-5) for row in ours)

    def test_without_peft_it_says_what_to_install(self, tones, quick, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "peft", None)
        with pytest.raises(ConfigError, match=r"needs the package peft: pip install 'audioclf\[lora\]'"):
            audioclf.train(tones, output_dir=tmp_path / "out", lora_rank=4, **quick)
