"""Half precision where it is safe only: statistics, softmax, pooling and loss are never in it; overflow is survived."""

import math

import pytest
import torch
from conftest import tiny_config

import audioclf
from audioclf import ConfigError
from audioclf.evaluation import forward
from audioclf.models.attention import attention
from audioclf.models.backbone import encode
from audioclf.models.classifier import build_classifier, place
from audioclf.models.frontend import encode_waveform
from audioclf.models.heads import HEADS, MeanHead
from audioclf.runtime import autocast, choose_precision

CPU = torch.device("cpu")
LABELS = ["a", "b", "c"]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("padded", [False, True])
def test_norm_statistics_of_the_first_layer(precision, padded):
    """Its frames number 100 and 1,000 here and sum to more than fp16 can hold (65,504), their squares all the more."""
    torch.manual_seed(0)
    cnn = build_classifier(tiny_config(), "mean", LABELS).backbone.feature_extractor
    first = cnn.conv_layers[0]
    with torch.no_grad():
        first.conv.weight.mul_(50)
    values = 100 * torch.randn(1, 5005)
    with torch.no_grad():
        exact = encode_waveform(cnn, values, None)
        assert first.conv(values[:, None]).square().sum(-1).min() > 65_504
        batch = torch.nn.functional.pad(values, (0, 3000 if padded else 0))
        with autocast(CPU, precision):
            half = encode_waveform(cnn, batch, torch.tensor([5005]) if padded else None)[:, : exact.shape[1]]
    # What the products round is about 1 % here; statistics in half precision would give infinity or far worse.
    assert (half.float() - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("dropout", [0.0, 1e-6])  # torch's own attention, and ours
def test_softmax_of_the_encoder(precision, dropout):
    """1,499 equal weights are 1/1499 each: a sum in half precision would be off by whole percents."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    torch.manual_seed(0)
    query, key = (4 * torch.randn(1, 2, 1499, 32).to(dtype) for _ in range(2))
    value = torch.ones(1, 2, 1499, 32, dtype=dtype)
    with autocast(CPU, precision):
        out, _ = attention(torch.nn.Module(), query, key, value, None, dropout=dropout)
    assert (out.float() - 1).abs().median() <= torch.finfo(dtype).eps


@pytest.mark.parametrize("head", [MeanHead, *HEADS.values()])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_pooling(head, precision):
    """3,000 frames of 100 sum to 300,000, more than fp16 can hold; one odd frame is 1/3000, lost in a bf16 sum."""
    torch.manual_seed(0)
    config = tiny_config(num_labels=3)
    module = head(config)
    frames = [100 + torch.randn(1, 3000, 32) for _ in range(3)]
    mask = torch.ones(1, 3000, dtype=torch.bool)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    with torch.no_grad():
        exact = module(frames, mask)
        with autocast(CPU, precision):
            half = module([layer.to(dtype) for layer in frames], mask)
    assert (half.float() - exact).abs().max() < 0.02 * exact.abs().max()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_encoder_computes_in_half_and_the_loss_does_not(precision, tones, quick, tmp_path):
    seen = set()

    def noting(config):
        def loss(logits, labels):
            seen.add(logits.dtype)
            return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

        return loss

    options = {**quick, "num_epochs": 1, "precision": precision, "loss": noting}
    audioclf.train(tones, output_dir=tmp_path / "out", **options)
    assert seen == {torch.float32}
    model = build_classifier(tiny_config(), "mean", LABELS)
    products = []
    model.backbone.encoder.layers[0].attention.q_proj.register_forward_hook(lambda *a: products.append(a[-1].dtype))
    with autocast(CPU, precision):
        encode(model.backbone, torch.randn(1, 800), None)
    assert products == [{"bf16": torch.bfloat16, "fp16": torch.float16}[precision]]


def test_a_real_overflow_lowers_the_scale_and_training_goes_on(tones, quick, tmp_path, capsys):
    """The scaler starts at 2^16; a loss a hundred times larger overflows in fp16 until the scale has come down."""

    def large(config):
        return lambda logits, labels: 100 * torch.nn.functional.cross_entropy(logits, labels, reduction="none")

    options = {**quick, "num_epochs": 2, "precision": "fp16", "loss": large, "progress": True}
    result = audioclf.train(tones, output_dir=tmp_path / "out", **options)
    steps = [row for row in result.history if row["event"] == "step"]
    epochs = [row for row in result.history if row["event"] == "epoch"]
    skipped = epochs[-1]["skipped_steps"]
    assert 0 < skipped < 16
    assert f"({skipped} step(s) skipped so far: their numbers were not finite)" in capsys.readouterr().out
    assert [row["step"] for row in steps] == list(range(1, 18 - skipped + 1))
    assert all(math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"]) for row in steps)
    warm_up = math.ceil(0.1 * 18)
    for row in steps:  # the schedule counts the steps that were taken
        done = row["step"] - 1
        factor = done / warm_up if done < warm_up else (18 - done) / (18 - warm_up)
        assert row["learning_rate"] == pytest.approx(quick["learning_rate"] * factor)


def test_auto_is_fp32_where_half_precision_is_emulated(monkeypatch):
    """Held to AVX2, oneDNN computes bf16 by emulation, ten times slower than fp32, whatever the CPU could do."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert choose_precision("auto", CPU) == "fp32"
    with pytest.raises(ConfigError, match="precision='half' is not one of auto, fp32, bf16, fp16"):
        choose_precision("half", CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_statistics_on_cuda():
    torch.manual_seed(0)
    model = build_classifier(tiny_config(), "attention", LABELS).eval()
    values = torch.randn(2, 16_000)
    mask = torch.ones(2, 16_000, dtype=torch.long)
    mask[1, 9000:] = 0
    with torch.no_grad():
        exact = model(values, mask)
        model.cuda()
        for precision in ("fp16", "bf16"):
            with autocast(torch.device("cuda"), precision):
                half = model(values.cuda(), mask.cuda()).float().cpu()
            assert (half - exact).abs().max() < 0.05


def test_fp32_is_not_rounded_to_tf32_and_the_flags_come_back():
    """What CUDA does with them is tested on CUDA below."""
    flags = [torch.backends.cuda.matmul, torch.backends.cudnn]
    before = [flag.allow_tf32 for flag in flags]
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with autocast(CPU, "fp32"):
            assert not any(flag.allow_tf32 for flag in flags)
        assert [flag.allow_tf32 for flag in flags] == [True, before[1]]
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_fp32_on_cuda_is_that_of_the_cpu():
    torch.manual_seed(0)
    model = build_classifier(tiny_config(conv_dim=(64,) * 7), "mean", ["a", "b"]).eval()
    batch = {"input_values": torch.randn(2, 16_000), "attention_mask": torch.ones(2, 16_000, dtype=torch.long)}
    batch["attention_mask"][0, 9000:] = 0
    with torch.inference_mode():
        here = forward(place(model, CPU), batch, CPU, "fp32")
        there = forward(place(model, torch.device("cuda")), batch, torch.device("cuda"), "fp32")
    assert (here - there.cpu()).abs().max() < 1e-5
