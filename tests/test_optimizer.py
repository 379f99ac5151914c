"""What each parameter is trained with, and the dropout that an encoder is trained with."""

import json

import pytest
import torch
from test_backbones import CONFIGS

import audioclf
from audioclf.config import TrainConfig
from audioclf.models.classifier import build_classifier, freeze
from audioclf.optimizer import build_optimizer

CPU = torch.device("cpu")
RATE, HEAD_RATE = 1e-3, 7e-3


def rates(model: audioclf.models.classifier.AudioClassifier, **options) -> dict[str, float]:
    """Peak rate of each trained parameter, by name."""
    config = TrainConfig(learning_rate=RATE, head_learning_rate=HEAD_RATE, weight_decay=0.1, **options)
    groups = build_optimizer(model, config, CPU).param_groups
    found = {id(parameter): group for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(found)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert found[id(parameter)]["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0), name
    return {name: found[id(value)]["peak_lr"] for name, value in model.named_parameters() if value.requires_grad}


class TestGroups:
    def test_rates_and_decay(self):
        model = build_classifier(CONFIGS["hubert"], "mean", ["a", "b"])
        for name, rate in rates(model).items():
            assert rate == (HEAD_RATE if name.startswith("head.") else RATE), name
        assert len(build_optimizer(model, TrainConfig(weight_decay=0.1), CPU).param_groups) == 4

    def test_frozen_cnn_has_no_group(self):
        model = build_classifier(CONFIGS["hubert"], "mean", ["a", "b"])
        freeze(model, "feature_encoder")
        assert not any(".feature_extractor." in name for name in rates(model))


class TestDropout:
    @pytest.mark.parametrize("name", CONFIGS)
    def test_every_family(self, name):
        model = build_classifier(CONFIGS[name], "mean", ["a", "b"], dropout=0.25).backbone
        modules = {path: module.p for path, module in model.named_modules() if isinstance(module, torch.nn.Dropout)}
        floats = {
            f"{path}.{key}": value
            for path, module in model.named_modules()
            for key, value in vars(module).items()
            if "dropout" in key and isinstance(value, float)
        }
        unused = {path for path in modules if "final_dropout" in path}
        assert {value for path, value in {**modules, **floats}.items() if path not in unused} == {0.25}

    @pytest.mark.parametrize("head", ["mean", pytest.param("attention", marks=pytest.mark.slow)])
    def test_of_a_checkpoint(self, head, tones, quick, tmp_path):
        """It is trained with other rates than it was saved with; these then stand in its config."""
        few = {**quick, "num_epochs": 1, "head": head}
        first = audioclf.train(tones, output_dir=tmp_path / "a", **few)
        more = {**few, "model": str(first.checkpoint_dir), "learning_rate": 1e-12}
        losses = []
        for rate in (0.0, 0.4):
            result = audioclf.train(tones, output_dir=tmp_path / str(rate), dropout=rate, **more)
            losses.append([row["loss"] for row in result.history if row["event"] == "step"])
            config = json.loads((result.checkpoint_dir / "config.json").read_text())
            config = config.get("encoder") or config
            assert (config["hidden_dropout"], config["attention_dropout"]) == (rate, rate)
            assert result.best_metrics["loss"] == pytest.approx(first.best_metrics["loss"], abs=1e-5)
        assert losses[0] != losses[1]
