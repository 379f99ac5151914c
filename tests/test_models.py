"""The encoder and heads: loading, freezing, what heads get. That padding plays no part is in test_padding.py."""

import huggingface_hub
import numpy as np
import pytest
import torch
from conftest import tiny_config
from transformers import AutoModel, AutoModelForAudioClassification, Wav2Vec2Config

import audioclf
from audioclf import CheckpointError, ConfigError, config
from audioclf.models.backbone import encode
from audioclf.models.classifier import AudioClassifier, build_classifier, freeze, load_classifier
from audioclf.models.frontend import masked_group_norm, min_samples, num_frames
from audioclf.models.heads import HEADS, MeanHead
from audioclf.models.loading import load_config, load_feature_extractor
from audioclf.models.losses import build_loss
from audioclf.models.waveform import encode_features

LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
LABELS = ["a", "b", "c"]


def test_layer_outputs_are_hidden_states():
    torch.manual_seed(0)
    config = tiny_config(**LAYER_NORM)
    model = build_classifier(config, "mean", LABELS).eval()
    clip = torch.randn(1, 4000)
    with torch.no_grad():
        frames, mask = encode(model.backbone, clip, None, frontend="reference")
        theirs = model.backbone(clip, output_hidden_states=True)
    assert mask.all()
    for ours, reference in zip(frames, (*theirs.hidden_states, theirs.last_hidden_state), strict=True):
        assert torch.equal(ours, reference)


def test_heads_have_the_names_that_the_options_know():
    assert set(config.HEADS) == {"mean", *HEADS}


@pytest.mark.parametrize("head", HEADS)
def test_a_head_ignores_frames_that_are_none_of_the_clip(head):
    """Whatever they hold, even NaN."""
    torch.manual_seed(0)
    module = build_classifier(tiny_config(), head, LABELS).head
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    frames = [torch.randn(2, 9, 32) for _ in range(3)]
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    padded = [layer.masked_fill(~mask[..., None], 1e4) for layer in frames]
    logits = module(padded, mask)
    assert torch.allclose(logits[:1], module([layer[:1] for layer in frames], mask[:1]), atol=1e-6)
    assert torch.allclose(logits[1:], module([layer[1:, :5] for layer in frames], mask[1:, :5]), atol=1e-6)


def test_multihead_pooling_against_torch():
    """Attention of learned queries over the frames, as torch computes it."""
    torch.manual_seed(0)
    head = HEADS["multihead"](tiny_config(num_labels=3))
    torch.nn.init.normal_(head.queries)
    frames, mask = [torch.randn(2, 9, 32) for _ in range(3)], torch.arange(9) < torch.tensor([[9], [5]])
    mixed = sum(frames) / 3
    parts = mixed.unflatten(-1, (2, 16)).transpose(1, 2)  # (B, heads, F, D / heads)
    pooled = torch.nn.functional.scaled_dot_product_attention(
        head.queries[None, :, None].expand(2, -1, -1, -1), parts, parts, attn_mask=mask[:, None, None]
    )
    assert torch.allclose(head(frames, mask), head.classifier(pooled.flatten(1)), atol=1e-6)


def test_skipped_layers_pass_their_input_on():
    torch.manual_seed(0)
    model = build_classifier(tiny_config(layerdrop=1.0), "attention", LABELS).train()
    frames, _ = encode(model.backbone, torch.randn(1, 4000), None)
    assert len(frames) == 3
    assert torch.equal(frames[0], frames[2])


def test_group_norm_matches_torch_and_keeps_precision():
    norm = torch.nn.GroupNorm(4, 4)
    torch.nn.init.normal_(norm.weight)
    hidden = torch.randn(2, 4, 50) + 1000.0  # an offset that would cancel in E[x^2] - E[x]^2
    expected = norm(hidden)
    assert torch.allclose(masked_group_norm(hidden, torch.tensor([50, 50]), norm), expected, atol=1e-3)
    assert masked_group_norm(hidden.bfloat16(), torch.tensor([50, 40]), norm).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="one channel a group"):
        masked_group_norm(hidden, torch.tensor([50, 50]), torch.nn.GroupNorm(2, 4))


def test_frame_counts():
    config = tiny_config()
    assert min_samples(config) == 400
    lengths = torch.tensor([400, 719, 720, 16_000, 480_000])
    assert num_frames(lengths, config).tolist() == [1, 1, 2, 49, 1499]


@pytest.mark.parametrize("head", config.HEADS)
def test_training_goes_on_from_a_head_with_the_same_labels(head, tmp_path):
    from audioclf.export import save_pretrained

    torch.manual_seed(0)
    first = build_classifier(tiny_config(), head, LABELS)
    save_pretrained(first, load_feature_extractor(first.config), tmp_path / "c", {})
    same = build_classifier(str(tmp_path / "c"), head, LABELS)
    other = build_classifier(str(tmp_path / "c"), head, ["c", "b", "a"])
    for name, value in first.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
        if name.startswith("backbone."):
            assert torch.equal(value, other.state_dict()[name])
    assert not torch.equal(first.head.classifier.weight, other.head.classifier.weight)
    assert other.labels == ["c", "b", "a"]


def test_freeze():
    model = build_classifier(tiny_config(), "mean", LABELS)
    freeze(model, "feature_encoder")
    assert not any(p.requires_grad for p in model.backbone.feature_extractor.parameters())
    assert all(p.requires_grad for p in model.backbone.encoder.parameters())
    freeze(model, "backbone")
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        "head.projector.weight",
        "head.projector.bias",
        "head.classifier.weight",
        "head.classifier.bias",
    ]


class TestRefusals:
    def test_no_such_folder(self):
        with pytest.raises(CheckpointError, match=r"model='\./nowhere': no such folder or file"):
            load_config("./nowhere")

    def test_no_network(self, monkeypatch):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(
            CheckpointError, match=r"no such local folder, and the hub gave nothing.*local folder.*--demo"
        ):
            load_config("nobody/no-such-model")

    def test_other_family(self):
        from transformers import BertConfig

        with pytest.raises(ConfigError, match=r"is a 'bert' model; audioclf trains encoders of the kinds hubert"):
            build_classifier(BertConfig(), "mean", LABELS)

    def test_adapter(self):
        with pytest.raises(ConfigError, match="adapter"):
            load_config(tiny_config(Wav2Vec2Config, add_adapter=True))

    def test_batch_norm(self):
        with pytest.raises(ConfigError, match="BatchNorm in its positional convolution"):
            load_config(tiny_config(conv_pos_batch_norm=True))

    def test_model_of_a_wrong_type(self):
        with pytest.raises(ConfigError, match="model=7 is no hub id"):
            load_config(7)

    def test_damaged_weights(self, tmp_path):
        AutoModelForAudioClassification.from_config(tiny_config()).save_pretrained(tmp_path)
        weights = tmp_path / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(CheckpointError, match="cannot be loaded"):
            load_classifier(str(tmp_path))

    def test_encoder_without_a_head(self, tmp_path):
        build_classifier(tiny_config(), "mean", LABELS).backbone.save_pretrained(tmp_path)
        with pytest.raises(CheckpointError, match=r"is no classifier but HubertModel: train it first"):
            load_classifier(str(tmp_path))

    def test_head_that_is_no_module(self):
        with pytest.raises(ConfigError, match=r"gave int, not a torch\.nn\.Module"):
            build_classifier(tiny_config(), lambda config: 3, LABELS)

    def test_head_for_a_checkpoint_that_has_one(self, tmp_path):
        AutoModelForAudioClassification.from_config(tiny_config(num_labels=3)).save_pretrained(tmp_path)
        with pytest.raises(ConfigError, match=r"has the head 'mean', which needs no callable to build it: leave head"):
            load_classifier(str(tmp_path), MeanHead)

    def test_loss_with_weights_of_its_own(self, tones, quick, tmp_path):
        class Proxies(torch.nn.Module):
            def __init__(self, config):
                super().__init__()
                self.linear = torch.nn.Linear(config.num_labels, 2)

        with pytest.raises(ConfigError, match="loss= has weights to be trained, which nothing trains: put them into"):
            audioclf.train(tones, output_dir=tmp_path / "out", loss=Proxies, **quick)

    def test_loss_given_instead_of_its_builder(self):
        loss = torch.nn.CrossEntropyLoss(reduction="none")
        with pytest.raises(ConfigError, match=r"could not be built.*lambda config"):
            build_loss(loss, tiny_config())
        with pytest.raises(ConfigError, match="gave int, which is not callable"):
            build_loss(lambda config: 3, tiny_config())


def test_half_precision_checkpoints_are_trained_in_fp32(tmp_path):
    model = AutoModelForAudioClassification.from_config(tiny_config(num_labels=3)).half()
    model.save_pretrained(tmp_path)
    assert {p.dtype for p in load_classifier(str(tmp_path)).parameters()} == {torch.float32}
    assert {p.dtype for p in build_classifier(str(tmp_path), "attention", LABELS).parameters()} == {torch.float32}


def test_heads_are_modules_of_their_names():
    for name, builder in HEADS.items():
        config = tiny_config(num_labels=3)
        classifier = AudioClassifier(build_classifier(config, name, LABELS).backbone, builder(config), name)
        assert classifier(torch.randn(2, 800)).shape == (2, 3)


@pytest.mark.parametrize("feature_prob", [0.0, 0.3])
@pytest.mark.parametrize("padded", [False, True])
def test_spec_augment_is_that_of_transformers(padded, feature_prob):
    options = {"apply_spec_augment": True, "mask_time_prob": 0.3, "mask_time_length": 3, "hidden_dropout": 0.0}
    config = tiny_config(**options, mask_feature_prob=feature_prob, mask_feature_length=4)
    torch.manual_seed(0)
    model = AutoModel.from_config(config).train()
    features = torch.randn(3, 40, 16)
    lengths = torch.tensor([40, 25, 12]) if padded else None
    mask = torch.arange(40) < (lengths[:, None] if padded else torch.full((3, 1), 40))
    np.random.seed(1)  # noqa: NPY002 - SpecAugment's stream
    ours = encode_features(model, features, lengths)[0][-1]
    np.random.seed(1)  # noqa: NPY002
    hidden = model._mask_hidden_states(model.feature_projection(features), attention_mask=mask.long())
    theirs = model.encoder(hidden, attention_mask=mask if padded else None).last_hidden_state
    assert torch.equal(ours[mask], theirs[mask])
    plain = encode_features(model.eval(), features, lengths)[0][-1]
    assert not torch.allclose(ours[mask], plain[mask], atol=1e-3)
