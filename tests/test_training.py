"""`audioclf.train` from files to a checkpoint, and its loop."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TONES, tiny_config, write_tone
from faults.harness import everything
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import audioclf
from audioclf import AudioError, CheckpointError, ConfigError, DatasetError, TrainingError
from audioclf.audio import load
from audioclf.models.heads import MeanHead


def rows(result: audioclf.TrainResult, event: str) -> list[dict]:
    return [row for row in result.history if row["event"] == event]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


class TestARun:
    def test_it_learns(self, trained):
        assert trained.best_metrics["accuracy"] >= 0.9
        assert trained.test_metrics["accuracy"] >= 0.9
        names = {"accuracy", "uar", "macro_f1"}
        assert set(trained.best_metrics) == {"loss", "ece", *names, *(f"{name}_ci" for name in names)}

    def test_best_is_the_earliest_best_epoch(self, trained):
        accuracies = [row["accuracy"] for row in rows(trained, "epoch")]
        assert len(accuracies) == 5
        assert trained.best_epoch == 1 + accuracies.index(max(accuracies))
        assert trained.best_metrics["accuracy"] == max(accuracies)

    def test_history_file_is_the_history(self, trained):
        lines = (trained.output_dir / "history.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == trained.history
        assert [row["step"] for row in rows(trained, "step")] == list(range(1, 46))  # 36 clips in 9 batches, 5 epochs
        assert trained.history[-1]["event"] == "end"
        assert trained.history[-1]["test_metrics"] == trained.test_metrics

    def test_learning_rate_follows_transformers(self, trained):
        from transformers import get_linear_schedule_with_warmup

        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=5e-3)
        schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(0.1 * 45), 45)
        for row in rows(trained, "step"):
            assert row["learning_rate"] == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
            optimizer.step()
            schedule.step()

    def test_output_folder(self, trained):
        names = {path.name for path in trained.output_dir.iterdir()}
        files = {"history.jsonl", "config.json", "test_predictions.jsonl"}
        assert names == {"best", "last", "tensorboard", ".lock", *files}
        assert trained.checkpoint_dir == trained.output_dir / "best"
        files = {"config.json", "model.safetensors", "preprocessor_config.json", "audioclf.json", "checksums.sha256"}
        for folder, more in (("best", set()), ("last", {"training_state.pt"})):
            assert {path.name for path in (trained.output_dir / folder).iterdir()} == files | more
        config = json.loads((trained.output_dir / "config.json").read_text())
        assert config["num_epochs"] == 5
        assert config["learning_rate"] == 5e-3

    def test_metadata(self, trained, tones):
        metadata = json.loads((trained.checkpoint_dir / "audioclf.json").read_text())
        assert metadata["epoch"] == trained.best_epoch
        assert metadata["metrics"] == trained.best_metrics
        assert metadata["data"]["num_clips"] == {"train": 36, "valid": 12, "test": 12}
        assert metadata["data"]["fingerprint"] == audioclf.load_dataset(tones).fingerprint()
        assert metadata["data"]["set_aside"] == {}
        config = json.loads((trained.checkpoint_dir / "config.json").read_text())
        assert config["id2label"] == {"0": "high", "1": "low", "2": "mid"}
        assert config["label2id"] == {"high": 0, "low": 1, "mid": 2}
        assert config["architectures"] == ["HubertForSequenceClassification"]

    def test_tensorboard(self, trained):
        board = EventAccumulator(str(trained.output_dir / "tensorboard"), size_guidance={"images": 0})
        board.Reload()
        losses = [event.value for event in board.Scalars("train/loss")]
        assert losses == pytest.approx([row["loss"] for row in rows(trained, "step")])
        accuracies = [event.value for event in board.Scalars("valid/accuracy")]
        assert accuracies == pytest.approx([row["accuracy"] for row in rows(trained, "epoch")])
        scalars = {f"train/{name}" for name in ("loss", "learning_rate", "grad_norm", "clips_per_second")}
        assert scalars | {"valid/loss", "valid/uar", "valid/macro_f1"} <= set(board.Tags()["scalars"])
        images = board.Images("valid/confusion")
        assert [image.step for image in images] == [row["step"] for row in rows(trained, "epoch") if row["is_best"]]
        assert images[0].width > 100

    def test_terminal(self, tones, quick, tmp_path, capsys):
        audioclf.train(tones, output_dir=tmp_path / "out 1", **{**quick, "progress": True, "num_epochs": 1})
        told = capsys.readouterr()
        assert "3 classes, 36 train, 12 valid, 12 test clips. Training" in told.out
        assert "epoch 1: valid loss" in told.out
        assert "class      precision      recall          f1    clips" in told.out
        assert "95 % interval" in told.out
        assert f"Use it: audioclf predict '{tmp_path / 'out 1' / 'best'}' FILE" in told.out
        assert "clips/s" in told.err

    def test_silence(self, tones, quick, tmp_path, capfd):
        audioclf.train(tones, output_dir=tmp_path / "out", **{**quick, "num_epochs": 1})
        assert capfd.readouterr() == ("", "")


class TestTheLoop:
    def test_a_config_object_stays_as_it_is(self, tones, quick, tmp_path):
        model = tiny_config(hidden_dropout=0.1)
        before = model.to_dict(), model._attn_implementation
        audioclf.train(tones, output_dir=tmp_path / "out", **{**quick, "num_epochs": 1, "model": model})
        assert (model.to_dict(), model._attn_implementation) == before

    def test_accumulation_equals_one_big_batch(self, tones, quick, tmp_path):
        """36 clips as 5 batches of 8 (the last of 4) in windows of 3 and 2, against batches of 24 and 12."""
        epochs = 2
        options = {**quick, "num_epochs": epochs, "lr_schedule": "constant", "warmup_ratio": 0.0}
        small = audioclf.train(
            tones, output_dir=tmp_path / "small", batch_size=8, gradient_accumulation_steps=3, **_without_batch(options)
        )
        assert len(rows(small, "step")) == 2 * epochs
        big = _big_batch_reference(tones, options, epochs)
        for ours, theirs in zip(rows(small, "step"), big["steps"], strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
            assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], abs=1e-5)
        final = weights(small.output_dir / "last")
        for name, value in big["weights"].items():
            assert torch.allclose(final[name], value, atol=1e-5), name

    def test_batches_by_seconds(self, tones, quick, tmp_path):
        """The number of batches differs from epoch to epoch, and the schedule counts them all."""
        options = {**quick, "num_epochs": 3, "warmup_ratio": 0.0, "batch_size": 6, "max_batch_seconds": 1.5}
        result = audioclf.train(tones, output_dir=tmp_path / "out", **options)
        counts = np.diff([0, *(row["step"] for row in rows(result, "epoch"))])
        assert len(set(counts)) > 1
        steps = rows(result, "step")
        assert len(steps) == counts.sum()
        expected = [options["learning_rate"] * (1 - step / len(steps)) for step in range(len(steps))]
        assert [row["learning_rate"] for row in steps] == pytest.approx(expected)

    def test_a_clip_longer_than_a_batch(self, tones, quick, tmp_path):
        with pytest.raises(ConfigError, match=r"max_batch_seconds=0.4 is less than the 0\.\d s of .*\.wav: give more"):
            audioclf.train(tones, output_dir=tmp_path / "out", max_batch_seconds=0.4, **quick)

    def test_head_learning_rate_and_frozen_encoder(self, tones, quick, tmp_path):
        options = {**quick, "num_epochs": 1, "freeze": "backbone", "head_learning_rate": 0.1, "learning_rate": 1e-9}
        result = audioclf.train(tones, output_dir=tmp_path / "out", **options)
        before, after = _fresh(quick), weights(result.output_dir / "last")
        assert all(torch.equal(after[f"hubert.{name}"], value) for name, value in before.backbone.state_dict().items())
        assert not torch.allclose(after["classifier.weight"], before.head.classifier.weight, atol=1e-3)
        rates = [row["learning_rate"] for row in result.history if row["event"] == "step"]
        assert 0.05 < max(rates) <= 0.1  # of what is trained

    def test_frozen_feature_encoder(self, tones, quick, tmp_path):
        result = audioclf.train(
            tones, output_dir=tmp_path / "out", **{**quick, "num_epochs": 1, "freeze": "feature_encoder"}
        )
        before, after = _fresh(quick).backbone.state_dict(), weights(result.output_dir / "last")
        changed = {name for name, value in before.items() if not torch.equal(after[f"hubert.{name}"], value)}
        assert changed
        assert not any(name.startswith("feature_extractor.") for name in changed)

    def test_weight_decay_spares_biases_and_norms(self, quick):
        from audioclf.optimizer import build_optimizer

        config = audioclf.TrainConfig(**{**quick, "weight_decay": 0.1})
        optimizer = build_optimizer(_fresh(quick), config, torch.device("cpu"))
        for group in optimizer.param_groups:
            assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] == 0.1}

    def test_patience(self, tones, quick, tmp_path):
        options = {**quick, "learning_rate": 1e-12, "patience": 2, "batch_size": 12}
        result = audioclf.train(tones, output_dir=tmp_path / "out", **options)
        assert len(rows(result, "epoch")) == 3
        assert result.best_epoch == 1

    def test_metric_for_best_loss(self, tones, quick, tmp_path):
        result = audioclf.train(
            tones, output_dir=tmp_path / "out", **{**quick, "num_epochs": 3, "metric_for_best": "loss"}
        )
        losses = [row["loss"] for row in rows(result, "epoch")]
        assert result.best_metrics["loss"] == min(losses)

    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_half_precision_learns(self, tones, quick, tmp_path, precision):
        options = {**quick, "precision": precision, "num_epochs": 3}
        result = audioclf.train(tones, output_dir=tmp_path / "out", **options)
        assert result.best_metrics["loss"] < 1.0 < math.log(3)
        assert {value.dtype for value in weights(result.checkpoint_dir).values()} == {torch.float32}

    def test_from_an_own_head_to_another(self, tones, quick, tmp_path):
        options = {**quick, "num_epochs": 1}
        first = audioclf.train(tones, output_dir=tmp_path / "own", **{**options, "head": OwnHead})
        second = audioclf.train(
            tones, output_dir=tmp_path / "mean", **{**options, "model": first.checkpoint_dir, "learning_rate": 1e-12}
        )
        before, after = weights(first.checkpoint_dir), weights(second.checkpoint_dir)
        name = "encoder.layers.0.attention.q_proj.weight"
        assert torch.allclose(after[f"hubert.{name}"], before[f"backbone.{name}"], atol=1e-6)

    def test_spec_augment_on_clips_shorter_than_its_mask(self, quick, tmp_path):
        rng = np.random.default_rng(1)
        for label, frequency in TONES.items():
            for number in range(6):
                write_tone(tmp_path / "data" / label / f"{number}.wav", frequency, 0.1, rng)
        model = tiny_config(apply_spec_augment=True)
        result = audioclf.train(
            tmp_path / "data", output_dir=tmp_path / "out", **{**quick, "num_epochs": 1, "model": model}
        )
        assert math.isfinite(result.best_metrics["loss"])

    def test_own_head_and_loss(self, tones, quick, tmp_path):
        def smoothed(config):
            return torch.nn.CrossEntropyLoss(reduction="none", label_smoothing=0.1)

        options = {**quick, "num_epochs": 2, "head": OwnHead, "loss": smoothed}
        result = audioclf.train(tones, output_dir=tmp_path / "out", **options)
        clip = str(tones / "test" / "low" / "low 0.wav")
        with pytest.raises(audioclf.CheckpointError, match=r"has a head of its author's own \(test_training.OwnHead\)"):
            audioclf.load(result.checkpoint_dir)
        scores = audioclf.load(result.checkpoint_dir, head=OwnHead)(clip)
        assert sum(entry["score"] for entry in scores) == pytest.approx(1)
        assert result.test_metrics["accuracy"] > 0

    def test_balanced_sampling(self, tones, quick, tmp_path, monkeypatch):
        """As many clips as ever, a third of each class; one that comes again is cropped in another way."""
        splits, drawn = _unbalanced(tones), []
        original = audioclf.clips.Clips.__getitem__

        def noting(clips, key):
            item = original(clips, key)
            if clips.augmentation is not None:
                drawn.append((int(item["label"]), key[0], item["waveform"].tobytes()))
            return item

        monkeypatch.setattr(audioclf.clips.Clips, "__getitem__", noting)
        options = {**quick, "num_epochs": 1, "balanced_sampling": True, "random_crop": True, "max_seconds": 0.2}
        audioclf.train(splits, output_dir=tmp_path / "out", **options)
        assert len(drawn) == len(splits.train)
        counts = np.bincount([label for label, _, _ in drawn])
        assert counts.max() - counts.min() <= 1
        assert len({index for _, index, _ in drawn}) < len(drawn) == len({sound for _, _, sound in drawn})

    def test_random_crops(self, tones, quick, tmp_path):
        """Crops differ from epoch to epoch and so does the loss at learning rate 0; without them it does not."""
        options = {**quick, "num_epochs": 2, "max_seconds": 0.2, "learning_rate": 1e-12, "batch_size": 36}
        cut = audioclf.train(tones, output_dir=tmp_path / "cut", **options)
        cropped = audioclf.train(tones, output_dir=tmp_path / "crop", **{**options, "random_crop": True})
        first, second = (row["loss"] for row in rows(cut, "step"))
        assert first == pytest.approx(second, abs=1e-6)
        first, second = (row["loss"] for row in rows(cropped, "step"))
        assert abs(first - second) > 1e-6


class TestClassWeights:
    def test_balanced_is_that_of_scikit_learn(self, tones, quick, tmp_path):
        from sklearn.utils.class_weight import compute_class_weight

        splits = _unbalanced(tones)
        truth = [clip.label for clip in splits.train]
        weights = dict(
            zip(splits.labels, compute_class_weight("balanced", classes=np.array(splits.labels), y=truth), strict=True)
        )
        options = {**quick, "num_epochs": 1, "batch_size": 7}
        balanced = audioclf.train(splits, output_dir=tmp_path / "balanced", class_weights="balanced", **options)
        given = audioclf.train(splits, output_dir=tmp_path / "given", class_weights=weights, **options)
        plain = audioclf.train(splits, output_dir=tmp_path / "plain", **options)
        losses = [[row["loss"] for row in rows(run, "step")] for run in (balanced, given, plain)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-6)
        assert losses[0] != pytest.approx(losses[2], abs=1e-4)
        assert json.loads((given.output_dir / "config.json").read_text())["class_weights"] == pytest.approx(weights)

    def test_the_loss_is_the_weighted_mean(self, tones, quick, tmp_path):
        """At learning rate 0 and with all clips in one batch the loss is torch's own weighted mean."""
        splits = _unbalanced(tones)
        weights = {"high": 0.5, "low": 2.0, "mid": 7.0}
        options = {**quick, "num_epochs": 1, "batch_size": len(splits.train), "model": tiny_config()}
        run = audioclf.train(splits, output_dir=tmp_path / "out", class_weights=weights, **options)
        model = _fresh(quick)
        logits = []
        for clip in splits.train:
            waveform = torch.from_numpy(load(clip.audio, 16_000))
            logits.append(model(((waveform - waveform.mean()) / waveform.std(unbiased=False))[None]))
        labels = torch.tensor([splits.label2id[clip.label] for clip in splits.train])
        loss = torch.nn.functional.cross_entropy(torch.cat(logits), labels, weight=torch.tensor([0.5, 2.0, 7.0]))
        assert rows(run, "step")[0]["loss"] == pytest.approx(loss.item(), abs=1e-5)

    @pytest.mark.parametrize(
        ("weights", "sentence"),
        [
            (
                {"high": 1.0, "hgih": 2.0, "low": 1.0},
                r"class_weights has 'hgih', which is no label.*did you mean 'high'",
            ),
            ({"high": 1.0}, r"class_weights lacks 'low', 'mid': give a weight for every label"),
            ({"high": 0.0, "low": 1.0, "mid": 1.0}, r"class_weights\['high'\]=0.0 must be a number above 0"),
            ("balance", r"class_weights='balance' is not one of balanced; did you mean 'balanced'"),
        ],
    )
    def test_refusals(self, tones, quick, tmp_path, weights, sentence):
        with pytest.raises(ConfigError, match=sentence):
            audioclf.train(tones, output_dir=tmp_path / "out", class_weights=weights, **quick)


class TestNumbers:
    def test_a_loss_that_is_not_finite_names_its_clips(self, tones, quick, tmp_path):
        def broken(config):
            return lambda logits, labels: torch.where(labels == 1, math.nan, 1.0) * logits.sum(-1)

        with pytest.raises(TrainingError, match=r"The loss is not a finite number \(epoch 1, after step 0\).*low \d"):
            audioclf.train(tones, output_dir=tmp_path / "out", **{**quick, "loss": broken})

    def test_fp16_overflow_is_skipped_and_stops_in_the_end(self, tones, quick, tmp_path):
        def broken(config):
            return lambda logits, labels: logits.sum(-1) * math.inf

        with pytest.raises(TrainingError, match="20 steps in a row"):
            audioclf.train(
                tones, output_dir=tmp_path / "out", **{**quick, "loss": broken, "precision": "fp16", "batch_size": 1}
            )

    def test_a_skipped_step_does_not_advance_the_schedule(self, tones, quick, tmp_path):
        calls = []

        def sometimes(config):
            def loss(logits, labels):
                calls.append(logits.requires_grad)
                broken = calls.count(True) in (2, 3) and logits.requires_grad
                return torch.nn.functional.cross_entropy(logits, labels, reduction="none") * (math.inf if broken else 1)

            return loss

        options = {**quick, "num_epochs": 1, "loss": sometimes, "precision": "fp16"}
        result = audioclf.train(tones, output_dir=tmp_path / "out", **options)
        assert [row["step"] for row in rows(result, "step")] == list(range(1, 8))  # 9 batches, 2 skipped
        assert rows(result, "epoch")[0]["skipped_steps"] == 2
        assert [row["learning_rate"] for row in rows(result, "step")][:2] == pytest.approx([0, 5e-3])

    def test_loss_without_one_value_a_clip(self, tones, quick, tmp_path):
        with pytest.raises(ConfigError, match=r"gave \(\) for 4 clips.*reduction='none'"):
            audioclf.train(
                tones, output_dir=tmp_path / "out", **{**quick, "loss": lambda c: torch.nn.CrossEntropyLoss()}
            )


class TestData:
    def test_valid_is_cut_from_flat_folders(self, quick, tmp_path):
        rng = np.random.default_rng(1)
        for label, frequency in TONES.items():
            for number in range(10):
                write_tone(tmp_path / "data" / label / f"{number}.wav", frequency, 0.3, rng)
        options = {**quick, "num_epochs": 1, "valid_fraction": 0.2}
        result = audioclf.train(tmp_path / "data", output_dir=tmp_path / "out", **options)
        metadata = json.loads((result.checkpoint_dir / "audioclf.json").read_text())
        assert metadata["data"]["num_clips"] == {"train": 24, "valid": 6}
        assert result.test_metrics is None

    def test_valid_of_its_own(self, tones, quick, tmp_path):
        valid = tones / "test"
        with pytest.raises(ConfigError, match=r"has a valid part of its own \(12 clips\), and valid= gives another"):
            audioclf.train(tones, valid, output_dir=tmp_path / "out", **quick)
        with pytest.raises(DatasetError, match="leave it in one of them"):
            audioclf.train(valid, valid, output_dir=tmp_path / "out", **quick)
        result = audioclf.train(tones / "train", valid, output_dir=tmp_path / "out", **{**quick, "num_epochs": 1})
        metadata = json.loads((result.checkpoint_dir / "audioclf.json").read_text())
        assert metadata["data"]["num_clips"] == {"train": 36, "valid": 12}

    def test_valid_of_its_own_with_parts(self, tones, quick, tmp_path):
        """Only the valid part of what is given as valid= validates; a test part never does."""
        other = audioclf.load_dataset(tones)
        options = {**quick, "num_epochs": 1, "output_dir": tmp_path / "out"}
        train_only = replace(other, valid=(), test=())
        result = audioclf.train(train_only, replace(other, train=()), **options)
        metadata = json.loads((result.checkpoint_dir / "audioclf.json").read_text())
        assert metadata["data"]["num_clips"] == {"train": 36, "valid": 12}
        with pytest.raises(DatasetError, match="has train and test parts but no valid part; give one part"):
            audioclf.train(train_only, replace(other, valid=()), **{**options, "overwrite": True})

    def test_datasets_object(self, tones, quick, tmp_path):
        import datasets

        clips = audioclf.load_dataset(tones)
        parts = {
            name: datasets.Dataset.from_dict(
                {"audio": [clip.audio for clip in part], "label": [clips.label2id[clip.label] for clip in part]}
            )
            .cast_column("audio", datasets.Audio())
            .cast_column("label", datasets.ClassLabel(names=list(clips.labels)))
            for name, part in clips.parts.items()
        }
        options = {**quick, "num_epochs": 1}
        ours = audioclf.train(tones, output_dir=tmp_path / "files", **options)
        theirs = audioclf.train(datasets.DatasetDict(parts), output_dir=tmp_path / "object", num_workers=2, **options)
        assert theirs.best_metrics == ours.best_metrics

    def test_no_train_part(self, tones, quick, tmp_path):
        splits = replace(audioclf.load_dataset(tones), train=())
        with pytest.raises(DatasetError, match="has no train part, only valid and test"):
            audioclf.train(splits, output_dir=tmp_path / "out", **quick)

    def test_class_absent_from_train(self, tones, quick, tmp_path):
        splits = audioclf.load_dataset(tones)
        splits = replace(splits, train=[clip for clip in splits.train if clip.label != "low"])
        with pytest.raises(DatasetError, match="train has no readable clip of 'low'"):
            audioclf.train(splits, output_dir=tmp_path / "out", **quick)

    def test_bad_clip_is_named_and_set_aside(self, quick, tmp_path):
        rng = np.random.default_rng(1)
        for label, frequency in TONES.items():
            for number in range(10):
                write_tone(tmp_path / "data" / label / f"{number}.wav", frequency, 0.3, rng)
        (tmp_path / "data" / "low" / "3.wav").write_bytes(b"no audio at all")
        options = {**quick, "num_epochs": 1}
        with pytest.raises(AudioError, match=r"1 of 30 clips \(3.3%\) cannot be used.*bad_audio='skip'(.|\n)*3\.wav"):
            audioclf.train(tmp_path / "data", output_dir=tmp_path / "out", **options)
        result = audioclf.train(tmp_path / "data", output_dir=tmp_path / "out", bad_audio="skip", **options)
        metadata = json.loads((result.checkpoint_dir / "audioclf.json").read_text())
        assert [Path(name).name for name in metadata["data"]["set_aside"]] == ["3.wav"]

    def test_clips_shorter_than_a_frame(self, quick, tmp_path):
        rng = np.random.default_rng(1)
        for label, frequency in TONES.items():
            for number in range(6):
                write_tone(tmp_path / "data" / label / f"{number}.wav", frequency, 0.02, rng)
        result = audioclf.train(tmp_path / "data", output_dir=tmp_path / "out", **{**quick, "num_epochs": 1})
        assert math.isfinite(result.best_metrics["loss"])


class TestOutputFolder:
    def test_used_folder_is_refused_and_overwritten_on_request(self, tones, quick, tmp_path):
        folder = tmp_path / "out"
        folder.mkdir()
        (folder / "thesis.txt").write_text("do not delete")
        (folder / "history.jsonl").write_text("old")
        options = {**quick, "num_epochs": 1, "output_dir": str(folder)}
        with pytest.raises(ConfigError, match=r"is not empty: name another folder, set resume=True"):
            audioclf.train(tones, **options)
        with pytest.raises(CheckpointError, match="no such folder"):
            audioclf.train(tones, overwrite=True, **{**options, "model": "./mistyped"})
        assert (folder / "history.jsonl").read_text() == "old"  # kept until the new run can begin
        for refused, sentence in (
            ({"class_weights": {"hgih": 1.0}}, "'hgih', which is no label"),
            ({"loss": lambda config: None}, "The loss builder gave NoneType"),
            ({"frontend": "fast", "model": tiny_config(feat_extract_activation="relu")}, "frontend='fast' cannot"),
            ({"max_batch_seconds": 0.1}, "max_batch_seconds=0.1 is less than"),
        ):
            with pytest.raises(ConfigError, match=sentence):
                audioclf.train(tones, overwrite=True, **{**options, **refused})
            assert (folder / "history.jsonl").read_text() == "old"
        result = audioclf.train(tones, overwrite=True, **options)
        assert (folder / "thesis.txt").read_text() == "do not delete"
        assert result.history[0]["event"] == "step"
        assert "old" not in (folder / "history.jsonl").read_text()

    def test_what_is_no_run_is_never_overwritten(self, tones, quick, tmp_path):
        (tmp_path / "config.json").write_text("an encoder's")
        with pytest.raises(ConfigError, match="holds no earlier run, but something else"):
            audioclf.train(tones, output_dir=tmp_path, overwrite=True, **quick)
        assert (tmp_path / "config.json").read_text() == "an encoder's"

    def test_a_run_can_go_on_from_the_checkpoint_it_replaces(self, tones, quick, tmp_path):
        options = {**quick, "num_epochs": 1, "output_dir": tmp_path / "out"}
        first = audioclf.train(tones, **options)
        again = audioclf.train(tones, **{**options, "model": first.checkpoint_dir, "overwrite": True})
        assert again.history[0]["loss"] != first.history[0]["loss"]

    def test_file_in_the_way(self, tones, quick, tmp_path):
        (tmp_path / "out").write_text("")
        with pytest.raises(ConfigError, match="cannot be used"):
            audioclf.train(tones, output_dir=tmp_path / "out", **quick)

    def test_a_device_that_is_not_here_is_told_before_anything_is_done(self, tones, quick, tmp_path):
        absent = "cuda" if not torch.cuda.is_available() else "mps"
        with pytest.raises(ConfigError, match=f"device='{absent}' is not available on this machine; use device='auto'"):
            audioclf.train(tones, output_dir=tmp_path / "out", **{**quick, "device": absent})
        assert not (tmp_path / "out").exists()

    def test_unknown_option(self, tones):
        with pytest.raises(ConfigError, match=r"no option 'epochs'; did you mean 'num_epochs'\?"):
            audioclf.train(tones, epochs=3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["auto", "bf16", "fp32"])
def test_cuda(tones, quick, tmp_path, precision):
    options = {**quick, "device": "cuda", "precision": precision}
    result = audioclf.train(tones, output_dir=tmp_path / "out", **options)
    assert result.best_metrics["accuracy"] >= 0.75


class OwnHead(MeanHead):
    """A head of the user's own: it only has to be a module that a callable builds from the config."""


def _unbalanced(tones: Path) -> audioclf.AudioSplits:
    """12 clips of high, 6 of low, 3 of mid to train on."""
    splits = audioclf.load_dataset(tones)
    parts = {label: [clip for clip in splits.train if clip.label == label] for label in splits.labels}
    return replace(splits, train=(*parts["high"], *parts["low"][:6], *parts["mid"][:3]))


def _without_batch(options: dict) -> dict:
    return {name: value for name, value in options.items() if name != "batch_size"}


def _fresh(quick: dict):
    """The model as a run with these options begins."""
    from audioclf.models.classifier import build_classifier
    from audioclf.runtime import seed_everything

    seed_everything(quick["seed"])
    return build_classifier(tiny_config(), "mean", sorted(TONES))


def _big_batch_reference(tones: Path, options: dict, epochs: int) -> dict:
    """The same clips in the same order, each step one padless loop over single clips, by plain torch."""
    from audioclf.sampling import LengthBucketSampler

    splits = audioclf.load_dataset(tones)
    clips = list(splits.train)
    waveforms = [load(clip.audio, 16_000) for clip in clips]
    model = _fresh(options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options["learning_rate"], weight_decay=0.0)
    sampler = LengthBucketSampler([len(waveform) for waveform in waveforms], 8, seed=options["seed"])
    steps = []
    for epoch in range(1, epochs + 1):
        sampler.set_epoch(epoch)
        batches = [[index for index, _ in batch] for batch in sampler]
        for window in (batches[:3], batches[3:]):
            members = [index for batch in window for index in batch]
            losses = []
            for index in members:
                waveform = torch.from_numpy(waveforms[index])
                waveform = (waveform - waveform.mean()) / (waveform.var(unbiased=False) + 1e-7).sqrt()
                label = torch.tensor([splits.label2id[clips[index].label]])
                losses.append(torch.nn.functional.cross_entropy(model(waveform[None]), label))
            loss = torch.stack(losses).mean()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            steps.append({"loss": loss.item(), "grad_norm": norm.item()})
    prefix = {"backbone.": "hubert.", "head.": ""}
    state = {}
    for name, value in model.state_dict().items():
        for ours, theirs in prefix.items():
            if name.startswith(ours):
                state[theirs + name.removeprefix(ours)] = value
    return {"steps": steps, "weights": state}


def test_a_limited_cache_changes_nothing(tones, quick, tmp_path, capsys):
    """Clips beyond the limit are decoded again and again, in worker processes too, to the same bits."""
    hard = {"random_crop": True, "max_seconds": 0.4, "augment": "noise", "num_epochs": 2, "progress": True}
    found = []
    for name, limit in (("all", {}), ("some", {"max_cache_gb": 5e-4}), ("none", {"max_cache_gb": 0, "num_workers": 2})):
        options = {**quick, **hard, **limit, "cache_dir": str(tmp_path / f"cache {name}")}
        audioclf.train(tones, output_dir=tmp_path / name, **options)
        size = sum(path.stat().st_size for path in (tmp_path / f"cache {name}" / "waveforms").glob("*/values.bin"))
        found.append((size, everything(tmp_path / name)))
    assert found[0][0] > 5e5 >= found[1][0] > 4e5 > found[2][0] == 0
    assert found[0][1] == found[1][1] == found[2][1]
    assert "of 60 clips go beyond max_cache_gb and are decoded whenever they are wanted" in capsys.readouterr().out
