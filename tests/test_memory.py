"""When memory runs out: smaller pieces, the same update."""

import json
import resource as limits
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_config, write_tone
from safetensors.torch import load_file

import audioclf
from audioclf import ConfigError, ResourceError
from audioclf.memory import backing_off, in_pieces, is_out_of_memory


class Full:
    """Builds the usual loss; memory "runs out" for more than so many clips, in the pass that is said."""

    def __init__(self):
        self.most, self.where, self.sizes = None, "forward", []

    def holds(self, most, where="forward"):
        self.most, self.where, self.sizes = most, where, []
        return self

    def __call__(self, config):
        def loss(logits, labels):
            evaluating = not torch.is_grad_enabled()
            self.sizes.append((len(labels), evaluating))
            if self.most is not None and len(labels) > self.most:
                if self.where == "backward" and not evaluating:
                    logits = FullInBackward.apply(logits)
                elif self.where == ("evaluation" if evaluating else "forward"):
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

        return loss


class FullInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise torch.OutOfMemoryError("CUDA out of memory.")


full = Full()


@pytest.fixture
def options(quick, tmp_path):
    return {**quick, "num_epochs": 1, "batch_size": 12, "loss": full, "output_dir": tmp_path / "out"}


@pytest.fixture(scope="module")
def roomy(tones, quick, tmp_path_factory):
    """The run with memory enough."""
    folder = tmp_path_factory.mktemp("roomy") / "out"
    return audioclf.train(
        tones, output_dir=folder, loss=full.holds(None), **{**quick, "num_epochs": 1, "batch_size": 12}
    )


def largest_difference(result, other) -> float:
    ours, theirs = (load_file(each.output_dir / "last" / "model.safetensors") for each in (result, other))
    return max((ours[name] - value).abs().max().item() for name, value in theirs.items())


class TestTraining:
    @pytest.mark.parametrize("where", ["forward", "backward"])
    @pytest.mark.parametrize("most", [1, 2, 5, 6, 11])
    def test_the_update_stays_the_same(self, roomy, tones, options, capsys, where, most):
        full.holds(most, where)
        result = audioclf.train(tones, **{**options, "progress": True})
        assert largest_difference(result, roomy) < 1e-6
        assert result.history[-1]["step"] == roomy.history[-1]["step"] == 3
        told = capsys.readouterr().out
        fits = {1: 1, 2: 2, 5: 3, 6: 6, 11: 6}[most]  # halved from 12, rounded up
        assert told.count("Memory ran out: from here on at most") == 1
        assert (
            f"at most {fits} clip(s) are computed at a time. The effective batch and its update stay the same." in told
        )

    def test_with_accumulation_and_class_weights(self, tones, options, tmp_path):
        more = {"gradient_accumulation_steps": 2, "class_weights": "balanced"}
        full.holds(None)
        roomy = audioclf.train(tones, **{**options, **more, "output_dir": tmp_path / "roomy"})
        full.holds(3)
        assert largest_difference(audioclf.train(tones, **{**options, **more}), roomy) < 1e-6

    def test_the_size_is_remembered_in_the_checkpoint(self, tones, options, capsys):
        full.holds(4)
        audioclf.train(tones, **options)
        full.holds(4)
        audioclf.train(tones, **{**options, "num_epochs": 2, "resume": True, "progress": True})
        assert "Memory ran out" not in capsys.readouterr().out
        assert max(size for size, evaluating in full.sizes if not evaluating) == 3

    def test_dropout_is_drawn_as_if_it_had_been_small_from_the_start(self, tones, options, tmp_path):
        """The failed attempt leaves no trace in the random numbers, wherever in the window it failed."""
        results = []
        for where in ("forward", "backward"):
            full.holds(6, where)
            more = {"model": tiny_config(hidden_dropout=0.2), "output_dir": tmp_path / where}
            results.append(audioclf.train(tones, **{**options, **more}))
        assert largest_difference(*results) == 0

    def test_one_clip_is_too_much(self, tones, options):
        full.holds(0)
        with pytest.raises(ResourceError, match=r"Memory does not do even for one clip, .*\.wav: cut long clips by"):
            audioclf.train(tones, **options)

    def test_the_optimizer(self, tones, options, monkeypatch):
        """It cannot go back: the run ends, and what was saved before is there to go on from."""
        full.holds(None)
        whole = torch.optim.AdamW.step
        calls, options = [], {**options, "num_epochs": 2}

        def step(self, *arguments, **more):
            calls.append(1)
            if len(calls) == 5:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return whole(self, *arguments, **more)

        monkeypatch.setattr(torch.optim.AdamW, "step", step)
        with pytest.raises(ResourceError, match=r"Memory ran out in the optimizer.* \(after step 4\)"):
            audioclf.train(tones, **options)
        assert json.loads((options["output_dir"] / "last" / "audioclf.json").read_text())["step"] == 3
        assert audioclf.train(tones, **options, resume=True).history[-1]["step"] == 6

    @pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc"), torch.OutOfMemoryError("full")])
    def test_beside_the_model(self, tones, options, monkeypatch, error):
        full.holds(None)

        def clip(*_arguments, **_options):
            raise error

        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
        with pytest.raises(
            ResourceError, match=r"^Memory ran out beside the model's own work \((Mem|std|full).*\): take"
        ):
            audioclf.train(tones, **options)

    def test_other_errors_pass(self, tones, options):
        def broken(config):
            def loss(logits, labels):
                raise RuntimeError("something else")

            return loss

        with pytest.raises(RuntimeError, match="something else"):
            audioclf.train(tones, **{**options, "loss": broken})


class TestElsewhere:
    def test_evaluation(self, roomy, tones, options, monkeypatch):
        from audioclf import evaluation

        whole, sizes = evaluation.forward, []

        def forward(model, batch, *arguments):
            sizes.append(len(batch["labels"]))
            if not torch.is_grad_enabled() and sizes[-1] > 2:
                raise MemoryError
            return whole(model, batch, *arguments)

        monkeypatch.setattr(evaluation, "forward", forward)
        metrics = audioclf.evaluate(roomy.checkpoint_dir, tones, "test", cache_dir=options["cache_dir"])
        assert sizes[:3] == [8, 4, 2]  # halved until it fits
        assert set(sizes[2:]) == {2}  # and remembered
        for name, value in roomy.test_metrics.items():
            assert metrics[name] == pytest.approx(value, abs=1e-6), name

    def test_inference(self, roomy, tones, monkeypatch):
        from audioclf import evaluation

        files = sorted(str(path) for path in (tones / "test").glob("*/*.wav"))
        classifier = audioclf.load(roomy.checkpoint_dir, device="cpu")
        expected = classifier.probabilities(files)
        whole = evaluation.forward

        def forward(model, batch, *arguments):
            if len(batch["labels"]) > 3:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes")
            return whole(model, batch, *arguments)

        monkeypatch.setattr(evaluation, "forward", forward)
        assert classifier.probabilities(files) == pytest.approx(expected, abs=1e-6)

        def never(*_):
            raise MemoryError("no")

        monkeypatch.setattr(evaluation, "forward", never)
        with pytest.raises(ResourceError, match=r"Memory does not do even for one clip, of \d\.\d s: .*\(no\)"):
            classifier.probabilities(files)


class TestLimit:
    def test_too_little_is_refused(self, tones, options):
        with pytest.raises(
            ConfigError, match=r"max_memory_gb=0.1 is too little: .* the process needs at least \d+\.\d"
        ):
            audioclf.train(tones, **options, max_memory_gb=0.1)

    def test_it_is_lifted_afterwards(self, tones, options):
        before = limits.getrlimit(limits.RLIMIT_DATA)
        full.holds(None)
        audioclf.train(tones, **options, max_memory_gb=30)
        assert limits.getrlimit(limits.RLIMIT_DATA) == before

    @pytest.mark.slow
    def test_a_run_that_would_take_more_keeps_to_it(self, tmp_path):
        """64 clips of 8 s in one batch take 2.9 GB as they are; the update is the same with 1.6."""
        rng = np.random.default_rng(0)
        for part, count in (("train", 32), ("valid", 2)):
            for label, frequency in (("a", 300.0), ("b", 3000.0)):
                for number in range(count):
                    write_tone(tmp_path / "data" / part / label / f"{number}.wav", frequency, 8.0, rng)
        tiny_config(conv_dim=(128,) * 7).to_json_file(tmp_path / "config.json")
        told = {}
        for budget in (None, 1.6):
            command = [sys.executable, "-c", LIMITED, str(tmp_path), json.dumps(budget)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
            assert ("Memory ran out: from here on at most" in done.stdout) == (budget is not None)
            told[budget] = json.loads(done.stdout.splitlines()[-1])
        assert told[None]["peak"] > 1.7e9
        assert told[1.6]["peak"] < 1.6e9
        assert told[1.6]["loss"] == pytest.approx(told[None]["loss"], abs=1e-6)
        assert told[1.6]["grad_norm"] == pytest.approx(told[None]["grad_norm"], abs=1e-5)


LIMITED = """
import json, sys
import audioclf
from peak import peak_mib
folder, budget = sys.argv[1], json.loads(sys.argv[2])
result = audioclf.train(
    folder + "/data", model=folder + "/config.json", num_epochs=1, batch_size=64, max_memory_gb=budget,
    output_dir=f"{folder}/{budget}", cache_dir=folder + "/cache", precision="fp32", device="cpu", logging_steps=1
)
row = result.history[0]
print(json.dumps({"peak": peak_mib() * 2**20, "loss": row["loss"], "grad_norm": row["grad_norm"]}))
"""


class TestParts:
    @pytest.mark.parametrize("max_clips", [None, 1, 2, 3, 7, 8, 100])
    def test_split_keeps_every_clip_once(self, max_clips):
        batch = {"labels": torch.arange(7), "input_values": torch.randn(7, 5)}
        pieces = list(in_pieces(batch, max_clips))
        assert all(len(piece["labels"]) <= (max_clips or 7) for piece in pieces)
        for key, value in batch.items():
            assert torch.equal(torch.cat([piece[key] for piece in pieces]), value)

    @pytest.mark.parametrize(("num_clips", "expected"), [(16, [None, 8, 4, 2, 1]), (5, [None, 3, 2, 1])])
    def test_halving(self, num_clips, expected):
        tried = []

        def attempt(max_clips):
            tried.append(max_clips)
            if max_clips != 1:
                raise MemoryError
            return "done"

        assert backing_off(attempt, None, num_clips) == ("done", 1)
        assert tried == expected

    def test_memory_of_the_failed_attempt_is_free_for_the_next(self):
        alive = []

        class Large:
            def __init__(self):
                alive.append(1)

            def __del__(self):
                alive.pop()

        def attempt(max_clips):
            assert not alive
            large = Large()
            if max_clips is None:
                raise MemoryError
            return large is not None

        assert backing_off(attempt, None, 2) == (True, 1)

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (torch.OutOfMemoryError("x"), True),
            (MemoryError(), True),
            (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), True),
            (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
            (RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB)"), True),
            (RuntimeError("shape mismatch"), False),
            (ValueError("out of memory"), False),
        ],
    )
    def test_what_counts(self, error, expected):
        assert is_out_of_memory(error) == expected
