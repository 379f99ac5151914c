"""Each example's demonstration, as a user runs it: offline, in a process of its own, and far above chance."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
FLOORS = {
    "gtzan": ("validation accuracy", 0.1, 0.8),
    "keyword_spotting": ("test accuracy", 0.1, 0.8),
    "language_id": ("test accuracy", 0.2, 0.65),
    "environmental_sound": ("test accuracy", 0.125, 0.8),
    "emotion": ("test UAR", 0.2, 0.7),
    "sound_events": ("test mAP", 0.22, 0.7),
    "cross_validation": ("accuracy of all clips", 0.125, 0.6),
    "own_folder": ("test accuracy", 0.2, 0.8),
}
"""What each says last, chance, and the least that its interval's lower end must reach."""


def run(name: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess:
    """An example in an empty folder and home, without the network."""
    environment = {**os.environ, "HOME": str(folder), "USERPROFILE": str(folder), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)


def test_every_example_is_here():
    """Or elsewhere: search below, serve_onnx in test_onnx_export; demo_encoder is a part of the others."""
    assert set(FLOORS) == {path.stem for path in EXAMPLES.glob("*.py")} - {"demo_encoder", "search", "serve_onnx"}


@pytest.mark.slow
def test_search(tmp_path):
    """The second command goes on with the first one's search; what lags behind is given up before its last epoch."""
    for trials in (2, 1):
        done = run("search", "--demo", "--trials", str(trials), folder=tmp_path)
        assert done.returncode == 0, done.stderr
    (told,) = re.findall(r"^3 trials, (\d) of them given up; valid accuracy ([\d.]+) with learning_rate=", done.stdout)
    assert float(told[1]) > 0.2  # chance is 0.1
    epochs = [
        sum(json.loads(line)["event"] == "epoch" for line in (folder / "history.jsonl").read_text().splitlines())
        for folder in sorted((tmp_path / "search_output").iterdir())
    ]
    assert epochs.count(8) == 3 - int(told[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOORS)
def test_demo(tmp_path, name):
    metric, chance, floor = FLOORS[name]
    done = run(name, "--demo", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (told,) = re.findall(rf"^{metric} ([\d.]+), 95 % interval ([\d.]+) to ([\d.]+)$", done.stdout, re.MULTILINE)
    score, low, _ = map(float, told)
    assert score >= floor
    assert low > 3 * chance


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("keyword_spotting", [], "keyword_spotting.py: Speech Commands is not fetched by itself: get it from "),
        ("language_id", ["--corpus", "fleurs"], "language_id.py: All 102 languages of FLEURS are some 350 GB"),
        ("environmental_sound", ["--data", "nowhere"], "environmental_sound.py: ESC-50: 'nowhere' is no folder"),
        ("emotion", ["--actor", "7"], "emotion.py: RAVDESS is not fetched by itself: get it from "),
        ("emotion", ["--demo", "--actor", "99"], "emotion.py: demo's emotion has no fold '99'; it has 01, "),
        ("own_folder", ["nowhere.csv"], "own_folder.py: 'nowhere.csv': no such file or folder."),
        ("own_folder", [], "give either a folder or table of clips, or --demo."),
        ("keyword_spotting", ["--demo", "--data", "x"], "--demo brings its own data and model: leave out --data."),
        ("language_id", ["--demo", "--labels", "en"], "--demo brings its own data and model: leave out --labels."),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, monkeypatch, capsys, name, arguments, sentence):
    """In this process, as each of them would import all of torch only to refuse."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.syspath_prepend(EXAMPLES)
    script = str(EXAMPLES / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(script, run_name="__main__")
    assert left.value.code == 2
    assert sentence in capsys.readouterr().err
