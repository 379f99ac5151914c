"""The parts of an optimizer step: the learning rate, the gradient of a window, and whether it is a number.

Each clip's loss is divided by the number of clips in the window (by the sum of their class weights, if there are any),
so a step is that of one big batch whatever the size of its last, shorter micro-batch or window, and whatever pieces
a micro-batch is computed in when memory is short.
"""

import functools
import math
from typing import Any

import torch
from torch import Tensor

from .bad_audio import judge_so_far
from .distributed import gathered, largest, num_ranks, summed
from .errors import ResourceError, TrainingError
from .evaluation import clip_losses, forward
from .memory import backing_off, in_pieces, is_out_of_memory, memory_errors_named, named_by
from .run import Run
from .runtime import random_state, set_random_state
from .schedule import learning_rate_factor, num_warmup_steps

MAX_SKIPPED_IN_A_ROW = 20
"""Steps in a row that may be left out before a run stops: fp16's scale starts at 2^16, so no scale can help then."""

NO_LIMIT = 2**31
"""Clips at a time, where memory has not run out."""


def set_learning_rate(run: Run) -> float:
    """Sets every group's rate for the step to come; returns the encoder's, or the head's if that alone is trained."""
    warmup_steps = num_warmup_steps(run.num_steps, run.config.warmup_ratio)
    factor = learning_rate_factor(run.state.step, run.num_steps, warmup_steps, run.config.lr_schedule)
    for group in run.optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return run.optimizer.param_groups[0]["lr"]


def backward(run: Run, window: list[dict[str, Tensor]]) -> list[Tensor]:
    """Adds up the gradient of the window's mean loss; returns each micro-batch's share of that mean.

    In a job the mean is over the clips of all processes, and shares and gradient are of this one's, if it has any.

    When memory runs out the window is begun again in pieces of half as many clips, and so are all after it.

    Raises:
        ResourceError: when memory does not even do for one clip; it names the clip.
    """
    state, before = run.state, random_state()

    def attempt(max_clips: int | None) -> list[Tensor]:
        run.optimizer.zero_grad()
        set_random_state(before)
        return _accumulate(run, window, total_weight, max_clips)

    # Outside the attempt, which memory may make each process begin anew on its own.
    total_weight = summed(_total_weight(run, window))
    if not window:
        run.scaler.scale(total_weight)  # it begins to count with the first number that it scales
        return [torch.zeros((), device=run.device)]
    num_clips = max(len(batch["labels"]) for batch in window)
    shares, max_clips = backing_off(attempt, state.max_clips, num_clips)
    if max_clips != state.max_clips:
        run.reporter.say(
            f"Memory ran out: from here on at most {max_clips} clip(s) are computed at a time. The effective batch "
            "and its update stay the same."
        )
        state.max_clips = max_clips
    return shares


def _total_weight(run: Run, window: list[dict[str, Tensor]]) -> Tensor:
    if not window:
        return torch.zeros((), device=run.device)
    labels = torch.cat([batch["labels"] for batch in window]).to(run.device, non_blocking=True)
    return _clip_weights(run, labels).sum()


def _accumulate(run: Run, window: list[dict[str, Tensor]], total_weight: Tensor, max_clips: int | None) -> list[Tensor]:
    shares = []
    for batch in window:
        share = torch.zeros((), device=run.device)
        for piece in in_pieces(batch, max_clips):
            with memory_errors_named(piece, functools.partial(_names, run)):
                targets = piece["labels"].to(run.device, non_blocking=True)
                losses = clip_losses(run.train_loss, forward(run.model, piece, run.device, run.precision), targets)
                part = (losses * _clip_weights(run, targets)).sum() / total_weight
                run.scaler.scale(part).backward()
                share += part.detach()
        shares.append(share)
    return shares


def _names(run: Run, batch: dict[str, Any]) -> list[str]:
    """What to call the clips of a batch, which those of a stream bring along."""
    return batch["names"] if "names" in batch else named_by(run.loaders["train"].dataset.names, batch)


def readable(run: Run, window: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The batches of a window, of a stream those that have clips; None where no process of the job has any.

    What could not be read is told, and kept in `state`. For all processes.

    Raises:
        AudioError: for more unreadable clips than `bad_audio` allows.
    """
    if not run.streamed:
        return window
    own = {name: reason for batch in window for name, reason in batch.pop("unreadable").items()}
    num_readable = sum(len(batch["names"]) for batch in window)
    num_readable, num_bad = summed(torch.tensor([num_readable, len(own)])).tolist()
    state = run.state
    state.num_read += num_readable + num_bad
    if num_bad:
        met = {name: reason for of_process in gathered(own) for name, reason in of_process.items()}
        new = {name: reason for name, reason in met.items() if name not in state.set_aside}
        state.set_aside |= new
        judge_so_far(list(new.values()), len(state.set_aside), state.num_read, run.config.bad_audio)
        for reason in new.values():
            run.reporter.say(f"set aside: {reason}")
    return [batch for batch in window if batch["names"]] if num_readable else None


def _clip_weights(run: Run, labels: Tensor) -> Tensor:
    """Weights (B,) of clips in the mean of the loss: of shares of classes (B, C) the mean of the classes' weights."""
    if run.class_weights is None:
        return torch.ones(len(labels), device=labels.device)
    return labels.to(run.class_weights) @ run.class_weights if labels.ndim == 2 else run.class_weights[labels]


def update(run: Run) -> None:
    """Lets the optimizer take the step.

    Raises:
        ResourceError: when memory runs out on the way: the weights may be half updated, so they are not saved.
    """
    try:
        run.scaler.step(run.optimizer)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError(
            f"Memory ran out in the optimizer, which keeps two numbers for each of those it trains (after step "
            f"{run.state.step}). Freeze a part of the encoder or take a smaller model; or free memory and go on from "
            f"the last checkpoint by resume=True ({str(error).splitlines()[0]})."
        ) from error


def agree(run: Run) -> None:
    """All processes keep to what memory allows the one that has least of it."""
    if num_ranks() > 1:
        (least,) = largest([-(run.state.max_clips or NO_LIMIT)])
        run.state.max_clips = None if least == -NO_LIMIT else -least


def check_finite(run: Run, window: list[dict[str, Tensor]], losses: list[Tensor], grad_norm: float) -> bool:
    """Whether the step may be taken.

    Under fp16 an overflow is expected now and then: the step is left out and the scaler lowers its scale.

    Raises:
        TrainingError: for a loss or gradient that is not finite and may not be skipped, or after too many of them.
    """
    state = run.state
    if math.isfinite(grad_norm):
        state.skipped_in_a_row = 0
        return True
    state.skipped_steps += 1
    state.skipped_in_a_row += 1
    may_skip = run.scaler.is_enabled() or run.config.nonfinite == "skip"
    stopping = not may_skip or state.skipped_in_a_row == MAX_SKIPPED_IN_A_ROW
    if not stopping and run.scaler.is_enabled():
        return False
    found = [batch for batch, loss in zip(window, losses, strict=bool(window)) if not torch.isfinite(loss)]
    is_in_loss = any(gathered(bool(found)))
    own = [name for batch in (found if is_in_loss else window) for name in _names(run, batch)]
    names = ", ".join(name for of_process in gathered(own) for name in of_process)
    what = "The loss is" if is_in_loss else "The loss is finite but its gradient is"
    where = f"(epoch {state.epoch}, after step {state.step})"
    if not stopping:
        run.reporter.say(f"{what} not a finite number {where}: the step is left out. Its clips: {names}")
        return False
    again = f" for {state.skipped_in_a_row} steps in a row" if may_skip else ""
    raise TrainingError(
        f"{what} not a finite number{again} {where}. Look at the clips of this batch, or lower learning_rate: {names}"
    )
