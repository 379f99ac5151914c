"""The positional convolution by Fourier transforms: its 128 taps cost as many products as half a transformer layer.

Circular convolution is a product of spectra, so frames are cut into overlapping blocks whose wrapped-around part is
thrown away (overlap-save). Equal to the convolution to rounding, on a CPU several times faster, and the gradients are
torch's own.

Shapes: B batch, T frames, D channels, G groups, K taps, N frames of a block, H new ones of them, S frequencies.
"""

from types import MethodType

import torch
from torch import Tensor, nn
from torch.nn import functional


def use_fft_positions(backbone: nn.Module) -> None:
    """Lets an encoder's positional convolution run by Fourier transforms in fp32; half precision keeps torch's."""
    convolution = backbone.encoder.pos_conv_embed.conv
    convolution.forward = MethodType(_forward, convolution)


def _forward(self: nn.Conv1d, hidden: Tensor) -> Tensor:
    if hidden.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return type(self).forward(self, hidden)
    weight, dtype = self.weight, hidden.dtype
    if torch.is_grad_enabled() and weight.requires_grad:
        # Transforms err by a share of the largest gradient, also where a far tap's is next to zero; Adam, which divides
        # by the gradient's size, would make steps of that. In fp64 nothing of it is left.
        hidden, weight = hidden.double(), weight.double()
    return convolve(hidden, weight, self.groups, self.padding[0]).to(dtype) + self.bias[:, None]


def convolve(hidden: Tensor, weight: Tensor, groups: int, padding: int) -> Tensor:
    """What `torch.nn.functional.conv1d` gives for frames (B, D, T) and weights (D', D / G, K).

    Source: Oppenheim and Schafer, "Discrete-Time Signal Processing", 8.7.3, overlap-save.
    """
    num_clips, num_channels, num_taps = len(hidden), *weight.shape[1:]
    num_frames = hidden.shape[-1] + 2 * padding - num_taps + 1
    block = 2 ** (2 * num_taps - 1).bit_length()  # the power of two from 2 K on
    new = block - num_taps + 1
    num_blocks = -(-num_frames // new)
    hidden = functional.pad(hidden, (padding, num_blocks * new + num_taps - 1 - padding - hidden.shape[-1]))
    # Frequencies come before rows and columns, for one matrix product a group and frequency.
    inputs = torch.fft.rfft(hidden.unfold(-1, block, new)).view(num_clips, groups, num_channels, num_blocks, -1)
    inputs = inputs.permute(1, 4, 0, 3, 2).flatten(2, 3)  # (G, S, B * blocks, D / G)
    taps = torch.fft.rfft(weight, block).conj().view(groups, -1, num_channels, inputs.shape[1])
    outputs = inputs @ taps.permute(0, 3, 2, 1)  # conjugate, as "convolution" in networks is a correlation
    outputs = outputs.unflatten(2, (num_clips, num_blocks)).permute(2, 0, 4, 3, 1)  # (B, G, D' / G, blocks, S)
    frames = torch.fft.irfft(outputs, block)[..., :new]
    return frames.reshape(num_clips, len(weight), -1)[..., :num_frames]
