"""Scores that mean what they say: temperature scaling, folded into the weights. Shapes: N clips, C classes."""

import numpy as np
import torch
from torch import nn

from .errors import ConfigError
from .models.backbone import num_outputs
from .models.classifier import AudioClassifier

EXTREME = 100.0
"""Temperatures beyond this, or below its inverse, are none: the loss then falls on and on."""


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float | None:
    """The temperature by which logits are divided for the lowest cross entropy on these clips.

    The loss is convex in its inverse, so the zero of the derivative is found by bisection.

    Args:
        logits: Of each clip, (N, C).
        targets: Class of each clip, (N,); of multi-label data which it has, (N, C) of 0 and 1, and the cross entropy is
            that of each class by itself.

    Returns:
        The temperature; None where there is no best one, as when every clip is told right.

    Source: Guo et al. (2017), "On calibration of modern neural networks".
    """
    values, wanted = torch.from_numpy(logits).double(), torch.from_numpy(targets)
    multi_label = wanted.ndim == 2
    if not multi_label:
        wanted = nn.functional.one_hot(wanted.long(), values.shape[1])

    def slope(inverse: float) -> float:
        scaled = values * inverse
        scores = scaled.sigmoid() if multi_label else scaled.softmax(dim=1)
        return float(((scores - wanted.double()) * values).sum())

    low, high = 1 / EXTREME, EXTREME
    if not slope(low) < 0 < slope(high):
        return None
    for _ in range(60):  # to the last digit
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / high


def divide_logits(model: AudioClassifier, temperature: float) -> None:
    """Divides the weights of a head's last layer, and so the logits, by the temperature."""
    with torch.no_grad():
        for parameter in last_layer(model).parameters():
            parameter.div_(temperature)


def last_layer(model: AudioClassifier) -> nn.Linear:
    """The linear layer that gives a head's logits.

    Raises:
        ConfigError: when the head does not end in one.
    """
    layer = list(model.head.modules())[-1]
    if not isinstance(layer, nn.Linear) or not _gives_the_logits(layer, model):
        raise ConfigError(
            "calibrate=True divides the weights of the last layer of the head, but that of head="
            f"{model.head_name!r} does not end in a torch.nn.Linear that gives the logits: leave calibrate out, or let "
            "the head end in one."
        )
    return layer


@torch.no_grad()
def _gives_the_logits(layer: nn.Linear, model: AudioClassifier) -> bool:
    """Whether the head's logits double with the layer's output, as doubling changes no digit."""
    device, training = layer.weight.device, model.head.training
    frames = torch.linspace(-1, 1, 3 * model.config.hidden_size, device=device).reshape(1, 3, -1)
    inputs = [frames] * num_outputs(model.config), torch.ones(1, 3, dtype=torch.bool, device=device)
    model.head.eval()
    before = model.head(*inputs)
    handle = layer.register_forward_hook(lambda _module, _inputs, output: 2 * output)
    try:
        return torch.equal(model.head(*inputs), 2 * before)
    finally:
        handle.remove()
        model.head.train(training)
