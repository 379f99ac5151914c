"""What a training run works with: its state, and the model, data and optimizer put together from the options."""

import contextlib
import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import SequenceFeatureExtractor

from . import __version__, checkpoint, export
from .calibration import last_layer
from .clips import DecodedSplits, check_classes, targets
from .config import TrainConfig
from .datasets.base import AudioSplits
from .distributed import barrier, gathered, is_first_process, summed
from .evaluation import Evaluation
from .loaders import make_loaders
from .metrics import is_better
from .models.classifier import AudioClassifier, freeze, place
from .models.losses import Loss
from .objective import build_losses, choose_metric
from .optimizer import build_optimizer
from .output_folder import clear, unusable
from .progress import Reporter
from .runtime import choose_precision


@dataclass
class State:
    """Where a run stands.

    Attributes:
        step: Optimizer steps taken.
        epoch: The epoch under way, counted from 1.
        windows: Windows of it that are done; all of them while it is being validated.
        skipped_steps: Windows whose step was not taken, as their gradient was not finite.
        skipped_in_a_row: Those of them since the last step.
        best_epoch: The epoch with the best validation; 0 when there is none. When its checkpoint is lost, the last one
            before that was seen.
        best: Its validation; None when there is none, or it is lost.
        max_clips: Clips computed at a time since memory ran out; None when it never did.
        num_read: Clips that came of a stream, in all processes.
        set_aside: Name and reason of each of them that could not be read.
    """

    step: int = 0
    epoch: int = 1
    windows: int = 0
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    best_epoch: int = 0
    best: Evaluation | None = None
    max_clips: int | None = None
    num_read: int = 0
    set_aside: dict[str, str] = field(default_factory=dict)

    @property
    def last_epoch(self) -> int:
        """The epoch that the last window was of."""
        return self.epoch if self.windows else self.epoch - 1

    def is_over(self, config: TrainConfig) -> bool:
        """Whether no epoch is to come."""
        patient = config.patience is None or self.epoch - 1 - self.best_epoch < config.patience
        return self.epoch > config.num_epochs or not (patient or self.windows)

    def is_better(self, evaluation: Evaluation, metric: str) -> bool:
        """Whether a validation is the best so far; one with a loss that is not finite never is."""
        best_value = None if self.best is None else self.best.metrics[metric]
        return math.isfinite(evaluation.metrics["loss"]) and is_better(metric, evaluation.metrics[metric], best_value)

    def next_epoch(self) -> None:
        """Notes that an epoch is done with."""
        self.epoch, self.windows = self.epoch + 1, 0


class StepLog:
    """Mean loss, number of clips and seconds of training since the last row of the history."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.num_clips = 0
        self.began = time.monotonic()

    def add(self, shares: list[Tensor], window: list[dict[str, Tensor]]) -> None:
        """Notes a step by its micro-batches' shares of the mean loss; nothing is read from the device yet."""
        self.losses.append(torch.stack(shares).sum())
        self.num_clips += sum(len(batch["labels"]) for batch in window)

    def take(self) -> dict[str, Any]:
        """The row's values, of all processes; starts anew."""
        (losses, num_clips), now = self.pooled(), time.monotonic()
        row = {"loss": losses.mean().item(), "clips_per_second": num_clips / max(now - self.began, 1e-9)}
        self.losses, self.num_clips, self.began = [], 0, now
        return row

    def pooled(self) -> tuple[Tensor, int]:
        """The loss of each step and the number of clips, of all processes. For all of them."""
        losses = torch.stack(self.losses) if self.losses else torch.zeros(0)
        return summed(losses), sum(gathered(self.num_clips))

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside, evaluating and saving, does not count as training time."""
        now = time.monotonic()
        yield
        self.began += time.monotonic() - now


@dataclass(frozen=True)
class Run:
    """All that the loop works with.

    Attributes:
        loss: Of each clip, in evaluation.
        train_loss: The same in training, where in multi-label data it weighs the classes.
        class_weights: Weight of each class's clips in the mean of the training loss (C,); None in multi-label data.
        metric: What chooses the best checkpoint.
    """

    config: TrainConfig
    device: torch.device
    precision: str
    model: AudioClassifier
    loss: Loss
    train_loss: Loss
    class_weights: Tensor | None
    metric: str
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    loaders: dict[str, DataLoader]
    num_steps: int
    reporter: Reporter
    output_dir: Path
    extractor: SequenceFeatureExtractor
    metadata: dict[str, Any]
    notes: tuple[str, ...]
    state: State = field(default_factory=State)
    log: StepLog = field(default_factory=StepLog)

    @property
    def streamed(self) -> bool:
        """Whether train is read as it comes."""
        return self.config.steps_per_epoch is not None

    def describe(self, evaluation: Evaluation | None) -> dict[str, Any]:
        """What the audioclf.json of a checkpoint says."""
        state = self.state
        where = {"epoch": state.last_epoch, "step": state.step}
        where |= {"windows": state.windows, "skipped_steps": state.skipped_steps}
        data = self.metadata["data"]
        where["data"] = {**data, "set_aside": {**data["set_aside"], **state.set_aside}}
        return {**self.metadata, **where, **({"metrics": None} if evaluation is None else described(evaluation))}


def described(evaluation: Evaluation) -> dict[str, Any]:
    """What the audioclf.json of a checkpoint says of its validation."""
    thresholds = evaluation.classes.get("threshold")
    return {"metrics": evaluation.metrics, **({} if thresholds is None else {"thresholds": thresholds.tolist()})}


def set_up(
    config: TrainConfig,
    device: torch.device,
    output_dir: Path,
    splits: AudioSplits,
    decoded: DecodedSplits,
    model: AudioClassifier,
    extractor: SequenceFeatureExtractor,
    earlier: tuple[list[dict[str, Any]], int] | None = None,
    begun_with: int = 1,
) -> Run:
    """Puts together what the loop needs and begins the run's files.

    Args:
        config, device, output_dir, splits, decoded, model, extractor: What the run is about.
        earlier: Of a run that goes on, the rows of its history, and its steps so far, skipped ones among them.
        begun_with: The number of processes that the run began with, which its effective batch stays that of.

    Raises:
        ConfigError: for options that do not fit together, or when the folder cannot be written.
    """
    precision = choose_precision(config.precision, device)
    place(model, device, config.frontend)
    freeze(model, config.freeze)
    metric = choose_metric(config, splits)
    loss, train_loss, class_weights = build_losses(
        config, splits, _train_labels(config, splits, decoded), model, device
    )
    window = config.gradient_accumulation_steps * begun_with
    loaders, notes = make_loaders(config, device, precision, splits, decoded, model, extractor, window)
    order = loaders["train"].batch_sampler
    num_steps = sum(order.num_windows(epoch) for epoch in range(1, config.num_epochs + 1))
    if config.calibrate:
        last_layer(model)  # refused now rather than at the end
    barrier()  # everything is read that may be replaced now
    try:
        if earlier is None and is_first_process():
            clear(output_dir)
        reporter = Reporter(output_dir, splits.labels, metric, num_steps, config.progress, *(earlier or ()))
        if is_first_process():
            checkpoint.write_file(output_dir / "config.json", export.to_json(config.to_dict()))
    except OSError as error:
        raise unusable(config, error) from error
    return Run(
        config=config,
        device=device,
        precision=precision,
        model=model,
        loss=loss,
        train_loss=train_loss,
        class_weights=class_weights,
        metric=metric,
        optimizer=build_optimizer(model, config, device),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        loaders=loaders,
        num_steps=num_steps,
        reporter=reporter,
        output_dir=output_dir,
        extractor=extractor,
        metadata={
            **_metadata(config, splits, decoded, precision, extractor.sampling_rate),
            "num_processes": begun_with,
        },
        notes=notes,
    )


def _train_labels(config: TrainConfig, splits: AudioSplits, decoded: DecodedSplits) -> np.ndarray | None:
    """Labels of train as `Clips` keeps them, where they are known beforehand, for weights by their counts."""
    if config.steps_per_epoch is None:
        return decoded.parts["train"].labels
    if splits.stream is not None or config.class_weights != "balanced":
        return None
    labels = targets(splits.train, splits)
    check_classes(splits, labels)
    return labels


def _metadata(
    config: TrainConfig, splits: AudioSplits, decoded: DecodedSplits, precision: str, sampling_rate: int
) -> dict[str, Any]:
    """What audioclf.json says of a run, whatever the epoch."""
    return {
        "audioclf_version": __version__,
        "config": config.to_dict(),
        "precision": precision,
        "max_seconds": decoded.max_seconds,
        "chunk_seconds": decoded.chunk_seconds,
        "clip_seconds": float(np.median(decoded.parts.get("train", decoded.parts["valid"]).lengths)) / sampling_rate,
        "labels": list(splits.labels),
        "data": {
            "name": splits.name,
            "fingerprint": fingerprint(config, splits),
            "num_clips": {part: len(clips.whole) for part, clips in decoded.parts.items()},
            "set_aside": decoded.set_aside,
        },
    }


def fingerprint(config: TrainConfig, splits: AudioSplits) -> str:
    """A string that changes when the data does: of what is streamed its names and labels, as no file is looked at."""
    if config.steps_per_epoch is None:
        return splits.fingerprint()
    held_out = replace(splits, train=()).fingerprint()
    digest = hashlib.sha256(held_out.encode())
    digest.update("\n".join(f"{clip.name}|{clip.label}" for clip in splits.train).encode("utf-8", "surrogateescape"))
    if splits.stream is not None:
        digest.update(f"{splits.stream.name}|{splits.stream.num_shards}".encode())
    return digest.hexdigest()
