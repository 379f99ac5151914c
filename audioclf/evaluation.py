"""From a loader to metrics. Shapes: B batch, C classes."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .errors import ConfigError
from .loaders import prefetch
from .memory import backing_off, named, split
from .metrics import classification_metrics, confusion_matrix
from .models.classifier import AudioClassifier
from .runtime import at_least_fp32, autocast


@dataclass(frozen=True)
class Evaluation:
    """How a model did on one part.

    Attributes:
        metrics: `loss`, `accuracy`, `accuracy_ci`, `uar`, `macro_f1`.
        confusion: Counts (C, C): row the true class, column the predicted one.
    """

    metrics: dict[str, Any]
    confusion: np.ndarray


def evaluate_loader(
    model: AudioClassifier,
    loader: DataLoader,
    loss_function: Callable[[Tensor, Tensor], Tensor],
    *,
    num_classes: int,
    device: torch.device,
    precision: str,
) -> Evaluation:
    """Runs the model, in evaluation mode and without gradients, over every clip once; leaves it in that mode."""
    model.eval()
    total_loss, targets, predictions, max_clips = 0.0, [], [], None
    with torch.inference_mode(), contextlib.closing(prefetch(loader)) as batches:
        for batch in batches:
            labels = batch["labels"].to(device, non_blocking=True)
            names = loader.dataset.names
            logits, max_clips = forward_backing_off(model, batch, device, precision, names, max_clips)
            total_loss += float(clip_losses(loss_function, logits, labels).cpu().double().sum())
            targets += labels.tolist()
            predictions += logits.argmax(dim=-1).tolist()
    confusion = confusion_matrix(targets, predictions, num_classes)
    return Evaluation({"loss": total_loss / len(targets), **classification_metrics(confusion)}, confusion)


def forward(model: AudioClassifier, batch: dict[str, Tensor], device: torch.device, precision: str) -> Tensor:
    """Logits (B, C), never in half precision, of a collated batch that still lies on the CPU.

    Masks and lengths stay there: what is counted on the CPU needs no waiting for the device.
    """
    with autocast(device, precision):
        if "features" in batch:
            features, lengths = batch["features"], batch["num_frames"]
            padded = bool((lengths < features.shape[1]).any())
            logits = model.from_features(features.to(device, non_blocking=True), lengths if padded else None)
        else:
            mask = batch["attention_mask"]
            padded = not bool(mask.all())
            logits = model(batch["input_values"].to(device, non_blocking=True), mask if padded else None)
    return at_least_fp32(logits)


def forward_backing_off(
    model: AudioClassifier,
    batch: dict[str, Tensor],
    device: torch.device,
    precision: str,
    names: Sequence[str],
    max_clips: int | None,
) -> tuple[Tensor, int | None]:
    """`forward` in pieces of at most `max_clips`, fewer if memory runs out; also the number it came to.

    Raises:
        ResourceError: when memory does not even do for one clip, whose name is that of its `index` in `names`.
    """

    def attempt(limit: int | None) -> Tensor:
        logits = []
        for piece in split(batch, limit):
            with named(piece, names):
                logits.append(forward(model, piece, device, precision))
        return torch.cat(logits)

    return backing_off(attempt, max_clips, len(batch["labels"]))


def clip_losses(loss_function: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of each clip (B,).

    Raises:
        ConfigError: when the loss function, the user's own, gives something else.
    """
    losses = loss_function(logits, labels)
    if not isinstance(losses, Tensor) or losses.shape != labels.shape:
        shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        raise ConfigError(
            f"The loss gave {shape} for {len(labels)} clips; it must give one value a clip, so build it with "
            "reduction='none'."
        )
    return losses
