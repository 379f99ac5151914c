"""Cross-validation: what is trained on what, what the runs say together, and going on where it was cut."""

import csv
import gc
import json
import os
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import test_corpora
import torch
from conftest import TONES, tiny_config, write_tone
from faults.harness import child, command_line, ended, everything, left_over
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

import audioclf
from audioclf import AudioSplits, CheckpointError, ConfigError, DatasetError, cross_validate
from audioclf.cli import main
from audioclf.datasets.folds import divide
from audioclf.datasets.split import cut_valid
from audioclf.models.classifier import AudioClassifier

LABELS = tuple(sorted(TONES))


class EndAt:
    """Builds the usual loss; once so many micro-batches have been trained on, the process gets a signal."""

    def __init__(self):
        self.at, self.number, self.count = None, signal.SIGTERM, 0

    def __call__(self, config):
        def loss(logits, labels):
            if torch.is_grad_enabled():
                self.count += 1
                if self.count == self.at:
                    os.kill(os.getpid(), self.number)
            return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

        return loss


end_at = EndAt()


def validate_until(at: int, number: int, data: str, options: dict) -> None:
    """What a child does."""
    torch.set_num_threads(1)
    end_at.at, end_at.number = at, number
    cross_validate(data, seeds=(1,), resume=True, **options, loss=end_at)


def write_clips(root: Path, **columns) -> Path:
    """36 tones of three classes by 12 speakers in 3 folds, and their table."""
    rng = np.random.default_rng(0)
    rows = []
    for n in range(36):
        label = LABELS[n % 3]
        write_tone(root / f"{n}.wav", TONES[label], rng.uniform(0.2, 0.4), rng)
        rows.append({"path": f"{n}.wav", "label": label, "group": f"s{n // 3}", "fold": n // 3 % 3 + 1})
        rows[-1] |= {name: value(n) for name, value in columns.items()}
    return write_rows(root / "clips.csv", rows)


def write_rows(path: Path, rows: list[dict]) -> Path:
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def options(quick):
    """Dropout and noise: a run is repeated only by one with the same chance."""
    more = {"model": tiny_config(hidden_dropout=0.1), "augment": "noise", "valid_fraction": 0.25, "loss": end_at}
    return {**quick, **more, "num_epochs": 2, "batch_size": 8, "seed": 42}


@pytest.fixture(scope="module")
def done(clips, options, tmp_path_factory) -> audioclf.CrossValidation:
    """Three official folds, two seeds."""
    return cross_validate(clips, seeds=(1, 2), output_dir=tmp_path_factory.mktemp("cv") / "out", **options)


def kept(output_dir: Path) -> dict:
    return json.loads((output_dir / "cross_validation.json").read_text())


def by_hand(clips: Path, fold: str) -> AudioSplits:
    """One fold as test, without the library's own division."""
    everything = audioclf.load_dataset(clips).train
    train = [example for other in "123" for example in everything if example.fold == other != fold]
    test = [example for example in everything if example.fold == fold]
    return AudioSplits(train, (), test, labels=LABELS, name=f"clips.csv, fold {fold}")


class TestRuns:
    def test_seed_by_seed_and_fold_by_fold(self, done):
        expected = [(seed, fold) for seed in (1, 2) for fold in "123"]
        assert [(run.seed, run.fold) for run in done.runs] == expected
        for run in done.runs:
            assert run.result.output_dir == done.output_dir / f"seed-{run.seed}" / f"fold-{run.fold}"
            assert not left_over(run.result.output_dir)
        assert {path.name for path in done.output_dir.iterdir()} == {
            *("seed-1", "seed-2", "cross_validation.json", ".lock")
        }

    def test_each_is_an_ordinary_run(self, done, clips, options, tmp_path):
        """Bit by bit that of `train` on the same clips, in a process that trained nothing before it or a lot."""
        run = done.runs[4]
        splits = by_hand(clips, "2")
        alone = audioclf.train(splits, **{**options, "seed": 2}, output_dir=tmp_path / "alone")
        assert everything(alone.output_dir) == everything(run.result.output_dir)
        assert alone.test_metrics == run.result.test_metrics

    def test_on_what_each_is_trained(self, done, clips):
        """The validation part is cut from the other folds: by the seed, and with no speaker on two sides."""
        for run in done.runs:
            splits = cut_valid(by_hand(clips, run.fold), 0.25, run.seed)
            data = json.loads((run.result.checkpoint_dir / "audioclf.json").read_text())["data"]
            assert data["fingerprint"] == splits.fingerprint()
            assert {e.fold for e in splits.test} == {run.fold}
            assert not {e.fold for e in (*splits.train, *splits.valid)} & {run.fold}
            groups = [{e.group for e in part} for part in (splits.train, splits.valid, splits.test)]
            assert sum(map(len, groups)) == len(set().union(*groups)) == 12

    def test_the_test_fold_chooses_nothing(self, done, clips, options, tmp_path):
        """With its labels all wrong the weights, the epochs and the validations of its runs stay as they were."""
        rows = [row | {"path": str(clips.parent / row["path"])} for row in csv.DictReader(clips.open(newline=""))]
        for row in rows:
            if row["fold"] == "3":
                row["label"] = LABELS[LABELS.index(row["label"]) - 1]
        table = write_rows(tmp_path / "clips.csv", rows)
        wrong = cross_validate(table, seeds=(1,), output_dir=tmp_path / "out", **options).runs[2].result
        right = done.runs[2].result
        assert done.runs[2].fold == "3"
        left, expected = everything(wrong.output_dir), everything(right.output_dir)
        assert (left["best"], left["last"]) == (expected["best"], expected["last"])
        assert (wrong.best_epoch, wrong.best_metrics) == (right.best_epoch, right.best_metrics)
        assert wrong.test_metrics != right.test_metrics


class TestFigures:
    def test_mean_and_deviation(self, done):
        assert set(done.mean) == set(done.std) == {"loss", "accuracy", "uar", "macro_f1"}
        for name in done.mean:
            values = np.array([run.result.test_metrics[name] for run in done.runs]).reshape(2, 3)
            folds = values.mean(axis=0)
            assert [done.fold_metrics[fold][name] for fold in "123"] == pytest.approx(list(folds))
            assert done.mean[name] == pytest.approx(sum(folds) / 3)
            assert done.std[name] == pytest.approx(np.sqrt(((folds - folds.mean()) ** 2).sum() / 2))
            assert done.seed_std[name] == pytest.approx(abs(values[0].mean() - values[1].mean()) / np.sqrt(2))

    def test_over_all_clips(self, done, clips):
        """Each clip as the checkpoints that have not seen it classify it, by the public way in."""
        truth, guesses = [], []
        for run in done.runs:
            test = by_hand(clips, run.fold).test
            answers = audioclf.load(run.result.checkpoint_dir)([e.audio for e in test], top_k=1)
            truth += [e.label for e in test]
            guesses += [entries[0]["label"] for entries in answers]
        assert len(truth) == 72
        assert done.pooled["accuracy"] == pytest.approx(accuracy_score(truth, guesses))
        assert done.pooled["uar"] == pytest.approx(balanced_accuracy_score(truth, guesses))
        assert done.pooled["macro_f1"] == pytest.approx(f1_score(truth, guesses, average="macro"))

    def test_interval_over_all_clips(self, done):
        """As wide as speakers drawn with replacement make it: 12 pieces of evidence, not 72."""
        hits = np.zeros((2, 12))
        for run in done.runs:
            for line in (run.result.output_dir / "test_predictions.jsonl").read_text().splitlines():
                row = json.loads(line)
                speaker = int(Path(row["clip"]).stem) // 3
                hits[run.seed - 1, speaker] += LABELS[int(np.argmax(row["logits"]))] == row["label"]
        shares = hits.sum(axis=0) / 6
        assert done.pooled["accuracy"] == pytest.approx(shares.mean())
        drawn = np.random.default_rng(5).integers(12, size=(20_000, 12))
        expected = np.quantile(shares[drawn].mean(axis=1), (0.025, 0.975))
        assert done.pooled["accuracy_ci"] == pytest.approx(expected, abs=0.03)

    def test_kept(self, done):
        content = kept(done.output_dir)
        assert (content["folds"], content["seeds"], content["data"]) == ("official", [1, 2], "clips.csv")
        for name in ("fold_metrics", "mean", "std", "seed_std", "pooled"):
            assert content[name] == getattr(done, name)
        assert [(row["seed"], row["fold"]) for row in content["runs"]] == [(run.seed, run.fold) for run in done.runs]
        for row, run in zip(content["runs"], done.runs, strict=True):
            assert done.output_dir / row["folder"] == run.result.output_dir
            assert row["test_metrics"] == run.result.test_metrics

    def test_predictions_are_the_checkpoints(self, done):
        run = done.runs[0].result
        rows = [json.loads(line) for line in (run.output_dir / "test_predictions.jsonl").read_text().splitlines()]
        classifier = audioclf.load(run.checkpoint_dir)
        expected = classifier.probabilities([row["clip"] for row in rows])
        logits = torch.tensor([row["logits"] for row in rows])
        assert torch.allclose(logits.softmax(-1), torch.as_tensor(expected), atol=1e-5)

    def test_a_single_seed_has_no_deviation_of_seeds(self, clips, options, tmp_path, capsys):
        """And the table, whose first column is the metric that chooses."""
        settings = {**options, "num_epochs": 1, "progress": True, "metric_for_best": "macro_f1"}
        result = cross_validate(clips, 2, output_dir=tmp_path / "out", **settings)
        assert set(result.seed_std.values()) == {None}
        assert [run.seed for run in result.runs] == [42, 42]
        table = capsys.readouterr().out.partition("Test fold by fold:\n")[2].splitlines()
        assert table[0].split() == ["fold", "clips", "macro", "F1", "accuracy", "UAR"]
        for line, fold in zip(table[1:3], "12", strict=True):
            metrics = [result.fold_metrics[fold][name] for name in ("macro_f1", "accuracy", "uar")]
            assert line.split() == [fold, "18", *(f"{value:.3f}" for value in metrics)]
        assert table[4].split() == ["mean", *(f"{result.mean[name]:.3f}" for name in ("macro_f1", "accuracy", "uar"))]
        assert table[5].split()[:2] == ["deviation", f"{result.std['macro_f1']:.3f}"]
        assert "All clips, each tested once, with 95 % intervals:" in table


class TestGoingOn:
    @pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
    def test_cut_in_the_middle_of_the_second_fold(self, number, done, clips, options, tmp_path):
        """A real process that dies; then the bits of one that did not, and what was finished is not trained anew."""
        own = {**options, "output_dir": str(tmp_path / "out"), "save_steps": 2}
        steps = sum(row["event"] == "step" for row in done.runs[0].result.history)
        there = {name: value for name, value in own.items() if name != "loss"}
        status = ended(child(validate_until, steps + 4, number, str(clips), there))
        assert status == (-number if number == signal.SIGKILL else 128 + number)
        first, second = (tmp_path / "out" / "seed-1" / f"fold-{fold}" for fold in "12")
        assert [row["fold"] for row in kept(tmp_path / "out")["runs"]] == ["1"]
        assert '"end"' not in (second / "history.jsonl").read_text()
        before = (first / "history.jsonl").read_bytes(), (first / "best" / "model.safetensors").stat().st_mtime_ns

        result = cross_validate(clips, seeds=(1,), resume=True, **own)
        assert (first / "history.jsonl").read_bytes() == before[0]  # with its clock
        assert (first / "best" / "model.safetensors").stat().st_mtime_ns == before[1]
        for run, expected in zip(result.runs, done.runs[:3], strict=True):
            assert everything(run.result.output_dir) == everything(expected.result.output_dir)
            assert not left_over(run.result.output_dir)
            ours, theirs = (one.output_dir / "test_predictions.jsonl" for one in (run.result, expected.result))
            assert ours.read_bytes() == theirs.read_bytes()

    def test_a_finished_one_is_returned_and_takes_more_seeds(self, clips, options, tmp_path, monkeypatch):
        own = {**options, "num_epochs": 1, "output_dir": tmp_path / "out"}
        once = cross_validate(clips, 2, seeds=(7,), **own)
        shutil.rmtree(once.runs[0].result.output_dir / "last")  # large, and no longer needed
        with monkeypatch.context() as patch:
            patch.setattr(audioclf.training, "_run", lambda *_: pytest.fail("trained anew"))
            again = cross_validate(clips, 2, seeds=(7,), resume=True, **own)
        assert (again.mean, again.pooled) == (once.mean, once.pooled)
        more = cross_validate(clips, 2, seeds=(7, 8), resume=True, **own)
        assert [run.result for run in more.runs[:2]] == [run.result for run in once.runs]
        assert kept(tmp_path / "out")["seeds"] == [7, 8]
        with pytest.raises(ConfigError, match=r"seeds=\[8, 7\] is not what .* began with: give \[7, 8\], after which"):
            cross_validate(clips, 2, seeds=(8, 7), resume=True, **own)

    def test_another_one_is_refused(self, done, clips, options, tmp_path):
        own = {**options, "seeds": (1, 2), "output_dir": done.output_dir}
        before = kept(done.output_dir)
        other = write_clips(tmp_path)
        for data, more, sentence in (
            (clips, {}, "is not empty: name another folder, set resume=True to go on with the cross-validation in it"),
            (clips, {"resume": True, "folds": 3}, "folds=3 is not what .* began with: give folds='official', or start"),
            (clips, {"resume": True, "learning_rate": 1.0}, "resume it with learning_rate=0.005, or start a new run"),
            (clips, {"resume": True, "num_epochs": 3}, "num_epochs=3 is not what the run in"),
            (clips, {"resume": True, "seeds": (1,)}, r"seeds=\[1\] is not what the cross-validation in"),
            (other, {"resume": True}, "resume: the clips or their folds have changed since the cross-validation in"),
        ):
            with pytest.raises(ConfigError, match=sentence) as caught:
                cross_validate(data, **{**own, **more})
            assert "\n" not in str(caught.value)
        assert kept(done.output_dir) == before

    def test_folders_that_are_none_of_its_own(self, trained, done, clips, tones, options, tmp_path):
        with pytest.raises(ConfigError, match="holds no earlier cross-validation, but something else: name another"):
            cross_validate(clips, **{**options, "overwrite": True, "output_dir": trained.output_dir})
        with pytest.raises(ConfigError, match="holds no earlier run, but something else: name another folder"):
            audioclf.train(tones, **{**options, "overwrite": True, "output_dir": done.output_dir})
        (tmp_path / "cross_validation.json").write_text('{"folds": 3')
        with pytest.raises(CheckpointError, match=r"cross_validation.json' cannot be read, .* overwrite=True\.$"):
            cross_validate(clips, **{**options, "resume": True, "output_dir": tmp_path})

    def test_overwrite_replaces_all(self, clips, options, tmp_path):
        own = {**options, "num_epochs": 1, "output_dir": tmp_path / "out"}
        cross_validate(clips, 3, **own)
        (tmp_path / "out" / "seed-42" / "notes.txt").write_text("the user's own")
        with pytest.raises(CheckpointError, match="no such folder or file"):  # and what is there stays for now
            cross_validate(clips, 2, **{**own, "overwrite": True, "model": "./nowhere"})
        assert (tmp_path / "out" / "seed-42" / "fold-3" / "best").is_dir()
        cross_validate(clips, 2, **{**own, "seed": 1, "overwrite": True})
        assert {path.name for path in (tmp_path / "out" / "seed-1").iterdir()} == {"fold-1", "fold-2"}
        assert [path.name for path in (tmp_path / "out" / "seed-42").iterdir()] == ["notes.txt"]

    def test_one_that_is_refused_leaves_nothing_in_the_way(self, clips, options, tmp_path):
        """Also when it is the first run that refuses."""
        own = {**options, "num_epochs": 1, "output_dir": tmp_path / "out"}
        for wrong in ({"model": "./nowhere"}, {"class_weights": {"high": 1.0}}):
            with pytest.raises(audioclf.AudioclfError):
                cross_validate(clips, 2, **{**own, **wrong})
            assert not [path for path in (tmp_path / "out").glob("*") if path.name != ".lock"]
        assert len(cross_validate(clips, 2, **own).runs) == 2


class TestWhatIsSharedAndFreed:
    def test_nothing_is_computed_twice(self, trained, clips, options, tmp_path, monkeypatch):
        """A frozen encoder from a checkpoint: its features are the same for all seeds and folds."""
        counts = Counter()

        def counted(home, name):
            original = getattr(home, name)

            def function(*arguments, **more):
                counts[name] += 1
                return original(*arguments, **more)

            monkeypatch.setattr(home, name, function)

        counted(audioclf.clips.audio, "load")
        counted(AudioClassifier, "features")
        own = {**options, "model": str(trained.checkpoint_dir), "freeze": "backbone", "augment": "none"}
        own |= {"num_epochs": 1, "output_dir": tmp_path / "out", "cache_dir": str(tmp_path / "cache")}
        cross_validate(clips, 2, seeds=(1, 2), **own)
        assert counts == {"load": 36, "features": 36}
        for kind in ("waveforms", "features"):
            assert len(list((tmp_path / "cache" / kind).iterdir())) == 1

    @pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
    @pytest.mark.parametrize("num_workers", [0, 1])
    def test_runs_leave_nothing_open(self, num_workers, clips, options, tmp_path, monkeypatch):
        """After every fold: no more files open than after the first, no model, no process."""
        left, real = [], audioclf.crossval.train

        def counted(*arguments, **more):
            result = real(*arguments, **more)
            models = sum(type(thing) is AudioClassifier for thing in gc.get_objects()) - models_before
            left.append((len(os.listdir("/proc/self/fd")), models, len(children())))
            return result

        def children() -> list[str]:
            return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()

        monkeypatch.setattr(audioclf.crossval, "train", counted)
        gc.collect()  # what an earlier test has left
        models_before = sum(type(thing) is AudioClassifier for thing in gc.get_objects())
        cross_validate(
            clips, 3, output_dir=tmp_path / "out", **{**options, "num_epochs": 1, "num_workers": num_workers}
        )
        assert len(left) == 3
        assert set(left) == {left[0]}
        assert left[0][1] == 0


class TestData:
    def test_leave_one_speaker_out(self, options, tmp_path):
        """Speakers whose names can be no folders' are numbered."""
        data = write_clips(tmp_path, group=lambda n: ("AC/DC", "../x", "Björk")[n // 12], fold=lambda n: "")
        result = cross_validate(data, "group", output_dir=tmp_path / "out", **{**options, "num_epochs": 1})
        assert list(result.fold_metrics) == ["../x", "AC/DC", "Björk"]
        names = [run.result.output_dir.name for run in result.runs]
        assert names == ["fold-1", "fold-2", "fold-3"]
        assert [row["fold"] for row in kept(tmp_path / "out")["runs"]] == ["../x", "AC/DC", "Björk"]

    def test_esc50(self, options, tmp_path, capsys):
        """Its five folds are all tested, and what was said of the single test fold is not said."""
        root = test_corpora.TestESC50().corpus(tmp_path / "ESC-50-master")
        splits = audioclf.load_dataset("esc50", root=root)
        own = {**options, "num_epochs": 1, "progress": True, "output_dir": tmp_path / "out"}
        result = cross_validate(splits, **own)
        same = audioclf.load_dataset("esc50", root=root, fold=2)
        assert divide(same, "official", 0).splits("3") == divide(splits, "official", 0).splits("3")
        assert list(result.fold_metrics) == ["1", "2", "3", "4", "5"]
        clips = [json.loads(line)["clip"] for run in result.runs for line in _predictions(run)]
        assert len(clips) == len(set(clips)) == 40
        for run in result.runs:
            assert all(Path(json.loads(line)["clip"]).name.startswith(f"{run.fold}-") for line in _predictions(run))
        assert result.notes == ()
        told = capsys.readouterr().out
        assert "esc50: 5 folds of 40 clips, 5 runs." in told
        assert "Run 2 of 5: fold 2, seed 42." in told
        assert "The test part is fold" not in told

    def test_multi_label(self, options, tmp_path):
        """Each run with the thresholds of its own validation; the pooled figures as scikit-learn has them."""
        data = write_clips(
            tmp_path,
            label=lambda n: ",".join(label for bit, label in enumerate(LABELS) if n % 7 + 1 >> bit & 1),
        )
        own = {**options, "num_epochs": 1, "loss": "auto", "output_dir": tmp_path / "out"}
        splits = audioclf.load_dataset(data, multi_label=True)
        result = cross_validate(splits, 3, **own)
        assert result.mean["map"] == pytest.approx(np.mean([run.result.test_metrics["map"] for run in result.runs]))
        truth, detected = [], []
        for run in result.runs:
            classifier = audioclf.load(run.result.checkpoint_dir)
            for line in _predictions(run):
                row = json.loads(line)
                truth.append([label in row["label"] for label in LABELS])
                entries = {entry["label"]: entry["detected"] for entry in classifier(row["clip"], top_k=None)}
                detected.append([entries[label] for label in LABELS])
        assert len(truth) == 36
        assert result.pooled["micro_f1"] == pytest.approx(f1_score(truth, detected, average="micro"))
        low, high = result.pooled["map_ci"]
        assert low <= result.pooled["map"] <= high

    def test_a_metric_that_folds_lack(self, options, tmp_path):
        """Of speakers with one class each the ROC curve is not defined; over all clips it is."""
        data = write_clips(tmp_path, label=lambda n: "ab"[n // 3 % 2], group=lambda n: f"s{n // 3 % 6}")
        result = cross_validate(data, "group", output_dir=tmp_path / "out", **{**options, "num_epochs": 1})
        assert {metrics["auroc"] for metrics in result.fold_metrics.values()} == {None}
        assert (result.mean["auroc"], result.std["auroc"]) == (None, None)
        assert 0 <= result.pooled["auroc"] <= 1
        assert result.notes[0].startswith("2 class(es), for example 'a', are not in every fold")

    @pytest.mark.parametrize(
        ("how", "more", "error", "sentence"),
        [
            (
                "official",
                {"seeds": ()},
                ConfigError,
                r"seeds=\(\) must be a list of whole numbers, such as \(1, 2, 3\)",
            ),
            ("official", {"seeds": 3}, ConfigError, "seeds=3 must be a list of whole numbers"),
            ("official", {"seeds": (1, -1)}, ConfigError, "seeds=-1 must be a whole number of at least 0"),
            (
                "official",
                {"seeds": (1, 1)},
                ConfigError,
                r"seeds=\[1, 1\] has a seed twice: its runs would be the same",
            ),
            ("official", {"seeds": (1, 2), "seed": 3}, ConfigError, r"seed=3 is not among seeds=\[1, 2\]: leave one"),
            ("official", {"seedz": (1, 2)}, ConfigError, "no option 'seedz'; did you mean 'seed'"),
            (13, {}, DatasetError, "clips.csv: folds=13, but there are only 12 groups"),
            ("offical", {}, ConfigError, "folds='offical' must be 'official', 'group' or a whole number"),
            ("official", {"metric_for_best": "map"}, ConfigError, "metric_for_best='map' is no metric of data of one"),
        ],
    )
    def test_refused_before_anything_is_written(self, how, more, error, sentence, clips, options, tmp_path):
        with pytest.raises(error, match=sentence):
            cross_validate(clips, how, **{**options, "output_dir": tmp_path / "out", **more})
        assert not list(tmp_path.glob("out/[!.]*"))

    def test_too_few_groups_to_cut_a_valid_part(self, options, tmp_path):
        data = write_clips(tmp_path, group=lambda n: f"s{n // 18}")
        sentence = r"clips.csv, fold 1: the 18 clips of other folds, in 1 group\(s\) or file\(s\), cannot be cut "
        with pytest.raises(DatasetError, match=sentence):
            cross_validate(data, 2, **{**options, "output_dir": tmp_path / "out"})

    def test_the_check_of_the_cut_is_whole(self, clips):
        """Whether a part can be cut does not hang on the seed."""
        splits = audioclf.load_dataset(clips)
        for seed in range(50):
            for fold in "123":
                cut_valid(divide(splits, "official", 0).splits(fold), 0.01, seed)


class TestCommandLine:
    def test_whole(self, clips, tmp_path, capsys):
        tiny_config().to_json_file(tmp_path / "tiny.json")
        words = ["cross-validate", clips, "--folds", 2, "--seeds", 1, 2, "--model", tmp_path / "tiny.json"]
        words += ["--output-dir", tmp_path / "out", "--cache-dir", tmp_path / "cache", "--num-epochs", 1]
        assert main([str(word) for word in [*words, "--batch-size", 4, "--precision", "fp32"]]) == 0
        told = capsys.readouterr().out
        content = kept(tmp_path / "out")
        assert (content["folds"], content["seeds"], len(content["runs"])) == (2, [1, 2], 4)
        assert re.search(rf"^mean +{content['mean']['accuracy']:.3f}", told, flags=re.MULTILINE)
        assert told.endswith(f"Kept in {tmp_path / 'out' / 'cross_validation.json'}\n")

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["--fold", "2"], "fold='2' makes one fold the test part, but each is in turn: leave it out."),
            (["--folds", "many"], "folds='many' must be 'official', 'group' or a whole number of at least 2."),
            (["--folds", "1"], "folds=1 must be"),
        ],
    )
    def test_bad_input(self, words, sentence, clips, tmp_path, capsys):
        assert main(["cross-validate", str(clips), "--output-dir", str(tmp_path / "out"), *words]) == 2
        assert f"audioclf: {sentence}" in capsys.readouterr().err

    def test_interrupted(self, clips, tmp_path):
        tiny_config().to_json_file(tmp_path / "tiny.json")
        command = ["cross-validate", str(clips), "--output-dir", str(tmp_path / "out"), "--num-epochs", "10000"]
        command += ["--model", str(tmp_path / "tiny.json"), "--cache-dir", str(tmp_path / "cache")]
        process = child(command_line, command, tmp_path / "told")
        history = tmp_path / "out" / "seed-42" / "fold-1" / "history.jsonl"
        while process.exitcode is None and not (history.exists() and history.stat().st_size):
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGTERM)
        assert ended(process) == 143
        told = (tmp_path / "told").read_text()
        assert "The cross-validation was interrupted: 0 of 3 runs are done; resume=True goes on from there." in told
        assert told.endswith(f"Go on with: audioclf {' '.join(command)} --resume\n")
        assert "Traceback" not in told


def _predictions(run: audioclf.FoldRun) -> list[str]:
    return (run.result.output_dir / "test_predictions.jsonl").read_text().splitlines()
