"""From a loader to metrics. Shapes: B batch, N clips, C classes."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .distributed import summed
from .errors import ConfigError
from .loaders import prefetch
from .memory import backing_off, in_pieces, memory_errors_named, named_by
from .metrics import (
    average_precisions,
    best_thresholds,
    calibration_error,
    class_metrics,
    confusion_matrix,
    multi_label_metrics,
    single_label_metrics,
)
from .models.classifier import AudioClassifier
from .pieces import pool
from .runtime import at_least_fp32, autocast, unchanged_random_state


@dataclass(frozen=True)
class Evaluation:
    """How a model did on one part.

    Attributes:
        metrics: `loss`; `ece`, the calibration error of the likeliest class's score, in multi-label data that of each
            class, averaged (Kull et al. 2019); and those of `single_label_metrics` or `multi_label_metrics`.
        classes: Of each class, (C,) each: `precision`, `recall`, `f1`, `support`; of multi-label data also `ap`, its
            average precision, and `threshold`, the score from which it counts as detected.
        confusion: Counts (C, C): row the true class, column the predicted one; None of multi-label data.
        logits: Of each clip, (N, C); None where they are not kept, as in a checkpoint.
    """

    metrics: dict[str, Any]
    classes: dict[str, np.ndarray]
    confusion: np.ndarray | None
    logits: np.ndarray | None = None


def evaluate_loader(
    model: AudioClassifier,
    loader: DataLoader,
    loss_function: Callable[[Tensor, Tensor], Tensor],
    *,
    device: torch.device,
    precision: str,
    thresholds: np.ndarray | None = None,
) -> Evaluation:
    """Runs the model, in evaluation mode and without gradients, over every clip once; leaves it in that mode.

    A clip in pieces has the mean of their probabilities.

    Args:
        model, loader, loss_function, device, precision: What runs on what.
        thresholds: Of multi-label data, the scores (C,) from which a class counts as detected; when not given, those
            with the best F1 on these very clips.
    """
    rows, clips = loader.dataset, loader.dataset.whole
    logits = evaluated_logits(model, loader, device, precision)
    if rows.firsts is not None:
        logits = pool(logits, rows.firsts, model.multi_label)
    with torch.inference_mode():
        on_device = torch.from_numpy(logits).to(device, torch.float32)
        losses = clip_losses(loss_function, on_device, torch.from_numpy(clips.labels).to(device))
    logits = logits.astype(np.float64)
    if model.multi_label:
        evaluation = _multi_label(clips.labels > 0, logits, clips.groups, thresholds)
    else:
        evaluation = _single_label(clips.labels, logits, clips.groups)
    scores = probabilities(torch.from_numpy(logits), model.multi_label).numpy()
    told = {"loss": float(losses.cpu().double().mean()), "ece": _calibration_error(scores, clips.labels)}
    return replace(evaluation, metrics={**told, **evaluation.metrics}, logits=logits)


def evaluated_logits(model: AudioClassifier, loader: DataLoader, device: torch.device, precision: str) -> np.ndarray:
    """Logits (P, C) float32 of the loader's rows, clips or pieces of them, by the model in evaluation mode.

    In a job each process computes those that its loader gives it, and gets all of them.
    """
    model.eval()
    rows, max_clips = loader.dataset, None
    logits = torch.zeros(len(rows), model.config.num_labels)
    with torch.inference_mode(), unchanged_random_state(), contextlib.closing(prefetch(loader)) as batches:
        for batch in batches:
            of_batch, max_clips = forward_backing_off(model, batch, device, precision, rows.names, max_clips)
            logits[batch["index"]] = of_batch.cpu()
    return summed(logits).numpy()


def _calibration_error(scores: np.ndarray, targets: np.ndarray) -> float:
    if targets.ndim == 2:
        return float(np.mean([calibration_error(*pair) for pair in zip(scores.T, targets.T > 0, strict=True)]))
    return calibration_error(scores.max(axis=1), scores.argmax(axis=1) == targets)


def _single_label(targets: np.ndarray, logits: np.ndarray, groups: np.ndarray) -> Evaluation:
    confusion = confusion_matrix(targets, logits.argmax(axis=1), logits.shape[1])
    classes = class_metrics(np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0))
    return Evaluation(single_label_metrics(targets, logits, groups), classes, confusion)


def _multi_label(
    targets: np.ndarray, logits: np.ndarray, groups: np.ndarray, thresholds: np.ndarray | None
) -> Evaluation:
    scores = probabilities(torch.from_numpy(logits), multi_label=True).numpy()
    if thresholds is None:
        thresholds = best_thresholds(targets, scores)
    detected = scores >= thresholds
    classes = class_metrics((targets & detected).sum(axis=0), targets.sum(axis=0), detected.sum(axis=0))
    classes |= {"ap": average_precisions(targets, scores), "threshold": thresholds}
    return Evaluation(multi_label_metrics(targets, scores, groups, thresholds), classes, None)


def probabilities(logits: Tensor, multi_label: bool) -> Tensor:
    """Scores in [0, 1] of logits (..., C): of each class by itself, or adding up to 1."""
    return logits.sigmoid() if multi_label else logits.softmax(dim=-1)


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
        for piece in in_pieces(batch, limit):
            with memory_errors_named(piece, partial(named_by, names)):
                logits.append(forward(model, piece, device, precision))
        return torch.cat(logits)

    return backing_off(attempt, max_clips, len(batch["labels"]))


def clip_losses(loss_function: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of each clip (B,).

    Raises:
        ConfigError: when the loss function, the user's own, gives something else.
    """
    losses = loss_function(logits, labels)
    if not isinstance(losses, Tensor) or losses.shape != labels.shape[:1]:
        shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        raise ConfigError(
            f"The loss gave {shape} for {len(labels)} clips; it must give one value a clip, so build it with "
            "reduction='none'."
        )
    return losses
