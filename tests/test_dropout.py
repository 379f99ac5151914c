"""Dropout drawn by gaps: its rate, independence and generator; attention with it against torch's."""

import numpy as np
import pytest
import torch
from conftest import tiny_config
from scipy import stats
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModel, WavLMConfig

from audioclf.models import dropout
from audioclf.models.dropout import GapDropout, attention, dropped_positions, use_gap_dropout
from audioclf.runtime import autocast


class TestPositions:
    @pytest.mark.parametrize("p", [1e-4, 0.05, 0.1, 0.5, 0.9, 0.999])
    def test_rate_and_gaps(self, p):
        torch.manual_seed(0)
        num_elements = 1_000_000
        positions = dropped_positions(num_elements, p)
        assert positions[0] >= 0
        assert positions[-1] < num_elements
        assert (positions.diff() > 0).all()
        assert stats.binomtest(len(positions), num_elements, p).pvalue > 1e-3
        # Independent elements have geometric gaps, and only they do.
        gaps = positions.diff().numpy()
        edges = np.unique(stats.geom.ppf(np.linspace(0, 0.98, 20), p).clip(min=0))
        expected = np.diff([*stats.geom.cdf(edges, p), 1.0]) * len(gaps)
        observed = np.histogram(gaps, bins=[*edges + 0.5, np.inf])[0]
        many = expected > 5
        assert many.any()
        statistic = ((observed - expected)[many] ** 2 / expected[many]).sum()
        assert stats.chi2.sf(statistic, many.sum()) > 1e-3

    def test_every_element_at_the_same_rate(self):
        """The first and the last as well, in vectors so short that often nothing is dropped."""
        torch.manual_seed(0)
        counts, draws, p = np.zeros(7), 20_000, 0.1
        pairs = 0
        for _ in range(draws):
            positions = dropped_positions(7, p).tolist()
            counts[positions] += 1
            pairs += 0 in positions and 6 in positions
        for count in counts:
            assert stats.binomtest(int(count), draws, p).pvalue > 1e-3
        assert stats.binomtest(pairs, draws, p * p).pvalue > 1e-3

    def test_more_gaps_are_drawn_where_they_fall_short(self, monkeypatch):
        torch.manual_seed(0)
        monkeypatch.setattr(dropout.math, "sqrt", lambda _: -14.0)  # far too few at first
        positions = dropped_positions(2000, 0.1)
        assert stats.binomtest(len(positions), 2000, 0.1).pvalue > 1e-3
        assert (positions.diff() > 0).all()

    def test_the_run_s_own_generator(self):
        torch.manual_seed(3)
        state = torch.get_rng_state()
        first, second = dropped_positions(5000, 0.1), dropped_positions(5000, 0.1)
        assert not torch.equal(first[:100], second[:100])
        torch.set_rng_state(state)
        assert torch.equal(dropped_positions(5000, 0.1), first)


class TestModule:
    def test_values_and_gradient(self):
        torch.manual_seed(0)
        hidden = torch.randn(4, 50, 30, requires_grad=True)
        out = GapDropout(0.25)(hidden)
        dropped = out == 0
        assert 0.2 < dropped.float().mean() < 0.3
        assert torch.allclose(out[~dropped], hidden[~dropped] / 0.75)
        out.backward(torch.ones_like(out))
        assert torch.equal(hidden.grad == 0, dropped)
        assert torch.allclose(hidden.grad[~dropped], torch.tensor(1 / 0.75))

    def test_not_in_evaluation(self):
        hidden = torch.randn(3, 3)
        assert GapDropout(0.5).eval()(hidden) is hidden

    def test_strided_and_half(self):
        hidden = torch.randn(20, 30).bfloat16().t()
        out = GapDropout(0.5)(hidden)
        assert out.shape == (30, 20)
        assert out.dtype == torch.bfloat16
        assert torch.equal(out[out != 0], (hidden * 2)[out != 0])


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
        monkeypatch.setattr(dropout, "CACHED_WEIGHTS", at_once)
        monkeypatch.setattr(dropout, "dropped_positions", lambda n, p: drawn.append(real(n, p)) or drawn[-1])
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


class TestEncoder:
    def test_every_dropout_is_replaced_and_evaluation_unchanged(self):
        torch.manual_seed(0)
        rates = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout")
        model = AutoModel.from_config(tiny_config(**dict.fromkeys(rates, 0.1))).eval()
        values = torch.randn(1, 4000)
        with torch.no_grad():
            before = model(values).last_hidden_state
            use_gap_dropout(model)
            assert torch.equal(model(values).last_hidden_state, before)
            assert not any(type(module) is torch.nn.Dropout for module in model.modules())
            model.train()
            assert not torch.allclose(model(values).last_hidden_state, before, atol=1e-3)

    def test_a_family_with_attention_of_its_own_keeps_it(self):
        model = AutoModel.from_config(tiny_config(WavLMConfig, hidden_dropout=0.1, attention_dropout=0.1)).train()
        use_gap_dropout(model)
        assert model(torch.randn(1, 4000)).last_hidden_state.isfinite().all()

    def test_the_checkpoint_knows_nothing_of_it(self, tmp_path):
        model = AutoModel.from_config(tiny_config(hidden_dropout=0.1))
        names = list(model.state_dict())
        use_gap_dropout(model)
        assert list(model.state_dict()) == names
        model.save_pretrained(tmp_path)
        assert "audioclf" not in (tmp_path / "config.json").read_text()
        AutoModel.from_pretrained(tmp_path)
