"""The positional convolution in our forms against torch's own."""

import copy
from types import MethodType

import pytest
import torch
from conftest import tiny_config
from torch.nn.functional import conv1d
from transformers import AutoModel, HubertConfig, UniSpeechSatConfig, Wav2Vec2Config, WavLMConfig

from audioclf.models.classifier import build_classifier, place
from audioclf.models.positional import _forward, convolve, convolve_in_blocks, use_fast_positions
from audioclf.runtime import autocast


@pytest.mark.parametrize("taps", [1, 2, 3, 16, 19, 128])
@pytest.mark.parametrize("frames", [1, 5, 63, 64, 65, 129, 130, 300])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("form", [convolve, convolve_in_blocks])
def test_values_and_gradients(taps, frames, groups, form):
    """In fp64, where only a mistake can be as large as 1e-11; the last block may be nearly empty."""
    generator = torch.Generator().manual_seed(0)
    frames_in = torch.randn(2, 8, frames, dtype=torch.float64, generator=generator)
    weights = torch.randn(12, 8 // groups, taps, dtype=torch.float64, generator=generator)
    inputs = [tensor.requires_grad_() for tensor in (frames_in, weights)]
    ours = form(*inputs, groups, taps // 2)
    theirs = conv1d(*inputs, padding=taps // 2, groups=groups)
    assert torch.allclose(ours, theirs, atol=1e-11)
    direction = torch.randn(theirs.shape, dtype=torch.float64, generator=generator)
    for gradient, reference in zip(
        torch.autograd.grad((ours * direction).sum(), inputs),
        torch.autograd.grad((theirs * direction).sum(), inputs),
        strict=True,
    ):
        assert torch.allclose(gradient, reference, atol=1e-10)


@pytest.mark.usefixtures("fft_for_few_frames")
def test_taps_out_of_reach_keep_still():
    """A clip of 6 frames reaches taps 59 to 69 of 128; of rounding elsewhere Adam would make steps like any other."""
    torch.manual_seed(0)
    convolution = AutoModel.from_config(tiny_config(num_conv_pos_embeddings=128)).encoder.pos_conv_embed.conv
    convolution.forward = MethodType(_forward, convolution)
    before = convolution.weight.detach().clone()
    optimizer = torch.optim.AdamW(convolution.parameters(), lr=1e-3, weight_decay=0.0)
    for _ in range(3):
        convolution(torch.randn(2, 32, 6))[..., :6].square().sum().backward()
        # Weight norm divides each tap by the norm over channels: a tap without gradient stays, to rounding.
        optimizer.step()
        optimizer.zero_grad()
    moved = (convolution.weight - before).abs().amax(dim=(0, 1))
    assert moved[59:70].min() > 1e-3
    assert moved[:59].max() < 1e-7
    assert moved[70:].max() < 1e-7


def test_fp32_is_as_precise_as_the_direct_form():
    """DistilHuBERT's shape, with frames a thousand times larger in one corner."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(1, 768, 400, generator=generator)
    frames[:, :, :10] *= 1000
    weights = 0.02 * torch.randn(768, 48, 128, generator=generator)
    exact = conv1d(frames.double(), weights.double(), padding=64, groups=16)
    direct = (conv1d(frames, weights, padding=64, groups=16) - exact).abs().max()
    assert (convolve(frames, weights, 16, 64) - exact).abs().max() <= 2 * direct


@pytest.mark.usefixtures("fft_for_few_frames")
@pytest.mark.parametrize("family", [HubertConfig, Wav2Vec2Config, WavLMConfig, UniSpeechSatConfig])
@pytest.mark.parametrize("taps", [16, 15])
@pytest.mark.parametrize("stable", [False, True])
def test_in_an_encoder(family, taps, stable, tmp_path):
    """Frames, gradients (of the weight norm's two parts also) and what is saved."""
    torch.manual_seed(0)
    config = tiny_config(family, num_conv_pos_embeddings=taps, do_stable_layer_norm=stable)
    reference = AutoModel.from_config(config)
    fast = copy.deepcopy(reference)
    use_fast_positions(fast)
    values = torch.randn(2, 9000)
    outputs = [model(values).last_hidden_state for model in (reference, fast)]
    assert not torch.equal(*outputs)  # it is another way to compute it
    assert torch.allclose(*outputs, atol=1e-5)
    for output in outputs:
        (output * torch.linspace(-1, 1, output.shape[-1])).square().mean().backward()
    for (name, ours), theirs in zip(fast.named_parameters(), reference.parameters(), strict=True):
        if theirs.grad is not None:
            assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5), name
    assert list(fast.state_dict()) == list(reference.state_dict())
    with torch.no_grad():
        before = fast(values).last_hidden_state
        copied = copy.deepcopy(fast)
        copied.encoder.pos_conv_embed.conv.bias += 1
        assert torch.equal(fast(values).last_hidden_state, before)
        assert not torch.allclose(copied(values).last_hidden_state, before, atol=1e-3)
    fast.save_pretrained(tmp_path)
    assert torch.equal(AutoModel.from_pretrained(tmp_path)(values).last_hidden_state, outputs[0])


def test_few_frames_keep_torch_s():
    torch.manual_seed(0)
    reference = AutoModel.from_config(tiny_config())
    fast = copy.deepcopy(reference)
    use_fast_positions(fast)
    for clips, same in ((33, True), (34, False)):  # of 12 frames
        values = torch.randn(clips, 4000)
        assert torch.equal(*(model(values).last_hidden_state for model in (reference, fast))) is same


@pytest.mark.usefixtures("fft_for_few_frames")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype, monkeypatch):
    """Computed in fp32, rounded once: no farther from the exact result than torch's own, in autocast's type."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    torch.manual_seed(0)
    exact = AutoModel.from_config(tiny_config()).encoder.pos_conv_embed.conv
    ours, theirs = copy.deepcopy(exact), copy.deepcopy(exact)
    ours.forward = MethodType(_forward, ours)
    values = torch.randn(2, 32, 200).to(dtype)
    reference = exact.double()(values.double())
    reference.square().mean().backward()
    errors = []
    for convolution in (ours, theirs):
        with torch.autocast("cpu", dtype=dtype):
            out = convolution(values)
        assert out.dtype == dtype
        out.double().square().mean().backward()
        gradient = convolution.parametrizations.weight.original1.grad
        expected = exact.parametrizations.weight.original1.grad
        errors.append([(out - reference).abs().max(), (gradient - expected).abs().max()])
    for ours_is_off, theirs_is_off in zip(*errors, strict=True):
        assert ours_is_off <= 1.01 * theirs_is_off


@pytest.mark.usefixtures("fft_for_few_frames")
@pytest.mark.parametrize(("dtype", "same"), [(torch.bfloat16, True), (torch.float16, False)])
def test_bf16_with_amx_keeps_torch_s(dtype, same, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    torch.manual_seed(0)
    reference = AutoModel.from_config(tiny_config())
    fast = copy.deepcopy(reference)
    use_fast_positions(fast)
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        assert torch.equal(*(model(torch.ones(1, 4000)).last_hidden_state for model in (reference, fast))) is same


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_blocks_in_half_precision(dtype):
    """Products add up in fp32: no farther from the exact result than torch's own, gradients included."""
    generator = torch.Generator().manual_seed(0)
    exact = [torch.randn(2, 32, 300, generator=generator), 0.1 * torch.randn(32, 8, 16, generator=generator)]
    exact = [tensor.to(dtype).double().requires_grad_() for tensor in exact]
    direction = torch.randn(2, 32, 301, generator=generator).to(dtype)
    results = []
    for form, inputs in (
        (lambda x, w: conv1d(x, w, padding=8, groups=4), exact),
        (
            lambda x, w: conv1d(x, w, padding=8, groups=4),
            [tensor.detach().to(dtype).requires_grad_() for tensor in exact],
        ),
        (lambda x, w: convolve_in_blocks(x, w, 4, 8), [tensor.detach().to(dtype).requires_grad_() for tensor in exact]),
    ):
        out = form(*inputs)
        out.backward(direction.to(out.dtype))
        results.append([out, *(tensor.grad for tensor in inputs)])
    for reference, theirs, ours in zip(*results, strict=True):
        assert ours.dtype == dtype
        assert (ours.double() - reference).abs().max() <= 1.1 * (theirs.double() - reference).abs().max()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("padded", [False, True])
def test_an_encoder_on_cuda(padded):
    """All forms of the convolutions that a GPU takes, in fp32 beside the reference on a CPU, with gradients."""
    torch.manual_seed(0)
    config = tiny_config(conv_dim=(64,) * 7, num_conv_pos_embeddings=128)
    reference = build_classifier(config, "mean", ["a", "b"]).eval()
    values, mask = torch.randn(4, 48_000), torch.ones(4, 48_000, dtype=torch.long)
    if padded:
        mask[1, 30_000:] = 0
    results = []
    for device, form in ((torch.device("cpu"), "reference"), (torch.device("cuda"), "auto")):
        model = place(copy.deepcopy(reference), device, form)
        with autocast(device, "fp32"):
            logits = model(values.to(device), mask if padded else None)
        logits.square().sum().backward()
        results.append((logits, *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)))
    for here, there in zip(*results, strict=True):
        assert torch.allclose(here, there.cpu(), rtol=1e-3, atol=1e-5)
