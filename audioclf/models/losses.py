"""Losses: one value a clip, so that a step can weigh and add them up. Shapes: B batch, C classes."""

from collections.abc import Callable

from torch import Tensor, nn
from transformers import PretrainedConfig

from ..errors import ConfigError
from .hf import MULTI_LABEL

Loss = Callable[[Tensor, Tensor], Tensor]


class BinaryCrossEntropy(nn.Module):
    """Cross entropy of each class by itself, averaged over the classes.

    Args:
        positive_weights: Weight of each class where a clip has it (C,); all 1 when not given.
    """

    def __init__(self, positive_weights: Tensor | None = None) -> None:
        super().__init__()
        self.elements = nn.BCEWithLogitsLoss(reduction="none", pos_weight=positive_weights)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Losses (B,) of logits (B, C) and labels (B, C), 0 or 1."""
        return self.elements(logits, labels).mean(dim=-1)


def build_loss(
    loss: str | Callable[[PretrainedConfig], Loss],
    config: PretrainedConfig,
    positive_weights: Tensor | None = None,
) -> Loss:
    """The loss `(logits (B, C), labels) -> one value a clip (B,)`; labels are (B,), in multi-label data (B, C).

    Args:
        loss: `auto` or a callable that builds one, as `TrainConfig.loss`.
        config: The encoder's config, which knows the labels and the task.
        positive_weights: In multi-label data, the weight of each class where a clip has it (C,).

    Raises:
        ConfigError: when a callable of the user's own builds none.
    """
    if isinstance(loss, str):
        if config.problem_type == MULTI_LABEL:
            return BinaryCrossEntropy(positive_weights)
        return nn.CrossEntropyLoss(reduction="none")
    advice = (
        "loss= takes a callable that builds a loss from the model's config, for example "
        "lambda config: torch.nn.CrossEntropyLoss(reduction='none', label_smoothing=0.1)."
    )
    try:
        built = loss(config)
    except TypeError as error:
        raise ConfigError(f"The loss could not be built ({error}): {advice}") from error
    if not callable(built):
        raise ConfigError(f"The loss builder gave {type(built).__name__}, which is not callable: {advice}")
    return built
