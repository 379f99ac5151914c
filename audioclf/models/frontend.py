"""The waveform CNN: from samples to frames, each clip as if it were alone.

The first layer of DistilHuBERT, HuBERT-base and wav2vec2-base is followed by a GroupNorm whose statistics run over
time. Zero padding would enter those statistics and so change every frame of a clip; here they run over the clip's
own frames. All other layers are local: a valid output frame sees valid input only, so padding cannot reach it.

The reference form runs transformers' own layers; `frontend_fast` computes the same by matrix products.

Shapes: B batch, T samples, F frames, K channels of a layer.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PretrainedConfig

from ..config import Frontend
from ..runtime import at_least_fp32, product_dtype
from . import frontend_fast


def num_frames(num_samples: Tensor, config: PretrainedConfig) -> Tensor:
    """Frames (B,) that the CNN makes of so many samples (B,), integers both."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        num_samples = torch.div(num_samples - kernel, stride, rounding_mode="floor") + 1
    return num_samples


def min_samples(config: PretrainedConfig) -> int:
    """Samples of the shortest clip that gives one frame: the CNN's receptive field (400 for HuBERT)."""
    samples = 1
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def encode_waveform(
    feature_extractor: nn.Module, input_values: Tensor, num_samples: Tensor | None, form: Frontend = "auto"
) -> Tensor:
    """Frames (B, F, K) of waveforms (B, T).

    Args:
        feature_extractor: The CNN as transformers builds it; its parameters are used where they are.
        input_values: Normalised waveforms (B, T), padded at the right.
        num_samples: Valid samples of each clip (B,), on any device, or None when nothing is padded. Frames beyond a
            clip's own are unspecified.
        form: `fast`, `reference`, or `auto`: the one that is faster. The fast form gives way to the reference where it
            cannot compute this CNN, or when the waveforms need a gradient.
    """
    can_be_fast = frontend_fast.applies(feature_extractor) and not input_values.requires_grad
    if can_be_fast and (form == "fast" or (form == "auto" and _fast_is_faster(input_values, num_samples is not None))):
        if num_samples is None:
            num_samples = torch.full(input_values.shape[:1], input_values.shape[1])
        return frontend_fast.encode_packed(feature_extractor, input_values, num_samples)
    first, *rest = feature_extractor.conv_layers
    hidden = input_values[:, None]
    if num_samples is not None:
        num_valid = torch.div(num_samples - first.conv.kernel_size[0], first.conv.stride[0], rounding_mode="floor") + 1
        num_valid = num_valid.to(input_values.device, non_blocking=True)
    else:
        num_valid = None
    if first.conv.weight.requires_grad and torch.is_grad_enabled():
        # Two of three activations of the longest layer are made anew in the backward pass rather than kept: a fifth
        # of the memory of a step for 1 % of its arithmetic.
        hidden = checkpoint(_first_layer, first, hidden, num_valid, use_reentrant=False, preserve_rng_state=False)
    else:
        hidden = _first_layer(first, hidden, num_valid)
    for layer in rest:
        hidden = layer(hidden)
    return hidden.transpose(1, 2)


def _fast_is_faster(input_values: Tensor, is_padded: bool) -> bool:
    """As measured (docs/results.md): on a CPU; on a GPU but for both passes of an unpadded batch in fp32."""
    device = input_values.device.type
    in_half = product_dtype(input_values) in (torch.float16, torch.bfloat16)
    return device == "cpu" or (device == "cuda" and (in_half or is_padded or not torch.is_grad_enabled()))


def _first_layer(layer: nn.Module, hidden: Tensor, num_valid: Tensor | None) -> Tensor:
    """The only layer where padding could reach a clip's own frames."""
    if num_valid is None or not isinstance(getattr(layer, "layer_norm", None), nn.GroupNorm):
        return layer(hidden)
    return layer.activation(masked_group_norm(layer.conv(hidden), num_valid, layer.layer_norm))


def masked_group_norm(hidden: Tensor, num_valid: Tensor, norm: nn.GroupNorm) -> Tensor:
    """GroupNorm with one channel a group, its statistics taken over valid frames only, never in half precision.

    Args:
        hidden: (B, K, F) in any floating type; the result has the same.
        num_valid: Valid frames of each clip (B,), at least 1.
        norm: The layer that holds weight, bias and eps.
    """
    if norm.num_groups != norm.num_channels:
        raise ValueError(f"expected one channel a group, got {norm.num_channels} channels in {norm.num_groups} groups")
    mask = (torch.arange(hidden.shape[-1], device=hidden.device) < num_valid[:, None])[:, None]  # (B, 1, F)
    count = num_valid[:, None, None]
    with torch.autocast(hidden.device.type, enabled=False):
        values = at_least_fp32(hidden)
        mean = (values * mask).sum(-1, keepdim=True) / count
        # Two passes: the variance of a signal with an offset would cancel in E[x^2] - E[x]^2.
        centred = (values - mean) * mask
        variance = centred.square().sum(-1, keepdim=True) / count
        normalised = centred * torch.rsqrt(variance + norm.eps)
        return (normalised * norm.weight[:, None] + norm.bias[:, None]).to(hidden.dtype)
