"""F and G: numbers that are none, and memory that runs out."""

from pathlib import Path
from typing import Any

import torch
from conftest import tiny_config
from safetensors.torch import load_file

import audioclf
from audioclf.models.heads import MeanHead

from .harness import attempted, options


class Injured:
    """Builds the usual loss, except on chosen micro-batches (counted from 1 over the whole run).

    Attributes:
        spoilt: The micro-batches whose value or gradient is no number.
        where: `loss` or `gradient`; with `metric` it is the loss of every validation.
        value: What it is instead.
        most: Clips beyond which memory runs out, in the pass named by `where`.
    """

    def __init__(self) -> None:
        self.spoilt: range | set[int] = set()
        self.where, self.value, self.most, self.count = "loss", float("nan"), None, 0

    def set(self, spoilt: Any = (), where: str = "loss", value: float = float("nan"), most: int | None = None) -> Any:
        """Injures from now on."""
        self.spoilt, self.where, self.value, self.most, self.count = spoilt, where, value, most, 0
        return self

    def __call__(self, config: Any) -> Any:
        """The loss function."""
        return self._loss

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        training = torch.is_grad_enabled()
        self.count += training
        if self.most is not None and len(labels) > self.most:
            if training and self.where == "forward":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            if training and self.where == "backward":
                logits = _Backward.apply(logits, None)
        if training and self.count in self.spoilt and self.where == "gradient":
            logits = _Backward.apply(logits, self.value)
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        spoilt = self.where == "metric" if not training else self.where == "loss" and self.count in self.spoilt
        return losses * self.value if spoilt else losses


class _Backward(torch.autograd.Function):
    """Unchanged forward; in the backward pass that value, or no memory."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, value: float | None) -> torch.Tensor:
        ctx.value = value
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        if ctx.value is None:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return gradient * ctx.value, None


injured = Injured()


class InjuredHead(MeanHead):
    """The usual head, except that memory may run out in evaluation."""

    def forward(self, frames: list[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
        """Logits (B, C)."""
        if (
            not self.training
            and injured.where == "evaluation"
            and injured.most is not None
            and len(mask) > injured.most
        ):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().forward(frames, mask)


def no_numbers(workspace: Path, data: Path, quick: bool) -> dict[str, Any]:
    """NaN and infinity, once, several times and 300 times in a row, in loss, gradient and validation."""
    policies = [("fp32", "error"), ("fp32", "skip"), ("fp16", "error"), ("bf16", "skip")]
    values = [float("nan"), float("inf")]
    cases = stopped = skipped = 0
    epochs = 2 if quick else 4
    plain = audioclf.train(data, **options(workspace, "plain", loss=injured.set(), num_epochs=epochs))
    rates = [row["learning_rate"] for row in plain.history if row["event"] == "step"]
    for precision, policy in policies[1:2] if quick else policies:
        for where in ("loss",) if quick else ("loss", "gradient"):
            for value in values[:1] if quick else values:
                for spoilt in ({2, 3, 9, 10, 11},) if quick else ({5}, {2, 3, 9, 10, 11}, range(4, 304)):
                    cases += 1
                    name = f"numbers {cases}"
                    injured.set(spoilt, where, value)
                    run = options(workspace, name, loss=injured, precision=precision, nonfinite=policy, save_steps=None)
                    run["num_epochs"] = 60 if isinstance(spoilt, range) else epochs
                    result, said = attempted(data, run)
                    _finite(Path(run["output_dir"]))
                    if result is None:
                        stopped += 1
                        assert "not a finite number" in said, said
                        assert ".wav" in said, said
                        assert isinstance(spoilt, range) or (precision, policy) == ("fp32", "error"), said
                        continue
                    skipped += 1
                    assert not isinstance(spoilt, range)
                    rows = [row for row in result.history if row["event"] == "step"]
                    assert len(rows) == 8 * epochs - len(spoilt)
                    # A step that was left out takes its place in no schedule.
                    assert [row["learning_rate"] for row in rows] == rates[: len(rows)]
                    assert result.history[-2]["skipped_steps"] == len(spoilt)
    injured.set(where="metric")
    _, said = attempted(data, options(workspace, "metric", loss=injured, num_epochs=epochs))
    assert "No epoch had a finite validation loss" in said, said
    assert not (workspace / "metric" / "best").exists()
    return {"cases": cases + 1, "stopped, naming the clips": stopped, "went on without these steps": skipped}


def _finite(folder: Path) -> None:
    for name in ("best", "last"):
        if (folder / name).exists():
            weights = load_file(folder / name / "model.safetensors")
            assert all(value.isfinite().all() for value in weights.values()), (folder, name)


def no_memory(workspace: Path, data: Path, quick: bool) -> dict[str, Any]:
    """A batch of all 32 clips, of which memory holds 32 to 1: the same weights in the end."""
    largest, retried = 0.0, 0
    uneven = {"batch_size": 8, "gradient_accumulation_steps": 3, "class_weights": "balanced"}
    for more in (uneven,) if quick else ({}, uneven):
        common = {"model": tiny_config(), "batch_size": 64, "loss": injured, "learning_rate": 1e-3, **more}
        common |= {"head": InjuredHead, "num_epochs": 2 if quick else 4}
        injured.set()
        roomy = audioclf.train(data, **options(workspace, f"roomy {len(more)}", **common))
        for where in ("forward", "backward", "evaluation"):
            for most in (3,) if quick else (1, 2, 3, 7, 16):
                injured.set(where=where, most=most)
                name = f"memory {len(more)} {where} {most}"
                result = audioclf.train(data, **options(workspace, name, **common))
                ours, theirs = (load_file(run.output_dir / "last" / "model.safetensors") for run in (result, roomy))
                largest = max(largest, *((ours[key] - value).abs().max().item() for key, value in theirs.items()))
                retried += 1
    assert largest <= 1e-6, largest
    return {"runs": retried, "largest difference of a weight": largest}
