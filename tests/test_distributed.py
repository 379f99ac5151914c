"""Several processes under torchrun and gloo are one process with their effective batch, die and go on like one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from conftest import tiny_config, write_tone
from faults.harness import everything
from safetensors.torch import load_file

from audioclf import checkpoint
from audioclf.sampling import LengthBucketSampler, Share

HERE = Path(__file__).parent
EQUAL = 5e-6
"""Bound of the difference between numbers of processes, in weights of about 1: sums in another order."""


def launch(num_ranks: int, jobs: list[dict], folder: Path, name: str, *options: str) -> subprocess.CompletedProcess:
    """Runs trainings by the real launcher; what each process told of them is for `told`."""
    (folder / f"{name}.json").write_text(json.dumps(jobs))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
    command = [*torchrun, *options, str(HERE / "ranks.py"), str(folder / f"{name}.json"), str(folder / name)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)


def told(folder: Path, name: str, rank: int = 0) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{name}-{rank}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """50 clips of unlike lengths: 33 to train on, 10 for validation, 7 for the test; 2 classes, one of them rare."""
    folder = tmp_path_factory.mktemp("ranks")
    rng = np.random.default_rng(0)
    for part, counts in (("train", (24, 9)), ("valid", (6, 4)), ("test", (4, 3))):
        for label, frequency, count in zip(("low", "high"), (300, 2500), counts, strict=True):
            for number in range(count):
                path = folder / "data" / part / label / f"{number}.wav"
                write_tone(path, frequency, float(rng.uniform(0.1, 0.6)), rng)
    tiny_config().to_json_file(folder / "tiny.json")
    dropout = {"hidden_dropout": 0.1, "attention_dropout": 0.1, "apply_spec_augment": True, "mask_time_length": 2}
    tiny_config(**dropout).to_json_file(folder / "dropout.json")
    return folder


def job(folder: Path, output: str, **options) -> dict:
    shared = {"model": str(folder / "tiny.json"), "num_epochs": 2, "batch_size": 2, "learning_rate": 5e-3}
    shared |= {"cache_dir": str(folder / "cache"), "device": "cpu", "precision": "fp32", "logging_steps": 1}
    return {"data": str(folder / "data"), "options": {**shared, "output_dir": str(folder / output), **options}}


KINDS = {
    "plain": {},
    "accumulated": {"gradient_accumulation_steps": 2},
    "bounded": {"max_batch_seconds": 1.0, "batch_size": 4},
    "balanced": {"balanced_sampling": True},
    "weighted": {"class_weights": "balanced", "save_steps": 1},
    "augmented": {"augment": ["speed", "noise", "mixup"], "random_crop": True, "max_seconds": 0.3},
    "frozen": {"freeze": "feature_encoder"},
    "pieces": {"chunk_seconds": 0.2},
    "streamed": {"steps_per_epoch": 5, "random_crop": True, "max_seconds": 0.3},
    "fp16": {"precision": "fp16"},
}


@pytest.fixture(scope="module")
def runs(folder) -> dict[int, list[dict]]:
    """What runs of each kind told, by the number of processes; the effective batch is the same: 4 times batch_size."""
    found = {}
    for num_ranks in (1, 2, 4):
        jobs = []
        for kind, options in KINDS.items():
            steps = options.get("gradient_accumulation_steps", 1) * 4 // num_ranks
            jobs.append(job(folder, f"{kind}-{num_ranks}", **{**options, "gradient_accumulation_steps": steps}))
        done = launch(num_ranks, jobs, folder, f"equal-{num_ranks}")
        assert done.returncode == 0, done.stderr
        found[num_ranks] = told(folder, f"equal-{num_ranks}")
        assert len(found[num_ranks]) == len(KINDS)
        for rank in range(1, num_ranks):
            assert told(folder, f"equal-{num_ranks}", rank) == found[num_ranks]  # all processes know the same
    return found


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_the_update_is_that_of_one_process(kind, num_ranks, runs, folder):
    place = list(KINDS).index(kind)
    alone, shared = runs[1][place], runs[num_ranks][place]
    half = kind == "fp16"
    bound = {"abs": 2e-3} if half else {"abs": EQUAL, "rel": 1e-5}
    assert len(alone["steps"]) > 5
    assert np.array(shared["steps"]) == pytest.approx(np.array(alone["steps"]), **bound)
    for part in ("best", "test"):
        assert shared[part]["loss"] == pytest.approx(alone[part]["loss"], **bound)
        assert shared[part]["accuracy"] == alone[part]["accuracy"]
    weights = [load_file(folder / f"{kind}-{n}" / "last" / "model.safetensors") for n in (1, num_ranks)]
    largest = max(float((weights[1][name] - value).abs().max()) for name, value in weights[0].items())
    assert largest < (2e-2 if half else EQUAL)


@pytest.mark.slow
def test_one_process_writes(runs, folder):
    """The files are those of a run alone, whole, and written once."""
    for kind in KINDS:
        alone, shared = (folder / f"{kind}-{n}" for n in (1, 4))
        assert {path.name for path in shared.iterdir()} == {path.name for path in alone.iterdir()}
        assert len(list((shared / "tensorboard").iterdir())) == 1
        assert checkpoint.damage(shared / "best") is None
        rows = [[json.loads(line)["event"] for line in (run / "history.jsonl").open()] for run in (alone, shared)]
        assert rows[0] == rows[1]


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [2, 3, 4])
def test_each_clip_is_evaluated_once(num_ranks, runs, folder):
    """1 to 50 clips, whole or in pieces: the counts are exact, and in each process the same."""
    for ranks in (1, num_ranks):
        if not (folder / f"evaluated-{ranks}-0.jsonl").exists():
            what = {"checkpoint": str(folder / "plain-1" / "best"), "data": str(folder / "data"), "max_clips": 50}
            done = launch(ranks, [{**what, "cache_dir": str(folder / "cache")}], folder, f"evaluated-{ranks}")
            assert done.returncode == 0, done.stderr
    alone, shared = told(folder, "evaluated-1"), told(folder, f"evaluated-{num_ranks}")
    for number, (expected, found) in enumerate(zip(alone, shared, strict=True), start=1):
        assert np.sum(found["confusion"]) == number
        assert found["confusion"] == expected["confusion"]
        assert np.array(found["logits"]) == pytest.approx(np.array(expected["logits"]), abs=EQUAL)
        assert found["metrics"]["accuracy"] == expected["metrics"]["accuracy"]
        assert found["metrics"]["loss"] == pytest.approx(expected["metrics"]["loss"], abs=EQUAL)
    assert len(alone) == 50
    for rank in range(1, num_ranks):
        assert told(folder, f"evaluated-{num_ranks}", rank) == shared


class TestShares:
    """The order as a function: what each process is given."""

    @pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
    def test_every_clip_once_in_the_window_it_would_be_in(self, num_ranks):
        rng = np.random.default_rng(0)
        for num_clips in range(1, 51):
            lengths = rng.integers(1, 100, num_clips)
            window = int(rng.integers(1, 6))
            options = {"batch_size": int(rng.integers(1, 5)), "seed": [None, 3][num_clips % 2]}
            options["max_samples"] = [np.inf, 150][num_clips % 3 == 0]
            alone = LengthBucketSampler(lengths, **options, share=Share(0, 1, window))
            shares = [
                LengthBucketSampler(lengths, **options, share=Share(r, num_ranks, window)) for r in range(num_ranks)
            ]
            whole = by_window(alone)
            parts = [by_window(share) for share in shares]
            assert len(whole) == alone.num_windows(0) == shares[0].num_windows(0)
            for number, expected in enumerate(whole):
                given = [part[number] for part in parts]
                assert sorted(clip for own in given for clip in own) == sorted(expected)
                counts = [len(own) for own in given]
                assert max(counts) - min(counts) <= 1
            for share in shares:
                assert all(len(batch) <= options["batch_size"] for batch in share)
                assert all(
                    len(batch) * max(lengths[index] for index, _ in batch) <= options["max_samples"] for batch in share
                )

    def test_shares_take_alike_time(self):
        """1 to 30 s: what a process computes of a window, padding included, beside the one that has most."""
        lengths = np.random.default_rng(2).integers(16_000, 480_000, 2000)
        shares = [LengthBucketSampler(lengths, 8, 0, share=Share(rank, 4, 8)) for rank in range(4)]
        work = np.array(
            [
                [sum(len(batch) * max(lengths[index] for index, _ in batch) for batch in window) for window in windows]
                for windows in (list(share.windows()) for share in shares)
            ]
        )
        assert work.mean() / work.max(axis=0).mean() > 0.95

    def test_from_any_window(self):
        lengths = np.random.default_rng(1).integers(1, 100, 50)
        share = LengthBucketSampler(lengths, 3, 5, classes=np.arange(50) % 3, share=Share(1, 2, 4))
        share.set_epoch(2)
        windows = list(share.windows())
        for start in range(len(windows)):
            share.set_epoch(2, start=start)
            assert list(share.windows()) == windows[start:]
            assert list(share.window_sizes()) == [len(window) for window in windows[start:]]


def by_window(sampler: LengthBucketSampler) -> list[list[int]]:
    batches, found = iter(sampler), []
    for size in sampler.window_sizes():
        found.append([index for _ in range(size) for index, _ in next(batches)])
    assert next(batches, None) is None
    return found


def to_shards(clips: Path, shards: Path) -> None:
    """Class folders as five parquet files of unlike numbers of clips."""
    shards.mkdir()
    paths = sorted(clips.glob("*/*.wav"), key=lambda path: (path.stem, path.parent.name))
    for number, own in enumerate(np.split(np.array(paths), [4, 5, 17, 26])):
        rows = {"audio": [str(path) for path in own], "label": [path.parent.name == "low" for path in own]}
        data = datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio())
        data = data.cast_column("label", datasets.ClassLabel(names=["high", "low"]))
        data.to_parquet(shards / f"{number}.parquet", batch_size=3)


HARD = {"augment": "strong", "random_crop": True, "max_seconds": 0.3, "save_steps": 2, "resume": True}
"""With dropout, crops and augmentation: what is drawn must be drawn again."""


@pytest.fixture(scope="module")
def whole(folder) -> Path:
    """A run of two processes that nothing happened to."""
    plain = job(folder, "whole", **HARD, model=str(folder / "dropout.json"))
    plain["trouble"] = {"mark": str(folder / "never"), "rank": 0, "at": 10**6, "number": 9}
    done = launch(2, [plain], folder, "whole")
    assert done.returncode == 0, done.stderr
    return folder / "whole"


class TestTrouble:
    @pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.slow)])
    def test_a_process_is_killed_and_torchrun_starts_again(self, rank, whole, folder):
        """Bit for bit the run that nothing happened to, dropout included."""
        name = f"killed-{rank}"
        killed = job(folder, name, **HARD, model=str(folder / "dropout.json"))
        killed["trouble"] = {"mark": str(folder / f"{name}.mark"), "rank": rank, "at": 7, "number": signal.SIGKILL}
        done = launch(2, [killed], folder, name, "--max-restarts=1")
        assert done.returncode == 0, done.stderr
        assert (folder / f"{name}.mark").exists()
        assert everything(folder / name) == everything(whole)
        assert "Traceback" not in done.stderr.split("restart")[-1]

    @pytest.mark.slow
    def test_a_stream_of_shards_goes_on_in_each_process(self, folder):
        """Each has shards of its own, and its own place in them; bit for bit again."""
        to_shards(folder / "data" / "train", folder / "shards")
        stream = {"parquet": sorted(map(str, (folder / "shards").iterdir())), "valid": str(folder / "data" / "valid")}
        options = {**HARD, "steps_per_epoch": 6, "model": str(folder / "dropout.json"), "num_workers": 1}
        killed, undisturbed = (
            {**job(folder, f"shards-{name}", **options), "data": stream, "trouble": trouble}
            for name, trouble in (
                ("killed", {"mark": str(folder / "shards.mark"), "rank": 1, "at": 9, "number": signal.SIGKILL}),
                ("whole", {"mark": str(folder / "never"), "rank": 0, "at": 10**6, "number": 9}),
            )
        )
        done = launch(2, [killed], folder, "shards-killed", "--max-restarts=1")
        assert done.returncode == 0, done.stderr
        assert (folder / "shards.mark").exists()
        assert launch(2, [undisturbed], folder, "shards-whole").returncode == 0
        assert everything(folder / "shards-killed") == everything(folder / "shards-whole")
        assert (
            launch(1, [{**killed, "options": {**killed["options"], "num_epochs": 3}}], folder, "fewer").returncode != 1
        )
        assert "its shards were dealt out to 2 processes" in told(folder, "fewer")[0]["error"]

    @pytest.mark.slow
    def test_a_signal_to_one_stops_both_at_one_step(self, whole, folder):
        stopped = job(folder, "stopped", **HARD, model=str(folder / "dropout.json"))
        stopped["trouble"] = {"mark": str(folder / "stopped.mark"), "rank": 1, "at": 6, "number": signal.SIGTERM}
        done = launch(2, [stopped], folder, "stopped")
        assert done.returncode != 0
        assert "Interrupted after step 6 of 18; all is saved: resume=True goes on from there." in done.stdout
        assert checkpoint.damage(folder / "stopped" / "last") is None
        assert launch(2, [stopped], folder, "stopped").returncode == 0
        assert everything(folder / "stopped") == everything(whole)

    @pytest.mark.slow
    @pytest.mark.parametrize("num_ranks", [1, 3])
    def test_going_on_with_another_number_of_processes(self, num_ranks, folder):
        """The effective batch stays; without dropout so does every update."""
        name = f"other-{num_ranks}"
        cut = job(folder, name, resume=True)
        cut["trouble"] = {"mark": str(folder / f"{name}.mark"), "rank": 0, "at": 4, "number": signal.SIGTERM}
        assert launch(2, [cut], folder, name).returncode != 0
        assert launch(num_ranks, [cut], folder, name).returncode == 0
        (found,) = told(folder, name)
        reference = job(folder, f"{name}-whole", gradient_accumulation_steps=2)
        assert launch(1, [reference], folder, f"{name}-whole").returncode == 0
        (expected,) = told(folder, f"{name}-whole")
        assert np.array(found["steps"]) == pytest.approx(np.array(expected["steps"]), abs=EQUAL, rel=1e-5)
        assert found["test"]["loss"] == pytest.approx(expected["test"]["loss"], abs=EQUAL)

    @pytest.mark.slow
    def test_a_process_that_dies_is_told_of(self, folder):
        dead = job(folder, "dead", save_steps=1)
        dead["trouble"] = {"mark": str(folder / "dead.mark"), "rank": 1, "at": 5, "number": signal.SIGKILL}
        done = launch(2, [dead], folder, "dead")
        assert done.returncode != 0
        (row,) = told(folder, "dead")
        assert row["error"].startswith(
            "Process 0 of 2: another process of the job has ended; its own message says why."
        )
        assert checkpoint.damage(folder / "dead" / "last") is None

    @pytest.mark.slow
    def test_what_one_process_refuses_ends_all(self, folder):
        """The folder is looked at by the first one only."""
        (folder / "full").mkdir()
        (folder / "full" / "notes.txt").touch()
        launch(2, [job(folder, "full")], folder, "refused")
        (row,) = told(folder, "refused")
        assert "is not empty" in row["error"]
        (other,) = told(folder, "refused", 1)
        assert "is not empty" in other["error"] or "another process of the job has ended" in other["error"]
