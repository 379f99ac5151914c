"""The same seed gives the same bits: whatever the workers, the cache, or what the process drew before."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import tiny_config

import audioclf
from audioclf import ConfigError
from audioclf.models.heads import MeanHead
from audioclf.runtime import deterministic_algorithms

RANDOM = {
    "apply_spec_augment": True,
    "mask_time_length": 4,
    "layerdrop": 0.2,
    **dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.1),
}
"""Everything in the model that draws random numbers in training."""


def bits(output_dir) -> tuple[list[dict], str]:
    """The history without its clock, and the hash of all weights."""
    lines = (output_dir / "history.jsonl").read_text().splitlines()
    history = [{key: value for key, value in json.loads(line).items() if key != "time"} for line in lines]
    hashes = [(output_dir / name / "model.safetensors").read_bytes() for name in ("best", "last")]
    return history, hashlib.sha256(b"".join(hashes)).hexdigest()


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_bit_identical(precision, tones, quick, tmp_path):
    options = {
        **quick,
        "model": tiny_config(**RANDOM),
        "precision": precision,
        "num_epochs": 2,
        "max_seconds": 0.4,
        "random_crop": True,
        "gradient_accumulation_steps": 2,
        "cache_dir": tmp_path / "cache",
    }
    audioclf.train(tones, output_dir=tmp_path / "cold", **options)
    expected = bits(tmp_path / "cold")
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    audioclf.train(tones, output_dir=tmp_path / "warm", num_workers=2, **options)
    assert bits(tmp_path / "warm") == expected
    options["cache_dir"] = tmp_path / "other cache"
    audioclf.train(tones, output_dir=tmp_path / "flags", deterministic=True, num_workers=1, **options)
    assert bits(tmp_path / "flags") == expected
    audioclf.train(tones, output_dir=tmp_path / "seed", **{**options, "seed": 2})
    assert bits(tmp_path / "seed") != expected


def test_bit_identical_in_another_process(tones, tmp_path):
    tiny_config(**RANDOM).to_json_file(tmp_path / "config.json")
    options = {"model": str(tmp_path / "config.json"), "num_epochs": 1, "device": "cpu", "precision": "fp32"}
    audioclf.train(tones, output_dir=tmp_path / "here", cache_dir=tmp_path / "cache", progress=False, **options)
    command = [sys.executable, "-m", "audioclf", "train", str(tones), "--output-dir", str(tmp_path / "there")]
    command += ["--cache-dir", str(tmp_path / "other cache")]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": "1"})
    assert bits(tmp_path / "here") == bits(tmp_path / "there")
    assert len(bits(tmp_path / "here")[0]) > 2


class DrawingHead(MeanHead):
    """Draws in evaluation too."""

    def forward(self, frames, mask):
        torch.rand(1)
        return super().forward(frames, mask)


def test_evaluation_draws_no_random_numbers(tones, quick, tmp_path):
    """Twice the clips to validate on must not change what is trained, not even with layers that draw there too."""
    splits = audioclf.load_dataset(tones)
    options = {**quick, "model": tiny_config(**RANDOM), "num_epochs": 2, "head": DrawingHead}
    first = audioclf.train(splits, output_dir=tmp_path / "first", **options)
    fewer = audioclf.make_splits([*splits.train, *splits.valid[::2]], name="x", labels=splits.labels)
    second = audioclf.train(fewer, output_dir=tmp_path / "second", **options)
    losses = [[row["loss"] for row in run.history if row["event"] == "step"] for run in (first, second)]
    assert losses[0] == losses[1]


class TestDeterministicOption:
    def test_flags_are_set_and_restored(self):
        torch.backends.cudnn.benchmark = True
        try:
            with deterministic_algorithms(True):
                assert torch.are_deterministic_algorithms_enabled()
                assert not torch.backends.cudnn.benchmark
                assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
            assert not torch.are_deterministic_algorithms_enabled()
            assert torch.backends.cudnn.benchmark
            with deterministic_algorithms(False):
                assert not torch.are_deterministic_algorithms_enabled()
        finally:
            torch.backends.cudnn.benchmark = False

    def test_a_cublas_that_started_otherwise_is_told(self):
        """The sentence that torch raises; to make it do so takes CUDA."""
        with pytest.raises(ConfigError, match="train in a new process"), deterministic_algorithms(True):
            raise RuntimeError(
                "... but this operation is not deterministic ... set CUBLAS_WORKSPACE_CONFIG=:4096:8 ..."
            )

    def test_what_cannot_be_deterministic_is_told(self, tones, quick, tmp_path):
        class Odd(torch.nn.Module):
            """Scatters without adding up, which torch cannot do deterministically."""

            def __init__(self, config):
                super().__init__()
                self.linear = torch.nn.Linear(config.hidden_size, config.num_labels)

            def forward(self, frames, mask):
                mean = frames[-1].mean(1)
                index = torch.zeros(1, dtype=torch.long)
                return self.linear(mean.clone().put_(index, torch.zeros(1), accumulate=False))

        with pytest.raises(ConfigError, match=r"deterministic=True cannot be kept: put_ does not have a determin"):
            audioclf.train(tones, output_dir=tmp_path / "out", head=Odd, deterministic=True, **quick)
        assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_bit_identical_on_cuda(precision, tones, quick, tmp_path):
    options = {**quick, "model": tiny_config(**RANDOM), "precision": precision, "num_epochs": 2, "device": "cuda"}
    for name in ("first", "second"):
        audioclf.train(tones, output_dir=tmp_path / name, deterministic=True, **options)
    assert bits(tmp_path / "first") == bits(tmp_path / "second")
