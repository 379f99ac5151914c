"""Attention with our dropout against torch's, and in an encoder."""

import contextlib
import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import tiny_config
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModel, HubertConfig, Wav2Vec2Config, WavLMConfig

from audioclf.models import attention as attention_module
from audioclf.models.attention import attention, use_own_attention
from audioclf.models.classifier import build_classifier
from audioclf.models.dropout import dropped_positions
from audioclf.models.losses import build_loss
from audioclf.run import State
from audioclf.runtime import autocast
from audioclf.step import backward


def qkv(batch=2, heads=3, frames=11, size=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shape = (batch, heads, frames, size)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for _ in range(3)]


def dense(positions: list[torch.Tensor], shapes: list[tuple[int, ...]], p: float) -> list[torch.Tensor]:
    """Each draw as a mask that multiplies."""
    masks = []
    for drawn, shape in zip(positions, shapes, strict=True):
        mask = torch.full((int(np.prod(shape)),), 1 / (1 - p), dtype=torch.float64)
        mask[drawn] = 0.0
        masks.append(mask.view(shape))
    return masks


class TestAttention:
    @pytest.mark.parametrize("at_once", [1, 2**22])
    @pytest.mark.parametrize("lengths", [[11, 11], [11, 5], [1, 11]])
    def test_values_and_gradients_are_those_of_plain_torch(self, lengths, at_once, monkeypatch):
        """With the very positions that were drawn, multiplied in as a mask."""
        drawn, real = [], dropped_positions
        monkeypatch.setattr(attention_module, "CACHED_WEIGHTS", at_once)
        monkeypatch.setattr(attention_module, "dropped_positions", lambda n, p: drawn.append(real(n, p)) or drawn[-1])
        query, key, value = qkv()
        mask = (torch.arange(11) < torch.tensor(lengths)[:, None])[:, None, None].expand(2, 1, 11, 11)
        torch.manual_seed(0)
        out, _ = attention(torch.nn.Module(), query, key, value, mask, dropout=0.3, scaling=0.7)
        heads = 3 if at_once > 1 else 1
        shapes = [(heads, length, length) for length in lengths for _ in range(3 // heads)]
        masks = dense(drawn, shapes, 0.3)
        expected = torch.zeros(2, 11, 3, 4, dtype=torch.float64)
        for clip, length in enumerate(lengths):
            own = torch.cat(masks[: 3 // heads])
            del masks[: 3 // heads]
            q, k, v = (tensor[clip, :, :length] for tensor in (query, key, value))
            expected[clip, :length] = (((0.7 * q @ k.mT).softmax(-1) * own) @ v).transpose(0, 1)
        assert torch.allclose(out, expected, atol=1e-12)
        weights = torch.randn_like(out)
        ours = torch.autograd.grad((out * weights).sum(), (query, key, value))
        theirs = torch.autograd.grad((expected * weights).sum(), (query, key, value))
        for gradient, reference in zip(ours, theirs, strict=True):
            assert torch.allclose(gradient, reference, atol=1e-12)

    def test_without_dropout_it_is_torch_s_own(self):
        query, key, value = qkv()
        module = torch.nn.Module()
        out, _ = attention(module, query, key, value, None, dropout=0.0, scaling=0.5, is_causal=False)
        assert torch.equal(out, scaled_dot_product_attention(query, key, value, scale=0.5).transpose(1, 2))

    def test_its_mean_is_attention_without_dropout(self):
        query, key, value = qkv(batch=1, heads=1)
        torch.manual_seed(0)
        with torch.no_grad():
            draws = torch.stack([attention(None, query, key, value, None, dropout=0.2)[0] for _ in range(4000)])
            expected = scaled_dot_product_attention(query, key, value).transpose(1, 2)
        error = (draws.mean(0) - expected) / (draws.std(0) / 4000**0.5)
        assert error.abs().max() < 4.5

    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_scores_and_softmax_are_not_in_half_precision(self, precision):
        """Scores near 100 would be off by 0.25 in bf16, and the weights by a quarter."""
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        query, key, value = (tensor.detach().to(dtype) for tensor in qkv(1, 2, 40, 32))
        query, key = 4 * query, 4 * key
        exact = scaled_dot_product_attention(query.double(), key.double(), value.double()).transpose(1, 2)
        with autocast(torch.device("cpu"), precision):
            out, _ = attention(None, query, key, value, None, dropout=1e-9)
        assert out.dtype == dtype
        assert (out.double() - exact).abs().max() <= 4 * torch.finfo(dtype).eps * exact.abs().max()

    def test_the_weights_are_freed_by_the_backward_pass(self):
        """Kept as attributes they would live until the next step's own are made."""
        kept = []

        def pack(tensor):
            if tensor.shape[-2:] == (11, 11):
                kept.append(weakref.ref(tensor))
            return tensor

        query, key, value = qkv()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out, _ = attention(torch.nn.Module(), query, key, value, None, dropout=0.3)
        gc.collect()
        assert [weights() is not None for weights in kept] == [True] * 2  # one tensor a clip
        out.sum().backward()
        gc.collect()
        assert [weights() for weights in kept] == [None] * 2
        assert out.grad_fn is not None


class TestEncoder:
    def test_a_family_with_attention_of_its_own_keeps_it(self):
        model = AutoModel.from_config(tiny_config(WavLMConfig, hidden_dropout=0.1, attention_dropout=0.1)).train()
        use_own_attention(model)
        assert model(torch.randn(1, 4000)).last_hidden_state.isfinite().all()

    @pytest.mark.parametrize("family", [HubertConfig, Wav2Vec2Config, WavLMConfig])
    @pytest.mark.parametrize("norm", ["group", "layer"])
    @pytest.mark.parametrize("padded", [False, True])
    def test_nothing_waits_for_the_device(self, family, norm, padded, monkeypatch):
        """On the meta device any look at a value from the host raises; a GPU's queue would have to run empty."""
        monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # it knows no meta device
        rates = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "layerdrop")
        options = {"feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer", "apply_spec_augment": True}
        config = tiny_config(family, **options, **dict.fromkeys(rates, 0.1), mask_time_length=2, mask_time_prob=0.2)
        meta = torch.device("meta")
        model = build_classifier(config, "mean", ["a", "b"]).to(meta).train()
        model.frontend = "reference"
        use_own_attention(model.backbone)
        lengths = torch.tensor([9000 if padded else 16_000, 16_000])
        batch = {"input_values": torch.randn(2, 16_000), "labels": torch.tensor([0, 1])}
        batch["attention_mask"] = (torch.arange(16_000) < lengths[:, None]).long()
        run = SimpleNamespace(model=model, device=meta, precision="fp32", train_loss=build_loss("auto", config))
        run.scaler, run.class_weights = torch.amp.GradScaler("cpu", enabled=False), torch.ones(2, device=meta)
        run.state, run.optimizer = State(), torch.optim.AdamW(model.parameters())
        run.loaders = {"train": SimpleNamespace(dataset=SimpleNamespace(names=["a.wav", "b.wav"]))}
        (share,) = backward(run, [batch])
        grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for value in (share, grad_norm):
            with pytest.raises(RuntimeError, match="meta"):
                value.item()
