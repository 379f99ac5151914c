"""AdamW and its groups of parameters."""

import torch

from .config import TrainConfig
from .models.classifier import AudioClassifier


def build_optimizer(model: AudioClassifier, config: TrainConfig, device: torch.device) -> torch.optim.Optimizer:
    """AdamW over what is trained: encoder and head, each with and without decay (biases and norm weights have none).

    The schedule multiplies each group's `peak_lr`.
    """
    groups = []
    for part, rate in (("backbone", config.learning_rate), ("head", config.head_learning_rate or config.learning_rate)):
        trained = [parameter for parameter in getattr(model, part).parameters() if parameter.requires_grad]
        for decays in (True, False):
            chosen = [parameter for parameter in trained if (parameter.ndim > 1) == decays]
            decay = config.weight_decay if decays else 0.0
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay, "lr": rate, "peak_lr": rate})
    return torch.optim.AdamW(groups, fused=device.type in ("cuda", "cpu"))
