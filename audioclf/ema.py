"""An exponential moving average of the weights: a second model, which follows the one that is trained.

With it the averaged weights are those that are evaluated, chosen and exported; the optimizer goes on with its own. It
takes the memory of the trained weights once more, on the device and in `last`.
"""

import copy

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .models.classifier import AudioClassifier


def averaged_copy(model: AudioClassifier) -> AudioClassifier:
    """A model for the average, which begins as the weights are; what is not trained is shared and not copied."""
    shared = {id(parameter): parameter for parameter in model.parameters() if not parameter.requires_grad}
    return copy.deepcopy(model, shared).requires_grad_(False)


def decay_at(num_updates: int, decay: float) -> float:
    """Decay of the update number `num_updates`, counted from 1.

    It begins small, so that the weights of the start, with a head that knows nothing, are soon forgotten.

    Source: `tf.train.ExponentialMovingAverage` with `num_updates`.
    """
    return min(decay, (1 + num_updates) / (10 + num_updates))


@torch.no_grad()
def update_average(averaged: AudioClassifier, model: AudioClassifier, decay: float) -> None:
    """Moves the average: decay * average + (1 - decay) * weights. Buffers are taken as they are."""
    own, followed = _different(averaged, model), _different(model, averaged)
    get_ema_multi_avg_fn(decay)(list(own.values()), list(followed.values()), None)
    for buffer, value in zip(averaged.buffers(), model.buffers(), strict=True):
        buffer.copy_(value)


def own_weights(model: AudioClassifier, averaged: AudioClassifier) -> dict[str, Tensor]:
    """What the trained model does not share with its average, by name."""
    return {**_different(model, averaged), **dict(model.named_buffers())}


def _different(model: AudioClassifier, other: AudioClassifier) -> dict[str, Tensor]:
    shared = {id(parameter) for parameter in other.parameters()}
    return {name: value.detach() for name, value in model.named_parameters() if id(value) not in shared}
