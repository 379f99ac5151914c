"""The command line: output, exit statuses, sentences instead of tracebacks.

Real processes that train are in test_determinism and test_resume.
"""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import tiny_config
from ruamel.yaml import YAML

import audioclf
from audioclf.cli import main
from audioclf.commands.config_file import to_yaml
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

    scored = json.loads(told("evaluate", out / "best", tones, "--cache-dir", cache, "--json")[0])
    assert f"accuracy                  {scored['accuracy']:.4f} [" in told("evaluate", out / "best", tones)[0]
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert scored["accuracy"] == rows[-1]["test_metrics"]["accuracy"]

    clip, bad = tones / "test" / "low" / "low 1.wav", tmp_path / "bad.wav"
    bad.write_text("no sound")
    lines, errors = told("predict", out / "best", bad, clip, "--json", "--top-k", 1, status=2)
    broken, found = map(json.loads, lines.splitlines())
    expected = audioclf.load(out / "best")(str(clip), top_k=1)
    assert (broken["file"], found["file"]) == (str(bad), str(clip))
    assert "bad.wav': libsndfile cannot read it" in broken["error"]
    assert found["scores"][0]["score"] == pytest.approx(expected[0]["score"], abs=1e-5)
    assert "bad.wav': libsndfile cannot read it" in errors
    assert "1 of 2 files could not be read" in errors
    assert told("predict", out / "best", clip, "--min-score", 1)[0] == f"{clip}  none of the classes\n"
    plain, _ = told("predict", out / "best", clip)
    assert plain.startswith(f"{clip}  {expected[0]['label']} ")

    (cache / "rows").mkdir()  # of streams
    (cache / "rows" / "0123").write_bytes(b"audio")
    assert "60 clips" in told("cache", "--cache-dir", cache)[0]
    assert "       1 clips" in told("cache", "--cache-dir", cache)[0]
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
        (["predict", "./nowhere"], "audioclf: name at least one audio file, folder or pattern."),
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


@pytest.fixture(scope="module")
def checkpoint(tones, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    options = {"num_epochs": 1, "progress": False, "cache_dir": str(folder / "cache"), "device": "cpu"}
    return audioclf.train(tones, model=tiny_config(), output_dir=folder / "run", **options).checkpoint_dir


class TestPredict:
    @pytest.fixture
    def folder(self, tones, tmp_path):
        """Names as people have them, a text among them, and a file that is none."""
        folder = tmp_path / "recordings, of May"
        (folder / "in, side").mkdir(parents=True)
        for name in ("b 1.wav", 'a, "1".WAV', "in, side/한국.wav"):
            shutil.copy(tones / "test" / "low" / "low 1.wav", folder / name)
        (folder / "notes.txt").write_text("not a sound")
        (folder / "broken.wav").write_text("not a sound")
        return folder

    def told(self, capsys, *words: object, status: int = 0) -> str:
        assert main([str(word) for word in ("predict", *words)]) == status
        return capsys.readouterr().out

    def test_folders_patterns_and_lists_mean_the_same_files(self, checkpoint, folder, capsys, monkeypatch):
        (folder / "broken.wav").unlink()
        of_folder = self.told(capsys, checkpoint, folder)
        assert len(of_folder.splitlines()) == 3
        assert self.told(capsys, checkpoint, folder / "**" / "*.[wW][aA][vV]") == of_folder
        names = "".join(f"{path}\r\n" for path in sorted(folder.rglob("*.[wW]*"))) + "\n"
        monkeypatch.setattr("sys.stdin", io.StringIO(names))
        assert self.told(capsys, checkpoint, "-") == of_folder

    def test_csv_is_read_back(self, checkpoint, folder, capsys):
        rows = list(csv.DictReader(io.StringIO(self.told(capsys, checkpoint, folder, "--csv", "--top-k", 2, status=2))))
        assert [Path(row["file"]).name for row in rows] == ['a, "1".WAV'] * 2 + ["b 1.wav"] * 2 + [
            "broken.wav",
            *["한국.wav"] * 2,
        ]
        expected = audioclf.load(checkpoint)(folder / "b 1.wav", top_k=2)
        for row, found in zip(rows[2:4], expected, strict=True):
            assert row["label"] == found["label"]
            assert float(row["score"]) == pytest.approx(found["score"], abs=1e-6)
        assert [row["rank"] for row in rows] == ["1", "2", "1", "2", "", "1", "2"]
        assert "libsndfile cannot read it" in rows[4]["error"]
        assert not rows[4]["label"]

    def test_csv_of_segments_and_of_nothing(self, checkpoint, folder, capsys):
        sound, options = folder / "b 1.wav", ["--csv", "--timeline", "--window-seconds", 0.2]
        (row,) = csv.DictReader(io.StringIO(self.told(capsys, checkpoint, sound, *options)))
        assert {**row, "label": "", "score": ""} == {
            "file": str(sound), "start": "0.0", "end": row["end"], "label": "", "score": "", "error": "",
        }  # fmt: skip
        (row,) = csv.DictReader(io.StringIO(self.told(capsys, checkpoint, sound, *options, "--threshold", 1)))
        assert set(row.values()) == {str(sound), ""}

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["{folder}/in, side/../nothing*"], "nothing*': no file matches this pattern."),
            (["{folder}/empty"], "empty' is a folder without audio files: name another."),
            (["{folder}", "--csv", "--json"], "csv and json are two forms of one output: choose one of them."),
        ],
    )
    def test_refusals(self, words, sentence, folder, capsys):
        (folder / "empty").mkdir()
        assert main(["predict", "./nowhere", *(word.format(folder=folder) for word in words)]) == 2
        assert sentence in capsys.readouterr().err

    def test_in_a_real_process(self, checkpoint, folder):
        """A narrow encoding, names from standard input; what cannot be shown is escaped."""
        names = "\n".join(map(str, sorted(folder.rglob("*.wav"))))
        done = subprocess.run(
            [sys.executable, "-m", "audioclf", "predict", checkpoint, "-", "--json"],
            input=names.encode(),
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "1"},
        )
        assert done.returncode == 2
        rows = [json.loads(line) for line in done.stdout.decode("ascii").splitlines()]
        assert b"\n".join(os.fsencode(row["file"]) for row in rows) == names.encode()
        assert b"1 of 3 files could not be read" in done.stderr


class TestConfigFile:
    def config(self, tmp_path, text: str) -> str:
        (tmp_path / "run 1.yaml").write_text(text, encoding="utf-8")
        return str(tmp_path / "run 1.yaml")

    def printed(self, capsys, *words: object) -> dict:
        assert main([*map(str, words), "--print-config"]) == 0
        return YAML(typ="safe").load(capsys.readouterr().out)

    def test_what_goes_before_what(self, tmp_path, capsys):
        """The command line before the file, the file's options before its recipe, that before the defaults."""
        file = self.config(tmp_path, "data: demo\nrecipe: best\nprotocol: 2024\nlearning-rate: 1e-4\nnum_epochs: 7\n")
        found = self.printed(capsys, "train", "--config", file, "--num-epochs", 3)
        expected = {"data": "demo", "protocol": "2024", "learning_rate": 1e-4, "num_epochs": 3, "batch_size": 8}
        assert found == {**found, **expected, "augment": "strong"}
        assert self.printed(capsys, "train", "other", "--config", file, "--recipe", "course")["augment"] == "none"

    def test_what_is_printed_can_be_given(self, tmp_path, capsys):
        words = [
            "--augment",
            "gain",
            "noise",
            "--class-weights",
            "no",
            1,
            "on",
            2,
            "--labels",
            "no",
            "on",
            "--patience",
            2,
        ]
        found = self.printed(capsys, "train", "clips.csv", *words)
        assert found["class_weights"] == {"no": 1.0, "on": 2.0}
        assert found["labels"] == ["no", "on"]
        assert self.printed(capsys, "train", "--config", self.config(tmp_path, to_yaml(found))) == found

    def test_a_run_from_a_file_alone(self, tones, tmp_path, capsys):
        tiny_config().to_json_file(tmp_path / "tiny.json")
        options = {"data": str(tones), "model": str(tmp_path / "tiny.json"), "num_epochs": 1, "seed": 5}
        options |= {"output_dir": str(tmp_path / "out"), "cache_dir": str(tmp_path / "cache")}
        assert main(["train", "--config", self.config(tmp_path, to_yaml(options)), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        history = (tmp_path / "out" / "history.jsonl").read_text().splitlines()
        assert told["test_metrics"] == json.loads(history[-1])["test_metrics"]
        assert json.loads((tmp_path / "out" / "config.json").read_text())["seed"] == 5

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("learning_rat: 1", "run 1.yaml: There is no option 'learning_rat'; did you mean 'learning_rate'?"),
            ("num_epochs: many", "run 1.yaml: num_epochs='many' must be a whole number of at least 1."),
            ("recipe: bets", "run 1.yaml: recipe='bets' is not one of course, fast, best; did you mean 'best'?"),
            ("- a\n- b", "must hold options by name, such as 'num_epochs: 10', one a line."),
            ("a: [1", "is no YAML file:"),
            ("seed: 1\nseed: 2", "is no YAML file:"),
            ("labels: no", "run 1.yaml: labels='no' must be a list, such as [a, b]."),
            ("folds: 5", "run 1.yaml: There is no option 'folds'"),
        ],
    )
    def test_refusals(self, text, sentence, tmp_path, capsys):
        assert main(["train", "demo", "--config", self.config(tmp_path, text)]) == 2
        told = capsys.readouterr()
        assert sentence in told.err
        assert not told.out
        assert told.err.count("\n") == 1

    def test_no_file(self, tmp_path, capsys):
        assert main(["train", "demo", "--config", str(tmp_path / "no.yaml")]) == 2
        assert "no.yaml' cannot be read (No such file or directory)." in capsys.readouterr().err

    def test_an_empty_file_changes_nothing(self, tmp_path, capsys):
        file = self.config(tmp_path, "# nothing yet\n")
        assert self.printed(capsys, "train", "demo", "--config", file) == self.printed(capsys, "train", "demo")

    def test_of_a_cross_validation(self, tmp_path, capsys):
        file = self.config(tmp_path, "data: demo\nfolds: 5\nseeds: [1, 2]\nnum_epochs: 2\n")
        found = self.printed(capsys, "cross-validate", "--config", file)
        assert (found["folds"], found["seeds"], found["num_epochs"]) == ("5", [1, 2], 2)


def test_compare(tones, tmp_path, capsys):
    """A recipe by its name, and one in a file, on the same seeds."""
    tiny_config().to_json_file(tmp_path / "tiny.json")
    (tmp_path / "slow start.yaml").write_text("warmup_ratio: 0.5\nlearning_rate: 1e-3\n")
    (tmp_path / "all.yaml").write_text(f"num_epochs: 1\nmodel: {tmp_path / 'tiny.json'}\ncache_dir: {tmp_path / 'c'}\n")
    words = ["compare", str(tones), "course", str(tmp_path / "slow start.yaml"), "--config", str(tmp_path / "all.yaml")]
    assert main([*words, "--seeds", "1", "2", "--output-dir", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["scores"]) == ["course", "slow start"]
    assert len(found["scores"]["course"]) == 2
    assert found["differences"]["slow start"]["low"] <= found["differences"]["slow start"]["high"]
    config = json.loads((tmp_path / "out" / "slow start" / "seed-1" / "config.json").read_text())
    assert (config["warmup_ratio"], config["num_epochs"]) == (0.5, 1)
    assert main(["compare", str(tones), "course", str(tmp_path / "course.yaml")]) == 2
    assert "there is another recipe 'course'" in capsys.readouterr().err


def test_help_tells_the_options():
    text = run("train", "--help").stdout
    for option in ("--gradient-accumulation-steps", "--bad-audio", "--warmup-ratio", "--protocol", "--fold"):
        assert option in text
