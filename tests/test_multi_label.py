"""Clips with any number of labels: from a table to a run, its checkpoint and transformers' pipeline."""

import csv
import json
from collections import Counter

import datasets
import numpy as np
import pytest
import soundfile
import torch
import transformers
from conftest import TONES, tiny_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import audioclf
from audioclf import AudioSource, CheckpointError, ConfigError, DatasetError, Example, load_dataset, make_splits
from audioclf.cli import main
from audioclf.datasets.split import cut_valid
from audioclf.models.losses import BinaryCrossEntropy, build_loss

LABELS = ("high", "low", "mid")
RATE = 16_000
METRICS = ("map", "map_micro", "lwlrap", "macro_f1", "micro_f1", "auroc")


@pytest.fixture(scope="module")
def chords(tmp_path_factory):
    """A table of clips in which each of three tones sounds or not: 40 train, 16 valid, 16 test."""
    root = tmp_path_factory.mktemp("chords")
    rng = np.random.default_rng(0)
    time = np.arange(RATE // 2) / RATE
    rows = [("path", "labels", "split")]
    for split, count in (("train", 40), ("valid", 16), ("test", 16)):
        for number in range(count):
            there = [label for bit, label in enumerate(LABELS) if number >> bit & 1]
            sound = 0.02 * rng.standard_normal(len(time))
            for label in there:
                sound += 0.3 * np.sin(2 * np.pi * TONES[label] * rng.uniform(0.9, 1.1) * time + rng.uniform(0, 6.28))
            soundfile.write(root / f"{split} {number}.wav", sound / 2, RATE)
            rows.append((f"{split} {number}.wav", ", ".join(there), split))
    with open(root / "clips.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root / "clips.csv"


@pytest.fixture(scope="module")
def options(quick):
    return {**quick, "num_epochs": 12, "batch_size": 8}


@pytest.fixture(scope="module")
def run(chords, options, tmp_path_factory):
    return audioclf.train(chords, output_dir=tmp_path_factory.mktemp("run") / "out", **options)


class TestARun:
    def test_learns(self, run):
        """Chance is about 0.5: each tone is in half of the clips."""
        assert set(run.best_metrics) == {"loss", "ece", *METRICS, *(f"{name}_ci" for name in METRICS)}
        for metrics in (run.best_metrics, run.test_metrics):
            assert metrics["map"] > 0.85
            low, high = metrics["map_ci"]
            assert low <= metrics["map"] <= high

    def test_map_chooses(self, run):
        rows = [row for row in run.history if row["event"] == "epoch"]
        assert run.best_metrics["map"] == max(row["map"] for row in rows)

    def test_checkpoint_says_what_it_is(self, run):
        config = json.loads((run.checkpoint_dir / "config.json").read_text())
        assert config["problem_type"] == "multi_label_classification"
        thresholds = json.loads((run.checkpoint_dir / "audioclf.json").read_text())["thresholds"]
        assert len(thresholds) == 3
        assert all(0 < threshold < 1 for threshold in thresholds)

    def test_board(self, run):
        board = EventAccumulator(str(run.output_dir / "tensorboard"), size_guidance={"images": 0}).Reload()
        values = [event.value for event in board.Scalars("valid/map")]
        assert values == pytest.approx([row["map"] for row in run.history if row["event"] == "epoch"])
        assert board.Images("valid/average_precision")[0].width > 100

    def test_classifier_tells_what_it_detects(self, run, chords):
        classifier = audioclf.load(run.checkpoint_dir)
        num_right = 0
        for number in range(16):
            entries = classifier(chords.parent / f"test {number}.wav")
            for entry in entries:
                bit = LABELS.index(entry["label"])
                assert entry["detected"] == (entry["score"] >= classifier.thresholds[bit])
                num_right += entry["detected"] == bool(number >> bit & 1)
        assert num_right >= 40  # of 48; by chance 24
        both = classifier.probabilities([chords.parent / "test 7.wav"])[0]
        assert both.sum() > 1.2  # they need not add up to 1

    @pytest.mark.parametrize("head", ["mean", "attention"])
    def test_pipeline_gives_our_scores(self, head, run, chords, options, tmp_path):
        checkpoint = run.checkpoint_dir
        if head == "attention":
            few = {**options, "num_epochs": 2, "head": "attention"}
            checkpoint = audioclf.train(chords, output_dir=tmp_path / "out", **few).checkpoint_dir
        audioclf.register()
        pipe = transformers.pipeline("audio-classification", model=str(checkpoint))
        sounds = [soundfile.read(path, dtype="float32")[0] for path in sorted(chords.parent.glob("test *.wav"))]
        ours = audioclf.load(checkpoint)([{"array": sound, "sampling_rate": RATE} for sound in sounds], top_k=None)
        for theirs, entries in zip(pipe(sounds, top_k=3), ours, strict=True):
            scores = {entry["label"]: entry["score"] for entry in entries}
            assert {entry["label"]: entry["score"] for entry in theirs} == pytest.approx(scores, abs=1e-5)

    def test_evaluate_is_the_runs_own_test(self, run, chords, options):
        metrics = audioclf.evaluate(run.checkpoint_dir, chords, "test", cache_dir=options["cache_dir"])
        assert metrics["map"] == run.test_metrics["map"]
        assert metrics["macro_f1"] == run.test_metrics["macro_f1"]  # at the thresholds of validation

    def test_goes_on(self, chords, options, tmp_path):
        few = {**options, "num_epochs": 2, "output_dir": tmp_path / "out"}
        first = audioclf.train(chords, **few)
        more = audioclf.train(chords, **{**few, "num_epochs": 3, "resume": True})
        assert [row for row in more.history if row["event"] == "epoch"][:2] == [
            row for row in first.history if row["event"] == "epoch"
        ]
        assert more.best_metrics["map"] >= first.best_metrics["map"]

    def test_command_line(self, run, chords, capsys):
        file = str(chords.parent / "test 1.wav")  # the high tone
        assert main(["predict", str(run.checkpoint_dir), file, "--json"]) == 0
        scores = json.loads(capsys.readouterr().out)["scores"]
        assert (scores[0]["label"], scores[0]["detected"]) == ("high", True)
        assert main(["predict", str(run.checkpoint_dir), file]) == 0
        marked = [f"{entry['label']} {entry['score']:.3f}{'*' if entry['detected'] else ''}" for entry in scores]
        assert capsys.readouterr().out.removeprefix(file).split() == " ".join(marked).split()

    def test_table(self, chords, options, tmp_path, capsys):
        shown = {**options, "num_epochs": 1, "progress": True}
        audioclf.train(chords, output_dir=tmp_path / "out", **shown)
        told = capsys.readouterr().out
        assert "avg. prec.   threshold" in told
        assert "mean average precision" in told
        assert "confusion" not in told


class TestLoss:
    def test_equals_torchs(self):
        torch.manual_seed(0)
        logits, labels = torch.randn(5, 4), (torch.rand(5, 4) < 0.5).float()
        for weights in (None, torch.tensor([0.5, 1.0, 2.0, 7.0])):
            losses = BinaryCrossEntropy(weights)(logits, labels)
            assert losses.shape == (5,)
            wanted = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights)
            assert losses.mean().item() == pytest.approx(wanted.item(), rel=1e-6)

    def test_micro_batches_make_one_update(self, chords, options, tmp_path):
        """Four clips at once, and two by two: the same weights, class weights included."""
        states = []
        for size, steps in ((4, 1), (2, 2)):
            few = {"num_epochs": 1, "batch_size": size, "gradient_accumulation_steps": steps, "learning_rate": 1e-3}
            splits = load_dataset(chords)
            few |= {"class_weights": {"high": 1.0, "low": 3.0, "mid": 0.5}, "eval_batch_size": 8}
            same_length = make_splits(splits.train[4:8] + splits.valid, name="four", labels=LABELS)
            result = audioclf.train(same_length, output_dir=tmp_path / str(size), **{**options, **few})
            states.append(transformers.AutoModelForAudioClassification.from_pretrained(result.checkpoint_dir))
        for one, two in zip(*(state.parameters() for state in states), strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=1e-5)

    def test_balanced(self, chords, options, tmp_path):
        """Weights of the clips with a class: those without it / those with it, here 30 to 10."""
        splits = load_dataset(chords)
        chosen = [clip for clip in splits.train if "high" not in clip.labels][:20] + [
            clip for clip in splits.train if "high" in clip.labels
        ][:10]
        logged = []
        for weights in ("balanced", {label: _ratio(chosen, label) for label in LABELS}):
            made = make_splits(chosen + list(splits.valid), name="few", labels=LABELS)
            few = {**options, "num_epochs": 1, "class_weights": weights}
            result = audioclf.train(made, output_dir=tmp_path / str(len(logged)), **few)
            logged.append([row["loss"] for row in result.history if row["event"] == "step"])
        assert logged[0] == pytest.approx(logged[1], rel=1e-6)

    def test_transformers_loss_is_the_same(self):
        audioclf.register()
        config = audioclf.models.hf.AudioclfConfig(
            encoder=tiny_config().to_dict(), head="attention", num_labels=3, problem_type="multi_label_classification"
        )
        model = transformers.AutoModelForAudioClassification.from_config(config).eval()
        values, labels = torch.randn(2, 4000), torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
        outputs = model(values, labels=labels)
        loss = build_loss("auto", config)(outputs.logits, labels).mean()
        assert outputs.loss.item() == pytest.approx(loss.item(), rel=1e-6)


def _ratio(clips, label):
    there = sum(label in clip.labels for clip in clips)
    return (len(clips) - there) / there


class TestReading:
    @pytest.mark.parametrize(
        ("name", "text", "given"),
        [
            ("a.csv", 'path,labels\n1.wav,"dog, cat"\n2.wav,\n3.wav,cat\n', {}),
            ("a.csv", 'path,kind\n1.wav,"dog,cat"\n2.wav,\n3.wav,cat\n', {"label_column": "kind", "multi_label": True}),
            ("a.csv", "path;tags\n1.wav;dog,cat\n2.wav;\n3.wav;cat,cat,\n", {}),
            (
                "a.jsonl",
                '{"path": "1.wav", "label": ["dog", "cat"]}\n{"path": "2.wav", "label": []}\n'
                '{"path": "3.wav", "label": ["cat"]}\n',
                {},
            ),
        ],
    )
    def test_tables(self, tmp_path, name, text, given):
        (tmp_path / name).write_text(text)
        splits = load_dataset(tmp_path / name, **given)
        assert [clip.label for clip in splits.train] == [("dog", "cat"), (), ("cat",)]
        assert splits.multi_label
        assert splits.labels == ("cat", "dog")

    def test_a_comma_in_one_label_stays(self, tmp_path):
        (tmp_path / "a.csv").write_text('path,label\n1.wav,"Speech, male"\n2.wav,dog\n')
        splits = load_dataset(tmp_path / "a.csv")
        assert splits.labels == ("Speech, male", "dog")
        assert not splits.multi_label

    def test_lists_of_a_datasets_object(self):
        names = datasets.List(datasets.ClassLabel(names=["dog", "cat", "cow"]))
        audio = [{"bytes": b"", "path": None}] * 3
        data = datasets.Dataset.from_dict({"audio": audio, "label": [[0, 2], [], [1]]})
        data = data.cast_column("audio", datasets.Audio()).cast_column("label", names)
        splits = load_dataset(data)
        assert [clip.label for clip in splits.train] == [("dog", "cow"), (), ("cat",)]
        assert splits.labels == ("dog", "cat", "cow")
        with pytest.raises(DatasetError, match=r"has no single label \(\[0, 2\]\); for several .* multi_label=True"):
            load_dataset(data, multi_label=False)

    def test_valid_has_its_share_of_every_label(self):
        rng = np.random.default_rng(0)
        shares = {"a": 0.5, "b": 0.3, "c": 0.1, "d": 0.05}
        clips = [
            Example(f"{n}.wav", tuple(label for label, share in shares.items() if rng.random() < share))
            for n in range(400)
        ]
        splits = cut_valid(make_splits(clips, name="x", labels=["a", "b", "c", "d"]), 0.2, seed=0)
        counts = [Counter(label for clip in part for label in clip.labels or ("",)) for part in (clips, splits.valid)]
        for label, total in counts[0].items():
            assert abs(counts[1][label] - 0.2 * total) <= max(2, 0.05 * total), label
        assert 70 <= len(splits.valid) <= 90


class TestRefused:
    def test_a_mixture(self):
        clips = [Example("1.wav", "dog"), Example("2.wav", ("dog", "cat"))]
        with pytest.raises(DatasetError, match="some clips have one label and some a tuple"):
            make_splits(clips, name="x")

    def test_no_labels_at_all(self):
        with pytest.raises(DatasetError, match="x: has no labels; a classifier needs two or more"):
            make_splits([Example("1.wav", ()), Example("2.wav", ())], name="x")

    def test_measurements(self):
        clips = [Example(f"{n}.wav", str(n / 3)) for n in range(9)]
        with pytest.raises(DatasetError, match=r"its labels are measurements \(0\.3333.*regression"):
            make_splits(clips, name="x")
        assert make_splits(clips, name="x", labels=[clip.label for clip in clips]).labels[1] == str(1 / 3)
        assert make_splits([Example(f"{n}.wav", str(n)) for n in range(9)], name="x").labels == tuple("012345678")

    def test_a_checkpoint_of_regression(self, tmp_path):
        config = tiny_config(num_labels=1, problem_type="regression")
        model = transformers.AutoModelForAudioClassification.from_config(config)
        model.save_pretrained(tmp_path)
        with pytest.raises(CheckpointError, match="predicts a number"):
            audioclf.load(tmp_path)

    def test_metric_of_the_other_task(self, chords, tones, options, tmp_path):
        with pytest.raises(ConfigError, match="'accuracy' is no metric of multi-label data: choose one of map, "):
            audioclf.train(chords, output_dir=tmp_path / "a", metric_for_best="accuracy", **options)
        with pytest.raises(ConfigError, match="'eer' is no metric of data of one label a clip and 3 classes"):
            audioclf.train(tones, output_dir=tmp_path / "b", metric_for_best="eer", **options)

    def test_balanced_sampling_is_for_one_label_a_clip(self, chords, options, tmp_path):
        with pytest.raises(ConfigError, match=r"^balanced_sampling "):
            audioclf.train(chords, output_dir=tmp_path / "out", balanced_sampling=True, **options)

    def test_min_score(self, run, chords):
        with pytest.raises(ConfigError, match="this multi-label checkpoint has thresholds"):
            audioclf.load(run.checkpoint_dir)(chords.parent / "test 1.wav", min_score=0.5)

    def test_class_weights_beside_a_loss_of_ones_own(self, chords, options, tmp_path):
        own = {"loss": lambda config: BinaryCrossEntropy(), "class_weights": "balanced"}
        with pytest.raises(ConfigError, match="weigh the classes in there"):
            audioclf.train(chords, output_dir=tmp_path / "out", **options, **own)

    def test_data_of_the_other_task(self, run, trained, chords, tones, options):
        cache = {"cache_dir": options["cache_dir"]}
        with pytest.raises(DatasetError, match="have one label, but the checkpoint was trained to give any number"):
            audioclf.evaluate(run.checkpoint_dir, tones, **cache)
        with pytest.raises(DatasetError, match=r"have any number of labels, but .* one label; multi_label=False may"):
            audioclf.evaluate(trained.checkpoint_dir, chords, **cache)


def test_a_given_valid_part_keeps_metric_and_notes(tones, options, tmp_path, capsys):
    """What a corpus says of itself holds beside valid= too."""
    whole = load_dataset(tones)
    train = make_splits(whole.train, name="x", labels=whole.labels, notes=["A clip is missing."], metric="uar")
    valid = make_splits(whole.valid, name="y", labels=whole.labels)
    few = {**options, "num_epochs": 1, "progress": True}
    audioclf.train(train, valid, output_dir=tmp_path / "out", **few)
    told = capsys.readouterr().out
    assert "note: A clip is missing." in told
    assert "accuracy" in told
    assert "unweighted average recall" in next(line for line in told.splitlines() if line.startswith("epoch 1"))


def test_source_without_a_file_takes_several_labels_too():
    source = AudioSource("row 0", "id", lambda: None)
    assert Example(source, ("a", "b")).labels == ("a", "b")
    assert Example(source, "a").labels == ("a",)
