"""The fast form of the waveform CNN against the reference form, which runs transformers' own layers."""

import copy

import pytest
import torch
from conftest import tiny_config
from transformers import AutoModel, HubertModel

import audioclf
from audioclf import ConfigError
from audioclf.models import frontend_fast
from audioclf.models.classifier import build_classifier, place
from audioclf.models.frontend import encode_waveform, num_frames
from audioclf.runtime import autocast

KINDS = {
    "group": {},
    "group with bias": {"conv_bias": True},
    "layer": {"feat_extract_norm": "layer", "conv_bias": True},
    "layer without bias": {"feat_extract_norm": "layer"},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def cnn_of(dtype=torch.float32, **options) -> torch.nn.Module:
    """A CNN whose every parameter differs from what it is initialised with."""
    torch.manual_seed(0)
    cnn = AutoModel.from_config(tiny_config(**options)).feature_extractor.to(dtype)
    with torch.no_grad():
        for parameter in cnn.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return cnn


def padded(lengths, dtype=torch.float32, offset=0.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    values = torch.full((len(lengths), max(lengths) + 77), 5.0, dtype=dtype)
    for row, length in zip(values, lengths, strict=True):
        row[:length] = torch.randn(length, generator=generator, dtype=dtype) + offset
    return values, torch.tensor(lengths)


def both(cnn, values, num_samples) -> tuple[torch.Tensor, torch.Tensor]:
    """A clip's own frames by either form, one clip after the other."""
    lengths = num_frames(num_samples, tiny_config()).tolist()
    forms = (encode_waveform(cnn, values, num_samples, form) for form in ("fast", "reference"))
    return tuple(torch.cat([row[:n] for row, n in zip(frames, lengths, strict=True)]) for frames in forms)


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_output_and_gradients(kind, dtype):
    # 400 samples are the least; 320 are the CNN's stride; the longest takes several tiles.
    cnn = cnn_of(dtype, **KINDS[kind])
    fast, reference = both(cnn, *padded([400, 639, 640, 720, 31_999, 48_000], dtype))
    relative = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    assert (fast - reference).abs().max() <= relative * reference.abs().max()
    weights = torch.randn_like(fast)
    parameters = list(cnn.parameters())
    ours, theirs = (
        torch.autograd.grad((out * weights).sum(), parameters, allow_unused=True) for out in (fast, reference)
    )
    largest = max(gradient.abs().max() for gradient in theirs)
    for gradient, expected in zip(ours, theirs, strict=True):
        if gradient is None:  # a bias before a GroupNorm: the reference has rounding there
            assert expected.abs().max() <= relative * largest
        else:
            scale = expected.abs().max().clamp(min=1e-3 * largest)
            assert (gradient - expected).abs().max() <= 2 * relative * scale


@every_kind
def test_gradcheck_across_tiles(kind, monkeypatch):
    """Tiles of three rows: every border between tiles, clips and layers is crossed."""
    monkeypatch.setattr(frontend_fast, "TILE_ROWS", 3)
    shape = {"conv_dim": (3, 2, 3), "conv_kernel": (10, 3, 2), "conv_stride": (5, 2, 2), **KINDS[kind]}
    cnn = cnn_of(torch.float64, **shape)
    values, num_samples = padded([41, 150, 97], torch.float64)
    parameters = tuple(cnn.parameters())  # gradcheck moves them in place
    assert torch.autograd.gradcheck(lambda *_: encode_waveform(cnn, values, num_samples, "fast"), parameters)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_statistics_do_not_cancel(offset):
    """A large offset, and a click in a minute of silence, against fp64."""
    cnn = cnn_of()
    exact = copy.deepcopy(cnn).double()
    values, num_samples = padded([16_000], torch.float32, offset)
    click = torch.full((1, 960_000), offset)
    click[0, 5000:5010] += 1.0
    for clip, length in ((values, num_samples), (click, torch.tensor([960_000]))):
        with torch.no_grad():
            fast = encode_waveform(cnn, clip, length, "fast")
            reference = encode_waveform(exact, clip.double(), length, "reference")[:, : fast.shape[1]]
        assert (fast - reference).abs().max() <= 1e-5 * max(1.0, offset) * reference.abs().max()


@every_kind
def test_silence(kind):
    """No variance at all: the norm's epsilon decides, in both forms alike."""
    cnn, values, num_samples = cnn_of(**KINDS[kind]), torch.zeros(2, 1000), torch.tensor([1000, 400])
    fast, _ = both(cnn, values, num_samples)
    _, reference = both(cnn.double(), values.double(), num_samples)
    assert (fast - reference).abs().max() <= 1e-5


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision(precision):
    cnn = cnn_of()
    values, num_samples = padded([4000, 9000])
    exact, _ = both(cnn, values, num_samples)
    with autocast(torch.device("cpu"), precision):
        fast, reference = both(cnn, values, num_samples)
    assert fast.dtype == reference.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    error, usual = ((half - exact).abs().max() for half in (fast, reference))
    assert error <= 1.5 * usual  # no less exact than transformers' layers under autocast
    fast.sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in cnn.parameters())


def test_frozen_weights_keep_nothing():
    cnn = cnn_of().requires_grad_(False)
    assert not encode_waveform(cnn, torch.randn(1, 4000), None, "fast").requires_grad


class TestChoice:
    def test_auto_takes_the_fast_form_on_a_cpu(self, monkeypatch):
        calls = []
        monkeypatch.setattr(frontend_fast, "encode_packed", lambda *args: calls.append(args))
        encode_waveform(cnn_of(), torch.randn(1, 4000), None)
        assert len(calls) == 1

    @pytest.mark.parametrize(
        "options",
        [
            {"feat_extract_activation": "relu"},
            {"conv_kernel": (10, 5, 3, 3, 3, 2, 2)},  # wider than two strides
        ],
    )
    def test_what_it_cannot_compute_is_left_to_the_reference(self, options):
        cnn, values = cnn_of(**options), torch.randn(2, 4000)
        with torch.no_grad():
            expected = cnn(values).transpose(1, 2)
            assert torch.equal(encode_waveform(cnn, values, None), expected)
        model = build_classifier(tiny_config(**options), "mean", ["a", "b"])
        assert place(model, torch.device("cpu")) is model
        with pytest.raises(ConfigError, match="frontend='fast' cannot compute this model"):
            place(model, torch.device("cpu"), "fast")

    def test_gradient_to_the_samples(self):
        values = torch.randn(1, 4000, requires_grad=True)
        encode_waveform(cnn_of(), values, None).sum().backward()
        assert values.grad.abs().max() > 0

    def test_training_with_either_gives_the_same(self, tones, quick, tmp_path):
        options = {**quick, "num_epochs": 1}
        losses = []
        for form in ("fast", "reference"):
            run = audioclf.train(tones, output_dir=tmp_path / form, frontend=form, **options)
            losses.append([row["loss"] for row in run.history if row["event"] == "step"])
        assert losses[0] == pytest.approx(losses[1], abs=1e-4)
        with pytest.raises(ConfigError, match="frontend='slow' is not one of auto, fast, reference"):
            audioclf.train(tones, output_dir=tmp_path / "out", frontend="slow", **quick)


def test_a_silent_clip_leaves_its_neighbour_s_gradient_alone():
    """Its GroupNorm scales by 1 / sqrt(eps): windows that reach into a loud neighbour would overflow fp16."""
    cnn = cnn_of()
    with torch.no_grad():
        cnn.conv_layers[0].layer_norm.weight.mul_(100)
    values = torch.zeros(2, 4000)
    values[1] = torch.randn(4000)
    values[1, :10] *= 100
    with autocast(torch.device("cpu"), "fp16"):
        frames = encode_waveform(cnn, values, torch.tensor([3998, 4000]), "fast")
    (1e-3 * frames.float().square().sum()).backward()
    assert frames.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in cnn.parameters())


@every_kind
def test_weights_in_half_precision(kind):
    """A model that its user has cast, without autocast."""
    cnn, values = cnn_of(torch.bfloat16, **KINDS[kind]), torch.randn(2, 4000).bfloat16()
    with torch.no_grad():
        fast, reference = (encode_waveform(cnn, values, None, form) for form in ("fast", "reference"))
    assert fast.dtype == torch.bfloat16
    assert (fast - reference).abs().max() < 0.05 * reference.abs().max()


def test_pretrained_shapes_are_computed_fast():
    for options in ({}, {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}):
        assert frontend_fast.applies(HubertModel(tiny_config(**options)).feature_extractor)
