"""Going on with a run: what is saved beside its weights, and how it is put back bit by bit."""

import dataclasses
import json
import pickle
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import checkpoint
from .clips import DecodedSplits
from .config import TrainConfig
from .datasets.base import AudioSplits
from .distributed import gathered, is_first_process, on_first, rank
from .errors import CheckpointError, ConfigError
from .evaluation import Evaluation
from .export import read_metadata, save_pretrained
from .models import lora
from .result import finished_result
from .run import Run, State, fingerprint
from .runtime import random_state, seed_everything, set_random_state

STATE_FILE = "training_state.pt"
MAY_CHANGE = (
    *("output_dir", "overwrite", "resume", "num_epochs", "patience", "eval_batch_size", "device", "max_memory_gb"),
    *("nonfinite", "num_workers", "logging_steps", "save_steps", "save_total_limit", "report", "cache_dir"),
    *("max_cache_gb", "progress", "push_to_hub", "hub_private"),
)
"""Options that may be others when a run goes on: they say how far it goes and what it leaves, not what an update is."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint to go on from.

    Attributes:
        folder: The checkpoint.
        metadata: Its audioclf.json: options, labels and data of the run.
        state: Where the run stood.
        training: The rest of its training state.
        notes: Sentences for the user.
    """

    folder: Path
    metadata: dict[str, Any]
    state: State
    training: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows of history.jsonl until then."""
        return self.training["history"]


def check_ended(saved: Saved, config: TrainConfig, best: Path) -> None:
    """Raises for what is done at the end of a run, when one that has ended was not told to do it.

    Raises:
        ConfigError: naming the command that does it now.
    """
    earlier, folder = saved.metadata["config"], shlex.quote(str(best))
    if config.push_to_hub not in (None, earlier["push_to_hub"]):
        raise ConfigError(
            f"The run has ended, so push_to_hub does nothing: audioclf push {folder} {config.push_to_hub}"
        )
    if config.report and not earlier["report"]:
        raise ConfigError(f"The run has ended, so report does nothing: audioclf report {folder} DATA")


def save_last(run: Run, evaluation: Evaluation | None = None) -> None:
    """Writes `last`: the weights as they would be evaluated, and all that going on takes. For all processes of a job.

    Raises:
        CheckpointError: when it cannot be written; earlier ones are untouched.
    """
    of_all = {"random": gathered(random_state())}
    if run.streamed:
        position = run.loaders["train"].batch_sampler.position(run.state.epoch, run.state.windows)
        of_all["stream"] = gathered(json.dumps(position))
    of_all["log_losses"], of_all["log_num_clips"] = run.log.pooled()

    def fill(folder: Path) -> None:
        save_pretrained(run.model, run.extractor, folder, run.describe(evaluation))
        with (folder / STATE_FILE).open("wb") as file:  # with a path, a full disk would be told in riddles
            torch.save({**_training_state(run), **of_all}, file)

    run.reporter.flush()
    on_first(lambda: checkpoint.write_folder(run.output_dir / "last", fill, run.config.save_total_limit - 1))


def save_best(run: Run, evaluation: Evaluation) -> None:
    """Writes `best`: the weights as they were evaluated. For all processes of a job.

    As many earlier ones are kept as of `last`, so that whichever of these is gone on from finds its own; at least one,
    which belongs to the `last` of before until the next one is there.

    Raises:
        CheckpointError: when it cannot be written; earlier ones are untouched.
    """

    def fill(folder: Path) -> None:
        save_pretrained(run.model, run.extractor, folder, run.describe(evaluation))

    on_first(lambda: checkpoint.write_folder(run.output_dir / "best", fill, max(1, run.config.save_total_limit - 1)))


def is_saved(run: Run) -> bool:
    """Whether `last` is of where the run stands. For all processes of a job."""
    return on_first(_is_saved, run)


def _is_saved(run: Run) -> bool:
    last = run.output_dir / "last"
    if checkpoint.damage(last):
        return False
    metadata = read_metadata(str(last))
    return all(metadata[name] == getattr(run.state, name) for name in ("step", "windows", "skipped_steps"))


def find(output_dir: Path) -> Saved | None:
    """The newest whole checkpoint of a run, or None when there is none.

    Raises:
        CheckpointError: when there are only damaged ones, or it is none of ours.
    """
    last, notes = output_dir / "last", []
    for folder in checkpoint.generations(last):
        if damage := checkpoint.damage(folder):
            if not folder.name.startswith("."):  # one whose writing was cut short is no loss
                notes.append(f"The checkpoint {str(folder)!r} is damaged ({damage}).")
            continue
        saved = _read(folder)
        if notes:
            notes.append(f"The one before it is used, of step {saved.state.step}.")
        return dataclasses.replace(saved, notes=tuple(notes))
    if notes:
        raise CheckpointError(" ".join([*notes, "There is none before it: start anew with overwrite=True."]))
    if (output_dir / "best").is_dir() and finished_result(output_dir):
        raise CheckpointError(
            f"{str(output_dir)!r} holds a finished run whose 'last' is gone, so there is nothing to go on with: use "
            "its 'best', name another output_dir, or replace it with overwrite=True."
        )
    return None


def _read(folder: Path) -> Saved:
    try:
        training = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
        state = State(**training.pop("state"))
        if state.best is not None:
            state.best = _evaluation(state.best)
        training["history"] = json.loads(training["history"])
    except (OSError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{str(folder / STATE_FILE)!r} is no training state of this version of audioclf "
            f"({type(error).__name__}): start a new run in another output_dir."
        ) from error
    return Saved(folder, read_metadata(str(folder)), state, training, ())


def _evaluation(plain: dict[str, Any]) -> Evaluation:
    """What `_training_state` has made plain."""
    confusion = None if plain["confusion"] is None else np.array(plain["confusion"], dtype=np.int64)
    classes = {name: np.array(values) for name, values in plain["classes"].items()}
    return Evaluation(plain["metrics"], classes, confusion)


def check_options(saved: Saved, config: TrainConfig) -> None:
    """Refuses to go on with options that would make it another run.

    Raises:
        ConfigError: naming the first one.
    """
    refuse_other_options(saved.metadata["config"], config, MAY_CHANGE)
    if config.num_epochs < saved.state.last_epoch:
        raise ConfigError(
            f"num_epochs={config.num_epochs}, but the run in {config.output_dir!r} has {saved.state.last_epoch} "
            "epochs behind it: give more, or start a new run in another output_dir."
        )


def refuse_other_options(then: dict[str, Any], config: TrainConfig, may_change: Collection[str]) -> None:
    """Raises `ConfigError` for the first option that is not what it was, and may not change."""
    for name, value in json.loads(json.dumps(config.to_dict())).items():
        if name not in may_change and then.get(name) != value:
            raise ConfigError(
                f"{name}={_short(value)} is not what the run in {config.output_dir!r} began with: resume it with "
                f"{name}={_short(then.get(name))}, or start a new run in another output_dir."
            )


def check_data(saved: Saved, config: TrainConfig, splits: AudioSplits, decoded: DecodedSplits, precision: str) -> None:
    """Refuses to go on with other clips, labels or arithmetic.

    Raises:
        ConfigError: saying what has changed.
    """
    metadata, data = saved.metadata, saved.metadata["data"]
    num_clips = {part: len(clips.whole) for part, clips in decoded.parts.items()}
    for what, then, now in (
        ("the labels", metadata["labels"], list(splits.labels)),
        ("the numbers of readable clips", data["num_clips"], num_clips),
        ("the clips or their split", data["fingerprint"], fingerprint(config, splits)),
        ("the precision chosen for this machine", metadata["precision"], precision),
    ):
        if then != now:
            raise ConfigError(
                f"resume: {what} have changed since the run began ({_short(then)} then, {_short(now)} now): bring back "
                "what was, or start a new run in another output_dir."
            )


def restore(run: Run, saved: Saved) -> None:
    """Puts a run, whose model has the saved weights already, where the checkpoint stood.

    The folders are set in order: a damaged newer `last` goes, and `best` becomes the one that belongs to this state.
    """
    training = saved.training
    for field in dataclasses.fields(State):
        setattr(run.state, field.name, getattr(saved.state, field.name))
    run.optimizer.load_state_dict(training["optimizer"])
    run.scaler.load_state_dict(training["scaler"])
    run.model.load_state_dict(training["weights"], strict=False)
    if isinstance(run.train_loss, nn.Module):
        run.train_loss.load_state_dict(training["loss"])
    losses = training["log_losses"].to(run.device)  # of all processes together, so that one has them now
    run.log.losses = list(losses if is_first_process() else torch.zeros_like(losses))
    run.log.num_clips = training["log_num_clips"] if is_first_process() else 0
    if rank() < len(training["random"]):
        set_random_state(training["random"][rank()])
    else:  # a process more than there were
        seed_everything((run.config.seed + run.state.step) % 2**32, rank())
    if run.streamed:
        positions = training["stream"]
        position = json.loads(positions[rank() % len(positions)])  # the same of all, or of as many as there were
        run.loaders["train"].batch_sampler.restore(run.state.epoch, run.state.windows, position)
    training.clear()  # as large as two copies of the weights
    on_first(checkpoint.restore, saved.folder, run.output_dir / "last")
    _restore_best(run)
    run.reporter.say(f"Going on after step {run.state.step} of {run.num_steps}.")


def _restore_best(run: Run) -> None:
    best, state = run.output_dir / "best", run.state
    if state.best is None:
        return
    if on_first(_bring_back, best, state.best_epoch):
        return
    run.reporter.say(
        f"note: The best checkpoint so far, of epoch {state.best_epoch}, is gone or damaged; the best of the epochs to "
        "come takes its place."
    )
    # Patience is counted from here on.
    state.best, state.best_epoch = None, state.last_epoch


def _bring_back(best: Path, epoch: int) -> bool:
    """Whether the checkpoint of that epoch could be made the best one."""
    for folder in checkpoint.generations(best):
        if checkpoint.damage(folder) is None and read_metadata(str(folder))["epoch"] == epoch:
            checkpoint.restore(folder, best)
            return True
    return False


def _training_state(run: Run) -> dict[str, Any]:
    """What one process knows, in tensors and plain types only: what `torch.load(weights_only=True)` reads."""
    state = {field.name: getattr(run.state, field.name) for field in dataclasses.fields(State)}
    if run.state.best is not None:
        best = run.state.best
        state["best"] = {
            "metrics": best.metrics,
            "classes": {name: values.tolist() for name, values in best.classes.items()},
            "confusion": None if best.confusion is None else best.confusion.tolist(),
        }
    return {
        "state": state,
        "weights": _weights_not_exported(run),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "loss": run.train_loss.state_dict() if isinstance(run.train_loss, nn.Module) else {},
        "history": json.dumps(run.reporter.history),
    }


def _weights_not_exported(run: Run) -> dict[str, Tensor]:
    """Those of the trained model that the checkpoint has otherwise: with LoRA merged into them."""
    return {f"backbone.{name}": value for name, value in lora.own_weights(run.model.backbone).items()}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
