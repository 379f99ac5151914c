"""AdamW and its groups of parameters."""

import torch

from .config import TrainConfig
from .models.backbone import num_layers_above
from .models.classifier import AudioClassifier


def build_optimizer(model: AudioClassifier, config: TrainConfig, device: torch.device) -> torch.optim.Optimizer:
    """AdamW over what is trained: encoder and head, each with and without decay (biases and norm weights have none).

    The schedule multiplies each group's `peak_lr`. With `layer_decay` every layer of the encoder is a group of its own:
    the top one has `learning_rate`, each one below that factor less, and what precedes the layers counts as one more.

    Source: Clark et al. (2020), ELECTRA; Bao et al. (2022), BEiT.
    """
    factor = config.layer_decay or 1.0
    groups: dict[tuple[str, bool, float], dict] = {}
    for part, rate in (("backbone", config.learning_rate), ("head", config.head_learning_rate or config.learning_rate)):
        trained = [pair for pair in getattr(model, part).named_parameters() if pair[1].requires_grad]
        for decays in (True, False):
            for name, parameter in trained:
                if (parameter.ndim > 1) == decays:
                    above = num_layers_above(name, model.config) if part == "backbone" else 0
                    peak = rate * factor**above
                    options = {"weight_decay": config.weight_decay if decays else 0.0, "lr": peak, "peak_lr": peak}
                    groups.setdefault((part, decays, peak), {"params": [], **options})["params"].append(parameter)
    return torch.optim.AdamW(list(groups.values()), fused=device.type in ("cuda", "cpu"))
