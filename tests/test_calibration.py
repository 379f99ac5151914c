"""Scores that mean what they say: temperature and calibration error against SciPy and published code, and real runs."""

import contextlib
import csv
import itertools
import json
import math
import sys

import numpy as np
import pytest
import soundfile
import torch
import transformers
from conftest import TONES
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax
from test_backbones import CONFIGS

import audioclf
from audioclf import ConfigError
from audioclf.calibration import divide_logits, fit_temperature, last_layer
from audioclf.metrics import calibration_error
from audioclf.models.classifier import build_classifier
from audioclf.models.heads import HEADS


def overconfident(seed: int, num_clips: int = 200, num_classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Logits of classes drawn by a softmax at another temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, rng.uniform(1, 8), (num_clips, num_classes))
    noise = rng.gumbel(size=logits.shape)
    return logits, (logits / rng.uniform(0.5, 4) + noise).argmax(axis=1)


class TestTemperature:
    @pytest.mark.parametrize("seed", range(10))
    def test_single_label_against_scipy(self, seed):
        logits, targets = overconfident(seed)

        def loss(log_inverse: float) -> float:
            return -log_softmax(logits * math.exp(log_inverse), axis=1)[np.arange(len(targets)), targets].mean()

        best = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-10})
        assert fit_temperature(logits, targets) == pytest.approx(math.exp(-best.x), rel=1e-5)

    @pytest.mark.parametrize("seed", range(10))
    def test_multi_label_against_scipy(self, seed):
        rng = np.random.default_rng(seed)
        logits = rng.normal(-1, 3, (100, 6))
        targets = (rng.random(logits.shape) < expit(logits / rng.uniform(0.5, 4))).astype(np.float32)

        def loss(log_inverse: float) -> float:
            scaled = logits * math.exp(log_inverse)
            return (np.logaddexp(0, scaled) - targets * scaled).mean()

        best = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-10})
        assert fit_temperature(logits, targets) == pytest.approx(math.exp(-best.x), rel=1e-5)

    @pytest.mark.parametrize("multi_label", [False, True])
    @pytest.mark.parametrize("seed", range(5))
    def test_pieces_against_scipy(self, seed, multi_label):
        """The probability of a clip, a mean over its pieces, and not of each piece by itself."""
        rng = np.random.default_rng(seed)
        counts = rng.integers(1, 6, 80)
        logits = np.repeat(rng.normal(0, 4, (80, 5)), counts, axis=0) + rng.normal(0, 3, (counts.sum(), 5))
        firsts = np.cumsum(counts) - counts

        def clip_scores(inverse: float) -> np.ndarray:
            scores = expit(logits * inverse) if multi_label else softmax(logits * inverse, axis=1)
            return np.array([piece.mean(axis=0) for piece in np.split(scores, firsts[1:])])

        drawn = clip_scores(1 / rng.uniform(0.5, 4))
        if multi_label:
            targets = (rng.random(drawn.shape) < drawn).astype(np.float32)
        else:
            targets = np.array([rng.choice(5, p=row / row.sum()) for row in drawn])

        def loss(log_inverse: float) -> float:
            scores = clip_scores(math.exp(log_inverse))
            if multi_label:
                return -np.log(np.where(targets > 0, scores, 1 - scores)).mean()
            return -np.log(scores[np.arange(len(scores)), targets]).mean()

        best = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-10})
        assert fit_temperature(logits, targets, firsts) == pytest.approx(math.exp(-best.x), rel=1e-5)

    def test_the_slope_is_zero_there(self):
        """To more digits than a minimiser of the loss can tell."""
        logits, targets = overconfident(3)
        values = torch.from_numpy(logits)
        inverse = torch.tensor(1 / fit_temperature(logits, targets), dtype=torch.float64, requires_grad=True)
        torch.nn.functional.cross_entropy(values * inverse, torch.from_numpy(targets)).backward()
        assert abs(float(inverse.grad)) < 1e-12

    def test_scaled_logits_ask_for_one(self):
        logits, targets = overconfident(4)
        temperature = fit_temperature(logits, targets)
        assert fit_temperature(logits / temperature, targets) == pytest.approx(1, abs=1e-12)

    def test_none_where_there_is_no_best(self):
        targets = np.array([0, 1, 2])
        assert fit_temperature(4.0 * np.eye(3), targets) is None  # all right: the surer the better
        assert fit_temperature(4.0 * np.eye(3), (targets + 1) % 3) is None  # worse than to say nothing
        assert fit_temperature(8.0 * np.eye(3) - 4, np.eye(3, dtype=np.float32)) is None
        assert fit_temperature(np.zeros((3, 3)), targets) is None
        assert fit_temperature(np.full((3, 3), np.nan), targets) is None


class TestCalibrationError:
    @pytest.mark.parametrize("seed", range(30))
    def test_against_a_loop_over_bins(self, seed):
        """As in gpleiss/temperature_scaling, the code of Guo et al. (2017)."""
        rng = np.random.default_rng(seed)
        scores = rng.random(int(rng.integers(1, 300)))
        scores[::7] = rng.integers(0, 16, len(scores[::7])) / 15  # on the edges, 0 and 1 too
        hits = rng.random(len(scores)) < scores ** rng.uniform(0.3, 3)
        edges = np.linspace(0, 1, 16)
        expected = 0.0
        for low, high in itertools.pairwise(edges):
            inside = (scores > low) & (scores <= high) if low else scores <= high
            if inside.any():
                expected += abs(hits[inside].mean() - scores[inside].mean()) * inside.mean()
        assert calibration_error(scores, hits) == pytest.approx(expected, abs=1e-12)

    def test_by_hand(self):
        """Three clips of one bin, two right at 0.9: 0.9 - 2/3; one of another, right at 0.5: 0.5."""
        error = calibration_error(np.array([0.9, 0.9, 0.9, 0.5]), np.array([True, True, False, True]))
        assert error == pytest.approx((3 * (0.9 - 2 / 3) + 0.5) / 4)

    def test_the_right_scores_have_none(self):
        rng = np.random.default_rng(0)
        scores = rng.random(200_000)
        assert calibration_error(scores, rng.random(200_000) < scores) < 0.005

    def test_not_a_number(self):
        assert math.isnan(calibration_error(np.array([np.nan, 0.5]), np.array([True, True])))


class TestFolding:
    @pytest.mark.parametrize("head", ["mean", *HEADS])
    @pytest.mark.parametrize("name", ["hubert", "wav2vec2-bert relative", "audio-spectrogram-transformer", "whisper"])
    def test_logits_are_divided(self, name, head):
        torch.manual_seed(0)
        model = build_classifier(CONFIGS[name], head, ["a", "b", "c"]).eval()
        shapes = {"hubert": (2, 4000), "whisper": (2, 40, 100), "wav2vec2-bert relative": (2, 50, 160)}
        values = torch.randn(shapes.get(name, (2, 100, 64)))
        with torch.no_grad():
            torch.nn.init.normal_(last_layer(model).bias)
            before = model(values)
            divide_logits(model, 1.7)
            torch.testing.assert_close(model(values), before / 1.7, rtol=1e-5, atol=1e-6)

    def test_looking_for_it_changes_nothing(self):
        model = build_classifier(CONFIGS["hubert"], "attention", ["a", "b"]).train()
        before, drawn = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
        last_layer(model)
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        assert torch.equal(torch.get_rng_state(), drawn)
        assert model.head.training

    @pytest.mark.parametrize("kind", ["no layer", "an activation", "not the last", "without a bias"])
    def test_heads_of_ones_own(self, kind, tones, quick, tmp_path):
        few = {**quick, "num_epochs": 1, "head": lambda config: Own(config, kind), "calibrate": True}
        if kind == "without a bias":
            last_layer(build_classifier(CONFIGS["hubert"], few["head"], ["a", "b"]))
            return
        with pytest.raises(ConfigError, match=r"calibrate=True divides .* does not end in a torch.nn.Linear that"):
            audioclf.train(tones, output_dir=tmp_path / "out", **few)
        assert {path.name for path in (tmp_path / "out").iterdir()} == {".lock"}  # refused before anything began


class Own(torch.nn.Module):
    """A head that ends in one way or another."""

    def __init__(self, config, kind: str):
        super().__init__()
        self.kind = kind
        self.linear = torch.nn.Linear(config.hidden_size, config.num_labels, bias=False)
        if kind == "no layer":
            self.norm = torch.nn.LayerNorm(config.num_labels)
        elif kind == "an activation":
            self.dropped = torch.nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, frames, mask):
        logits = self.linear((frames[-1] * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
        if self.kind == "no layer":
            return self.norm(logits)
        return {"an activation": logits, "not the last": logits.tanh(), "without a bias": logits}[self.kind]


@pytest.fixture(scope="module")
def pair(doubtful, quick, tmp_path_factory):
    """The same run without and with calibration."""
    folder, quick = tmp_path_factory.mktemp("pair"), {**quick, "seed": 0}
    plain = audioclf.train(doubtful, output_dir=folder / "plain", **quick)
    with contextlib.redirect_stdout((folder / "told").open("w", encoding="utf-8")):
        more = {**quick, "calibrate": True, "progress": True}
        calibrated = audioclf.train(doubtful, output_dir=folder / "calibrated", **more)
        sys.stdout.close()
    return [plain, calibrated]


class TestARun:
    def test_error_is_halved_and_accuracy_kept(self, pair):
        plain, calibrated = pair
        for before, after in (
            (plain.best_metrics, calibrated.best_metrics),
            (plain.test_metrics, calibrated.test_metrics),
        ):
            assert before["ece"] > 0.05
            assert after["ece"] < before["ece"] / 2
            assert after["loss"] < before["loss"]
            assert after["accuracy"] == before["accuracy"]
        assert plain.best_epoch == calibrated.best_epoch

    def test_what_is_told(self, pair):
        plain, calibrated = pair
        metadata = json.loads((calibrated.checkpoint_dir / "audioclf.json").read_text())
        end = calibrated.history[-1]
        assert metadata["temperature"] == end["temperature"] > 1
        assert metadata["metrics"] == end["best_metrics"] == calibrated.best_metrics
        before = {name: plain.best_metrics[name] for name in ("loss", "ece")}
        assert metadata["uncalibrated"] == end["uncalibrated"] == before
        assert metadata["epoch"] == calibrated.best_epoch
        assert "temperature" not in plain.history[-1]
        epochs = [[row for row in run.history if row["event"] == "epoch"] for run in pair]
        assert [row["ece"] for row in epochs[0]] == [row["ece"] for row in epochs[1]]

    def test_every_consumer_gives_the_scaled_scores(self, pair, doubtful, quick):
        plain, calibrated = (audioclf.load(run.checkpoint_dir) for run in pair)
        files = [clip.audio for clip in doubtful.test[:6]]
        temperature = pair[1].history[-1]["temperature"]
        scores = calibrated.probabilities(files)
        powers = plain.probabilities(files).astype(np.float64) ** (1 / temperature)
        np.testing.assert_allclose(scores, powers / powers.sum(axis=1, keepdims=True), atol=1e-5)
        metrics = audioclf.evaluate(pair[1].checkpoint_dir, doubtful, "test", cache_dir=quick["cache_dir"])
        assert metrics["ece"] == pytest.approx(pair[1].test_metrics["ece"], abs=1e-5)
        pipe = transformers.pipeline("audio-classification", model=str(pair[1].checkpoint_dir))
        sound = soundfile.read(files[0], dtype="float32")[0]
        theirs = {entry["label"]: entry["score"] for entry in pipe({"raw": sound, "sampling_rate": 22_050})}
        (ours,) = calibrated([{"array": sound, "sampling_rate": 22_050}], top_k=None)
        for entry in ours:
            assert theirs[entry["label"]] == pytest.approx(entry["score"], abs=2e-2)  # it resamples in another way

    def test_training_and_last_know_nothing_of_it(self, pair):
        files = [(run.output_dir / "last" / "model.safetensors").read_bytes() for run in pair]
        assert files[0] == files[1]

    def test_where_all_is_right_nothing_is_done(self, trained, tones, quick, tmp_path, capsys):
        options = {**quick, "calibrate": True, "progress": True}
        result = audioclf.train(tones, output_dir=tmp_path / "out", **options)
        assert result.best_metrics == trained.best_metrics
        assert result.best_metrics["accuracy"] == 1.0
        assert result.history[-1]["temperature"] is None
        told = capsys.readouterr().out
        assert "note: calibrate: no temperature is best for the clips of validation, so the scores stay as they" in told

    def test_terminal(self, pair):
        end = pair[1].history[-1]
        before, after = end["uncalibrated"], pair[1].best_metrics
        assert (
            f"Calibrated by temperature {end['temperature']:.3g}: validation loss {before['loss']:.4f} -> "
            f"{after['loss']:.4f}, calibration error {before['ece']:.4f} -> {after['ece']:.4f}"
        ) in (pair[1].output_dir.parent / "told").read_text(encoding="utf-8")


def test_a_run_on_pieces(doubtful, quick, tmp_path):
    """The loss of validation's clips falls, and the checkpoint gives these scores to whoever loads it."""
    options = {**quick, "num_epochs": 5, "chunk_seconds": 0.2, "calibrate": True}
    result = audioclf.train(doubtful, output_dir=tmp_path / "out", **options)
    before, after = result.history[-1]["uncalibrated"], result.best_metrics
    assert result.history[-1]["temperature"] > 1
    assert after["loss"] < before["loss"]
    assert after["ece"] < before["ece"] / 2
    metrics = audioclf.evaluate(result.checkpoint_dir, doubtful, "valid", cache_dir=quick["cache_dir"])
    assert metrics["loss"] == pytest.approx(after["loss"], abs=1e-5)


def test_multi_label(quick, tmp_path):
    """Thresholds move with the scores; which classes are detected does not."""
    rng, rows = np.random.default_rng(0), [("path", "labels", "split")]
    time = np.arange(8_000) / 16_000
    for split, count in (("train", 32), ("valid", 48), ("test", 16)):
        for number in range(count):
            there = [label for bit, label in enumerate(TONES) if number >> bit & 1]
            sound = 0.02 * rng.standard_normal(len(time))
            sound += sum(0.2 * np.sin(2 * np.pi * TONES[label] * time * rng.uniform(0.9, 1.1)) for label in there)
            soundfile.write(tmp_path / f"{split} {number}.wav", sound, 16_000)
            if split != "train" and number % 3 == 0:  # so that the scores are too sure
                there = [label for label in TONES if label not in there]
            rows.append((f"{split} {number}.wav", ",".join(there), split))
    with open(tmp_path / "clips.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    runs = [
        audioclf.train(
            tmp_path / "clips.csv", output_dir=tmp_path / str(on), calibrate=on, **{**quick, "num_epochs": 6}
        )
        for on in (False, True)
    ]
    plain, calibrated = (run.best_metrics for run in runs)
    assert calibrated["ece"] < plain["ece"]
    assert calibrated["loss"] < plain["loss"]
    assert calibrated["map"] == pytest.approx(plain["map"], abs=1e-6)
    assert calibrated["macro_f1"] == pytest.approx(plain["macro_f1"], abs=1e-6)
    thresholds = [audioclf.load(run.checkpoint_dir).thresholds for run in runs]
    logits = [np.log(values / (1 - values)) for values in thresholds]
    temperature = runs[1].history[-1]["temperature"]
    np.testing.assert_allclose(logits[1], logits[0] / temperature, atol=0.02)
    assert runs[1].test_metrics["macro_f1"] == pytest.approx(runs[0].test_metrics["macro_f1"], abs=1e-6)
    columns = audioclf.load(runs[1].checkpoint_dir).probabilities([tmp_path / f"valid {n}.wav" for n in range(48)])
    truth = np.array([[label in row[1].split(",") for label in sorted(TONES)] for row in rows[33:81]])
    errors = [calibration_error(columns[:, c].astype(np.float64), truth[:, c]) for c in range(3)]
    assert np.mean(errors) == pytest.approx(calibrated["ece"], abs=1e-5)
