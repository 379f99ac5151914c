"""B and E: SIGKILL at random moments, a killed worker, and the signals that ask a run to stop."""

import contextlib
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from conftest import tiny_config

from .harness import child, command_line, ended, everything, left_over, options, saved_step, seconds_of, train

SAVE_STEPS = 3


def kill_at_random(workspace: Path, data: Path, quick: bool) -> dict[str, Any]:
    """Kills a run, cache building included, until it has ended; then the next one."""
    rng = random.Random(0)
    length = {"num_epochs": 1 if quick else 4}
    uncut = options(workspace, "uncut", **length)
    seconds = seconds_of(train, data, uncut)
    expected = everything(Path(uncut["output_dir"]))
    kills = runs = most_redone = 0
    while kills < (2 if quick else 200):
        runs += 1
        run = options(workspace, f"killed {runs}", resume=True, cache_dir=str(workspace / f"cache {runs}"), **length)
        folder = Path(run["output_dir"])
        while True:
            process = child(train, data, run)
            process.join(rng.uniform(0, seconds))
            if process.exitcode is not None:
                assert process.exitcode == 0, process.exitcode
                break
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
            most_redone = max(most_redone, _reached(folder) - saved_step(folder))
        assert everything(folder) == expected, f"run {runs} differs"
        assert not left_over(folder), left_over(folder)
    assert most_redone <= SAVE_STEPS
    return {"kills": kills, "runs": runs, "bit-identical ends": runs, "most steps redone": most_redone}


def kill_a_worker(workspace: Path, data: Path) -> dict[str, Any]:
    """The run says so, and goes on from its last checkpoint."""
    run = options(workspace, "worker", num_workers=2, num_epochs=40)
    said = workspace / "worker.txt"
    process = child(train, data, run, said)
    folder = Path(run["output_dir"])
    while _reached(folder) < 20:
        time.sleep(0.01)
    workers = [int(pid) for pid in _children(process.pid)]
    os.kill(workers[0], signal.SIGKILL)
    assert ended(process) == 2
    assert "A data worker was killed" in said.read_text()
    redone = _reached(folder) - saved_step(folder)
    assert redone <= SAVE_STEPS
    return {"steps redone": redone, "said": said.read_text()}


def signals(workspace: Path, data: Path, quick: bool) -> dict[str, Any]:
    """SIGTERM, SIGINT and SIGINT twice, at random moments of a command; then the command it names goes on."""
    rng = random.Random(1)
    tiny_config(hidden_dropout=0.1).to_json_file(workspace / "encoder.json")
    arguments = ["train", str(data), "--model", str(workspace / "encoder.json"), "--batch-size", "4", "--device", "cpu"]
    arguments += ["--precision", "fp32", "--logging-steps", "1", "--num-epochs", "1" if quick else "4"]
    arguments += ["--augment", "noise"]
    arguments += ["--cache-dir", str(workspace / "cache"), "--output-dir"]
    seconds = seconds_of(command_line, [*arguments, str(workspace / "plain")], workspace / "plain.txt")
    expected = everything(workspace / "plain")
    instants = number = 0
    statuses: dict[str, int] = {}
    while instants < (3 if quick else 50):
        number += 1
        kind = ("SIGTERM", "SIGINT", "SIGINT twice")[instants % 3]
        folder, told = workspace / f"signal {number}", workspace / f"signal {number}.txt"
        process = child(command_line, [*arguments, str(folder)], told)
        while not (folder / ".lock").exists():
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.6 * seconds))
        sent = signal.SIGTERM if kind == "SIGTERM" else signal.SIGINT
        with contextlib.suppress(ProcessLookupError):  # it may have ended meanwhile
            os.kill(process.pid, sent)
            if kind == "SIGINT twice":
                time.sleep(rng.uniform(0, 0.05))
                os.kill(process.pid, sent)
        status = ended(process)
        if '"event": "end"' in _history(folder):  # it was done before the signal came
            assert everything(folder) == expected
            continue
        instants += 1
        assert status == 128 + sent, (kind, status, told.read_text(), (folder / "history.jsonl").read_text()[-300:])
        assert "Go on with: audioclf train" in told.read_text()
        assert "Traceback" not in told.read_text(), told.read_text()
        statuses[f"{kind}: {status}"] = statuses.get(f"{kind}: {status}", 0) + 1
        assert ended(child(command_line, [*arguments, str(folder), "--resume"], told)) == 0, told.read_text()
        assert everything(folder) == expected, (kind, number)
        assert not left_over(folder)
    return {"instants": instants, "statuses": statuses, "bit-identical ends": instants}


def _reached(folder: Path) -> int:
    """The step that the history has come to."""
    return _history(folder).count('"event": "step"')


def _history(folder: Path) -> str:
    try:
        return (folder / "history.jsonl").read_text()
    except FileNotFoundError:
        return ""


def _children(pid: int) -> list[str]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(") ", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(status.parent.name)
    return found
