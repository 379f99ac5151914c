"""Dropout for a CPU: only the dropped positions are drawn.

torch draws one random number for each element, 8 ns apiece; for the attention weights of a 30 s clip that takes longer
than the attention's own products. But between two dropped elements lie geometrically many kept ones. Drawing these
gaps drops each element independently at rate p all the same, with a p-th of the random numbers. They come from torch's
global generator, as those of torch's own dropout do.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MAX_RATE = 0.5
"""Rate up to which drawing by gaps is faster than drawing each element (0.22 s against 0.24 s)."""


def use_gap_dropout(backbone: nn.Module) -> None:
    """Lets an encoder's Dropout modules draw by gaps, up to the rate where that no longer saves time."""
    for module in backbone.modules():
        for name, child in module.named_children():
            if type(child) is nn.Dropout and 0 < child.p <= MAX_RATE:
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
