"""`audioclf predict --output`: results of many files survive what befalls a process, and several may make them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import tiny_config
from filelock import FileLock

import audioclf
from audioclf.cli import main

NUM_FILES = 300


@pytest.fixture(scope="module")
def checkpoint(tones, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bulk")
    options = {"num_epochs": 1, "progress": False, "cache_dir": str(folder / "cache"), "device": "cpu"}
    return audioclf.train(tones, model=tiny_config(), output_dir=folder / "run", **options).checkpoint_dir


@pytest.fixture(scope="module")
def folder(tones, tmp_path_factory) -> Path:
    """Many links to a few clips, a broken file among them, and a name of Latin-1 bytes."""
    folder = tmp_path_factory.mktemp("many")
    clips = sorted((tones / "test").rglob("*.wav"))
    for number in range(NUM_FILES - 2):
        (folder / f"{number:03} 소리.wav").symlink_to(clips[number % len(clips)])
    (folder / "broken.wav").write_text("not a sound")
    os.symlink(clips[0], os.fsencode(folder) + b"/caf\xe9.wav")
    return folder


@pytest.fixture(scope="module")
def expected(checkpoint, folder) -> list[dict]:
    """What a process that nothing befalls writes to standard output."""
    done = subprocess.run([*predict(checkpoint, folder), "--json"], capture_output=True, check=False)
    rows = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert len(rows) == NUM_FILES
    return rows


def predict(*words: object) -> list[str]:
    return [sys.executable, "-m", "audioclf", "predict", *map(str, words), "--device", "cpu"]


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def assert_same(rows: list[dict], expected: list[dict]) -> None:
    """Up to rounding: a file's batch holds other files when a run goes on."""
    assert [row["file"] for row in rows] == [row["file"] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys()
        for found, there in zip(row.get("scores", []), other.get("scores", []), strict=True):
            assert found["label"] == there["label"]
            assert found["score"] == pytest.approx(there["score"], abs=1e-5)


def test_a_file_of_all_results(checkpoint, folder, expected, tmp_path):
    out = tmp_path / "out of May.jsonl"
    done = subprocess.run(predict(checkpoint, folder, "--output", out), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout.startswith(f"{NUM_FILES} files in {out}: {NUM_FILES} in ")
    assert "audioclf: 1 of 300 files could not be read." in done.stderr
    assert_same(rows_of(out), expected)
    assert "libsndfile cannot read it" in next(row for row in rows_of(out) if "broken" in row["file"])["error"]
    assert os.listdir(tmp_path) == [out.name]


def test_killed_again_and_again(checkpoint, folder, expected, tmp_path):
    """SIGKILL while results are written, and half a line of the kind that a power cut leaves."""
    out, lines = tmp_path / "out.jsonl", 0
    part = tmp_path / "out.jsonl.parts" / "0.jsonl"
    for _ in range(2):
        process = subprocess.Popen(predict(checkpoint, folder, "--batch-size", 1, "--output", out))
        deadline = time.monotonic() + 60
        while not (part.exists() and part.read_bytes().count(b"\n") > lines) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        lines = part.read_bytes().count(b"\n")
        assert 0 < lines < NUM_FILES
        with open(part, "ab") as file:
            file.write(b'{"file": "half of a')
    done = subprocess.run(predict(checkpoint, folder, "--output", out), capture_output=True, text=True, check=False)
    assert f"({lines} of them earlier): {NUM_FILES - lines} in " in done.stdout
    assert_same(rows_of(out), expected)


def test_ctrl_c_names_the_command(checkpoint, folder, tmp_path):
    command = predict(checkpoint, folder, "--batch-size", 1, "--output", tmp_path / "my out.jsonl")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    part = tmp_path / "my out.jsonl.parts" / "0.jsonl"
    while not (part.exists() and part.stat().st_size) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.endswith("my out.jsonl' --device cpu\n")
    assert "Go on with: audioclf predict" in errors
    assert "Traceback" not in errors


class TestRefusals:
    @pytest.fixture
    def begun(self, checkpoint, tones, tmp_path) -> Path:
        """Half of the results, by the default options."""
        clips = sorted((tones / "test").rglob("*.wav"))
        assert main([*map(str, ["predict", checkpoint, *clips[:2], "--output", tmp_path / "out.jsonl"])]) == 0
        (tmp_path / "out.jsonl.parts").mkdir()
        (tmp_path / "out.jsonl").rename(tmp_path / "out.jsonl.parts" / "0.jsonl")
        return tmp_path / "out.jsonl"

    def told(self, capsys, *words: object) -> str:
        assert main([str(word) for word in ("predict", *words)]) == 2
        return capsys.readouterr().err

    def test_a_file_that_is_there(self, checkpoint, folder, tmp_path, capsys):
        (tmp_path / "out.jsonl").write_text("dear to somebody")
        errors = self.told(capsys, checkpoint, folder, "--output", tmp_path / "out.jsonl")
        assert "out.jsonl' is there already: name another file, or remove it." in errors
        assert (tmp_path / "out.jsonl").read_text() == "dear to somebody"

    def test_other_options_or_another_checkpoint(self, begun, checkpoint, tones, capsys):
        """What is there lacks its settings, so it may be anybody's."""
        errors = self.told(capsys, checkpoint, tones, "--output", begun)
        assert "out.jsonl.parts' holds results of another checkpoint or of other options: remove it" in errors

    @pytest.mark.parametrize("words", [["--top-k", 1], ["--timeline"], ["--min-score", 0.2], ["--precision", "bf16"]])
    def test_other_options(self, words, checkpoint, folder, tmp_path, capsys):
        out = tmp_path / "out.jsonl"
        process = subprocess.Popen(predict(checkpoint, folder, "--batch-size", 1, "--output", out))
        while not list(tmp_path.glob("*/*.jsonl")) and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        process.wait()
        assert "of other options" in self.told(capsys, checkpoint, folder, "--output", out, *words)

    def test_two_at_once(self, checkpoint, tones, tmp_path, capsys):
        (tmp_path / "out.jsonl.parts").mkdir()
        with FileLock(tmp_path / "out.jsonl.parts" / "lock"):
            errors = self.told(capsys, checkpoint, tones, "--output", tmp_path / "out.jsonl")
        assert "out.jsonl' is being written by another process: wait for it, or name another file." in errors

    def test_a_place_that_cannot_be_written(self, checkpoint, tones, tmp_path, capsys):
        (tmp_path / "file").touch()
        errors = self.told(capsys, checkpoint, tones, "--output", tmp_path / "file" / "out.jsonl")
        assert "out.jsonl' cannot be written (Not a directory); the same command goes on from what is there." in errors

    def test_csv(self, checkpoint, tones, capsys):
        errors = self.told(capsys, checkpoint, tones, "--csv", "--output", "out.jsonl")
        assert "csv and output are two forms of one output: choose one of them." in errors

    def test_torchrun_without_a_file(self, checkpoint, tones, capsys, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert "add --output FILE." in self.told(capsys, checkpoint, tones)


@pytest.mark.slow
def test_processes_share_the_files(checkpoint, folder, expected, tmp_path):
    """Three die with one of them, two go on."""
    out = tmp_path / "out.jsonl"

    def finished() -> list[list[str]]:
        parts = [part.read_bytes().split(b"\n")[:-1] for part in tmp_path.glob("*/*.jsonl")]
        return [[json.loads(line)["file"] for line in part] for part in parts]

    def launch(num_ranks: int) -> list[str]:
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
        return [sys.executable, *torchrun, *predict(checkpoint, folder, "--batch-size", 1, "--output", out)[1:]]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(launch(3), env=environment, stderr=subprocess.PIPE, text=True)
    while len([part for part in finished() if part]) < 3 and process.poll() is None:
        time.sleep(0.01)
    psutil.Process(process.pid).children()[-1].kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors
    assert not out.exists()
    earlier = {file for part in finished() for file in part}
    assert 0 < len(earlier) < NUM_FILES
    done = subprocess.run(launch(2), env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0  # a broken file is no broken process
    assert f"({len(earlier)} of them earlier): {NUM_FILES - len(earlier)} in " in done.stdout
    assert "1 of 300 files could not be read" in done.stderr
    assert_same(rows_of(out), expected)
