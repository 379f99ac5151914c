"""Heads: from the frames of all layers to one row of logits a clip.

A head is any `nn.Module` called with `(frames, mask)` that returns logits (B, C). `frames` is a list of (B, F, D): what
enters the encoder's first layer, what leaves each of its L layers, and last the output of the final norm where the
encoder has one, so that `frames[-1]` is always the encoder's result. `mask` (B, F) bool is True on a clip's own frames.

Shapes: B batch, F frames, D hidden, P projection, C classes.
"""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from ..runtime import at_least_fp32

PROJECTION_SIZE = 256
"""Width of the projection of `MixHead`, as in SUPERB."""
ATTENTION_SIZE = 128
"""Width of the attention network of `AttentionHead`, as in the paper."""


class MeanHead(nn.Module):
    """Projection, mean over a clip's frames, linear: the head of `HubertForSequenceClassification`.

    Its parameters have the names transformers gives them, so that the checkpoint loads there.
    """

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        if config.use_weighted_layer_sum:
            num_outputs = config.num_hidden_layers + 1
            self.layer_weights = nn.Parameter(torch.full((num_outputs,), 1 / num_outputs))
        self.projector = nn.Linear(config.hidden_size, config.classifier_proj_size)
        self.classifier = nn.Linear(config.classifier_proj_size, config.num_labels)

    def forward(self, frames: list[Tensor], mask: Tensor) -> Tensor:
        """Logits (B, C) of the layers' frames (B, F, D) under the mask (B, F)."""
        mixed = mix_layers(frames, self.layer_weights) if hasattr(self, "layer_weights") else frames[-1]
        return self.classifier(masked_mean(self.projector(mixed), mask))


class SummaryHead(nn.Module):
    """Norm and linear on the mean of the two summary tokens: the head of `ASTForAudioClassification`.

    Its parameters have the names transformers gives them, so that the checkpoint loads there.
    """

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.classifier = nn.Sequential(
            OrderedDict(
                layernorm=nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps),
                dense=nn.Linear(config.hidden_size, config.num_labels),
            )
        )

    def forward(self, frames: list[Tensor], _mask: Tensor) -> Tensor:
        """Logits (B, C) of the layers' frames (B, F, D), of which the first two are the summary tokens."""
        return self.classifier(frames[-1][:, :2].mean(dim=1))


class AttentionHead(nn.Module):
    """Attentive statistics pooling over a learned mix of all layers, then linear.

    Source: Okabe, Koshinaka & Shinoda (2018), "Attentive statistics pooling for deep speaker embedding".
    """

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.layer_weights = nn.Parameter(torch.zeros(config.num_hidden_layers + 1))
        self.attention = nn.Sequential(
            nn.Linear(config.hidden_size, ATTENTION_SIZE), nn.Tanh(), nn.Linear(ATTENTION_SIZE, 1)
        )
        self.classifier = nn.Linear(2 * config.hidden_size, config.num_labels)

    def forward(self, frames: list[Tensor], mask: Tensor) -> Tensor:
        """Logits (B, C) of the layers' frames (B, F, D) under the mask (B, F)."""
        mixed = mix_layers(frames, self.layer_weights)  # (B, F, D)
        scores = at_least_fp32(self.attention(mixed).squeeze(-1))  # (B, F)
        weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)[..., None]
        mixed = at_least_fp32(mixed)
        mean = (weights * mixed).sum(dim=1)
        variance = (weights * (mixed - mean[:, None]).square()).sum(dim=1)
        # The floor keeps the gradient of the square root finite for a clip of one frame.
        return self.classifier(torch.cat([mean, (variance + 1e-5).sqrt()], dim=-1))


class MixHead(nn.Module):
    """Mean over the frames of a learned mix of all layers, then linear: SUPERB's way with utterances.

    Source: Yang et al. (2021), "SUPERB: Speech processing universal performance benchmark".
    """

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.layer_weights = nn.Parameter(torch.zeros(config.num_hidden_layers + 1))
        self.projector = nn.Linear(config.hidden_size, PROJECTION_SIZE)
        self.classifier = nn.Linear(PROJECTION_SIZE, config.num_labels)

    def forward(self, frames: list[Tensor], mask: Tensor) -> Tensor:
        """Logits (B, C) of the layers' frames (B, F, D) under the mask (B, F)."""
        return self.classifier(masked_mean(self.projector(mix_layers(frames, self.layer_weights)), mask))


class MultiHeadAttentionHead(nn.Module):
    """A learned mix of all layers, each share of whose features is averaged under weights of its own, then linear.

    Source: India, Safari & Hernando (2019), "Self multi-head attention for speaker recognition".
    """

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.layer_weights = nn.Parameter(torch.zeros(config.num_hidden_layers + 1))
        self.queries = nn.Parameter(torch.zeros(self.num_heads, config.hidden_size // self.num_heads))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, frames: list[Tensor], mask: Tensor) -> Tensor:
        """Logits (B, C) of the layers' frames (B, F, D) under the mask (B, F)."""
        mixed = at_least_fp32(mix_layers(frames, self.layer_weights))
        parts = mixed.unflatten(-1, (self.num_heads, -1))  # (B, F, heads, D / heads)
        scores = (parts * self.queries).sum(dim=-1) / parts.shape[-1] ** 0.5  # (B, F, heads)
        weights = scores.masked_fill(~mask[..., None], float("-inf")).softmax(dim=1)
        return self.classifier((weights[..., None] * parts).sum(dim=1).flatten(1))


class MLPHead(nn.Module):
    """Mean over the last layer's frames, then a network of one hidden layer."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.hidden = nn.Linear(config.hidden_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, frames: list[Tensor], mask: Tensor) -> Tensor:
        """Logits (B, C) of the layers' frames (B, F, D) under the mask (B, F)."""
        return self.classifier(nn.functional.gelu(self.hidden(masked_mean(frames[-1], mask))))


def mix_layers(frames: list[Tensor], layer_weights: Tensor) -> Tensor:
    """Mean (B, F, D) of the layers, before any final norm, under softmax weights (L + 1,).

    Source: Peters et al. (2018), ELMo; Yang et al. (2021), SUPERB.
    """
    weights = layer_weights.softmax(dim=0)
    return sum(weight * layer for weight, layer in zip(weights, frames[: len(weights)], strict=True))


def masked_mean(frames: Tensor, mask: Tensor) -> Tensor:
    """Mean (B, D) over the valid frames of (B, F, D), never summed in half precision."""
    frames = at_least_fp32(frames).masked_fill(~mask[..., None], 0.0)
    return frames.sum(dim=1) / mask.sum(dim=1, keepdim=True)


HEADS: dict[str, Callable[[PretrainedConfig], nn.Module]] = {
    "attention": AttentionHead,
    "mix": MixHead,
    "multihead": MultiHeadAttentionHead,
    "mlp": MLPHead,
}
"""Heads of our own by name; `mean` is the one that transformers has for the encoder's family."""
