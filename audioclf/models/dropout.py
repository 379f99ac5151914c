"""Dropout for a CPU: only the dropped positions are drawn.

torch draws one random number for each element, 8 ns apiece; for the attention weights of a 30 s clip that takes longer
than the attention's own products. But between two dropped elements lie geometrically many kept ones. Drawing these
gaps drops each element independently at rate p all the same, with a p-th of the random numbers. They come from torch's
global generator, as those of torch's own dropout do.

Shapes: B batch, H heads, F frames, D features of a head.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ..runtime import at_least_fp32

ATTENTION = "audioclf_gap_dropout"
"""Name under which transformers knows `attention`."""
CACHED_WEIGHTS = 2**22
"""Attention weights computed at a time: a long clip's heads one by one, in the cache; a short clip's all at once."""


def use_gap_dropout(backbone: nn.Module) -> None:
    """Lets an encoder draw its dropout by gaps: in its Dropout modules, and in attention that transformers dispatches.

    WavLM computes its attention itself and keeps torch's dropout there.
    """
    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    if backbone.config._attn_implementation == "sdpa":
        backbone.set_attn_implementation(ATTENTION)
    for module in backbone.modules():
        for name, child in module.named_children():
            if type(child) is nn.Dropout and 0 < child.p < 1:
                setattr(module, name, GapDropout(child.p).train(child.training))


def dropped_positions(num_elements: int, p: float) -> Tensor:
    """Indices (N,) int64, ascending, of the elements that dropout at rate p, in (0, 1), sets to zero.

    Source: Devroye (1986), "Non-Uniform Random Variate Generation", X.2: a geometric variate by inversion.
    """
    expected = num_elements * p
    num_gaps = int(expected + 7 * math.sqrt(expected * (1 - p)) + 10)  # too few once in 10^12
    position, drawn = -1, []
    while position < num_elements:
        uniform = 1 - torch.rand(num_gaps)  # in (0, 1]
        gaps = uniform.log_().div_(math.log1p(-p)).ceil_().clamp_(1, num_elements + 1).long()
        drawn.append(gaps.cumsum(0).add_(position))
        position = int(drawn[-1][-1])
    positions = torch.cat(drawn)
    return positions[: int(torch.searchsorted(positions, num_elements))]


class GapDropout(nn.Module):
    """`nn.Dropout` with its positions drawn by gaps."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, hidden: Tensor) -> Tensor:
        """Drops elements in training mode; any shape."""
        return _Drop.apply(hidden, self.p) if self.training else hidden

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"p={self.p}"


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, p: float) -> Tensor:
        positions = dropped_positions(hidden.numel(), p)
        ctx.save_for_backward(positions)
        ctx.p = p
        return _drop(hidden, positions, p)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _drop(grad, *ctx.saved_tensors, ctx.p), None


def _drop(values: Tensor, positions: Tensor, p: float) -> Tensor:
    out = values.contiguous() * (1 / (1 - p))
    out.view(-1).index_fill_(0, positions, 0.0)
    return out


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention in the form of transformers' interface: (B, H, F, D) three times -> (B, F, H, D).

    Without dropout torch's own kernel is best. With it, a clip's weights are computed over its own frames only; what
    lies beyond them comes out as zero.
    """
    if dropout == 0 or query.device.type != "cpu":
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    lengths = [query.shape[2]] * len(query)
    if attention_mask is not None:  # (B, 1, F, F), the same for every query
        lengths = attention_mask[:, 0, 0].sum(dim=-1).tolist()
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _DropoutAttention.apply(query, key, value, lengths, dropout, scaling), None


class _DropoutAttention(torch.autograd.Function):
    """softmax(q k') with dropout, times v; the weights and their dropped positions are kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, lengths: list[int], p: float, scaling: float
    ) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.lengths, ctx.p, ctx.scaling, ctx.kept = lengths, p, scaling, []
        out = torch.zeros_like(query)
        with torch.autocast("cpu", enabled=False):
            for part in _parts(query, lengths):
                q, k, v = query[part], key[part], value[part]  # (heads, F, D)
                weights = (at_least_fp32(q * scaling) @ at_least_fp32(k).mT).softmax(dim=-1).to(v.dtype)
                positions = dropped_positions(weights.numel(), p)
                values = weights.view(-1)[positions]
                weights.view(-1).index_fill_(0, positions, 0.0)
                out[part] = weights @ v * (1 / (1 - p))
                ctx.kept.append((weights, positions, values))
        return out.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        grad = grad.transpose(1, 2)
        d_query, d_key, d_value = (torch.zeros_like(tensor) for tensor in (query, key, value))
        for part, (weights, positions, values) in zip(_parts(query, ctx.lengths), ctx.kept, strict=True):
            g = grad[part] * (1 / (1 - ctx.p))
            d_value[part] = weights.mT @ g
            d_weights = g @ value[part].mT
            d_weights.view(-1).index_fill_(0, positions, 0.0)
            # The softmax's own backward pass needs the weights as they were before some were dropped.
            whole = weights.clone()
            whole.view(-1).index_copy_(0, positions, values)
            d_scores = torch.ops.aten._softmax_backward_data(d_weights, whole, -1, whole.dtype)
            d_query[part] = d_scores @ key[part] * ctx.scaling
            d_key[part] = d_scores.mT @ query[part] * ctx.scaling
        return d_query, d_key, d_value, None, None, None


def _parts(query: Tensor, lengths: list[int]) -> list[tuple[int, slice, slice]]:
    """Indices into (B, H, F, D): of each clip its own frames, and as many heads as the cache holds the weights of."""
    parts = []
    for clip, length in enumerate(lengths):
        step = max(1, CACHED_WEIGHTS // length**2)
        parts += [(clip, slice(h, h + step), slice(length)) for h in range(0, query.shape[1], step)]
    return parts
