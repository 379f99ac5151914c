"""`train`: setup, then the loop."""

import contextlib
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import checkpoint, hub, resume
from .accumulate import windows
from .augment import make_augmentation
from .clips import DecodedSplits, decode
from .config import TrainConfig
from .datasets.base import AudioSplits
from .datasets.load import load_with_valid
from .distributed import is_first_process, joined, num_ranks, on_first, one_a_machine_first, rank, sum_gradients
from .errors import CheckpointError, ConfigError, TrainingError
from .findings import of_table
from .finish import calibrate, evaluate_part, load_best
from .interrupt import Interrupt
from .loaders import prefetch, stop_workers, worker_deaths_told
from .memory import memory_limit, out_of_memory_told
from .metrics import NAMES
from .models.backbone import lengths_heard
from .models.classifier import build_classifier
from .models.loading import encoder_config, load_config, load_feature_extractor, resolve
from .models.lora import add_lora
from .output_folder import output_folder
from .predictions import PREDICTIONS_FILE, write_predictions
from .progress import board_errors_told_once, calibration_line, results_table
from .reporting import card_run, push_run, report_run
from .result import TrainResult, finished_result
from .run import Run, set_up
from .runtime import choose_device, choose_precision, deterministic_algorithms, full_fp32, seed_everything
from .step import agree, backward, check_finite, readable, set_learning_rate, update


def train(data: Any, valid: Any = None, *, config: TrainConfig | None = None, **overrides: Any) -> TrainResult:
    """Fine-tunes an encoder on labelled clips and keeps the best checkpoint by validation.

    Args:
        data: `gtzan`, `demo`, a folder, a manifest, a `datasets` object, a hub id, or what `load_dataset` returns.
        valid: Validation data of its own, in any of these forms; else the data's valid part, else a share of train.
        config: The options; the defaults are the course recipe.
        **overrides: Single options, which go before those in `config`; `recipe="fast"` or `"best"` sets several.

    Returns:
        The metrics, the history and where the best checkpoint is.

    Raises:
        ConfigError, DatasetError, AudioError, CheckpointError: for options, data, files or a model that cannot be
            used, before training begins.
        TrainingError: when the numbers are no longer finite; it names the clips.
        ResourceError: when memory does not suffice for a single clip, naming it, or for the optimizer.
        KeyboardInterrupt, SystemExit: after Ctrl-C or SIGTERM, once the step is finished and `last` is saved.

    Example:
        >>> result = train("clips.csv", output_dir="runs/second", num_epochs=1)
        >>> result.best_metrics["accuracy"], result.checkpoint_dir
    """
    config = TrainConfig.from_overrides(config, overrides)
    device = choose_device(config.device)
    if config.push_to_hub is not None:
        hub.check_repository(config.push_to_hub)
    with joined(device), Interrupt() as interrupt, output_folder(config) as output_dir:
        config = replace(config, progress=config.progress and is_first_process())
        saved = resume.find(output_dir) if config.resume else None
        if saved is not None:
            resume.check_options(saved, config)
            if saved.state.is_over(config) and (result := finished_result(output_dir)):
                resume.check_ended(saved, config, result.checkpoint_dir)
                return result
        with one_a_machine_first():
            splits = load_with_valid(
                data, valid, valid_fraction=config.valid_fraction, seed=config.seed, cache_dir=config.cache_dir
            )
        if splits.stream is not None and config.steps_per_epoch is None:
            raise ConfigError(
                f"{splits.name} is a stream, of which nobody knows how long it is: give steps_per_epoch, the optimizer "
                "steps between two validations."
            )
        # Around all of it, as the backward pass needs them too.
        with (
            deterministic_algorithms(config.deterministic),
            full_fp32(),
            memory_limit(config.max_memory_gb, device),
            out_of_memory_told(),
        ):
            return _run(config, device, output_dir, splits, saved, interrupt)


def _run(
    config: TrainConfig,
    device: torch.device,
    output_dir: Path,
    splits: AudioSplits,
    saved: resume.Saved | None,
    interrupt: Interrupt,
) -> TrainResult:
    """Builds the model, decodes the data, trains and tests."""
    seed_everything(config.seed)
    source = resolve(config.model) if saved is None else str(saved.folder)
    extractor = load_feature_extractor(source)
    with one_a_machine_first():
        decoded = decode(
            splits if config.steps_per_epoch is None else replace(splits, train=()),
            sampling_rate=extractor.sampling_rate,
            **lengths_heard(encoder_config(load_config(source)), extractor, config.max_seconds, config.chunk_seconds),
            augmentation=make_augmentation(
                config.seed,
                config.random_crop,
                config.augment,
                extractor.sampling_rate,
                cache_dir=config.cache_dir,
                progress=config.progress,
            ),
            bad_audio=config.bad_audio,
            cache_dir=config.cache_dir,
            progress=config.progress,
            max_cache_gb=config.max_cache_gb,
        )
    if saved is not None:
        resume.check_data(saved, config, splits, decoded, choose_precision(config.precision, device))
    model = build_classifier(source, config.head, splits.labels, splits.multi_label, config.dropout)
    earlier = None if saved is None else (saved.history, saved.state.step + saved.state.skipped_steps)
    if config.lora_rank is not None:
        add_lora(model.backbone, config.lora_rank)
    begun_with = num_ranks() if saved is None else saved.metadata["num_processes"]
    run = set_up(config, device, output_dir, splits, decoded, model, extractor, earlier, begun_with)
    if rank():  # the others draw dropout of their own; head and order are the same for all
        seed_everything(config.seed, rank())
    try:
        _announce(run, splits, decoded, saved)
        if saved is not None:
            resume.restore(run, saved)
        with worker_deaths_told(), board_errors_told_once():
            _loop(run, interrupt)
            return _finish(run, splits, output_dir)
    finally:
        stop_workers(run.loaders)
        run.reporter.close()


def _loop(run: Run, interrupt: Interrupt) -> None:
    """Epoch after epoch, each validated and saved, from where `state` stands; interrupted, it leaves all in `last`."""
    config, state = run.config, run.state
    try:
        with interrupt.together():
            _epochs(run, interrupt)
        if state.last_epoch < config.num_epochs:
            run.reporter.say(f"No better {NAMES[run.metric]} for {config.patience} epochs: stopping.")
    except (KeyboardInterrupt, SystemExit):
        if interrupt.requested and not interrupt.insisted and (resume.is_saved(run) or _saved(run, resume.save_last)):
            where = f"step {state.step} of {run.num_steps}"
            run.reporter.say(f"\nInterrupted after {where}; all is saved: resume=True goes on from there.")
        raise


def _epochs(run: Run, interrupt: Interrupt) -> None:
    state = run.state
    while not state.is_over(run.config):
        # Closed here: when a generator is left to the garbage collector, a second Ctrl-C would be lost in it.
        with interrupt.deferred(), contextlib.closing(prefetch(run.loaders["train"])) as batches:
            _epoch(run, batches, interrupt)
        with run.log.paused():
            evaluation = evaluate_part(run, "valid")
            interrupt.check()
            with interrupt.deferred():
                is_best = on_first(state.is_better, evaluation, run.metric)
                if is_best and not _saved(run, resume.save_best, evaluation):
                    run.reporter.say(f"Epoch {state.epoch} is the best so far, but lost: 'best' is of another one.")
                    is_best = False
                if is_best:
                    state.best, state.best_epoch = evaluation, state.epoch
                counts = {"epoch": state.epoch, "step": state.step, "skipped_steps": state.skipped_steps}
                run.reporter.epoch(**counts, evaluation=evaluation, is_best=is_best)
                state.next_epoch()
                _saved(run, resume.save_last, evaluation)


def _epoch(run: Run, batches: Iterator[dict[str, Tensor]], interrupt: Interrupt) -> None:
    """The training loop: what is left of an epoch's windows, an optimizer step each.

    `batches` come from the loader of train, from the moment the first one is asked for.
    """
    config, state, model, optimizer, scaler = run.config, run.state, run.model, run.optimizer, run.scaler
    order = run.loaders["train"].batch_sampler
    order.set_epoch(state.epoch, start=state.windows)
    last_window = order.num_windows(state.epoch)
    model.train()
    for window in windows(batches, order.window_sizes()):
        window = readable(run, window)
        if window is None:
            state.windows += 1
            run.reporter.advance()
            continue
        learning_rate = set_learning_rate(run)
        losses = backward(run, window)
        sum_gradients(model.parameters())
        scaler.unscale_(optimizer)
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm).item()
        is_finite = check_finite(run, window, losses, grad_norm)
        if is_finite:
            update(run)
        scaler.update()
        optimizer.zero_grad()
        state.windows += 1
        run.reporter.advance()
        if is_finite:
            state.step += 1
            run.log.add(losses, window)
            if state.step % config.logging_steps == 0:
                rates = {"learning_rate": learning_rate, "grad_norm": grad_norm}
                run.reporter.step(epoch=state.epoch, step=state.step, **rates, **run.log.take())
            is_last = state.windows == last_window  # it is saved once validated
            if config.save_steps and state.step % config.save_steps == 0 and not is_last:
                _saved(run, resume.save_last)
        agree(run)
        if interrupt.share():
            return


def _saved(run: Run, save: Callable[..., None], *arguments: Any) -> bool:
    """Whether a checkpoint could be written; when not, the run goes on, as its state is worth more than this disk."""
    try:
        save(run, *arguments)
    except CheckpointError as error:
        run.reporter.say(f"{error} The checkpoint before it is whole; the run goes on and tries again at the next one.")
        return False
    return True


def _finish(run: Run, splits: AudioSplits, output_dir: Path) -> TrainResult:
    """Evaluates the best checkpoint, as it lies on disk, on the test part; tells the result."""
    state, config = run.state, run.config
    if not resume.is_saved(run):  # the disk refused; now there is nothing left to go on with
        resume.save_last(run)
    if state.best is None and state.best_epoch:
        raise TrainingError(
            f"The best checkpoint, of epoch {state.best_epoch} or before, is gone, and no epoch came after it: give "
            f"more num_epochs with resume=True, or use {str(output_dir / 'last')!r}, the last epoch's."
        )
    if state.best is None:
        raise TrainingError(
            f"No epoch had a finite validation loss and {NAMES[run.metric]}, so there is no best checkpoint: lower "
            "learning_rate, or choose another metric_for_best."
        )
    checkpoint_dir, best, values, test = output_dir / "best", state.best, {}, None
    if config.calibrate or "test" in run.loaders:
        best_model = load_best(run)
    if config.calibrate:
        best, values = calibrate(run, best_model)
        run.reporter.say(f"\n{calibration_line(best, **values)}")
    if "test" in run.loaders:
        test = evaluate_part(run, "test", best_model, best.classes.get("threshold"))
        path = output_dir / PREDICTIONS_FILE
        try:
            on_first(write_predictions, path, run.loaders["test"].dataset.whole, test.logits, splits.labels)
        except OSError as error:
            run.reporter.say(f"{str(path)!r} cannot be written ({error.strerror or error}).")
    for name in ("best", "last"):
        on_first(checkpoint.keep, output_dir / name, 0)
    values |= {"best_epoch": state.best_epoch, "best_metrics": best.metrics}
    run.reporter.end(epoch=state.last_epoch, step=state.step, **values, test_metrics=test and test.metrics)
    tables = [results_table(best, splits.labels, f"\nValidation, epoch {state.best_epoch}:")]
    if test is not None:
        tables.append(results_table(test, splits.labels, "\nTest, the same checkpoint:"))
    run.reporter.say("\n".join(tables))
    if config.report or config.push_to_hub is not None:
        card_run(run, splits, best, test)
    if config.report:
        report_run(run, splits, best, test)
    if config.push_to_hub is not None:
        push_run(run)
    use = shlex.join(["audioclf", "predict", str(checkpoint_dir), "FILE"])
    run.reporter.say(f"\nBest checkpoint: {checkpoint_dir}\nUse it: {use}")
    return TrainResult.of(run.reporter.history, output_dir)


def _announce(run: Run, splits: AudioSplits, decoded: DecodedSplits, saved: resume.Saved | None) -> None:
    counts = ", ".join(f"{len(clips.whole)} {part}" for part, clips in decoded.parts.items())
    if run.streamed:
        counts = f"{'a stream of' if splits.stream else f'{len(splits.train):,} streamed'} train, {counts}"
    trained = sum(parameter.numel() for parameter in run.model.parameters() if parameter.requires_grad)
    run.reporter.say(
        f"{splits.name}: {len(splits.labels)} classes, {counts} clips. "
        f"Training {trained:,} parameters in {run.precision} on {run.device.type}."
    )
    store = next(iter(decoded.parts.values())).store
    run.reporter.say(f"Decoded audio: {store.num_bytes / 2**20:,.0f} MiB in {str(store.folder)!r}.")
    if decoded.max_seconds < run.config.max_seconds:
        run.reporter.say(
            f"note: This encoder hears {decoded.max_seconds:.4g} s of a clip, whatever max_seconds says: what lies "
            f"beyond is not used. With chunk_seconds={decoded.max_seconds:.4g} it would be, piece by piece."
        )
    if decoded.chunk_seconds is not None:
        pieces = ", ".join(f"{len(clips)} {part}" for part, clips in decoded.parts.items())
        run.reporter.say(f"Pieces of {decoded.chunk_seconds:.4g} s: {pieces}.")
    table = of_table(splits, made_up_for=run.config.balanced_sampling or run.config.class_weights is not None)
    for note in (*splits.notes, *table, *decoded.notes, *run.notes, *(saved.notes if saved else ())):
        run.reporter.say(f"note: {note}")
