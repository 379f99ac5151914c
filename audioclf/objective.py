"""What a run minimises, and what its epochs are judged by."""

import numpy as np
import torch
from torch import Tensor, nn

from .checks import nearest
from .config import ClassWeights, TrainConfig
from .datasets.base import AudioSplits
from .errors import ConfigError
from .metrics import metrics_of
from .models.classifier import AudioClassifier
from .models.losses import Loss, build_loss


def choose_metric(config: TrainConfig, splits: AudioSplits) -> str:
    """The metric that chooses the best checkpoint.

    Raises:
        ConfigError: when this data does not have it.
    """
    known = metrics_of(splits.multi_label, len(splits.labels))
    chosen = (splits.metric or known[0]) if config.metric_for_best == "auto" else config.metric_for_best
    if chosen not in known:
        kind = (
            "multi-label data" if splits.multi_label else f"data of one label a clip and {len(splits.labels)} classes"
        )
        raise ConfigError(f"metric_for_best={chosen!r} is no metric of {kind}: choose one of {', '.join(known)}.")
    return chosen


def build_losses(
    config: TrainConfig,
    splits: AudioSplits,
    train_labels: np.ndarray | None,
    model: AudioClassifier,
    device: torch.device,
) -> tuple[Loss, Loss, Tensor | None]:
    """`loss`, `train_loss` and `class_weights` of a run.

    Raises:
        ConfigError: when labels and weights do not match, or a loss of the user's own cannot take them.
    """
    weights = _class_weights(config.class_weights, splits, train_labels).to(device)
    loss = train_loss = build_loss(config.loss, model.config)
    if splits.multi_label and config.class_weights is not None:
        if config.loss != "auto":
            raise ConfigError(
                "class_weights of multi-label data are part of the loss, and loss= gives one of your own: weigh the "
                "classes in there (pos_weight), and leave class_weights out."
            )
        train_loss = build_loss(config.loss, model.config, weights)
    for part in (loss, train_loss):
        if isinstance(part, nn.Module):
            if any(parameter.requires_grad for parameter in part.parameters()):
                raise ConfigError("loss= has weights to be trained, which nothing trains: put them into the head.")
            part.to(device)
    return loss, train_loss, None if splits.multi_label else weights


def _class_weights(option: ClassWeights, splits: AudioSplits, train_labels: np.ndarray | None) -> Tensor:
    """Weight of each class in the training loss (C,).

    `balanced`: all clips / (classes * clips of the class), as scikit-learn's `compute_class_weight`; in multi-label
    data the clips without the class / those with it.

    Raises:
        ConfigError: when labels and weights do not match.
    """
    labels = splits.labels
    if isinstance(option, dict):
        for label in option:
            if label not in labels:
                raise ConfigError(
                    f"class_weights has {label!r}, which is no label of {splits.name}{nearest(label, labels)}"
                )
        missing = [label for label in labels if label not in option]
        if missing:
            raise ConfigError(f"class_weights lacks {', '.join(map(repr, missing))}: give a weight for every label.")
        return torch.tensor([float(option[label]) for label in labels])
    if option == "balanced" and train_labels is None:
        raise ConfigError(
            f"class_weights='balanced' counts the clips of each class, which {splits.name}, a stream, does not tell "
            "beforehand: give a weight for every label."
        )
    if option == "balanced" and splits.multi_label:
        counts = torch.from_numpy(train_labels.sum(axis=0))
        return (len(train_labels) - counts) / counts
    if option == "balanced":
        counts = torch.bincount(torch.from_numpy(train_labels), minlength=len(labels))
        return counts.sum() / (len(labels) * counts)
    return torch.ones(len(labels))
