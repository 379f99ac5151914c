"""The waveform CNN as matrix products: the fast form, equal to the reference to rounding.

Three ideas, each exact:

1. *Clips lie end to end.* Every clip gets a slot of whole strides of the CNN in one long signal, so a layer is one
   product for the whole batch and padding costs nothing. A clip's own frames see its own samples only, as in any
   unpadded convolution; what a slot holds beyond them is never read.
2. *A convolution is a product.* With time running over rows, `stride` neighbouring rows side by side form a group
   (R, stride * K), a view. A kernel of up to two strides is then one product with the groups and one with their
   successors; no window is ever copied.
3. *The GroupNorm is free.* The first layer is linear in the waveform, so mean and variance of its channels over a
   clip follow from the mean and the covariance of the clip's windows, 10 and 10 x 10 numbers; scale and shift go into
   the layer's weights.

Between two layers lies the pre-activation z; GELU is applied tile by tile on the way into the next product, while the
tile is in the cache, and made anew in the backward pass. So is the z of a folded first layer, which is as large as
those of all others together and costs next to nothing: it never exists as a whole.

Shapes: B batch, T samples, R rows (frames of all slots of a layer), F frames, K channels, W samples of a window.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from ..runtime import at_least_fp32, product_dtype

TILE_ROWS, TILE_ROWS_ON_GPU = 2048, 131_072
"""Rows of output computed at a time: enough for a product's full speed, and few enough for a CPU's cache."""


def applies(feature_extractor: nn.Module) -> bool:
    """Whether the fast form can compute this CNN: GELU, kernels of one to two strides, the known norms."""
    if len(feature_extractor.conv_layers) < 2:
        return False
    for layer in feature_extractor.conv_layers:
        (kernel,), (stride,) = layer.conv.kernel_size, layer.conv.stride
        norm = getattr(layer, "layer_norm", None)
        if not stride <= kernel <= 2 * stride or getattr(layer.activation, "approximate", "none") != "none":
            return False
        if not isinstance(layer.activation, nn.GELU) and type(layer.activation).__name__ != "GELUActivation":
            return False
        if not isinstance(norm, (nn.GroupNorm, nn.LayerNorm, type(None))):
            return False
    return True


def encode_packed(feature_extractor: nn.Module, input_values: Tensor, num_samples: Tensor) -> Tensor:
    """Frames (B, F, K) of waveforms (B, T) of which the first `num_samples` (B,) are a clip's own; zeros beyond.

    They are in autocast's type where it is on, and so are the products of all layers but the first, whose ten inputs
    cost nothing in fp32; statistics are never in half precision.
    """
    dtype = product_dtype(input_values)
    with torch.autocast(input_values.device.type, enabled=False):
        return _encode_packed(feature_extractor, input_values, num_samples, dtype)


def _encode_packed(cnn: nn.Module, input_values: Tensor, num_samples: Tensor, dtype: torch.dtype) -> Tensor:
    first, second, *rest = cnn.conv_layers
    total_stride = math.prod(layer.conv.stride[0] for layer in cnn.conv_layers)
    samples = num_samples.tolist()
    slots = [-(-n // total_stride) * total_stride for n in samples]
    signal = torch.cat(
        [functional.pad(row[:n], (0, slot - n)) for row, n, slot in zip(input_values, samples, slots, strict=True)]
    )
    lengths = [_num_outputs(first, n) for n in samples]
    hidden = _first_two(first, second, signal, lengths, [slot // first.conv.stride[0] for slot in slots], dtype)
    for layer in rest:
        hidden = _bias_and_norm(layer, _GeluConv.apply(hidden, layer.conv.weight, layer.conv.stride[0]))
    for layer in (second, *rest):
        lengths = [_num_outputs(layer, n) for n in lengths]
    parts = hidden.split([slot // total_stride for slot in slots])
    own = [part[:n] for part, n in zip(parts, lengths, strict=True)]
    return functional.gelu(pad_sequence(own, batch_first=True))


def _num_outputs(layer: nn.Module, length: int) -> int:
    return (length - layer.conv.kernel_size[0]) // layer.conv.stride[0] + 1


def _first_two(
    first: nn.Module, second: nn.Module, signal: Tensor, lengths: list[int], rows: list[int], dtype: torch.dtype
) -> Tensor:
    """Pre-activations (R, K) of the second layer.

    The first one has so many rows for each clip, of which `lengths` are its own.
    """
    (kernel,), (stride,) = first.conv.kernel_size, first.conv.stride
    windows = functional.pad(signal, (0, kernel - stride)).unfold(0, kernel, stride).contiguous()  # (R, W)
    weight, taps, step = first.conv.weight[:, 0], second.conv.weight, second.conv.stride[0]
    if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm):
        parts = windows.split(rows)
        for part, length in zip(parts, lengths, strict=True):
            # Windows that reach into the next clip are never read, but scaled for this one they could overflow fp16,
            # and infinity times their gradient of zero would be NaN.
            part[length:] = 0.0
        own = [part[:length] for part, length in zip(parts, lengths, strict=True)]
        folded, shift = fold_group_norm(weight, first.layer_norm, own)
        hidden = _FoldedConvs.apply(windows, folded, shift, taps, step, rows, dtype)
    else:
        hidden = _GeluConv.apply(_bias_and_norm(first, functional.linear(windows, weight).to(dtype)), taps, step)
    return _bias_and_norm(second, hidden)


def fold_group_norm(weight: Tensor, norm: nn.GroupNorm, windows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Weights (B, K, W) and shifts (B, K) that stand for weights (K, W) and the norm, for each clip's windows (F, W).

    A channel's output w.x has mean w.m and variance w'Cw over windows x with mean m and covariance C. In fp64, and
    with windows centred before they are squared: neither an offset nor a long silence cancels.
    """
    weight = weight.double()
    means = torch.stack([own.double().mean(dim=0) for own in windows])  # (B, W)
    centred = [own - mean for own, mean in zip(windows, means, strict=True)]
    covariances = torch.stack([own.t() @ own / len(own) for own in centred])  # (B, W, W)
    variance = torch.einsum("kw,bwv,kv->bk", weight, covariances, weight).clamp(min=0)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    shift = norm.bias - scale * (means @ weight.t())
    dtype = windows[0].dtype
    return (scale[..., None] * weight).to(dtype), shift.to(dtype)


def _bias_and_norm(layer: nn.Module, hidden: Tensor) -> Tensor:
    """What the layer-norm kind has between its convolution and its activation."""
    if layer.conv.bias is not None:
        hidden = hidden + layer.conv.bias.to(hidden.dtype)
    if isinstance(getattr(layer, "layer_norm", None), nn.LayerNorm):
        norm = layer.layer_norm
        weight, bias = at_least_fp32(norm.weight), at_least_fp32(norm.bias)
        hidden = functional.layer_norm(at_least_fp32(hidden), norm.normalized_shape, weight, bias, norm.eps).to(
            hidden.dtype
        )
    return hidden


class _FoldedConvs(torch.autograd.Function):
    """The first two layers: a clip's windows (R, W) times its weights (B, K, W), plus its shift (B, K), and the next.

    The result (R / stride, K') is that of `_GeluConv` on what lies between, which is computed tile by tile, twice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        windows: Tensor,
        folded: Tensor,
        shift: Tensor,
        weight: Tensor,
        stride: int,
        rows: list[int],
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(windows, folded, shift, weight)
        ctx.stride, ctx.rows, ctx.dtype = stride, rows, dtype
        here, after = _taps(weight, stride, dtype)
        size = _tile_rows(windows)
        out = windows.new_empty(len(windows) // stride, len(weight), dtype=dtype)
        targets = out.split([count // stride for count in rows])
        for x, w, c, target in zip(windows.split(rows), folded, shift, targets, strict=True):
            for start in range(0, len(target), size):
                groups = _folded_tile(x, w, c, start, stride, dtype)
                _convolve_tile(groups, target[start : start + size], here, after)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        windows, folded, shift, weight = ctx.saved_tensors
        here, after = _taps(weight, ctx.stride, ctx.dtype)
        d_folded, d_shift = torch.zeros_like(folded), torch.zeros_like(shift)
        d_here, d_after = _sums_like(here), _sums_like(after)
        size = _tile_rows(windows)
        grads = grad.split([count // ctx.stride for count in ctx.rows])
        for i, (x, g) in enumerate(zip(windows.split(ctx.rows), grads, strict=True)):
            for start in range(0, len(g), size):
                groups = _folded_tile(x, folded[i], shift[i], start, ctx.stride, ctx.dtype)
                d_z = _tile_gradient(groups, g, start, here, after, d_here, d_after)
                d_z = d_z.view(-1, folded.shape[1]).to(folded.dtype)
                d_folded[i].addmm_(d_z.t(), x[start * ctx.stride :][: len(d_z)])
                d_shift[i] += d_z.sum(dim=0)
        return None, d_folded, d_shift, _weight_gradient(d_here, d_after, weight), None, None, None


class _GeluConv(torch.autograd.Function):
    """Convolution over rows of GELU(z): (R, K) -> (R / stride, K'), with transformers' weight (K', K, kernel)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(z, weight)
        ctx.stride = stride
        here, after = _taps(weight, stride, z.dtype)
        groups = z.view(-1, stride * z.shape[1])
        out = z.new_empty(len(groups), len(weight))
        size = _tile_rows(z)
        for start in range(0, len(out), size):
            _convolve_tile(groups[start : start + size + 1], out[start : start + size], here, after)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, weight = ctx.saved_tensors
        here, after = _taps(weight, ctx.stride, z.dtype)
        groups = z.view(-1, ctx.stride * z.shape[1])
        d_groups = torch.empty_like(groups)
        d_here, d_after = _sums_like(here), _sums_like(after)
        size = _tile_rows(z)
        for start in range(0, len(grad), size):
            tile = groups[start : start + size + 1]
            d_groups[start : start + size] = _tile_gradient(tile, grad, start, here, after, d_here, d_after)
        return d_groups.view_as(z), _weight_gradient(d_here, d_after, weight), None


def _tile_rows(values: Tensor) -> int:
    return TILE_ROWS if values.device.type == "cpu" else TILE_ROWS_ON_GPU


def _folded_tile(windows: Tensor, weight: Tensor, shift: Tensor, start: int, stride: int, dtype: torch.dtype) -> Tensor:
    """Groups of pre-activations (a tile's and one more, stride * K) of one clip, from the group `start` on."""
    part = windows[start * stride : (start + _tile_rows(windows) + 1) * stride]
    return torch.addmm(shift, part, weight.t()).to(dtype).view(-1, stride * len(weight))


def _convolve_tile(groups: Tensor, out: Tensor, here: Tensor, after: Tensor) -> None:
    """Fills `out`, a row a group; `groups` has one more, the last row's successor, unless the signal ends there."""
    x = functional.gelu(groups)
    torch.mm(x[: len(out)], here, out=out)
    out[: len(x) - 1].addmm_(x[1:, : len(after)], after)


def _tile_gradient(
    groups: Tensor, grad: Tensor, start: int, here: Tensor, after: Tensor, d_here: Tensor, d_after: Tensor
) -> Tensor:
    """Gradient of a tile's groups, from that of all outputs (R, K'), of which its own begin at `start`.

    The taps' gradients are added to `d_here` and `d_after`.
    """
    g = grad[start : start + _tile_rows(grad)]
    before = grad[max(start - 1, 0) : start + len(g) - 1]  # of the rows whose successors these are
    x = functional.gelu(groups)
    d_here += x[: len(g)].t() @ g
    d_after += x[1:, : len(after)].t() @ g[: len(x) - 1]
    d_x = g @ here.t()
    d_x[len(g) - len(before) :, : len(after)].addmm_(before, after.t())
    return torch.ops.aten.gelu_backward(d_x, groups[: len(g)])


def _sums_like(taps: Tensor) -> Tensor:
    """Zeros to add up tiles in, never in half precision."""
    return torch.zeros_like(taps, dtype=torch.promote_types(taps.dtype, torch.float32))


def _weight_gradient(d_here: Tensor, d_after: Tensor, weight: Tensor) -> Tensor:
    taps = torch.cat([d_here, d_after]).view(weight.shape[2], weight.shape[1], weight.shape[0])
    return taps.permute(2, 1, 0).to(weight.dtype).contiguous()


def _taps(weight: Tensor, stride: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The kernel's taps on a group (stride * K, K') and on its successor (the rest, K')."""
    taps = weight.to(dtype).permute(2, 1, 0)  # (kernel, K, K')
    return taps[:stride].flatten(0, 1), taps[stride:].flatten(0, 1)
