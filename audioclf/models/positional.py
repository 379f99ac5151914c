"""The positional convolution in forms of our own: its 128 taps cost as many products as half a transformer layer.

On a CPU by Fourier transforms: circular convolution is a product of spectra, so frames are cut into overlapping blocks
whose wrapped-around part is thrown away (overlap-save). Transforms of the weights cost the same for few frames as for
many: fewer than `FEWEST_FRAMES` are left to torch. So is bf16 with AMX, whose tiles are faster still.

On a GPU as one matrix product a group, which its tensor cores are made for: a row for every `BLOCK_FRAMES` frames of
output holds all frames that they need, and the weights stand in a Toeplitz matrix. cuDNN has only slow kernels for many
groups of few channels.

Both equal the convolution to rounding.

Shapes: B batch, T frames, G groups, K taps. Of one group: C channels in, D out. By transforms: N samples of a block, of
which H are new, J blocks of a clip, S frequencies. In blocks: L frames of a block's output, W = L + K - 1 of its input.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ..runtime import at_least_fp32, product_dtype

FEWEST_FRAMES = 400  # of a whole batch; both forms cost the same there, whatever the channels (docs/log.md)
BLOCK_FRAMES = 16
"""L: the matrix of the weights grows with it, and the rows' overlap shrinks; 12 % more products than needed."""


def use_fast_positions(backbone: nn.Module) -> None:
    """Lets an encoder's positional convolution run in our forms, on a CPU or a GPU, where it has a long one."""
    for name, module in backbone.named_modules():
        if name.endswith("pos_conv_embed.conv"):
            module.forward = MethodType(_forward, module)


def _forward(self: nn.Conv1d, hidden: Tensor) -> Tensor:
    dtype, few = product_dtype(hidden), len(hidden) * hidden.shape[-1] < FEWEST_FRAMES
    device = hidden.device.type
    in_tiles = device == "cpu" and dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()
    if few or in_tiles:
        return type(self).forward(self, hidden)
    with torch.autocast(device, enabled=False):
        if device == "cpu":  # there are no transforms in half precision
            out = convolve(at_least_fp32(hidden), at_least_fp32(self.weight), self.groups, self.padding[0])
        else:
            out = convolve_in_blocks(hidden.to(dtype), self.weight.to(dtype), self.groups, self.padding[0])
        return (out + self.bias[:, None]).to(dtype)


def convolve(hidden: Tensor, weight: Tensor, groups: int, padding: int) -> Tensor:
    """What `torch.nn.functional.conv1d` gives for frames (B, channels, T) and weights (channels out, C, K).

    Source: Oppenheim and Schafer, "Discrete-Time Signal Processing", 8.7.3, overlap-save.
    """
    return _ByTransforms.apply(hidden, weight, groups, padding)


def convolve_in_blocks(hidden: Tensor, weight: Tensor, groups: int, padding: int) -> Tensor:
    """What `torch.nn.functional.conv1d` gives for frames (B, G * C, T) and weights (G * D, C, K), padding below K."""
    return _InBlocks.apply(hidden, weight, groups, padding)


class _ByTransforms(torch.autograd.Function):
    """A group after the other, whose spectra stay in the processor's cache."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, groups: int, padding: int) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        ctx.groups, ctx.padding = groups, padding
        pairs = zip(hidden.chunk(groups, 1), weight.chunk(groups), strict=True)
        return torch.cat([_outputs(*pair, padding) for pair in pairs], dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors
        parts = zip(hidden.chunk(ctx.groups, 1), weight.chunk(ctx.groups), grad.chunk(ctx.groups, 1), strict=True)
        gradients = [_gradients(*part, ctx.padding) for part in parts]
        of_hidden, of_weight = zip(*gradients, strict=True)
        return torch.cat(of_hidden, dim=1), torch.cat(of_weight), None, None


def _outputs(hidden: Tensor, weight: Tensor, padding: int) -> Tensor:
    """(B, C, T) and (D, C, K) to (B, D, T)."""
    num_frames = hidden.shape[-1] + 2 * padding - weight.shape[-1] + 1
    size, new, count = _blocks(num_frames, weight.shape[-1])
    # The conjugate, as "convolution" in networks is a correlation.
    taps = torch.fft.rfft(weight, size).permute(2, 1, 0).conj().resolve_conj().contiguous()  # (S, C, D)
    spectra = _spectra(hidden, padding, size, new, count) @ taps
    blocks = torch.fft.irfft(spectra.permute(1, 2, 0), size)[..., :new]  # (B * J, D, H)
    return blocks.unflatten(0, (-1, count)).transpose(1, 2).flatten(2)[..., :num_frames]


def _gradients(hidden: Tensor, weight: Tensor, grad: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    """Gradients of both from that of the outputs (B, D, T)."""
    size, new, count = _blocks(grad.shape[-1], weight.shape[-1])
    grad = functional.pad(grad, (0, count * new - grad.shape[-1])).unflatten(-1, (count, new))
    # Transforms err by a share of the largest gradient, also where a far tap's is next to zero; Adam, which divides by
    # the gradient's size, would make steps of that. In fp64 nothing of it is left.
    grads = torch.fft.rfft(grad.double(), size).permute(3, 0, 2, 1).flatten(1, 2).contiguous()
    products = grads.conj().resolve_conj().transpose(1, 2) @ _spectra(hidden.double(), padding, size, new, count)
    of_weight = torch.fft.irfft(products.permute(1, 2, 0), size)[..., : weight.shape[-1]]
    taps = torch.fft.rfft(weight, size).permute(2, 0, 1).contiguous()  # (S, D, C)
    blocks = torch.fft.irfft((grads.to(taps.dtype) @ taps).permute(1, 2, 0), size)  # (B * J, C, N)
    blocks = blocks.unflatten(0, (-1, count)).transpose(1, 2)
    # The part of a block beyond its new samples, K - 1 of them, belongs to the next one's.
    of_hidden = functional.pad(blocks[..., :new], (0, 0, 0, 1))
    of_hidden[:, :, 1:, : size - new] += blocks[..., new:]
    of_hidden = of_hidden.flatten(2)[..., padding : padding + hidden.shape[-1]]
    return of_hidden, of_weight.to(weight.dtype)


def _blocks(num_frames: int, num_taps: int) -> tuple[int, int, int]:
    """N, the power of two from 2 K on; H; and J."""
    size = 2 ** (2 * num_taps - 1).bit_length()
    new = size - num_taps + 1
    return size, new, -(-num_frames // new)


def _spectra(hidden: Tensor, padding: int, size: int, new: int, count: int) -> Tensor:
    """Spectra (S, B * J, C) of the overlapping blocks of (B, C, T): frequencies first, for a matrix product each."""
    after = (count - 1) * new + size - padding - hidden.shape[-1]
    blocks = functional.pad(hidden, (padding, after)).unfold(-1, size, new)
    return torch.fft.rfft(blocks).permute(3, 0, 2, 1).flatten(1, 2).contiguous()


class _InBlocks(torch.autograd.Function):
    """Rows and matrix are made anew in the backward pass: they are many times as large as what they are made of."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, groups: int, padding: int) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        ctx.groups, ctx.padding = groups, padding
        return _block_outputs(hidden, weight, groups, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors
        groups, num_taps = ctx.groups, weight.shape[-1]
        mirrored = weight.unflatten(0, (groups, -1)).transpose(1, 2).flip(-1).flatten(0, 1)  # (G * C, D, K)
        of_hidden = _block_outputs(grad, mirrored, groups, num_taps - 1 - ctx.padding)
        rows = _rows(hidden, groups, ctx.padding, num_taps)
        num_blocks = rows.shape[1] // len(grad)
        parts = functional.pad(grad, (0, num_blocks * BLOCK_FRAMES - grad.shape[-1]))
        parts = parts.unflatten(1, (groups, -1)).unflatten(-1, (num_blocks, -1))  # (B, G, D, J, L)
        parts = parts.permute(1, 2, 4, 0, 3).flatten(1, 2).flatten(2)  # (G, D * L, B * J)
        with torch.enable_grad():
            weight = weight.detach().requires_grad_()
            (of_weight,) = torch.autograd.grad(_toeplitz(weight, groups), weight, parts @ rows)
        return of_hidden, of_weight, None, None


def _block_outputs(hidden: Tensor, weight: Tensor, groups: int, padding: int) -> Tensor:
    """(B, G * C, T) and (G * D, C, K) to (B, G * D, T + 2 padding - K + 1)."""
    num_frames = hidden.shape[-1] + 2 * padding - weight.shape[-1] + 1
    out = _rows(hidden, groups, padding, weight.shape[-1]) @ _toeplitz(weight, groups).transpose(1, 2)
    out = out.unflatten(1, (len(hidden), -1)).unflatten(-1, (-1, BLOCK_FRAMES))  # (G, B, J, D, L)
    return out.permute(1, 0, 3, 2, 4).flatten(3).flatten(1, 2)[..., :num_frames]


def _rows(hidden: Tensor, groups: int, padding: int, num_taps: int) -> Tensor:
    """(B, G * C, T) to (G, B * J, C * W): what each block of output frames needs."""
    num_frames = hidden.shape[-1] + 2 * padding - num_taps + 1
    width = BLOCK_FRAMES + num_taps - 1
    after = -(-num_frames // BLOCK_FRAMES) * BLOCK_FRAMES + num_taps - 1 - padding - hidden.shape[-1]
    windows = functional.pad(hidden, (padding, after)).unfold(-1, width, BLOCK_FRAMES)  # (B, G * C, J, W)
    return windows.unflatten(1, (groups, -1)).permute(1, 0, 3, 2, 4).flatten(3).flatten(1, 2)


def _toeplitz(weight: Tensor, groups: int) -> Tensor:
    """(G * D, C, K) to (G, D * L, C * W): the taps of output frame l begin at input frame l."""
    width = BLOCK_FRAMES + weight.shape[-1] - 1
    # Rows of W + 1 read as rows of W: each begins one later in its own.
    repeated = functional.pad(weight, (0, BLOCK_FRAMES))[:, :, None].expand(-1, -1, BLOCK_FRAMES, -1)
    shifted = repeated.flatten(2)[..., : BLOCK_FRAMES * width].unflatten(-1, (BLOCK_FRAMES, width))
    return shifted.transpose(1, 2).unflatten(0, (groups, -1)).flatten(3).flatten(1, 2)
