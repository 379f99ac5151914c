"""Small real things that the tests share: a corpus of tones, a tiny encoder, a trained run."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import HubertConfig, Wav2Vec2FeatureExtractor

import audioclf
import audioclf.training
from audioclf.collate import Collator, make_collator
from audioclf.models import positional

TONES = {"high": 3000.0, "low": 300.0, "mid": 950.0}
RATE = 22_050

# Bits depend on the number of threads, and the models here are too small to gain by more than one.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start


def pytest_configure() -> None:
    """The half a million objects of torch and transformers stay to the end: no collection of garbage looks at them.

    That takes half a second, and is done each time that a test runs out of memory.
    """
    gc.collect()
    gc.freeze()


def random_cases(count: int, few: int) -> pytest.MarkDecorator:
    """Gives a test its `cases`, seeds of random cases: a few of them always, the others among the slow tests."""
    parts = [range(few), pytest.param(range(few, count), marks=pytest.mark.slow)]
    return pytest.mark.parametrize("cases", parts, ids=["few", "many"])


def tiny_config(config_class=HubertConfig, **options):
    """A few thousand parameters in the shape of the real encoder; dropout 0 unless asked for."""
    shape = {
        "conv_dim": (16,) * 7,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
        "classifier_proj_size": 16,
        "apply_spec_augment": False,
        "layerdrop": 0.0,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "feat_proj_dropout": 0.0,
        "final_dropout": 0.0,
    }
    return config_class(**{**shape, **options})


def waveform_collator(do_normalize: bool = True, padding_value: float = 0.0, config=None) -> Collator:
    """The collator of an encoder of waveforms, with transformers' feature extractor of these options."""
    extractor = Wav2Vec2FeatureExtractor(do_normalize=do_normalize, padding_value=padding_value)
    return make_collator(config or tiny_config(), extractor)


def write_tone(path: Path, frequency: float, seconds: float, rng: np.random.Generator, rate: int = RATE) -> None:
    """A noisy tone of random pitch near `frequency`, phase and loudness."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * frequency * rng.uniform(0.8, 1.25) * time + rng.uniform(0, 6.28))
    soundfile.write(path, rng.uniform(0.1, 0.5) * tone + 0.01 * rng.standard_normal(len(time)), rate)


@pytest.fixture(scope="session")
def tones(tmp_path_factory) -> Path:
    """Class folders high, low, mid with train (12 each), valid (4) and test (4) clips of 0.3 to 0.9 s."""
    root = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("valid", 4), ("test", 4)):
        for label, frequency in TONES.items():
            for number in range(count):
                write_tone(root / split / label / f"{label} {number}.wav", frequency, rng.uniform(0.3, 0.9), rng)
    return root


@pytest.fixture(scope="session")
def doubtful(tmp_path_factory) -> audioclf.AudioSplits:
    """Tones told apart with ease in training, while every third clip of validation (48) and test (48) is of another."""
    root, rng, clips = tmp_path_factory.mktemp("doubtful"), np.random.default_rng(0), []
    for split, count in (("train", 12), ("valid", 16), ("test", 16)):
        for number in range(count):
            for position, label in enumerate(TONES):
                path = root / f"{split} {label} {number}.wav"
                write_tone(path, TONES[label], 0.3, rng)
                wrong = split != "train" and number % 3 == 0
                clips.append((split, audioclf.Example(str(path), list(TONES)[(position + wrong) % 3])))
    parts = {split: [clip for part, clip in clips if part == split] for split in ("train", "valid", "test")}
    return audioclf.AudioSplits(
        **{split: tuple(part) for split, part in parts.items()}, name="doubtful", labels=tuple(TONES)
    )


@pytest.fixture(scope="session")
def quick(tmp_path_factory) -> dict:
    """Options of a run of seconds."""
    return {
        "model": tiny_config(),
        "num_epochs": 5,
        "batch_size": 4,
        "learning_rate": 5e-3,
        "precision": "fp32",
        "device": "cpu",
        "logging_steps": 1,
        "progress": False,
        "seed": 1,
        "cache_dir": str(tmp_path_factory.mktemp("cache")),
    }


@pytest.fixture(scope="session")
def trained(tones, quick, tmp_path_factory) -> audioclf.TrainResult:
    """A run on the tones with the mean head."""
    return audioclf.train(tones, output_dir=tmp_path_factory.mktemp("run") / "out", **quick)


# The hundreds of small runs of the tests write no report unless they are asked to.
audioclf.TrainConfig.__init__.__kwdefaults__["report"] = False


@pytest.fixture(autouse=True)
def _same_threads():
    """Sums depend on the number of threads; keep it as it is for every test."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def fft_for_few_frames(monkeypatch):
    """The positional convolution by Fourier transforms also in batches as small as those of the tests."""
    monkeypatch.setattr(positional, "FEWEST_FRAMES", 0)
