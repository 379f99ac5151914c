"""`train`: setup, then the loop.

An optimizer step owns the list of its micro-batches (a window). Each clip's loss is divided by the number of clips in
the window (by the sum of their class weights, if there are any), so a step is that of one big batch whatever the size
of its last, shorter micro-batch or window.

Shapes: B batch, C classes.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .accumulate import windows
from .clips import DecodedSplits, decode
from .config import TrainConfig
from .datasets.base import AudioSplits, cut_valid, make_splits
from .datasets.load import load_dataset
from .errors import ConfigError, DatasetError, TrainingError
from .evaluation import Evaluation, clip_losses, evaluate_loader, forward
from .interrupt import Interrupt
from .loaders import prefetch
from .models.backbone import load_feature_extractor
from .models.classifier import build_classifier, freeze, load_classifier, place
from .progress import results_table
from .run import Run, StepLog, prepare_output_dir, set_up
from .runtime import choose_device, deterministic_algorithms, full_fp32, seed_everything
from .schedule import learning_rate_factor, num_warmup_steps

MAX_SKIPPED_IN_A_ROW = 20
"""Overflowing fp16 steps in a row after which a run stops: the scale started at 2^16, so no scale can help."""


@dataclass(frozen=True)
class TrainResult:
    """What a run has made.

    Attributes:
        best_metrics: Validation metrics of the best epoch: `loss`, `accuracy`, `accuracy_ci`, `uar`, `macro_f1`.
        best_epoch: The epoch they are from, counted from 1.
        test_metrics: Metrics of the best checkpoint on the test part; None when the data has none.
        history: The rows of history.jsonl.
        checkpoint_dir: The best checkpoint, a Hugging Face folder.
        output_dir: The run's folder.
    """

    best_metrics: dict[str, Any]
    best_epoch: int
    test_metrics: dict[str, Any] | None
    history: list[dict[str, Any]]
    checkpoint_dir: Path
    output_dir: Path


def train(data: Any, valid: Any = None, *, config: TrainConfig | None = None, **overrides: Any) -> TrainResult:
    """Fine-tunes an encoder on labelled clips and keeps the best checkpoint by validation.

    Args:
        data: `gtzan`, `demo`, a folder, a manifest, a `datasets` object, a hub id, or what `load_dataset` returns.
        valid: Validation data of its own, in any of these forms; else the data's valid part, else a share of train.
        config: The options; the defaults are the course recipe.
        **overrides: Single options, which go before those in `config`.

    Returns:
        The metrics, the history and where the best checkpoint is.

    Raises:
        ConfigError, DatasetError, AudioError, CheckpointError: for options, data, files or a model that cannot be
            used, before training begins.
        TrainingError: when the numbers are no longer finite; it names the clips.
        KeyboardInterrupt: after Ctrl-C, once the step is finished and `last` is saved.

    Example:
        >>> result = train("demo", model="tiny/config.json", num_epochs=1)  # doctest: +SKIP
        >>> result.best_metrics["accuracy"], result.checkpoint_dir  # doctest: +SKIP
    """
    config = TrainConfig.from_overrides(config, overrides)
    device = choose_device(config.device)
    output_dir = prepare_output_dir(config)
    splits = _load_splits(data, valid, config)
    with deterministic_algorithms(config.deterministic), full_fp32():  # the backward pass too
        return _run(config, device, output_dir, splits)


def _run(config: TrainConfig, device: torch.device, output_dir: Path, splits: AudioSplits) -> TrainResult:
    """Builds the model, decodes the data, trains and tests."""
    seed_everything(config.seed)
    model = build_classifier(config.model, config.head, splits.labels)
    extractor = load_feature_extractor(config.model)
    decoded = decode(
        splits,
        sampling_rate=extractor.sampling_rate,
        max_seconds=config.max_seconds,
        crop_seed=config.seed if config.random_crop else None,
        bad_audio=config.bad_audio,
        cache_dir=config.cache_dir,
        progress=config.progress,
    )
    run = set_up(config, device, output_dir, splits, decoded, model, extractor)
    try:
        _announce(run, splits, decoded)
        _loop(run)
        return _finish(run, splits, output_dir)
    finally:
        run.reporter.close()


def _loop(run: Run) -> None:
    """The training loop: `num_epochs` times over the data, each epoch validated and saved."""
    config, state, model, optimizer, scaler = run.config, run.state, run.model, run.optimizer, run.scaler
    log = StepLog()
    with Interrupt() as interrupt:
        for epoch in range(1, config.num_epochs + 1):
            state.epoch = epoch
            run.loaders["train"].batch_sampler.set_epoch(epoch)
            model.train()
            for window in windows(prefetch(run.loaders["train"]), config.gradient_accumulation_steps):
                learning_rate = _set_learning_rate(run)
                losses = _backward(run, window)
                scaler.unscale_(optimizer)
                grad_norm = nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm).item()
                stepped = _check_finite(run, window, losses, grad_norm)
                scaler.step(optimizer)  # does nothing when gradients overflowed
                scaler.update()
                optimizer.zero_grad()
                run.reporter.advance()
                if stepped:
                    state.step += 1
                    log.add(losses, window)
                    if state.step % config.logging_steps == 0:
                        rates = {"learning_rate": learning_rate, "grad_norm": grad_norm}
                        run.reporter.step(epoch=epoch, step=state.step, **rates, **log.take())
                if interrupt.requested:
                    _stop_early(run)
            with log.paused():
                evaluation = _evaluate(run, "valid")
                is_best = state.record(evaluation, config.metric_for_best)
                counts = {"epoch": epoch, "step": state.step, "skipped_steps": state.skipped_steps}
                run.reporter.epoch(**counts, evaluation=evaluation, is_best=is_best)
                run.save("last", state, evaluation)
                if is_best:
                    run.save("best", state, evaluation)
            if interrupt.requested:
                _stop_early(run)
            if config.patience is not None and epoch - state.best_epoch >= config.patience:
                run.reporter.say(f"No better {config.metric_for_best} for {config.patience} epochs: stopping.")
                break


def _set_learning_rate(run: Run) -> float:
    """Sets every group's rate for the step to come; returns that of the encoder."""
    warmup_steps = num_warmup_steps(run.num_steps, run.config.warmup_ratio)
    factor = learning_rate_factor(run.state.step, run.num_steps, warmup_steps, run.config.lr_schedule)
    for group in run.optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return run.config.learning_rate * factor


def _backward(run: Run, window: list[dict[str, Tensor]]) -> list[Tensor]:
    """Adds up the gradient of the window's mean loss; returns each micro-batch's share of that mean."""
    labels = [batch["labels"].to(run.device, non_blocking=True) for batch in window]
    total_weight = run.class_weights[torch.cat(labels)].sum()
    shares = []
    for batch, targets in zip(window, labels, strict=True):
        logits = forward(run.model, batch, run.device, run.precision)
        losses = clip_losses(run.loss, logits, targets)
        share = (losses * run.class_weights[targets]).sum() / total_weight
        run.scaler.scale(share).backward()
        shares.append(share.detach())
    return shares


def _check_finite(run: Run, window: list[dict[str, Tensor]], losses: list[Tensor], grad_norm: float) -> bool:
    """Whether the step may be taken.

    Under fp16 an overflow is expected now and then: the scaler skips the step and lowers its scale.

    Raises:
        TrainingError: for a loss or gradient that is not finite, or after too many overflows in a row.
    """
    state = run.state
    if math.isfinite(grad_norm):
        state.skipped_in_a_row = 0
        return True
    state.skipped_steps += 1
    state.skipped_in_a_row += 1
    if run.scaler.is_enabled() and state.skipped_in_a_row < MAX_SKIPPED_IN_A_ROW:
        return False
    suspects = [batch for batch, loss in zip(window, losses, strict=True) if not torch.isfinite(loss)] or window
    clips = run.loaders["train"].dataset
    names = [clips.names[index] for batch in suspects for index in batch["index"].tolist()]
    what = "The loss is" if suspects is not window else "The loss is finite but its gradient is"
    again = f" for {state.skipped_in_a_row} steps in a row" if run.scaler.is_enabled() else ""
    raise TrainingError(
        f"{what} not a finite number{again} (epoch {state.epoch}, after step {state.step}). Look at the clips of this "
        f"batch, or lower learning_rate: {', '.join(names)}"
    )


def _evaluate(run: Run, part: str, model: nn.Module | None = None) -> Evaluation:
    return evaluate_loader(
        model or run.model,
        run.loaders[part],
        run.loss,
        num_classes=run.model.config.num_labels,
        device=run.device,
        precision=run.precision,
    )


def _stop_early(run: Run) -> None:
    """Leaves a valid `last` and raises what Ctrl-C stands for."""
    run.save("last", run.state, None)
    last = str(Path(run.config.output_dir) / "last")
    run.reporter.say(
        f"\nInterrupted after step {run.state.step} of {run.num_steps}. The weights so far are in {last!r}; "
        f"to train on from them give model={last!r} and another output_dir."
    )
    raise KeyboardInterrupt


def _finish(run: Run, splits: AudioSplits, output_dir: Path) -> TrainResult:
    """Evaluates the best checkpoint, as it lies on disk, on the test part; tells the result."""
    state, config = run.state, run.config
    if state.best is None:
        raise TrainingError(
            "No epoch had a finite validation loss, so there is no best checkpoint; lower learning_rate."
        )
    checkpoint_dir = output_dir / "best"
    test = None
    if "test" in run.loaders:
        best_model = place(load_classifier(str(checkpoint_dir), config.head), run.device, config.frontend)
        freeze(best_model, config.freeze)
        test = _evaluate(run, "test", best_model)
    values = {"best_epoch": state.best_epoch, "best_metrics": state.best.metrics}
    run.reporter.end(epoch=state.epoch, step=state.step, **values, test_metrics=test and test.metrics)
    tables = [results_table(state.best, splits.labels, f"\nValidation, epoch {state.best_epoch}:")]
    if test is not None:
        tables.append(results_table(test, splits.labels, "\nTest, the same checkpoint:"))
    run.reporter.say("\n".join(tables))
    run.reporter.say(f"\nBest checkpoint: {checkpoint_dir}\nUse it: audioclf predict {checkpoint_dir} FILE")
    return TrainResult(
        best_metrics=state.best.metrics,
        best_epoch=state.best_epoch,
        test_metrics=None if test is None else test.metrics,
        history=run.reporter.history,
        checkpoint_dir=checkpoint_dir,
        output_dir=output_dir,
    )


def _load_splits(data: Any, valid: Any, config: TrainConfig) -> AudioSplits:
    """The data set with a train and a valid part."""
    splits = load_dataset(data, cache_dir=config.cache_dir)
    if valid is not None:
        if splits.valid:
            raise ConfigError(
                f"{splits.name} has a valid part of its own ({len(splits.valid)} clips), and valid= gives another: "
                "leave one of them out."
            )
        other = load_dataset(valid, cache_dir=config.cache_dir)
        if not other.valid and len(other.parts) > 1:
            raise DatasetError(
                f"{other.name}, given as valid=, has {' and '.join(other.parts)} parts but no valid part; "
                "give one part."
            )
        (clips,) = [other.valid] if other.valid else other.parts.values()
        clips = [replace(clip, split="valid") for clip in clips]
        splits = make_splits([*splits.train, *clips, *splits.test], name=splits.name, labels=splits.labels)
    if not splits.train:
        raise DatasetError(f"{splits.name}: has no train part, only {' and '.join(splits.parts)}.")
    return splits if splits.valid else cut_valid(splits, config.valid_fraction, config.seed)


def _announce(run: Run, splits: AudioSplits, decoded: DecodedSplits) -> None:
    counts = ", ".join(f"{len(clips)} {part}" for part, clips in decoded.parts.items())
    trained = sum(parameter.numel() for parameter in run.model.parameters() if parameter.requires_grad)
    run.reporter.say(
        f"{splits.name}: {len(splits.labels)} classes, {counts} clips. "
        f"Training {trained:,} parameters in {run.precision} on {run.device.type}."
    )
    store = next(iter(decoded.parts.values())).store
    run.reporter.say(f"Decoded audio: {store.num_bytes / 2**20:,.0f} MiB in {str(store.folder)!r}.")
    for note in (*splits.notes, *decoded.notes, *run.notes):
        run.reporter.say(f"note: {note}")
