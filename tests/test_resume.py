"""Resuming: a run cut anywhere ends with the very bits of a run that was not."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_config, write_tone
from faults.harness import everything, left_over, without_time
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import audioclf
from audioclf import CheckpointError, ConfigError, TrainingError, checkpoint, resume, step


class CutAfter:
    """Builds the usual loss; the signal comes while the n-th micro-batch of the process is computed."""

    def __init__(self):
        self.at, self.count, self.number = None, 0, signal.SIGINT

    def cut(self, at, number=signal.SIGINT):
        self.at, self.count, self.number = at, 0, number
        return self

    def __call__(self, config):
        def loss(logits, labels):
            if torch.is_grad_enabled():
                self.count += 1
                if self.count == self.at:
                    signal.raise_signal(self.number)
            return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

        return loss


cut_after = CutAfter()

HARD = {
    "model": tiny_config(hidden_dropout=0.1, attention_dropout=0.1, apply_spec_augment=True, mask_time_length=2),
    "num_epochs": 2,
    "random_crop": True,
    "max_seconds": 0.4,
    "augment": ("strong", "mixup"),
    "gradient_accumulation_steps": 2,
    "loss": cut_after,
}
"""Every source of chance there is: dropout, SpecAugment, crops, augmentation, order; 10 steps in 2 epochs."""


def plotted(output_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves that TensorBoard shows."""
    board = EventAccumulator(str(output_dir / "tensorboard"))
    board.Reload()
    names = [name for name in board.Tags()["scalars"] if not name.endswith("clips_per_second")]
    return {name: [(event.step, event.value) for event in board.Scalars(name)] for name in names}


def until_plots_sort(output_dir: Path) -> None:
    """Waits out the second: TensorBoard reads its files by name, where of one second and process the tenth is first."""
    begun = max(int(file.name.split(".")[3]) for file in (output_dir / "tensorboard").iterdir())
    while int(time.time()) <= begun:
        time.sleep(0.05)


def until_done(data, options, cuts) -> audioclf.TrainResult:
    """Runs, cut after so many micro-batches of each attempt, until nothing cuts it any more."""
    for at in cuts:
        cut_after.cut(at)
        with pytest.raises(KeyboardInterrupt):
            audioclf.train(data, resume=True, **options)
        until_plots_sort(options["output_dir"])
    cut_after.cut(None)
    return audioclf.train(data, resume=True, **options)


@pytest.fixture(scope="module")
def hard_run(tones, quick, tmp_path_factory):
    options = {**quick, **HARD}
    cut_after.cut(None)
    return audioclf.train(tones, output_dir=tmp_path_factory.mktemp("hard") / "out", **options)


class TestExactness:
    @pytest.mark.parametrize(
        "cuts",
        [[1], [5], [9], [10], [17], [4] * 4, pytest.param([1] * 9, marks=pytest.mark.slow)],
        ids=lambda cuts: "+".join(map(str, cuts)),
    )
    def test_interrupted_anywhere(self, hard_run, tones, quick, tmp_path, cuts):
        """9 micro-batches an epoch: the cuts fall on first, middle and last steps, and each step alone."""
        result = until_done(tones, {**quick, **HARD, "output_dir": tmp_path / "out"}, cuts)
        assert everything(result.output_dir) == everything(hard_run.output_dir)
        assert without_time(result.history) == without_time(hard_run.history)
        assert (result.best_metrics, result.best_epoch) == (hard_run.best_metrics, hard_run.best_epoch)
        assert result.test_metrics == hard_run.test_metrics
        assert plotted(result.output_dir) == plotted(hard_run.output_dir)
        assert not left_over(result.output_dir)

    @pytest.mark.parametrize(("module", "name"), [(resume, "save_best"), (resume, "save_last"), (checkpoint, "keep")])
    def test_interrupted_while_files_are_written(self, hard_run, tones, quick, tmp_path, monkeypatch, module, name):
        """At each call of the function, until the run is done; the one that follows the last epoch's included."""
        real, options = getattr(module, name), {**quick, **HARD, "output_dir": tmp_path / "out", "resume": True}
        cut_after.cut(None)
        at = calls = 0

        def with_a_signal(*arguments, **more):
            nonlocal calls
            calls += 1
            if calls == at:
                signal.raise_signal(signal.SIGINT)
            real(*arguments, **more)

        monkeypatch.setattr(module, name, with_a_signal)
        result = None
        while result is None:
            at, calls = at + 1, 0
            with contextlib.suppress(KeyboardInterrupt):
                result = audioclf.train(tones, **options)
        assert everything(result.output_dir) == everything(hard_run.output_dir)
        assert not left_over(result.output_dir)

    @pytest.mark.parametrize("workers", [(2, 0), (0, 2)])
    def test_with_other_workers(self, hard_run, tones, quick, tmp_path, workers):
        options = {**quick, **HARD, "output_dir": tmp_path / "out"}
        cut_after.cut(7)
        with pytest.raises(KeyboardInterrupt):
            audioclf.train(tones, num_workers=workers[0], **options)
        cut_after.cut(None)
        result = audioclf.train(tones, num_workers=workers[1], resume=True, **options)
        assert everything(result.output_dir) == everything(hard_run.output_dir)

    @pytest.mark.parametrize(
        "more", [{"precision": "bf16"}, {"precision": "fp16"}, {"freeze": "feature_encoder"}, {"chunk_seconds": 0.3}]
    )
    def test_other_options(self, tones, quick, tmp_path, more):
        options = {**quick, **HARD, **more, "num_epochs": 1}
        if "freeze" in more:
            options |= {"random_crop": False, "augment": "none"}  # features come from their cache
        cut_after.cut(None)
        whole = audioclf.train(tones, output_dir=tmp_path / "whole", **options)
        result = until_done(tones, {**options, "output_dir": tmp_path / "cut"}, [3, 3])
        assert everything(result.output_dir) == everything(whole.output_dir)

    @pytest.mark.parametrize("save_steps", [1, 4])
    def test_from_a_checkpoint_in_the_middle_of_an_epoch(self, hard_run, tones, quick, tmp_path, save_steps):
        """What a process that was killed leaves: the last checkpoint, and files of the steps after it."""
        options = {**quick, **HARD, "output_dir": tmp_path / "out", "save_steps": save_steps}
        kept, saved = tmp_path / "kept", []
        original = resume.save_last

        def save_and_keep(run, *arguments):
            original(run, *arguments)
            saved.append(run.state.step)
            if run.state.step == 8:
                shutil.copytree(tmp_path / "out", kept)

        patch = pytest.MonkeyPatch()
        patch.setattr(resume, "save_last", save_and_keep)
        cut_after.cut(None)
        audioclf.train(tones, **options)
        patch.undo()
        assert saved == sorted({*range(save_steps, 11, save_steps), 5, 10})  # the end of an epoch once, too
        with (kept / "history.jsonl").open("a") as file:
            file.write('{"event": "step", "step": 9, "of": "the process that was killed"}\n{"torn')
        result = audioclf.train(tones, resume=True, **{**options, "output_dir": kept})
        assert everything(kept) == everything(hard_run.output_dir)
        assert without_time(result.history) == without_time(hard_run.history)

    def test_early_stopping(self, tones, quick, tmp_path):
        """Of a run that is trained so slowly that its second epoch is no better."""
        options = {**quick, **HARD, "num_epochs": 40, "patience": 1, "learning_rate": 1e-12}
        cut_after.cut(None)
        whole = audioclf.train(tones, output_dir=tmp_path / "whole", **options)
        epochs = whole.history[-1]["epoch"]
        assert epochs < 40
        result = until_done(tones, {**options, "output_dir": tmp_path / "cut"}, [9 * epochs])  # its last micro-batch
        assert everything(result.output_dir) == everything(whole.output_dir)

    def test_a_loss_with_a_state(self, tones, quick, tmp_path):
        options = {**quick, "num_epochs": 1, "loss": Annealed}
        whole = audioclf.train(tones, output_dir=tmp_path / "whole", **options)
        Annealed.cut_at = 6
        with pytest.raises(KeyboardInterrupt):
            audioclf.train(tones, output_dir=tmp_path / "cut", **options)
        Annealed.cut_at = None
        audioclf.train(tones, output_dir=tmp_path / "cut", resume=True, **options)
        assert everything(tmp_path / "cut") == everything(whole.output_dir)


LEVERS = {"balanced_sampling": True, "lora_rank": 2, "dropout": 0.2, "calibrate": True}


class TestLevers:
    @pytest.mark.parametrize(
        "names",
        [list(LEVERS), *(pytest.param([name], marks=pytest.mark.slow) for name in LEVERS)],
        ids="+".join,
    )
    def test_interrupted(self, tones, quick, tmp_path, monkeypatch, names):
        """The signal comes with so many micro-batches."""
        at, calls, original = 0, 0, step.clip_losses

        def cutting(*arguments):
            nonlocal calls
            calls += 1
            if calls == at:
                signal.raise_signal(signal.SIGINT)
            return original(*arguments)

        monkeypatch.setattr(step, "clip_losses", cutting)
        options = {**quick, **HARD, **{name: LEVERS[name] for name in names}, "loss": "auto", "num_epochs": 1}
        whole = audioclf.train(tones, output_dir=tmp_path / "whole", **options)
        result = None
        for cut in (3, 3, 0):  # of 9, two a step
            at, calls = cut, 0
            with contextlib.suppress(KeyboardInterrupt):
                result = audioclf.train(tones, output_dir=tmp_path / "cut", resume=True, **options)
            assert (result is None) == bool(cut)
        assert everything(result.output_dir) == everything(whole.output_dir)
        assert without_time(result.history) == without_time(whole.history)
        assert result.test_metrics == whole.test_metrics

    def test_a_calibrated_run_goes_on_from_the_weights_as_trained(self, doubtful, quick, tmp_path):
        """Finished, its best checkpoint scaled, and then given more epochs: as if these had been given at once."""
        options = {**quick, "calibrate": True, "lr_schedule": "constant", "warmup_ratio": 0.0, "metric_for_best": "uar"}
        whole = audioclf.train(doubtful, output_dir=tmp_path / "whole", **{**options, "num_epochs": 4})
        kept = []
        for first in (1, 3):
            few = {**options, "output_dir": tmp_path / str(first)}
            begun = audioclf.train(doubtful, **{**few, "num_epochs": first})
            result = audioclf.train(doubtful, resume=True, **{**few, "num_epochs": 4})
            assert everything(result.output_dir) == everything(whole.output_dir)
            kept.append(begun.best_epoch == result.best_epoch)
            assert not kept[-1] or begun.history[-1]["temperature"] == result.history[-1]["temperature"]
        assert kept == [False, True]  # a better one came; and one that is scaled already stays so

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_interrupted_while_the_scaled_checkpoint_takes_its_place(
        self, doubtful, quick, tmp_path, monkeypatch, when
    ):
        options = {**quick, "calibrate": True, "num_epochs": 2}
        whole = audioclf.train(doubtful, output_dir=tmp_path / "whole", **options)
        assert whole.history[-1]["temperature"] is not None
        original, cut = checkpoint._put_in_place, False

        def cutting(new, folder):
            nonlocal cut
            scaled = "temperature" in json.loads((new / "audioclf.json").read_text())
            if when == "after":
                original(new, folder)
            if scaled and not cut:
                cut = True
                signal.raise_signal(signal.SIGINT)
            if when == "before":
                original(new, folder)

        monkeypatch.setattr(checkpoint, "_put_in_place", cutting)
        with pytest.raises(KeyboardInterrupt):
            audioclf.train(doubtful, output_dir=tmp_path / "cut", **options)
        result = audioclf.train(doubtful, output_dir=tmp_path / "cut", resume=True, **options)
        assert cut
        assert everything(result.output_dir) == everything(whole.output_dir)
        assert not left_over(result.output_dir)


class Annealed(torch.nn.Module):
    """A loss whose label smoothing falls with each batch."""

    cut_at = None

    def __init__(self, config):
        super().__init__()
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, logits, labels):
        if torch.is_grad_enabled():
            self.calls += 1
            if self.calls == self.cut_at:
                signal.raise_signal(signal.SIGINT)
        smoothing = 0.5 / (1 + float(self.calls))
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)


class TestSkippedBatches:
    def test_they_are_not_read(self, tones, quick, tmp_path, monkeypatch):
        options = {**quick, **HARD, "output_dir": tmp_path / "out", "num_epochs": 1}
        cut_after.cut(5)
        with pytest.raises(KeyboardInterrupt):
            audioclf.train(tones, **options)
        read = []
        original = audioclf.clips.Clips.__getitem__
        monkeypatch.setattr(
            audioclf.clips.Clips, "__getitem__", lambda clips, key: read.append(len(clips)) or original(clips, key)
        )
        cut_after.cut(None)
        audioclf.train(tones, resume=True, **options)
        assert read.count(36) == 2 * 3 * 4  # of nine batches of four, six are done; mixup reads two clips for one


def cut_run(tones, folder: Path, options: dict, at: int) -> Path:
    """The folder of a run that was cut after so many micro-batches."""
    cut_after.cut(at)
    with pytest.raises(KeyboardInterrupt):
        audioclf.train(tones, output_dir=folder, **options)
    cut_after.cut(None)
    return folder


@pytest.fixture(scope="module")
def begun(tones, quick, tmp_path_factory):
    """The folder of a run of one epoch that was cut after its fourth step."""
    options = {**quick, "num_epochs": 1, "loss": cut_after}
    return cut_run(tones, tmp_path_factory.mktemp("begun") / "out", options, at=4)


@pytest.fixture(scope="module")
def begun_hard(tones, quick, tmp_path_factory):
    """The folder of a run that was cut in its second epoch, with `last`, `last-1`, `best` and maybe `best-1`."""
    return cut_run(tones, tmp_path_factory.mktemp("begun hard") / "out", {**quick, **HARD}, at=12)


class TestWhatMayChange:
    @pytest.fixture
    def run(self, begun, quick, tmp_path):
        """Options of the run, whose folder is a copy that may be spoilt."""
        shutil.copytree(begun, tmp_path / "out")
        return {**quick, "num_epochs": 1, "loss": cut_after, "output_dir": tmp_path / "out", "resume": True}

    @pytest.mark.parametrize(
        "change",
        [
            {"batch_size": 2},
            {"learning_rate": 1e-3},
            {"head_learning_rate": 1e-3},
            {"gradient_accumulation_steps": 2},
            {"lr_schedule": "cosine"},
            {"warmup_ratio": 0.5},
            {"weight_decay": 0.1},
            {"seed": 2},
            {"head": "attention"},
            {"loss": "auto"},
            {"model": tiny_config(hidden_size=64)},
            {"precision": "bf16"},
            {"freeze": "backbone"},
            {"max_seconds": 0.5},
            {"chunk_seconds": 0.4},
            {"random_crop": True},
            {"augment": "noise"},
            {"augment": ["noise", "mixup"]},
            {"class_weights": "balanced"},
            {"metric_for_best": "uar"},
            {"max_batch_seconds": 9.0},
            {"lora_rank": 4},
            {"balanced_sampling": True},
            {"dropout": 0.1},
            {"calibrate": True},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_what_matters_is_refused_by_name(self, run, tones, change):
        (name,) = change
        with pytest.raises(
            ConfigError, match=rf"^{name}=.* is not what the run in .* began with: resume it with {name}="
        ):
            audioclf.train(tones, **{**run, **change})

    @pytest.mark.parametrize(
        "change",
        [
            {"logging_steps": 2, "progress": False},
            {"save_steps": 3, "save_total_limit": 1},
            {"eval_batch_size": 2},
            {"num_workers": 1},
            {"patience": 5},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_what_does_not_is_allowed(self, run, tones, change):
        result = audioclf.train(tones, **{**run, **change})
        assert result.history[-1]["step"] == 9

    def test_another_folder_of_the_same_files(self, run, tones, tmp_path):
        moved = (tmp_path / "out").rename(tmp_path / "moved")
        assert audioclf.train(tones, **{**run, "output_dir": moved}).history[-1]["step"] == 9

    def test_more_epochs(self, run, tones):
        result = audioclf.train(tones, **{**run, "num_epochs": 2})
        assert [row["epoch"] for row in result.history if row["event"] == "epoch"] == [1, 2]
        more = audioclf.train(tones, **{**run, "num_epochs": 3})  # also once it is finished
        assert [row["epoch"] for row in more.history if row["event"] == "epoch"] == [1, 2, 3]
        assert [row["event"] for row in more.history].count("end") == 1
        with pytest.raises(ConfigError, match=r"num_epochs=2, but the run in .* has 3 epochs behind it"):
            audioclf.train(tones, **{**run, "num_epochs": 2})

    def test_other_data(self, run, tones, tmp_path):
        shutil.copytree(tones, tmp_path / "data")
        os.remove(tmp_path / "data" / "train" / "low" / "low 3.wav")
        with pytest.raises(ConfigError, match="resume: the numbers of readable clips have changed since the run began"):
            audioclf.train(tmp_path / "data", **run)
        write_tone(tmp_path / "data" / "train" / "low" / "new.wav", 300.0, 0.5, np.random.default_rng(0))
        with pytest.raises(ConfigError, match="resume: the clips or their split have changed since the run began"):
            audioclf.train(tmp_path / "data", **run)
        (tmp_path / "data" / "train" / "low").rename(tmp_path / "data" / "train" / "deep")
        for split in ("valid", "test"):
            (tmp_path / "data" / split / "low").rename(tmp_path / "data" / split / "deep")
        with pytest.raises(ConfigError, match="resume: the labels have changed since the run began"):
            audioclf.train(tmp_path / "data", **run)

    def test_resume_and_overwrite(self, run, tones):
        with pytest.raises(ConfigError, match="resume=True goes on with the run that overwrite=True would delete"):
            audioclf.train(tones, **{**run, "overwrite": True})


class TestStartAndEnd:
    def test_without_a_checkpoint_it_starts(self, tones, quick, tmp_path):
        options = {**quick, "num_epochs": 1, "output_dir": tmp_path / "out"}
        first = audioclf.train(tones, resume=True, **options)
        (tmp_path / "out" / "history.jsonl").write_text("")
        for name in ("best", "last"):
            shutil.rmtree(tmp_path / "out" / name)
        again = audioclf.train(tones, resume=True, **options)
        assert without_time(again.history) == without_time(first.history)

    def test_what_is_no_run_is_left_alone(self, tones, quick, tmp_path):
        (tmp_path / "thesis.txt").write_text("")
        with pytest.raises(ConfigError, match="holds no earlier run, but something else"):
            audioclf.train(tones, resume=True, output_dir=tmp_path, **quick)

    def test_a_finished_run_returns_its_result(self, hard_run, quick):
        again = audioclf.train("no data are needed", resume=True, output_dir=hard_run.output_dir, **{**quick, **HARD})
        assert again == hard_run

    def test_what_the_end_of_a_finished_run_did_not_do(self, hard_run, quick, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "hf_any")
        options = {**quick, **HARD, "resume": True, "output_dir": hard_run.output_dir}
        best = hard_run.checkpoint_dir
        for more, command in (
            ({"push_to_hub": "user/name"}, f"audioclf push {best} user/name"),
            ({"report": True}, f"audioclf report {best} DATA"),
        ):
            with pytest.raises(ConfigError, match=f"The run has ended, so {next(iter(more))} does nothing: {command}$"):
                audioclf.train("no data are needed", **{**options, **more})

    def test_killed_during_the_test(self, hard_run, tones, quick, tmp_path):
        shutil.copytree(hard_run.output_dir, tmp_path / "out")
        lines = (tmp_path / "out" / "history.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "out" / "history.jsonl").write_text("".join(lines[:-1]))
        result = audioclf.train(tones, resume=True, output_dir=tmp_path / "out", **{**quick, **HARD})
        assert without_time(result.history) == without_time(hard_run.history)


class TestDamage:
    @pytest.fixture
    def run(self, begun_hard, quick, tmp_path):
        """Options of the run, whose folder is a copy to damage."""
        shutil.copytree(begun_hard, tmp_path / "out")
        return {**quick, **HARD, "output_dir": tmp_path / "out", "resume": True}

    @pytest.mark.parametrize("name", ["model.safetensors", resume.STATE_FILE, "audioclf.json", "checksums.sha256"])
    def test_the_one_before_is_used(self, run, hard_run, tones, capsys, name):
        file = Path(run["output_dir"]) / "last" / name
        file.write_bytes(file.read_bytes()[:-1])
        result = audioclf.train(tones, **{**run, "progress": True})
        told = capsys.readouterr().out
        assert f"The checkpoint {str(file.parent)!r} is damaged ({name} is not as it was written)." in told
        assert "The one before it is used, of step 5." in told
        assert everything(result.output_dir) == everything(hard_run.output_dir)

    def test_none_is_whole(self, run, tones):
        for folder in ("last", "last-1"):
            (Path(run["output_dir"]) / folder / "model.safetensors").write_bytes(b"")
        with pytest.raises(CheckpointError, match=r"is damaged .* is damaged .* start anew with overwrite=True"):
            audioclf.train(tones, **run)

    @pytest.mark.parametrize("patience", [None, 1])
    def test_best_is_gone_after_the_last_epoch(self, tones, quick, tmp_path, patience):
        """It is told, not put down to the numbers; with epochs to come one of them takes its place."""
        cut_after.cut(None)
        options = {**quick, **HARD, "output_dir": tmp_path / "out", "patience": patience, "num_epochs": 1}
        audioclf.train(tones, **options)
        (tmp_path / "out" / "history.jsonl").write_text("")
        shutil.rmtree(tmp_path / "out" / "best")
        with pytest.raises(TrainingError, match=r"The best checkpoint, of epoch \d or before, is gone"):
            audioclf.train(tones, **options, resume=True)
        options |= {"num_epochs": 2, "resume": True}
        assert audioclf.train(tones, **options).best_epoch == 2

    def test_a_best_that_cannot_be_written_is_told(self, tones, quick, tmp_path, monkeypatch, capsys):
        def refuse(run, evaluation):
            if run.state.epoch == 1:
                raise CheckpointError("The disk is full.")
            real(run, evaluation)

        real = resume.save_best
        monkeypatch.setattr(resume, "save_best", refuse)
        options = {**quick, "num_epochs": 2, "output_dir": tmp_path / "out", "progress": True}
        result = audioclf.train(tones, **options)
        assert "Epoch 1 is the best so far, but lost: 'best' is of another one." in capsys.readouterr().out
        assert result.best_epoch > 1
        assert json.loads((result.checkpoint_dir / "audioclf.json").read_text())["epoch"] == result.best_epoch

    def test_last_of_a_finished_run_is_gone(self, hard_run, tones, quick, tmp_path):
        shutil.copytree(hard_run.output_dir, tmp_path / "out")
        shutil.rmtree(tmp_path / "out" / "last")
        with pytest.raises(CheckpointError, match="holds a finished run whose 'last' is gone"):
            audioclf.train(tones, resume=True, output_dir=tmp_path / "out", **{**quick, **HARD})
        assert checkpoint.damage(tmp_path / "out" / "best") is None

    def test_best_is_gone(self, run, tones, capsys):
        for folder in Path(run["output_dir"]).glob("best*"):
            shutil.rmtree(folder)
        result = audioclf.train(tones, **{**run, "progress": True})
        assert "is gone or damaged; the best of the epochs to come takes its place" in capsys.readouterr().out
        assert result.best_epoch == 2

    def test_a_state_of_another_kind(self, run, tones):
        last = Path(run["output_dir"]) / "last"

        def fill(folder):
            for file in last.iterdir():
                if file.name != checkpoint.CHECKSUMS_FILE:
                    shutil.copy(file, folder)
            torch.save({"state": {"other": 1}}, folder / resume.STATE_FILE)

        checkpoint.write_folder(last, fill)
        with pytest.raises(CheckpointError, match="is no training state of this version of audioclf"):
            audioclf.train(tones, **run)


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_library_call_saves_raises_and_restores_the_handlers(self, tones, quick, tmp_path, number):
        before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
        cut_after.cut(3, number)
        with pytest.raises((KeyboardInterrupt, SystemExit)) as caught:
            audioclf.train(tones, output_dir=tmp_path / "out", loss=cut_after, **quick)
        assert isinstance(caught.value, KeyboardInterrupt) == (number == signal.SIGINT)
        assert number == signal.SIGINT or caught.value.code == 143
        assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
        assert json.loads((tmp_path / "out" / "last" / "audioclf.json").read_text())["step"] == 3
        cut_after.cut(None)

    def test_an_interrupt_that_nobody_catches_ends_a_script_with_workers(self, tones, quick, tmp_path):
        """Its traceback holds the loaders until Python waits for their processes."""
        tiny_config().to_json_file(tmp_path / "config.json")
        code = (
            "import signal, sys, torch, audioclf\n"
            "def loss(config):\n"
            "    def interrupted(logits, labels):\n"
            "        signal.raise_signal(signal.SIGINT)\n"
            "        return torch.nn.functional.cross_entropy(logits, labels, reduction='none')\n"
            "    return interrupted\n"
            "data, folder, cache = sys.argv[1:]\n"
            "options = dict(cache_dir=cache, num_workers=2, device='cpu', progress=False, loss=loss)\n"
            "audioclf.train(data, model=folder + '/config.json', output_dir=folder + '/out', **options)\n"
        )
        command = [sys.executable, "-c", code, str(tones), str(tmp_path), quick["cache_dir"]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert "KeyboardInterrupt" in done.stderr
        assert (tmp_path / "out" / "last").is_dir()

    @pytest.mark.parametrize(
        ("number", "status", "num_workers"),
        [
            (signal.SIGINT, 130, 0),
            pytest.param(signal.SIGINT, 130, 2, marks=pytest.mark.slow),
            pytest.param(signal.SIGTERM, 143, 0, marks=pytest.mark.slow),
        ],
    )
    def test_command_line(self, tones, quick, tmp_path, number, status, num_workers):
        """Ctrl-C as a terminal sends it, to the main process and its workers alike, and SIGTERM; `last` opens."""
        tiny_config().to_json_file(tmp_path / "config.json")
        options = ["--model", str(tmp_path / "config.json"), "--output-dir", str(tmp_path / "my run")]
        options += ["--num-epochs", "10000", "--logging-steps", "1", "--num-workers", str(num_workers)]
        arguments = ["train", str(tones), *options, "--cache-dir", quick["cache_dir"], "--batch-size", "4"]
        process = subprocess.Popen(
            [sys.executable, "-m", "audioclf", *arguments, "--overwrite"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        history = tmp_path / "my run" / "history.jsonl"
        while process.poll() is None and not (history.exists() and history.stat().st_size):
            time.sleep(0.05)
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == status, err
        assert "Interrupted after step" in out
        assert "all is saved: resume=True goes on from there" in out
        assert err.endswith(f"Go on with: {shlex.join(['audioclf', *arguments])} --resume\n")  # without --overwrite
        assert "Traceback" not in err
        classifier = audioclf.load(tmp_path / "my run" / "last")
        assert len(classifier(str(tones / "test" / "low" / "low 0.wav"))) == 3


class TestTwoRuns:
    def test_a_folder_in_use_is_refused(self, tones, quick, tmp_path):
        from filelock import FileLock

        (tmp_path / "out").mkdir()
        with (
            FileLock(tmp_path / "out" / ".lock"),
            pytest.raises(ConfigError, match="is being written by another run: wait for it, or name another folder"),
        ):
            audioclf.train(tones, output_dir=tmp_path / "out", **quick)

    def test_it_is_free_again_after_a_run(self, trained):
        from filelock import FileLock

        with FileLock(trained.output_dir / ".lock", timeout=0):
            pass

    @pytest.mark.parametrize(
        "left", [[], [".history.jsonl.partial"], ["history.jsonl"], ["history.jsonl", "config.json"]]
    )
    def test_what_a_run_killed_at_its_very_beginning_leaves(self, tones, quick, tmp_path, left):
        for name in left:
            (tmp_path / name).write_text("")
        result = audioclf.train(tones, output_dir=tmp_path, resume=True, **{**quick, "num_epochs": 1})
        assert result.history[-1]["event"] == "end"
