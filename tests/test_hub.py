"""Model cards and pushing: the real client against a hub on this machine, whose side of the talk is ours."""

import json
import subprocess

import loopback_hub
import numpy as np
import pytest
import yaml
from conftest import tiny_config
from huggingface_hub import ModelCard
from huggingface_hub.errors import LocalEntryNotFoundError

import audioclf
from audioclf import CheckpointError, ConfigError, export
from audioclf.card import licensed, public_metadata, without_local_paths, write_card
from audioclf.cli import main

TOKEN = "hf_" + "canary" * 6


@pytest.fixture(scope="module")
def run(tones, quick, tmp_path_factory):
    """Its last epoch is worse than its best, by a learning rate that is too high."""
    folder = tmp_path_factory.mktemp("hub") / "tones run"
    options = {**quick, "report": True, "num_epochs": 6, "learning_rate": 3e-2, "lr_schedule": "constant"}
    result = audioclf.train(tones, output_dir=folder, **options)
    epochs = [row for row in result.history if row["event"] == "epoch"]
    assert epochs[-1]["accuracy"] < result.best_metrics["accuracy"]
    return result


def card_of(folder) -> tuple[dict, str]:
    card = ModelCard.load(folder / "README.md")
    return card.data.to_dict(), card.text


class TestCard:
    def test_its_metrics_are_the_best_checkpoints(self, run):
        data, text = card_of(run.checkpoint_dir)
        (model,) = data["model-index"]
        parts = {result["dataset"]["split"]: result["metrics"] for result in model["results"]}
        found = {(part, metric["name"]): metric["value"] for part, own in parts.items() for metric in own}
        assert found["validation", "accuracy"] == run.best_metrics["accuracy"]
        assert found["test", "macro F1"] == run.test_metrics["macro_f1"]
        low, high = run.test_metrics["accuracy_ci"]
        assert f"| accuracy | {run.best_metrics['accuracy']:.3f} [" in text
        assert f"{run.test_metrics['accuracy']:.3f} [{low:.3f}, {high:.3f}] |" in text
        assert f"epoch {run.best_epoch}" in text
        assert (run.checkpoint_dir / "confusion.png").read_bytes()[:4] == b"\x89PNG"

    def test_what_it_says(self, run):
        data, text = card_of(run.checkpoint_dir)
        assert data["pipeline_tag"] == "audio-classification"
        assert data["library_name"] == "transformers"
        assert "base_model" not in data  # random weights
        assert "36 clips in train, 12 clips in valid, 12 clips in test" in text
        assert "`learning_rate=0.03`" in text
        assert "There was no test part" not in text
        assert "/tmp" not in text

    def test_labels_of_any_kind(self, run, tmp_path):
        labels = ("no", "null", "1", "a|b\n<script>`$x$*_")
        for name in ("config.json", "audioclf.json"):
            content = json.loads((run.checkpoint_dir / name).read_text())
            if name == "audioclf.json":
                content["labels"] = list(labels)
                content["data"]["name"] = "yes: #1 | <i>"
            else:
                content["id2label"] = dict(enumerate(labels))
            (tmp_path / name).write_text(json.dumps(content))
        write_card(tmp_path, repo="user/name")
        (tmp_path / "README.md").write_text(licensed(tmp_path / "README.md", "apache-2.0"))
        data, text = card_of(tmp_path)
        assert "No licence" not in text
        assert data["license"] == "apache-2.0"
        assert data["model-index"][0]["results"][0]["dataset"]["name"] == "yes: #1 | <i>"
        assert "<script>" not in text
        assert "no, null, 1, a\\|b &lt;script&gt;\\`\\$x\\$\\*\\_" in text

    def test_nothing_of_this_machine(self):
        value = {"a": "/home/ann/x y/clip.wav", "b": ["Noise('C:\\Users\\ann\\noise')", "user/name"], "c": 1}
        assert without_local_paths(value) == {"a": "clip.wav", "b": ["Noise('noise')", "user/name"], "c": 1}

    def test_public_metadata(self, run):
        metadata = public_metadata(run.checkpoint_dir)
        assert not {"output_dir", "cache_dir"} & set(metadata["config"])
        assert metadata["config"]["learning_rate"] == 3e-2
        assert "/tmp" not in json.dumps(metadata)


PUSH = """
import sys
from audioclf.cli import main
sys.exit(main(sys.argv[1:]))
"""
USE = """
import json, sys
import numpy as np
from transformers import pipeline
import audioclf
sound = {"array": np.load(sys.argv[1]), "sampling_rate": 16000}
theirs = pipeline("audio-classification", model="user/tones", device="cpu")({**sound}, top_k=None)
print(json.dumps([theirs, audioclf.load("user/tones", device="cpu")(sound, top_k=None)]))
"""


class TestPush:
    def test_round_trip(self, run, tmp_path):
        """The command, then `pipeline` and `load` from what has arrived, each in a process with a cache of its own."""
        (tmp_path / "hub" / "models").mkdir(parents=True)
        sound = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
        np.save(tmp_path / "sound.npy", sound)
        with loopback_hub.serve(tmp_path / "hub") as hub:
            env = hub.env(tmp_path / "home") | {"HF_TOKEN": TOKEN}
            done = loopback_hub.run(PUSH, env, "push", run.output_dir, "user/tones", "--private")
            assert done.returncode == 0, done.stderr
            assert done.stdout.strip() == f"{hub.url}/user/tones"
            used = loopback_hub.run(USE, hub.env(tmp_path / "other"), tmp_path / "sound.npy")
            assert used.returncode == 0, used.stderr
            assert hub.private == {"user/tones"}
            assert hub.strays == []
        pushed = tmp_path / "hub" / "models" / "user" / "tones"
        names = {path.name for path in pushed.iterdir() if path.is_file()}
        assert names == {
            *("config.json", "model.safetensors", "preprocessor_config.json", "audioclf.json"),
            *("README.md", "confusion.png"),
        }
        assert "/tmp" not in (pushed / "audioclf.json").read_text()
        expected = audioclf.load(run.checkpoint_dir, device="cpu")(
            {"array": sound, "sampling_rate": 16_000}, top_k=None
        )
        for found in json.loads(used.stdout.splitlines()[-1]):
            assert {row["label"]: row["score"] for row in found} == pytest.approx(
                {row["label"]: row["score"] for row in expected}, abs=1e-5
            )
        header = yaml.safe_load((pushed / "README.md").read_text().split("---")[1])
        assert header["model-index"][0]["results"][0]["metrics"][0]["value"] == run.best_metrics["accuracy"]

    def test_at_the_end_of_a_run(self, tones, tmp_path):
        """What was pushed is the best; a hub that refuses loses nothing, and says what to do."""
        (tmp_path / "hub" / "models").mkdir(parents=True)
        tiny_config().to_json_file(tmp_path / "tiny.json")
        words = ["train", tones, "--model", tmp_path / "tiny.json", "--num-epochs", 1, "--cache-dir", tmp_path / "c"]
        words += ["--device", "cpu", "--push-to-hub", "user/tones", "--output-dir"]
        with loopback_hub.serve(tmp_path / "hub") as hub:
            env = hub.env(tmp_path / "home")
            refused = loopback_hub.run(PUSH, env, *words, tmp_path / "no token")
            assert refused.returncode == 2
            assert "The hub does not know who you are: log in with 'hf auth login'" in refused.stderr
            assert not (tmp_path / "no token" / "best").exists()
            env["HF_TOKEN"] = TOKEN
            done = loopback_hub.run(PUSH, env, *words, tmp_path / "out")
            assert done.returncode == 0, done.stderr
            assert f"Pushed to {hub.url}/user/tones" in done.stdout
            hub.writers = {"Bearer somebody else"}
            lost = loopback_hub.run(PUSH, env, *words, tmp_path / "forbidden")
        assert lost.returncode == 0
        assert "'user/tones' could not be pushed: the hub says 403; the token must be allowed to write" in lost.stderr
        assert f"audioclf push '{tmp_path}/forbidden/best' user/tones" in lost.stderr.replace("\\", "") or (
            f"audioclf push {tmp_path}/forbidden/best user/tones" in lost.stderr
        )
        for name in ("out", "forbidden"):
            assert audioclf.load(tmp_path / name / "best").labels == ("high", "low", "mid")
        pushed = tmp_path / "hub" / "models" / "user" / "tones" / "README.md"
        assert pushed.read_bytes() == (tmp_path / "out" / "best" / "README.md").read_bytes()

    @pytest.mark.slow
    @pytest.mark.parametrize("fault", ["500 on commit", "down"])
    def test_a_hub_in_trouble(self, fault, run, tmp_path):
        (tmp_path / "hub" / "models").mkdir(parents=True)
        with loopback_hub.serve(tmp_path / "hub") as hub:
            env = hub.env(tmp_path / "home") | {"HF_TOKEN": TOKEN}
            hub.faults["user/tones"] = fault
            if fault != "down":
                done = loopback_hub.run(PUSH, env, "push", run.checkpoint_dir, "user/tones")
        if fault == "down":
            done = loopback_hub.run(PUSH, env, "push", run.checkpoint_dir, "user/tones")
        assert done.returncode == 2
        assert done.stderr.strip().splitlines()[-1].startswith("audioclf: 'user/tones' could not be pushed: ")
        assert "Traceback" not in done.stderr
        assert TOKEN not in done.stderr

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["{run}", "tones"], "'tones' is no repository: give it as user/name"),
            (["{run}", "user/a b"], "'user/a b' is no repository"),
            (["{run}/tensorboard", "user/tones"], "tensorboard' is no checkpoint: it lacks config.json"),
            (["./nowhere", "user/tones"], "'./nowhere' is no checkpoint"),
        ],
    )
    def test_refusals(self, words, sentence, run, capsys, monkeypatch):
        monkeypatch.setattr("audioclf.hub.get_token", lambda: TOKEN)
        assert main(["push", *(word.format(run=run.output_dir) for word in words)]) == 2
        assert sentence in capsys.readouterr().err

    def test_options(self, tones):
        with pytest.raises(ConfigError, match="hub_private is about the repository that push_to_hub names"):
            audioclf.train(tones, hub_private=True)
        with pytest.raises(CheckpointError, match="is no checkpoint"):
            audioclf.push(tones, "user/name", token=TOKEN)

    @pytest.mark.slow
    def test_a_card_that_was_written_by_hand_stays(self, run, tmp_path):
        """And of a checkpoint without one the card says what its audioclf.json tells."""
        (tmp_path / "hub" / "models").mkdir(parents=True)
        subprocess.run(["cp", "-r", str(run.checkpoint_dir), str(tmp_path / "mine")], check=True)
        (tmp_path / "mine" / "README.md").write_text("---\nlicense: mit\n---\nMine.\n")
        with loopback_hub.serve(tmp_path / "hub") as hub:
            env = hub.env(tmp_path / "home") | {"HF_TOKEN": TOKEN}
            assert loopback_hub.run(PUSH, env, "push", tmp_path / "mine", "user/mine").returncode == 0
            (tmp_path / "mine" / "README.md").unlink()
            done = loopback_hub.run(PUSH, env, "push", tmp_path / "mine", "user/bare", "--license", "mit")
            assert done.returncode == 0, done.stderr
        assert (tmp_path / "hub/models/user/mine/README.md").read_text().endswith("Mine.\n")
        text = (tmp_path / "hub/models/user/bare/README.md").read_text()
        assert "license: mit" in text
        assert f"| accuracy | {run.best_metrics['accuracy']:.3f} [" in text
        assert not (tmp_path / "mine" / "README.md").exists()


def test_a_checkpoint_whose_metadata_nobody_can_look_up(monkeypatch):
    """Without the network, of a model that only transformers has fetched."""

    def offline(*_names):
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(export, "hf_hub_download", offline)
    with pytest.warns(UserWarning, match="without the hub it cannot be told whether it has an audioclf.json"):
        assert export.read_metadata("user/model") == {}
