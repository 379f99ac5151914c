"""The command line in real processes: output, exit statuses, sentences instead of tracebacks."""

import json
import subprocess
import sys

import pytest
from conftest import tiny_config

import audioclf


def run(*arguments: object, status: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "audioclf", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_train_evaluate_predict(tones, tmp_path):
    tiny_config().to_json_file(tmp_path / "tiny.json")
    out, cache = tmp_path / "out dir", tmp_path / "cache"
    options = ["--output-dir", out, "--cache-dir", cache, "--model", tmp_path / "tiny.json", "--num-epochs", 2]
    trained = run("train", tones, *options, "--learning-rate", 5e-3, "--batch-size", 4)
    assert "Test, the same checkpoint:" in trained.stdout

    scored = json.loads(run("evaluate", out / "best", tones, "--cache-dir", cache).stdout)
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert scored["accuracy"] == rows[-1]["test_metrics"]["accuracy"]

    clip, bad = tones / "test" / "low" / "low 1.wav", tmp_path / "bad.wav"
    bad.write_text("no sound")
    done = run("predict", out / "best", bad, clip, "--json", "--top-k", 1, status=2)
    (line,) = done.stdout.splitlines()
    expected = audioclf.load(out / "best")(str(clip), top_k=1)
    assert json.loads(line)["file"] == str(clip)
    assert json.loads(line)["scores"][0]["score"] == pytest.approx(expected[0]["score"], abs=1e-5)
    assert "bad.wav': libsndfile cannot read it" in done.stderr
    plain = run("predict", out / "best", clip).stdout
    assert plain.startswith(f"{clip}: {expected[0]['label']} 0.")

    listed = run("cache", "--cache-dir", cache).stdout
    assert "60 clips" in listed
    assert "freed" in run("cache", "--cache-dir", cache, "--clear").stdout
    assert "in 0 sets" in run("cache", "--cache-dir", cache).stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "./nowhere"], "audioclf: './nowhere': no such file or folder."),
        (["train", "{tones}", "--protocol", "x"], "audioclf: protocol='x' means nothing for a folder of class folders"),
        (["train", "{tones}", "--batch-size", "0"], "batch_size=0 must be a whole number of at least 1."),
        (["train", "{tones}", "--learning-rate", "nan"], "learning_rate=nan must be a number above 0."),
        (["train", "{tones}", "--model", "./nowhere"], "audioclf: model='./nowhere': no such folder or file."),
        (["train", "{tones}", "--learning-rat", "1"], "--learning-rate"),
        (["train"], "required"),
        (["evaluate", "./nowhere", "{tones}"], "audioclf: model='./nowhere': no such folder or file."),
        (["predict", "./nowhere"], "audioclf: name at least one audio file."),
        (["predict", "./nowhere", "a.wav"], "audioclf: model='./nowhere': no such folder or file."),
        (["fly"], "fly"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(arguments, sentence, tones, tmp_path):
    words = [word.format(tones=tones) for word in arguments]
    extra = ["--output-dir", tmp_path / "out"] if words[0] == "train" and len(words) > 1 else []
    done = run(*words, *extra, status=2)
    assert sentence in " ".join(done.stderr.split())


def test_help_tells_the_options():
    text = run("train", "--help").stdout
    for option in ("--gradient-accumulation-steps", "--bad-audio", "--warmup-ratio", "--protocol", "--fold"):
        assert option in text
