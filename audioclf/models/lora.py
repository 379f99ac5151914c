"""Low-rank adaptation of an encoder's layers by peft, and the plain weights that it comes to.

Source: Hu et al. (2021), "LoRA: Low-rank adaptation of large language models".
"""

import re

import torch
from torch import Tensor, nn

from ..errors import ConfigError

ADAPTER = "default"
"""peft's name of what it adds."""


def add_lora(encoder: nn.Module, rank: int) -> None:
    """Fixes an encoder's weights and adds a product of two matrices of that rank to each linear layer of its layers.

    Each begins as zero, and is scaled by 2 (`lora_alpha` of twice the rank). WavLM's attention computes with its
    weights past their layers, so that there the feed-forward layers alone are added to.

    Args:
        encoder: As transformers builds it; changed in place.
        rank: Of the product.

    Raises:
        ConfigError: when peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ConfigError("lora_rank needs the package peft: pip install 'audioclf[lora]', or leave it out.") from None
    part = r"feed_forward\." if encoder.config.model_type == "wavlm" else ""
    pattern = rf"(encoder\.)?layers\.\d+\.{part}"
    linear = [name for name, module in encoder.named_modules() if isinstance(module, nn.Linear)]
    targets = [name for name in linear if re.match(pattern, name)]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets), encoder, ADAPTER)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(".lora_" in name)


def own_weights(encoder: nn.Module) -> dict[str, Tensor]:
    """The weights, by name, of the layers that were added to: they and what was added; empty without."""
    layers = tuple(f"{name}." for name in _adapted(encoder))
    return {name: value for name, value in encoder.state_dict().items() if name.startswith(layers)}


@torch.no_grad()
def plain_state(encoder: nn.Module) -> dict[str, Tensor]:
    """The encoder's `state_dict` with what was added merged in, as if it had been trained whole."""
    state = encoder.state_dict()
    for name, layer in _adapted(encoder).items():
        state = {key: value for key, value in state.items() if not key.startswith(f"{name}.")}
        state |= {f"{name}.{key}": value for key, value in layer.base_layer.state_dict().items()}
        state[f"{name}.weight"] = layer.base_layer.weight + layer.get_delta_weight(ADAPTER)
    return state


def _adapted(encoder: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in encoder.named_modules() if hasattr(module, "base_layer")}
