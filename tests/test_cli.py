"""The command line: output, exit statuses, sentences instead of tracebacks.

Real processes that train are in test_determinism and test_resume.
"""

import json
import subprocess
import sys

import pytest
from conftest import tiny_config

import audioclf
from audioclf.cli import main
from audioclf.recipes import RECIPES


def run(*arguments: object, status: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "audioclf", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_train_evaluate_predict(tones, tmp_path, capsys):
    def told(*arguments: object, status: int = 0) -> tuple[str, str]:
        assert main([str(word) for word in arguments]) == status
        return capsys.readouterr()

    tiny_config().to_json_file(tmp_path / "tiny.json")
    out, cache = tmp_path / "out dir", tmp_path / "cache"
    options = ["--output-dir", out, "--cache-dir", cache, "--model", tmp_path / "tiny.json", "--num-epochs", 1]
    trained, _ = told("train", tones, *options, "--learning-rate", 5e-3, "--batch-size", 4)
    assert "Test, the same checkpoint:" in trained

    scored = json.loads(told("evaluate", out / "best", tones, "--cache-dir", cache)[0])
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert scored["accuracy"] == rows[-1]["test_metrics"]["accuracy"]

    clip, bad = tones / "test" / "low" / "low 1.wav", tmp_path / "bad.wav"
    bad.write_text("no sound")
    lines, errors = told("predict", out / "best", bad, clip, "--json", "--top-k", 1, status=2)
    (line,) = lines.splitlines()
    expected = audioclf.load(out / "best")(str(clip), top_k=1)
    assert json.loads(line)["file"] == str(clip)
    assert json.loads(line)["scores"][0]["score"] == pytest.approx(expected[0]["score"], abs=1e-5)
    assert told("predict", out / "best", clip, "--min-score", 1)[0] == f"{clip}: none of the classes\n"
    assert "bad.wav': libsndfile cannot read it" in errors
    plain, _ = told("predict", out / "best", clip)
    assert plain.startswith(f"{clip}: {expected[0]['label']} 0.")

    assert "60 clips" in told("cache", "--cache-dir", cache)[0]
    assert "freed" in told("cache", "--cache-dir", cache, "--clear")[0]
    assert "in 0 sets" in told("cache", "--cache-dir", cache)[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "./nowhere"], "audioclf: './nowhere': no such file or folder."),
        (["train", "{tones}", "--protocol", "x"], "audioclf: protocol='x' means nothing for a folder of class folders"),
        (["train", "{tones}", "--batch-size", "0"], "batch_size=0 must be a whole number of at least 1."),
        (["train", "{tones}", "--learning-rate", "nan"], "learning_rate=nan must be a number above 0."),
        (["train", "{tones}", "--model", "./nowhere"], "audioclf: model='./nowhere': no such folder or file."),
        (["train", "{tones}", "--learning-rat", "1"], "--learning-rate"),
        (["train", "{tones}", "--recipe", "bets"], "invalid choice 'bets' for argument '--recipe'."),
        (["train", "{tones}", "--recipe"], "Missing value for argument '--recipe'."),
        (["train"], "required"),
        (["evaluate", "./nowhere", "{tones}"], "audioclf: model='./nowhere': no such folder or file."),
        (["predict", "./nowhere"], "audioclf: name at least one audio file."),
        (["predict", "./nowhere", "a.wav"], "audioclf: model='./nowhere': no such folder or file."),
        (["fly"], "fly"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(arguments, sentence, tones, tmp_path, capsys):
    words = [word.format(tones=tones) for word in arguments]
    if words[0] == "train" and len(words) > 1:
        words += ["--output-dir", str(tmp_path / "out")]
    try:
        status = main(words)
    except SystemExit as leave:  # tyro's own way, for what it cannot parse
        status = leave.code
    assert status == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert sentence in " ".join(told.err.split())


def test_no_traceback_in_a_real_process(tmp_path):
    done = run("train", "./nowhere", "--output-dir", tmp_path / "out", status=2)
    assert done.stderr == "audioclf: './nowhere': no such file or folder.\n"


def test_a_recipe_and_an_option_of_its_own(tones, tmp_path):
    tiny_config().to_json_file(tmp_path / "tiny.json")
    options = ["--output-dir", tmp_path / "out", "--cache-dir", tmp_path / "cache", "--model", tmp_path / "tiny.json"]
    run("train", tones, "--recipe=best", "--num-epochs", 1, "--augment", "light", *options)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    expected = {**RECIPES["best"], "num_epochs": 1, "augment": "light"}
    assert {name: config[name] for name in expected} == expected
    assert config["batch_size"] == 8


def test_help_tells_the_options():
    text = run("train", "--help").stdout
    for option in ("--gradient-accumulation-steps", "--bad-audio", "--warmup-ratio", "--protocol", "--fold"):
        assert option in text
