"""What all faults share: a small corpus, a run with every source of chance, processes to injure, runs to compare."""

import functools
import json
import multiprocessing
import multiprocessing.forkserver
import os
import resource as limits
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import TONES, tiny_config, write_tone
from safetensors.torch import load_file

import audioclf
from audioclf import checkpoint, resume

# Children begin from a server that has imported torch already: a process of its own each, in a tenth of a second.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["audioclf.training", "audioclf.cli", "faults.harness", "matplotlib.pyplot"])
PATIENCE_SECONDS = 120
"""A child that takes longer is stuck."""


def write_corpus(folder: Path) -> Path:
    """Three classes of tones in 32 training clips of 0.2 to 0.5 s, 6 valid and 3 test."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 32), ("valid", 6), ("test", 3)):
        for number in range(count):
            label, frequency = list(TONES.items())[number % 3]
            write_tone(folder / split / label / f"{number}.wav", frequency, rng.uniform(0.2, 0.5), rng)
    return folder


def options(workspace: Path, name: str, **more: Any) -> dict[str, Any]:
    """A run of 32 steps in 4 epochs: dropout, SpecAugment, random crops and noise; a checkpoint every 3 steps."""
    chance = {"hidden_dropout": 0.1, "attention_dropout": 0.1, "apply_spec_augment": True, "mask_time_length": 2}
    return {
        "model": tiny_config(**chance),
        "num_epochs": 4,
        "batch_size": 4,
        "learning_rate": 5e-3,
        "max_seconds": 0.4,
        "random_crop": True,
        "augment": "noise",
        "precision": "fp32",
        "device": "cpu",
        "logging_steps": 1,
        "save_steps": 3,
        "progress": False,
        "cache_dir": str(workspace / "cache"),
        "output_dir": str(workspace / name),
        **more,
    }


def everything(output_dir: Path) -> dict[str, Any]:
    """All that a finished run leaves, timings and its folder's name aside; == compares it bit by bit."""
    rows = [json.loads(line) for line in (output_dir / "history.jsonl").read_text().splitlines()]
    left: dict[str, Any] = {"history": without_time(rows)}
    for name in ("best", "last"):
        weights = load_file(output_dir / name / "model.safetensors")
        left[name] = {key: value.numpy().tobytes() for key, value in weights.items()}
        left[f"{name} metadata"] = json.loads((output_dir / name / "audioclf.json").read_text())
        left[f"{name} metadata"].pop("config")
    training = torch.load(output_dir / "last" / resume.STATE_FILE, weights_only=True)
    left["history in state"] = without_time(json.loads(training.pop("history")))
    return left | {"training": _plain(training)}


def without_time(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a history less their wall-clock figures."""
    return [{key: value for key, value in row.items() if key != "time"} for row in history]


def left_over(output_dir: Path) -> set[str]:
    """What a finished run should not have left."""
    return {path.name for path in output_dir.iterdir()} - {
        *(
            "best",
            "last",
            "tensorboard",
            "history.jsonl",
            "config.json",
            "test_predictions.jsonl",
            "report.html",
            ".lock",
        )
    }


def saved_step(output_dir: Path) -> int:
    """The step that a run would go on from."""
    saved = resume.find(output_dir) if output_dir.is_dir() else None
    return 0 if saved is None else saved.state.step


def train(data: Path, options: dict[str, Any], out: Path | None = None, before: Callable | None = None) -> None:
    """What a child does: one run; status 2 for an error of ours, whose sentence goes to the file `out`."""
    torch.set_num_threads(1)
    if before is not None:
        before()
    try:
        audioclf.train(data, **options)
    except audioclf.AudioclfError as error:
        most = limits.getrlimit(limits.RLIMIT_FSIZE)[1]
        limits.setrlimit(limits.RLIMIT_FSIZE, (most, most))  # it may be what was injured
        if out is not None:
            out.write_text(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def attempted(data: Any, options: dict[str, Any]) -> tuple[audioclf.TrainResult | None, str]:
    """A run's result, or the sentence with which it ended."""
    try:
        return audioclf.train(data, **options), ""
    except audioclf.AudioclfError as error:
        return None, str(error)


def command_line(arguments: list[str], out: Path) -> None:
    """What a child does: the command `audioclf`; what it prints goes to the file `out`."""
    from audioclf.cli import entry_point

    torch.set_num_threads(1)
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["audioclf", *arguments]
    entry_point()


def child(function: Callable, *arguments: Any) -> multiprocessing.Process:
    """A real process that runs the function."""
    _start_server()
    process = processes.Process(target=function, args=arguments)
    process.start()
    return process


@functools.cache
def _start_server() -> None:
    """Starts what children begin from, where it finds the modules beside the tests: it has no `sys.path` of ours."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def ended(process: multiprocessing.Process) -> int:
    """Its exit status, once it has ended.

    Raises:
        AssertionError: when it is stuck.
    """
    process.join(PATIENCE_SECONDS)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"stuck for {PATIENCE_SECONDS} s")
    return process.exitcode


def seconds_of(function: Callable, *arguments: Any) -> float:
    """Seconds of a child that has to end well; the server it comes from has imported all by then."""
    assert ended(child(int)) == 0
    began = time.monotonic()
    assert ended(child(function, *arguments)) == 0
    return time.monotonic() - began


def copy_of(output_dir: Path, to: Path) -> Path:
    """A copy of a run to injure."""
    shutil.rmtree(to, ignore_errors=True)
    return Path(shutil.copytree(output_dir, to))


def whole(folder: Path) -> bool:
    """Whether a checkpoint is undamaged and opens."""
    return checkpoint.damage(folder) is None and bool(audioclf.load(folder, device="cpu").labels)


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value
