"""What each parameter is trained with: layer by layer, the head first, and averaged over the steps."""

import json

import pytest
import torch
from conftest import tiny_config
from safetensors.torch import load_file
from test_backbones import CONFIGS

import audioclf
from audioclf import ConfigError, resume
from audioclf.config import TrainConfig
from audioclf.ema import averaged_copy, decay_at, own_weights, update_average
from audioclf.models.classifier import build_classifier, freeze, hold, let_go
from audioclf.optimizer import build_optimizer

CPU = torch.device("cpu")
RATE, HEAD_RATE, FACTOR = 1e-3, 7e-3, 0.5


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


def three_layers(name: str) -> torch.nn.Module:
    config = CONFIGS[name].to_dict()
    layers = "encoder_layers" if name == "whisper" else "num_hidden_layers"
    return build_classifier(type(CONFIGS[name])(**{**config, layers: 3}), "mean", ["a", "b"])


class TestLayerDecay:
    @pytest.mark.parametrize("name", CONFIGS)
    def test_every_family(self, name):
        """By hand, from transformers' names: the layers 2, 1, 0, then all that a clip passes before them."""
        final = {
            "audio-spectrogram-transformer": "layernorm.",
            "whisper": "layer_norm.",
            "hubert-large": "encoder.layer_norm.",
            "wavlm-large": "encoder.layer_norm.",
            "wav2vec2-conformer relative": "encoder.layer_norm.",
            "wav2vec2-conformer rotary": "encoder.layer_norm.",
        }
        prefix = "layers" if name in ("audio-spectrogram-transformer", "whisper") else "encoder.layers"
        found = rates(three_layers(name), layer_decay=FACTOR)
        counted = dict.fromkeys(range(4), 0)
        for parameter, rate in found.items():
            if parameter.startswith("head."):
                assert rate == HEAD_RATE, parameter
                continue
            below = parameter.removeprefix("backbone.")
            above = 3
            for number in range(3):
                above = 2 - number if below.startswith(f"{prefix}.{number}.") else above
            if name in final and below.startswith(final[name]):
                above = 0
            assert rate == pytest.approx(RATE * FACTOR**above), parameter
            counted[above] += 1
        assert counted[0] - 2 * (name in final) <= counted[1] <= counted[2]  # wavlm's first layer has its own bias
        assert all(counted.values())

    @pytest.mark.parametrize("name", ["hubert", "wav2vec2-conformer rotary", "whisper"])
    def test_the_lowest_comes_before_the_layers(self, name):
        """By what runs: gradients of the first layer's input reach the parameters with the least rate and no others."""
        model = three_layers(name)
        found = rates(model, layer_decay=FACTOR)
        seen = []
        layers = model.backbone.layers if name == "whisper" else model.backbone.encoder.layers
        layers[0].register_forward_pre_hook(lambda _module, args, kwargs: seen.append(args[0]), with_kwargs=True)
        values = torch.randn(1, 40, 100) if name == "whisper" else torch.randn(1, 4000)
        model.eval()(values)
        seen[0].sum().backward()
        reached = {f for f, value in model.named_parameters() if value.grad is not None}
        lowest = {f for f, rate in found.items() if rate == pytest.approx(RATE * FACTOR**3)}
        assert reached <= lowest
        # SpecAugment alone uses the former, nothing the latter in a conformer.
        unused = ("backbone.masked_spec_embed", "backbone.encoder.pos_conv_embed." if "conformer" in name else "-")
        assert all(f.startswith(unused) for f in lowest - reached)

    def test_without_it_there_are_four_groups(self):
        model = three_layers("hubert")
        config = TrainConfig(weight_decay=0.1)
        assert len(build_optimizer(model, config, CPU).param_groups) == 4
        assert len(build_optimizer(model, TrainConfig(layer_decay=0.9), CPU).param_groups) == 2 * 4 + 2

    def test_frozen_cnn_has_no_group(self):
        model = three_layers("hubert")
        freeze(model, "feature_encoder")
        assert not any(".feature_extractor." in name for name in rates(model, layer_decay=FACTOR))

    def test_history_tells_the_top_layers_rate(self, tones, quick, tmp_path):
        few = {**quick, "num_epochs": 1, "warmup_ratio": 0.0, "lr_schedule": "constant"}
        result = audioclf.train(tones, output_dir=tmp_path / "out", layer_decay=0.5, **few)
        assert {row["learning_rate"] for row in result.history if row["event"] == "step"} == {quick["learning_rate"]}


class TestHeadFirst:
    def test_encoder_waits_and_then_learns(self, tones, quick, tmp_path, monkeypatch):
        """9 steps an epoch: until step 13 encoder and AdamW's averages stand still, dropout in it is off."""
        model = tiny_config(hidden_dropout=0.3)
        states = {}
        original = resume.save_last

        def save_and_look(run, *arguments):
            original(run, *arguments)
            encoder = {name: value.clone() for name, value in run.model.backbone.state_dict().items()}
            averages = {id(value) for value in run.optimizer.state}
            counted = [id(value) in averages for value in run.model.backbone.parameters() if value.requires_grad]
            states[run.state.step] = encoder, any(counted), any(m.training for m in run.model.backbone.modules())

        monkeypatch.setattr(resume, "save_last", save_and_look)
        options = {**quick, "model": model, "num_epochs": 2, "save_steps": 1}
        audioclf.train(tones, output_dir=tmp_path / "out", head_first_steps=13, **options)
        first = states[1][0]
        for step in range(1, 14):
            assert all(torch.equal(first[name], value) for name, value in states[step][0].items()), step
            assert not states[step][1:][0], step
            assert not states[step][2] or step == 9, step
        assert any(not torch.equal(first[name], value) for name, value in states[14][0].items())
        assert states[14][1]

    def test_equals_a_frozen_encoder_until_then(self, tones, quick, tmp_path):
        few = {**quick, "num_epochs": 1, "model": tiny_config(hidden_dropout=0.3)}
        frozen = audioclf.train(tones, output_dir=tmp_path / "a", freeze="backbone", cache_features=False, **few)
        first = audioclf.train(tones, output_dir=tmp_path / "b", head_first_steps=8, **few)
        losses = [[row["loss"] for row in run.history if row["event"] == "step"] for run in (frozen, first)]
        assert losses[0][:8] == losses[1][:8]
        assert losses[0][8] != losses[1][8]  # now with dropout
        one, two = (load_file(run.output_dir / "last" / "model.safetensors") for run in (frozen, first))
        assert not torch.equal(one["hubert.encoder.layer_norm.weight"], two["hubert.encoder.layer_norm.weight"])

    def test_holding_leaves_what_was_never_trained(self):
        """Whisper's positions are no parameters to train, a frozen CNN is not either."""
        for model in (three_layers("whisper"), three_layers("hubert")):
            if model.config.model_type == "hubert":
                freeze(model, "feature_encoder")
            model.train()
            before = [parameter.requires_grad for parameter in model.parameters()]
            hold(model)
            assert not any(value.requires_grad for value in model.backbone.parameters())
            assert all(value.requires_grad for value in model.head.parameters())
            assert not model.backbone.training
            let_go(model)
            assert [parameter.requires_grad for parameter in model.parameters()] == before
            assert model.backbone.training
            assert not model.frozen_part.training or model.frozen == "none"

    def test_all_steps_are_refused(self, tones, quick, tmp_path):
        few = {**quick, "num_epochs": 2}
        sentence = r"head_first_steps=18 leaves none of the run's 18 steps to the encoder: give fewer, or freeze="
        with pytest.raises(ConfigError, match=sentence):
            audioclf.train(tones, output_dir=tmp_path / "out", head_first_steps=18, **few)


@pytest.fixture(scope="module")
def averaged(tones, quick, tmp_path_factory):
    return audioclf.train(tones, output_dir=tmp_path_factory.mktemp("average") / "out", ema_decay=0.95, **quick)


class TestAverage:
    def test_against_a_loop(self):
        model = build_classifier(tiny_config(), "mean", ["a", "b"])
        averaged = averaged_copy(model)
        expected = {name: value.detach().double() for name, value in model.named_parameters()}
        generator = torch.Generator().manual_seed(0)
        for step in range(1, 60):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
            update_average(averaged, model, decay_at(step, 0.8))
            decay = min(0.8, (1 + step) / (10 + step))
            for name, value in model.named_parameters():
                expected[name] = decay * expected[name] + (1 - decay) * value.detach().double()
        for name, value in averaged.named_parameters():
            torch.testing.assert_close(value.double(), expected[name], rtol=0, atol=2e-6)
        assert not any(value.requires_grad for value in averaged.parameters())

    def test_warm_up_of_the_decay(self):
        assert decay_at(1, 0.999) == 2 / 11
        assert decay_at(90, 0.999) == 0.91
        assert decay_at(8_990, 0.999) == 0.999
        assert decay_at(10**6, 0.999) == 0.999

    def test_what_is_frozen_is_not_copied(self):
        model = build_classifier(tiny_config(), "mean", ["a", "b"])
        freeze(model, "backbone")
        averaged = averaged_copy(model)
        assert set(own_weights(model, averaged)) == {f"head.{name}" for name, _ in model.head.named_parameters()}
        assert all(one is two for one, two in zip(*(m.backbone.parameters() for m in (model, averaged)), strict=True))
        assert averaged.frozen == "backbone"

    def test_buffers_are_those_of_the_model(self):
        model = build_classifier(tiny_config(), lambda config: torch.nn.BatchNorm1d(3), ["a", "b"])
        averaged = averaged_copy(model)
        model.head.running_mean += 1.0
        update_average(averaged, model, 0.5)
        assert torch.equal(averaged.head.running_mean, model.head.running_mean)
        assert averaged.head.running_mean is not model.head.running_mean

    def test_a_run_keeps_the_average(self, averaged, tones, quick):
        """What is evaluated, exported and tested is the average; the optimizer's own weights lie beside it."""
        result = averaged
        assert result.best_metrics["accuracy"] >= 0.9
        scored = audioclf.evaluate(result.checkpoint_dir, tones, "valid", cache_dir=quick["cache_dir"])
        assert scored["loss"] == pytest.approx(result.best_metrics["loss"], rel=1e-6)
        last = result.output_dir / "last"
        metrics = audioclf.evaluate(last, tones, "valid", cache_dir=quick["cache_dir"])
        assert metrics["loss"] == pytest.approx(json.loads((last / "audioclf.json").read_text())["metrics"]["loss"])
        own = torch.load(last / resume.STATE_FILE, weights_only=True)["weights"]
        exported = load_file(last / "model.safetensors")
        assert not torch.equal(own["head.classifier.weight"], exported["classifier.weight"])

    def test_training_is_that_without_it(self, averaged, trained):
        losses = [[row["loss"] for row in run.history if row["event"] == "step"] for run in (trained, averaged)]
        assert losses[0] == losses[1]
        own = torch.load(averaged.output_dir / "last" / resume.STATE_FILE, weights_only=True)["weights"]
        plain = load_file(trained.output_dir / "last" / "model.safetensors")
        assert torch.equal(own["head.classifier.weight"], plain["classifier.weight"])


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

    def test_layerdrop(self):
        assert build_classifier(CONFIGS["hubert"], "mean", ["a", "b"], layerdrop=0.3).config.layerdrop == 0.3
        whisper = build_classifier(CONFIGS["whisper"], "mean", ["a", "b"], layerdrop=0.3)
        assert whisper.backbone.layerdrop == 0.3
        with pytest.raises(
            ConfigError, match=r"layerdrop=0.3: a model of the kind 'audio-spectrogram-transformer' has"
        ):
            build_classifier(CONFIGS["audio-spectrogram-transformer"], "mean", ["a", "b"], layerdrop=0.3)

    @pytest.mark.parametrize("head", ["mean", pytest.param("attention", marks=pytest.mark.slow)])
    def test_of_a_checkpoint(self, head, tones, quick, tmp_path):
        """It is trained with other rates than it was saved with; these then stand in its config."""
        few = {**quick, "num_epochs": 1, "head": head}
        first = audioclf.train(tones, output_dir=tmp_path / "a", **few)
        more = {**few, "model": str(first.checkpoint_dir), "learning_rate": 1e-12}
        losses = []
        for rate in (0.0, 0.4):
            result = audioclf.train(tones, output_dir=tmp_path / str(rate), dropout=rate, layerdrop=rate, **more)
            losses.append([row["loss"] for row in result.history if row["event"] == "step"])
            config = json.loads((result.checkpoint_dir / "config.json").read_text())
            config = config.get("encoder") or config
            assert (config["hidden_dropout"], config["attention_dropout"], config["layerdrop"]) == (rate,) * 3
            assert result.best_metrics["loss"] == pytest.approx(first.best_metrics["loss"], abs=1e-5)
        assert losses[0] != losses[1]
