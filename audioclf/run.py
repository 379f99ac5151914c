"""What a training run works with: its state, and the model, data and optimizer put together from the options."""

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Wav2Vec2FeatureExtractor

from . import __version__, export
from .accumulate import num_windows
from .clips import DecodedSplits
from .config import ClassWeights, TrainConfig, nearest
from .datasets.base import AudioSplits
from .errors import ConfigError
from .evaluation import Evaluation
from .loaders import make_loaders
from .metrics import is_better
from .models.classifier import AudioClassifier, Loss, build_loss, freeze, place
from .progress import Reporter
from .runtime import choose_precision

RUN_FILES = ("best", "last", "tensorboard", "history.jsonl", "config.json")
"""What a run leaves in its output folder, and what `overwrite` deletes there."""


@dataclass
class State:
    """Where a run stands."""

    step: int = 0
    epoch: int = 0
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    best_epoch: int = 0
    best: Evaluation | None = None

    def record(self, evaluation: Evaluation, metric: str) -> bool:
        """Notes the validation of an epoch; whether it is the best so far."""
        best_value = None if self.best is None else self.best.metrics[metric]
        if not math.isfinite(evaluation.metrics["loss"]) or not is_better(
            metric, evaluation.metrics[metric], best_value
        ):
            return False
        self.best, self.best_epoch = evaluation, self.epoch
        return True


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
        """The row's values; starts anew."""
        loss, now = torch.stack(self.losses).mean().item(), time.monotonic()
        row = {"loss": loss, "clips_per_second": self.num_clips / max(now - self.began, 1e-9)}
        self.losses, self.num_clips, self.began = [], 0, now
        return row

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside, evaluating and saving, does not count as training time."""
        now = time.monotonic()
        yield
        self.began += time.monotonic() - now


@dataclass(frozen=True)
class Run:
    """All that the loop works with."""

    config: TrainConfig
    device: torch.device
    precision: str
    model: AudioClassifier
    loss: Loss
    class_weights: Tensor
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    loaders: dict[str, DataLoader]
    num_steps: int
    reporter: Reporter
    save: Callable[[str, State, Evaluation | None], None]
    notes: tuple[str, ...]
    state: State = field(default_factory=State)


def set_up(
    config: TrainConfig,
    device: torch.device,
    output_dir: Path,
    splits: AudioSplits,
    decoded: DecodedSplits,
    model: AudioClassifier,
    extractor: Wav2Vec2FeatureExtractor,
) -> Run:
    """Puts together what the loop needs and writes the run's config.json."""
    precision = choose_precision(config.precision, device)
    place(model, device, config.frontend)
    freeze(model, config.freeze)
    loss = build_loss(config.loss, model.config)
    if isinstance(loss, nn.Module):
        loss.to(device)
    class_weights = _class_weights(config.class_weights, splits, decoded.parts["train"].labels).to(device)
    loaders, notes = make_loaders(config, device, precision, decoded, model, extractor)
    order = loaders["train"].batch_sampler
    num_steps = sum(
        num_windows(order.num_batches(epoch), config.gradient_accumulation_steps)
        for epoch in range(1, config.num_epochs + 1)
    )
    metadata = _metadata(config, splits, decoded, precision)

    def save(name: str, state: State, evaluation: Evaluation | None) -> None:
        content = {**metadata, "epoch": state.epoch, "step": state.step, "metrics": evaluation and evaluation.metrics}
        export.save_pretrained(model, extractor, output_dir / name, content)

    _clear(output_dir)
    export.write_json(output_dir / "config.json", config.to_dict())
    return Run(
        config=config,
        device=device,
        precision=precision,
        model=model,
        loss=loss,
        class_weights=class_weights,
        optimizer=_optimizer(model, config, device),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        loaders=loaders,
        num_steps=num_steps,
        reporter=Reporter(output_dir, splits.labels, num_steps, config.progress),
        save=save,
        notes=notes,
    )


def _class_weights(option: ClassWeights, splits: AudioSplits, train_labels: Sequence[int]) -> Tensor:
    """Weight of each class in the training loss (C,).

    `balanced`: all clips / (classes * clips of the class), as scikit-learn's `compute_class_weight`.

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
    if option == "balanced":
        counts = torch.bincount(torch.tensor(train_labels), minlength=len(labels))
        return counts.sum() / (len(labels) * counts)
    return torch.ones(len(labels))


def _optimizer(model: AudioClassifier, config: TrainConfig, device: torch.device) -> torch.optim.Optimizer:
    """AdamW in four groups: encoder and head, each with and without decay (biases and norm weights have none)."""
    rates = {"backbone": config.learning_rate, "head": config.head_learning_rate or config.learning_rate}
    groups = []
    for part, rate in rates.items():
        trained = [parameter for parameter in getattr(model, part).parameters() if parameter.requires_grad]
        for decay, parameters in (
            (config.weight_decay, [parameter for parameter in trained if parameter.ndim > 1]),
            (0.0, [parameter for parameter in trained if parameter.ndim <= 1]),
        ):
            if parameters:
                groups.append({"params": parameters, "weight_decay": decay, "lr": rate, "peak_lr": rate})
    return torch.optim.AdamW(groups, fused=device.type in ("cuda", "cpu"))


def _clear(output_dir: Path) -> None:
    """Deletes an earlier run: only once nothing can be refused any more."""
    for name in RUN_FILES:
        path = output_dir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _metadata(config: TrainConfig, splits: AudioSplits, decoded: DecodedSplits, precision: str) -> dict[str, Any]:
    """What audioclf.json says of a run, whatever the epoch."""
    return {
        "audioclf_version": __version__,
        "config": config.to_dict(),
        "precision": precision,
        "max_seconds": config.max_seconds,
        "labels": list(splits.labels),
        "data": {
            "name": splits.name,
            "fingerprint": splits.fingerprint(),
            "num_clips": {part: len(clips) for part, clips in decoded.parts.items()},
            "set_aside": decoded.set_aside,
        },
    }


def prepare_output_dir(config: TrainConfig) -> Path:
    """The run's folder, made if need be. An earlier run in it stays until the new one is ready to begin.

    Raises:
        ConfigError: when it is in use or cannot be made.
    """
    folder = Path(config.output_dir).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not config.overwrite:
            raise ConfigError(
                f"output_dir={config.output_dir!r} is not empty: name another folder, or set overwrite=True to replace "
                "the earlier run."
            )
        if any(folder.iterdir()) and not (folder / "history.jsonl").is_file():
            raise ConfigError(
                f"output_dir={config.output_dir!r} holds no earlier run to overwrite, but something else: name another "
                "folder."
            )
    except OSError as error:
        raise ConfigError(f"output_dir={config.output_dir!r} cannot be used ({error.strerror or error}).") from error
    return folder
