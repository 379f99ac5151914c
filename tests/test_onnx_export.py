"""ONNX files: onnxruntime gives each clip, in any batch, the scores that `audioclf.load` gives it alone."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
from conftest import tiny_config
from test_backbones import CONFIGS, LABELS, LAYER_NORM, PRETRAINING, wide
from transformers import (
    UniSpeechConfig,
    UniSpeechSatConfig,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    Wav2Vec2FeatureExtractor,
)

import audioclf
from audioclf import CheckpointError, ConfigError, onnx_export
from audioclf.cli import main
from audioclf.export import save_pretrained
from audioclf.models.backbone import BACKBONES, backbone_of
from audioclf.models.classifier import build_classifier

RATE = 16_000
EXAMPLE = Path(__file__).parent.parent / "examples" / "serve_onnx.py"
CLOSE = 1e-5
# 400 samples give one frame, and so do 719; 720 give two. What is shorter is extended.
LENGTHS = (1, 2, 399, 400, 401, 719, 720, 1601, 4000, 8000, 23_456, 80_000)
SHAPES = {
    **{name: config for name, config in CONFIGS.items() if BACKBONES[config.model_type].has_cnn},
    "wav2vec2-large": tiny_config(Wav2Vec2Config, **LAYER_NORM, **PRETRAINING),
    "unispeech-large": tiny_config(UniSpeechConfig, **LAYER_NORM),
    "unispeech-sat-large": tiny_config(UniSpeechSatConfig, **LAYER_NORM, **PRETRAINING),
    # More than the clip has that is traced, and fewer than the longest below, for which transformers makes new ones.
    "conformer of few positions": tiny_config(
        Wav2Vec2ConformerConfig, conv_depthwise_kernel_size=7, max_source_positions=60, **PRETRAINING
    ),
    "weighted": tiny_config(use_weighted_layer_sum=True, num_conv_pos_embeddings=15),
}
HEADS = ("mean", "attention", "mix", "multihead", "mlp")
QUICK = [
    ("hubert", "mean", False),
    ("wav2vec2-large", "attention", True),
    ("wavlm", "mix", False),
    ("data2vec-audio", "mlp", False),
    ("conformer of few positions", "multihead", True),
]
OTHERS = [(name, HEADS[number % 5], number % 2 == 1) for number, name in enumerate(SHAPES)]
OTHERS += [("hubert-large", head, number % 2 == 0) for number, head in enumerate(HEADS)]
CASES = [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHERS if case not in QUICK)]


def save(config, folder: Path, head="mean", multi_label: bool = False, do_normalize: bool = True, **metadata) -> Path:
    torch.manual_seed(0)
    model = wide(build_classifier(config, head, LABELS, multi_label)).eval()
    extractor = backbone_of(config).extractor(config)
    if isinstance(extractor, Wav2Vec2FeatureExtractor):
        extractor.do_normalize = do_normalize
    save_pretrained(model, extractor, folder, metadata)
    return folder


def make_clips(lengths) -> list[np.ndarray]:
    """Of different loudness and offset, so that what leaks from one into another shows."""
    rng = np.random.default_rng(1)
    return [
        ((0.2 + i % 3) * rng.standard_normal(length) + 0.3 * (i % 2)).astype(np.float32)
        for i, length in enumerate(lengths)
    ]


def wanted_of(folder: Path, clips: list[np.ndarray], **options) -> np.ndarray:
    classifier = audioclf.load(folder, device="cpu", **options)
    return classifier.probabilities([{"array": clip, "sampling_rate": RATE} for clip in clips], batch_size=1)


def session_of(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, clips: list[np.ndarray], extra: int = 0, scale: float = 0.0):
    """Scores of a batch that is padded `extra` samples beyond its longest clip, with noise of this scale."""
    rng = np.random.default_rng(2)
    shape = len(clips), max(map(len, clips)) + extra
    batch = scale * rng.standard_normal(shape).astype(np.float32)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    return session.run(["scores"], {"waveforms": batch, "lengths": np.array([len(clip) for clip in clips])})[0]


@pytest.mark.parametrize(("name", "head", "multi_label"), CASES)
def test_a_clip_has_its_scores_alone_and_in_any_batch(tmp_path, name, head, multi_label):
    folder = save(SHAPES[name], tmp_path, head, multi_label)
    assert 0 <= audioclf.export_onnx(folder, tmp_path / "m.onnx") < CLOSE
    session, clips = session_of(tmp_path / "m.onnx"), make_clips(LENGTHS)
    wanted = wanted_of(folder, clips)
    assert np.ptp(wanted, axis=0).max() > 0.03  # the clips do differ
    for clip, row in zip(clips, wanted, strict=True):
        assert np.abs(run(session, [clip])[0] - row).max() < CLOSE
    rng = np.random.default_rng(0)
    for size in (len(clips), 2, 5):
        picked = rng.permutation(len(clips))[:size]
        scores = run(session, [clips[i] for i in picked], extra=int(rng.integers(2000)), scale=0.1 * size)
        assert np.abs(scores - wanted[picked]).max() < CLOSE


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """The folder of a multi-label checkpoint with `model.onnx`, by the command, which names the file by itself."""
    folder = tmp_path_factory.mktemp("checkpoint")
    save(CONFIGS["hubert"], folder, "mix", True, False, thresholds=[0.2, 0.5, 0.9], max_seconds=2.5, chunk_seconds=1.0)
    assert main(["export", str(folder)]) == 0
    return folder


class TestFile:
    def test_it_is_a_valid_one_of_the_opset_that_is_told(self, exported):
        model = onnx.load(exported / "model.onnx")
        onnx.checker.check_model(model, full_check=True)
        assert {entry.domain: entry.version for entry in model.opset_import} == {"": onnx_export.OPSET}

    def test_inputs_and_output(self, exported):
        session = session_of(exported / "model.onnx")
        told = [(node.name, node.type, node.shape) for node in (*session.get_inputs(), *session.get_outputs())]
        assert told[0] == ("waveforms", "tensor(float)", ["batch", "samples"])
        assert told[1] == ("lengths", "tensor(int64)", ["batch"])
        assert told[2] == ("scores", "tensor(float)", ["batch", 3])

    def test_metadata(self, exported):
        found = session_of(exported / "model.onnx").get_modelmeta().custom_metadata_map
        assert {name: json.loads(value) for name, value in found.items()} == {
            "labels": LABELS,
            "sampling_rate": RATE,
            "multi_label": True,
            "thresholds": [0.2, 0.5, 0.9],
            "max_seconds": 2.5,
            "chunk_seconds": 1.0,
            "opset": onnx_export.OPSET,
        }

    def test_waveforms_that_the_encoder_takes_as_they_are(self, exported):
        session, clips = session_of(exported / "model.onnx"), make_clips((300, 7111, 16_000))
        assert np.abs(run(session, clips, 500, 1.0) - wanted_of(exported, clips)).max() < CLOSE


@pytest.mark.slow
def test_a_minute_of_faint_sound_beside_a_large_offset(tmp_path):
    """Sums over a million samples, in fp32."""
    folder = save(CONFIGS["hubert"], tmp_path)
    audioclf.export_onnx(folder, tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    clips = [(0.5 + 0.001 * rng.standard_normal(60 * RATE)).astype(np.float32), *make_clips((5000,))]
    assert np.abs(run(session_of(tmp_path / "m.onnx"), clips) - wanted_of(folder, clips)).max() < 1e-4


class TestServing:
    """examples/serve_onnx.py, in a process that has neither torch nor audioclf."""

    def serve(self, *arguments: Path) -> list[str]:
        code = (
            "import runpy, sys\n"
            "sys.modules |= dict.fromkeys(('torch', 'transformers', 'audioclf', 'onnx'))\n"  # importing None raises
            "sys.argv = sys.argv[1:]\n"
            "runpy.run_path(sys.argv[0], run_name='__main__')\n"
        )
        command = [sys.executable, "-c", code, str(EXAMPLE), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def test_without_torch(self, exported, tmp_path):
        """In stereo, at another rate, cut to 2.5 s and in three pieces of 1 s."""
        sound = np.stack(make_clips((3 * 22_050, 3 * 22_050)), axis=1) / 4
        soundfile.write(tmp_path / "sound.wav", sound, 22_050)
        wanted = audioclf.load(exported)(str(tmp_path / "sound.wav"))
        told = self.serve(exported / "model.onnx", tmp_path / "sound.wav")
        assert [line.split()[1] for line in told] == [entry["label"] for entry in wanted]
        for line, entry in zip(told, wanted, strict=True):
            assert float(line.split()[0].rstrip("*")) == pytest.approx(entry["score"], abs=6e-4)  # of three digits
            assert ("*" in line) == entry["detected"]


class Baked(torch.nn.Module):
    """A head of the user's own; with `is_fixed` the clip's length leaves the tensors and is fixed in the graph."""

    def __init__(self, config, is_fixed: bool = False) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(config.hidden_size, config.num_labels)
        self.is_fixed = is_fixed

    def forward(self, frames, mask):
        count = int(mask.sum(1).max()) if self.is_fixed else mask.sum(1, keepdim=True)
        return self.linear((frames[-1] * mask[..., None]).sum(1) / count)


def fixed(config) -> Baked:
    return Baked(config, is_fixed=True)


class TestOwnHead:
    def test_is_exported(self, tmp_path):
        folder, clips = save(CONFIGS["hubert"], tmp_path, Baked), make_clips((500, 9000, 20_000))
        audioclf.export_onnx(folder, tmp_path / "m.onnx", head=Baked)
        wanted = wanted_of(folder, clips, head=Baked)
        assert np.abs(run(session_of(tmp_path / "m.onnx"), clips) - wanted).max() < CLOSE

    def test_that_the_graph_cannot_hold_is_refused_and_the_file_stays(self, tmp_path):
        folder, file = save(CONFIGS["hubert"], tmp_path, fixed), tmp_path / "m.onnx"
        file.write_text("the earlier one")
        with pytest.raises(CheckpointError, match=r"onnxruntime differ from PyTorch's by .*; a head of your own must"):
            audioclf.export_onnx(folder, file, head=fixed)
        assert file.read_text() == "the earlier one"
        with pytest.raises(CheckpointError, match=r"has a head of its author's own \(test_onnx_export.fixed\)"):
            audioclf.export_onnx(folder, file)


class TestRefused:
    @pytest.mark.parametrize("name", ["whisper", "audio-spectrogram-transformer", "wav2vec2-bert relative"])
    def test_encoders_of_spectrograms(self, tmp_path, name):
        folder = save(CONFIGS[name], tmp_path)
        with pytest.raises(ConfigError, match=r"has an encoder of spectrograms \(.*only encoders of waveforms can be"):
            audioclf.export_onnx(folder, tmp_path / "m.onnx")
        assert not (tmp_path / "m.onnx").exists()

    def test_scores_that_are_no_numbers(self, tmp_path):
        model = build_classifier(CONFIGS["hubert"], "mean", LABELS)
        torch.nn.init.constant_(model.head.classifier.bias, float("nan"))
        save_pretrained(model, Wav2Vec2FeatureExtractor(), tmp_path, {})
        with pytest.raises(CheckpointError, match="scores of onnxruntime differ from PyTorch's by nan"):
            audioclf.export_onnx(tmp_path, tmp_path / "m.onnx")

    @pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
    def test_missing_packages(self, monkeypatch, capsys, exported, package):
        monkeypatch.setitem(sys.modules, package, None)
        assert main(["export", str(exported)]) == 2
        sentence = f"audioclf: An ONNX file needs the package {package}: pip install 'audioclf[onnx]'.\n"
        assert capsys.readouterr().err == sentence

    def test_more_than_a_file_holds(self, monkeypatch, exported, tmp_path):
        monkeypatch.setattr(onnx_export, "MAX_BYTES", 1000)
        with pytest.raises(CheckpointError, match="GiB of weights, but an ONNX file holds 2 GiB at most"):
            audioclf.export_onnx(exported, tmp_path / "m.onnx")

    def test_a_hub_id_without_a_file_to_write(self, capsys):
        assert main(["export", "some/model"]) == 2
        assert "'some/model' is no folder that model.onnx could go into: name the file" in capsys.readouterr().err

    def test_a_place_that_is_not_there(self, capsys, exported, tmp_path):
        assert main(["export", str(exported), str(tmp_path / "nowhere" / "m.onnx")]) == 2
        assert "m.onnx' cannot be written (No such file or directory).\n" in capsys.readouterr().err
