"""Dropout drawn by gaps: its rate, independence and generator."""

import numpy as np
import pytest
import torch
from conftest import tiny_config
from scipy import stats
from transformers import AutoModel

from audioclf.models import dropout
from audioclf.models.attention import use_own_attention
from audioclf.models.dropout import GapDropout, dropped_positions, use_gap_dropout


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
        counts, draws, p = np.zeros(7), 10_000, 0.1
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


class TestEncoder:
    @pytest.mark.parametrize(("p", "by_gaps"), [(0.0, False), (0.1, True), (0.5, True), (0.9, False), (1.0, False)])
    def test_only_where_it_is_faster(self, p, by_gaps):
        module = torch.nn.Sequential(torch.nn.Dropout(p))
        use_gap_dropout(module)
        assert isinstance(module[0], GapDropout) is by_gaps

    def test_every_dropout_is_replaced_and_evaluation_unchanged(self):
        torch.manual_seed(0)
        rates = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout")
        model = AutoModel.from_config(tiny_config(**dict.fromkeys(rates, 0.1))).eval()
        values = torch.randn(1, 4000)
        with torch.no_grad():
            before = model(values).last_hidden_state
            use_own_attention(model)
            use_gap_dropout(model)
            assert torch.equal(model(values).last_hidden_state, before)
            assert not any(type(module) is torch.nn.Dropout for module in model.modules())
            model.train()
            assert not torch.allclose(model(values).last_hidden_state, before, atol=1e-3)

    def test_the_checkpoint_knows_nothing_of_it(self, tmp_path):
        model = AutoModel.from_config(tiny_config(hidden_dropout=0.1))
        names = list(model.state_dict())
        use_own_attention(model)
        use_gap_dropout(model)
        assert list(model.state_dict()) == names
        model.save_pretrained(tmp_path)
        assert "audioclf" not in (tmp_path / "config.json").read_text()
        AutoModel.from_pretrained(tmp_path)
