"""Attention as transformers dispatches it: our dropout on a CPU, and no waiting for the device.

Shapes: B batch, H heads, F frames, D features of a head.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ..runtime import at_least_fp32
from .dropout import dropped_positions

NAME = "audioclf"
"""Name under which transformers knows `attention`."""
CACHED_WEIGHTS = 2**22
"""Attention weights computed at a time: a long clip's heads one by one, in the cache; a short clip's all at once."""


def use_own_attention(backbone: nn.Module) -> None:
    """Puts `attention` in the place of torch's, with the same results.

    WavLM computes its attention itself and keeps it.
    """
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, _mask)
    if backbone.config._attn_implementation == "sdpa":
        backbone.set_attn_implementation(NAME)


def _mask(**options: Any) -> Tensor | None:
    """Transformers' mask (B, 1, F, F) or None; made from any given, as only a padded batch comes with one.

    Transformers would look whether it masks anything, for which a GPU's queue must run empty.
    """
    return sdpa_mask(**{**options, "allow_is_bidirectional_skip": options["attention_mask"] is None})


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

    Without dropout torch's own kernel is best, and a conformer's bias for relative positions needs it. Else a clip's
    weights are computed over its own frames only; what lies beyond them comes out as zero.
    """
    if dropout == 0 or query.device.type != "cpu" or options.get("position_bias") is not None:
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
        ctx.lengths, ctx.p, ctx.scaling = lengths, p, scaling
        kept = []
        out = torch.zeros_like(query)
        with torch.autocast("cpu", enabled=False):
            for part in _parts(query, lengths):
                q, k, v = query[part], key[part], value[part]  # (heads, F, D)
                weights = (at_least_fp32(q * scaling) @ at_least_fp32(k).mT).softmax(dim=-1).to(v.dtype)
                positions = dropped_positions(weights.numel(), p)
                values = weights.view(-1)[positions]
                weights.view(-1).index_fill_(0, positions, 0.0)
                out[part] = weights @ v * (1 / (1 - p))
                kept += [weights, positions, values]
        ctx.save_for_backward(query, key, value, *kept)
        return out.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        grad = grad.transpose(1, 2)
        d_query, d_key, d_value = (torch.zeros_like(tensor) for tensor in (query, key, value))
        parts = _parts(query, ctx.lengths)
        for part, weights, positions, values in zip(parts, kept[::3], kept[1::3], kept[2::3], strict=True):
            g = grad[part] * (1 / (1 - ctx.p))
            # Written so that no matrix (F, F) is transposed, which is a copy of it in half precision.
            d_value[part] = (g.mT @ weights).mT
            d_weights = g @ value[part].mT
            d_weights.view(-1).index_fill_(0, positions, 0.0)
            # The softmax's own backward pass needs the weights as they were before some were dropped.
            whole = weights.clone()
            whole.view(-1).index_copy_(0, positions, values)
            d_scores = torch.ops.aten._softmax_backward_data(d_weights, whole, -1, whole.dtype)
            d_query[part] = d_scores @ key[part] * ctx.scaling
            d_key[part] = (query[part].mT @ d_scores).mT * ctx.scaling
        return d_query, d_key, d_value, None, None, None


def _parts(query: Tensor, lengths: list[int]) -> list[tuple[int, slice, slice]]:
    """Indices into (B, H, F, D): of each clip its own frames, and as many heads as the cache holds the weights of."""
    parts = []
    for clip, length in enumerate(lengths):
        step = max(1, CACHED_WEIGHTS // max(length, 1) ** 2)
        parts += [(clip, slice(h, h + step), slice(length)) for h in range(0, query.shape[1], step)]
    return parts
