"""`load`, `evaluate` and what transformers makes of our checkpoints."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import loopback_hub
import numpy as np
import pytest
import soundfile
import torch
from conftest import tiny_config
from transformers import AutoModelForAudioClassification, Wav2Vec2FeatureExtractor, pipeline

import audioclf
from audioclf import AudioError, CheckpointError, DatasetError
from audioclf.audio import load as load_audio
from audioclf.config import HEADS


@pytest.fixture(scope="module")
def classifier(trained):
    return audioclf.load(trained.checkpoint_dir, device="cpu")


@pytest.fixture(scope="module")
def clips(tones):
    return [clip.audio for clip in audioclf.load_dataset(tones).test]


def by_label(scores: list[dict]) -> dict[str, float]:
    return {entry["label"]: entry["score"] for entry in scores}


@pytest.mark.parametrize("head", HEADS)
def test_pipeline_gives_our_scores(head, trained, tones, quick, clips, tmp_path):
    folder = trained.checkpoint_dir
    if head != "mean":
        folder = audioclf.train(
            tones, output_dir=tmp_path / "out", **{**quick, "head": head, "num_epochs": 1}
        ).checkpoint_dir
        audioclf.register()
    pipe = pipeline("audio-classification", model=str(folder), device="cpu")
    ours = audioclf.load(folder, device="cpu")(clips)
    for clip, scores in zip(clips, ours, strict=True):
        theirs = by_label(pipe({"array": load_audio(clip, 16_000), "sampling_rate": 16_000}))
        assert by_label(scores) == pytest.approx(theirs, abs=1e-5)


def test_without_register_transformers_does_not_know_our_heads(trained):
    """And says so itself; a checkpoint with the mean head needs nothing of ours."""
    code = (
        "import sys; from transformers import AutoModelForAudioClassification as A;"
        f"A.from_pretrained({str(trained.checkpoint_dir)!r}); assert 'audioclf' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert json.loads((trained.checkpoint_dir / "config.json").read_text())["model_type"] == "hubert"


def test_scores_do_not_depend_on_company(classifier, clips):
    together = classifier(clips, batch_size=5)
    for clip, scores in zip(clips, together, strict=True):
        assert by_label(classifier(clip)) == pytest.approx(by_label(scores), abs=1e-5)


def test_forms_of_input(classifier, clips):
    path = clips[0]
    samples, rate = soundfile.read(path, dtype="float32")
    with open(path, "rb") as file:
        data = file.read()
    expected = by_label(classifier(path))
    forms = [path, data, {"array": samples, "sampling_rate": rate}, {"bytes": data, "path": None}, bytearray(data)]
    for form, scores in zip(forms, classifier(forms), strict=True):
        assert by_label(scores) == pytest.approx(expected, abs=1e-6)
        assert by_label(classifier(form)) == pytest.approx(expected, abs=1e-6)
    assert classifier([]) == []
    assert len(classifier(path for path in clips)) == len(clips)


def test_a_long_list_is_read_two_chunks_at_a_time(classifier, clips, monkeypatch):
    """However many sounds there are, so many are in memory; the next ones are decoded while the model works."""
    taken, ahead = [], []

    def sounds():
        for number in range(100):
            taken.append(number)
            yield clips[number % len(clips)]

    real = type(classifier)._probabilities

    def noting(self, waveforms, batch_size):
        ahead.append((len(taken), len(waveforms)))
        return real(self, waveforms, batch_size)

    monkeypatch.setattr(type(classifier), "_probabilities", noting)
    streamed = classifier.probabilities(sounds(), batch_size=1)
    assert ahead[:3] == [(32, 16), (48, 16), (64, 16)]
    monkeypatch.undo()
    expected = classifier.probabilities(clips, batch_size=1)
    np.testing.assert_allclose(streamed, expected[[number % len(clips) for number in range(100)]], atol=1e-6)


def test_top_k(classifier, clips):
    scores = classifier(clips[0], top_k=None)
    assert [entry["score"] for entry in scores] == sorted((entry["score"] for entry in scores), reverse=True)
    assert sum(entry["score"] for entry in scores) == pytest.approx(1, abs=1e-6)
    assert classifier(clips[0], top_k=2) == scores[:2]
    assert set(scores[0]) == {"label", "score"}


def test_min_score(classifier, clips):
    everything = classifier(clips)
    best = [entries[0]["score"] for entries in everything]
    for min_score in (0.0, *best, 1.0):
        kept = classifier(clips, min_score=min_score)
        assert kept == [entries if score >= min_score else [] for entries, score in zip(everything, best, strict=True)]
    assert classifier(clips[0], min_score=best[0], top_k=1) == everything[0][:1]
    with pytest.raises(audioclf.ConfigError, match="min_score=70 must be a number at least 0 and at most 1"):
        classifier(clips[0], min_score=70)


def test_an_unreadable_sound_is_named(classifier, clips, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"nothing")
    with pytest.raises(AudioError, match=r"bad\.wav.*libsndfile cannot read it"):
        classifier([clips[0], str(bad)])


@pytest.mark.parametrize("nothing", [None, 5, 0.5])
def test_what_is_no_sound(classifier, nothing):
    with pytest.raises(audioclf.AudioError, match=f"{nothing} is no sound: give a path"):
        classifier(nothing)


def test_sounds_are_cut_as_in_validation(tones, quick, tmp_path):
    """Decoded up to the limit here, decoded whole and then cut there: the same samples to the last."""
    result = audioclf.train(
        tones, output_dir=tmp_path / "out", **{**quick, "num_epochs": 1, "max_seconds": 0.25, "model": tiny_config()}
    )
    classifier = audioclf.load(result.checkpoint_dir, device="cpu")
    assert classifier.max_seconds == 0.25
    clip = str(tones / "test" / "low" / "low 0.wav")
    waveform = load_audio(clip, 16_000)[:4000]
    cut = {"array": waveform, "sampling_rate": 16_000}
    assert by_label(classifier(clip)) == pytest.approx(by_label(classifier(cut)), abs=1e-7)


def test_evaluate_repeats_the_run(trained, tones, quick):
    cache = quick["cache_dir"]
    test = audioclf.evaluate(trained.checkpoint_dir, tones, cache_dir=cache)
    assert test["accuracy"] == trained.test_metrics["accuracy"]
    assert test["loss"] == pytest.approx(trained.test_metrics["loss"], abs=1e-5)
    valid = audioclf.evaluate(audioclf.load(trained.checkpoint_dir), tones, split="dev", batch_size=1, cache_dir=cache)
    assert valid["loss"] == pytest.approx(trained.best_metrics["loss"], abs=1e-5)


def test_evaluate_by_label_names(trained, tones, quick, tmp_path):
    """The data's own order of labels does not matter, nor does a part that lacks a class."""
    lines = ["path,label"]
    for label in ("mid", "low"):
        lines += [f"{path},{label}" for path in sorted((tones / "test" / label).iterdir())]
    (tmp_path / "two.csv").write_text("\n".join(lines))
    metrics = audioclf.evaluate(trained.checkpoint_dir, tmp_path / "two.csv", "train", cache_dir=quick["cache_dir"])
    assert metrics["accuracy"] >= 0.8


def test_evaluate_refusals(classifier, tones, tmp_path):
    with pytest.raises(DatasetError, match=r"has no test part, only train \(12 clips\); choose one of these as split"):
        audioclf.evaluate(classifier, tones / "test")
    (tmp_path / "other.csv").write_text(
        f"path,label\n{tones}/test/low/low 0.wav,bass\n{tones}/test/mid/mid 0.wav,mid\n"
    )
    with pytest.raises(DatasetError, match=r"does not know 'bass'; it knows high, low, mid"):
        audioclf.evaluate(classifier, tmp_path / "other.csv", "train")
    with pytest.raises(DatasetError, match=r"'part three' is no split; use train, valid"):
        audioclf.evaluate(classifier, tones, "part three")


def test_a_checkpoint_that_transformers_saved(clips, tmp_path):
    torch.manual_seed(0)
    config = tiny_config(id2label={0: "x", 1: "y"}, label2id={"x": 0, "y": 1})
    AutoModelForAudioClassification.from_config(config).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path)
    pipe = pipeline("audio-classification", model=str(tmp_path), device="cpu")
    classifier = audioclf.load(tmp_path, device="cpu")
    assert classifier.max_seconds is None
    for clip in clips[:3]:
        theirs = by_label(pipe({"array": load_audio(clip, 16_000), "sampling_rate": 16_000}))
        assert by_label(classifier(clip)) == pytest.approx(theirs, abs=1e-5)


def test_a_runs_folder_is_its_best(trained, clips):
    run, best = (audioclf.load(folder, device="cpu") for folder in (trained.output_dir, trained.checkpoint_dir))
    assert run(clips[0]) == best(clips[0])


TOKEN = "hf_" + "canary" * 6
FROM_THE_HUB = """
import json, sys
import audioclf
from audioclf.cli import main
folder, clip, *words = sys.argv[1:]
for model, status in (("user/tones", 0), ("user/absent", 2)):
    assert main([*words, "--model", model, "--output-dir", f"{folder}/{model}"]) == status, model
classifier = audioclf.load("user/tones", device="cpu")
print(json.dumps([classifier.max_seconds, classifier(clip)]))
"""


@pytest.fixture(scope="module")
def from_the_hub(trained, tones, clips, tmp_path_factory):
    """A process that trains from a checkpoint on a hub, and from one that is not there, and loads the first.

    By the real client, with a token, from a server on this machine: what it prints, the hub, and what was written.
    """
    folder = tmp_path_factory.mktemp("from the hub")
    shutil.copytree(trained.checkpoint_dir, folder / "hub" / "models" / "user" / "tones")
    words = ["train", tones, "--num-epochs", 1, "--device", "cpu", "--cache-dir", folder / "cache"]
    with loopback_hub.serve(folder / "hub") as hub:
        environment = hub.env(folder / "home") | {"HF_TOKEN": TOKEN}
        done = loopback_hub.run(FROM_THE_HUB, environment, folder, clips[0], *words)
    assert done.returncode == 0, done.stderr
    return done, hub, folder


def test_a_checkpoint_on_the_hub(from_the_hub, trained, clips):
    """The same scores, the same limit on length."""
    done, _, _ = from_the_hub
    max_seconds, scores = json.loads(done.stdout.splitlines()[-1])
    assert max_seconds == 30.0
    assert by_label(scores) == pytest.approx(by_label(audioclf.load(trained.checkpoint_dir)(clips[0])), abs=1e-6)


def test_the_hub_s_token_stays_with_the_client(from_the_hub):
    """It reaches the hub, and no file, message or checkpoint of a run."""
    done, hub, folder = from_the_hub
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert "user/absent" in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    written = [path for part in ("user", "cache") for path in (folder / part).rglob("*") if path.is_file()]
    assert len(written) > 10
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]


def test_load_refusals(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder or file"):
        audioclf.load(tmp_path / "nowhere")
    with pytest.raises(audioclf.ConfigError, match="not available on this machine"):
        audioclf.load(tmp_path, device="mps" if not torch.backends.mps.is_available() else "cuda")


def test_options_are_checked(trained, classifier, tones):
    for options, sentence in [
        ({"device": "cuda:0"}, "device='cuda:0' is not one of auto, cuda, mps, cpu"),
        ({"precision": "float16"}, "precision='float16' is not one of auto, fp32, bf16, fp16"),
    ]:
        with pytest.raises(audioclf.ConfigError, match=sentence):
            audioclf.load(trained.checkpoint_dir, **options)
    with pytest.raises(audioclf.ConfigError, match="batch_size=0 must be a whole number of at least 1"):
        classifier(["a.wav"], batch_size=0)
    with pytest.raises(audioclf.ConfigError, match="top_k=-1 must be a whole number of at least 1"):
        classifier("a.wav", top_k=-1)
    with pytest.raises(audioclf.ConfigError, match="batch_size=0 must be"):
        audioclf.evaluate(classifier, tones, batch_size=0)
    with pytest.raises(audioclf.ConfigError, match="bad_audio='ignore' is not one of auto, skip, error"):
        audioclf.evaluate(classifier, tones, bad_audio="ignore")


def test_bf16_is_near(trained, clips):
    exact = audioclf.load(trained.checkpoint_dir).probabilities(clips)
    near = audioclf.load(trained.checkpoint_dir, precision="bf16").probabilities(clips)
    assert exact.dtype == np.float32
    assert np.abs(exact - near).max() < 0.05


@pytest.mark.slow
def test_memory_stays_flat_over_ten_thousand_clips(trained, tmp_path):
    """One second each, by their paths as a generator gives them; memory is looked at on the way."""
    rng = np.random.default_rng(0)
    for number in range(20):
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * rng.standard_normal(16_000), 16_000)
    classifier = audioclf.load(trained.checkpoint_dir, device="cpu")
    resident = []

    def paths():
        for number in range(10_000):
            if number % 1000 == 0:
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                resident.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
            yield str(tmp_path / f"{number % 20}.wav")

    probabilities = classifier.probabilities(paths(), batch_size=8)
    assert probabilities.shape == (10_000, 3)
    assert max(resident[3:]) - resident[2] < 20, resident  # MB
