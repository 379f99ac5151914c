"""Scores that mean what they say: temperature scaling, folded into the weights.

Shapes: N clips, P pieces of them, C classes.
"""

import numpy as np
import torch
from scipy.special import expit, log_softmax
from torch import nn

from .errors import ConfigError
from .models.backbone import num_outputs
from .models.classifier import AudioClassifier

EXTREME = 100.0
"""Temperatures beyond this, or below its inverse, are none: the loss then falls on and on."""


def fit_temperature(logits: np.ndarray, targets: np.ndarray, firsts: np.ndarray | None = None) -> float | None:
    """The temperature by which logits are divided for the lowest cross entropy on these clips.

    It is where the derivative by its inverse is zero, found by bisection: for whole clips, whose loss is convex in the
    inverse, the only such place.

    Args:
        logits: Of each clip, or each of its pieces, (P, C).
        targets: Class of each clip, (N,); of multi-label data which it has, (N, C) of 0 and 1, and the cross entropy is
            that of each class by itself.
        firsts: Row of each clip's first piece, (N,), where a clip's probabilities are the means of its pieces'.

    Returns:
        The temperature; None where there is no best one, as when every clip is told right.

    Source: Guo et al. (2017), "On calibration of modern neural networks".
    """
    values = np.asarray(logits, dtype=np.float64)
    firsts = np.arange(len(values)) if firsts is None else firsts
    counts = np.diff([*firsts, len(values)])
    wanted = np.repeat(targets, counts, axis=0)

    def slope(inverse: float) -> float:
        log_right, steepness = _of_the_right_answer(values, wanted, inverse)
        # A piece counts by its share of the clip's probability.
        whole = np.repeat(np.logaddexp.reduceat(log_right, firsts, axis=0), counts, axis=0)
        return float(-(np.exp(log_right - whole) * steepness).sum())

    low, high = 1 / EXTREME, EXTREME
    if not slope(low) < 0 < slope(high):
        return None
    for _ in range(60):  # to the last digit
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / high


def _of_the_right_answer(values: np.ndarray, wanted: np.ndarray, inverse: float) -> tuple[np.ndarray, np.ndarray]:
    """Its log probability at an inverse temperature, and the derivative: (P,), or in multi-label data (P, C)."""
    if wanted.ndim == 2:
        signed = np.where(wanted > 0, values, -values)
        return -np.logaddexp(0, -signed * inverse), signed * expit(-signed * inverse)
    log_scores = log_softmax(values * inverse, axis=1)
    rows = np.arange(len(values)), wanted
    return log_scores[rows], values[rows] - (np.exp(log_scores) * values).sum(axis=1)


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
