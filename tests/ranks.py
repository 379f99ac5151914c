"""What torchrun runs for test_distributed: trainings or evaluations, and what came of them, a JSON line each.

Imported once, as that is the slow part. A training may be told that a process of it dies, or gets a signal, while it
computes its n-th micro-batch; the mark of that is a file, so that it happens once.
"""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import datasets
import torch

import audioclf
from audioclf.clips import decode
from audioclf.datasets.making import make_splits
from audioclf.distributed import joined
from audioclf.evaluation import evaluate_loader
from audioclf.loaders import make_loaders
from audioclf.models.loading import load_feature_extractor
from audioclf.models.losses import build_loss

RANK = int(os.environ.get("RANK", "0"))


class Trouble:
    """The usual loss; the signal comes while its n-th training batch in this process is computed."""

    def __init__(self, mark: str, rank: int, at: int, number: int) -> None:
        self.mark, self.rank, self.at, self.number = Path(mark), rank, at, number
        self.count = 0

    def __call__(self, config):
        def loss(logits, labels):
            if torch.is_grad_enabled():
                self.count += 1
                if self.count == self.at and self.rank == RANK and not self.mark.exists():
                    self.mark.touch()
                    signal.raise_signal(self.number)
            return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

        return loss


def evaluations(checkpoint: str, data: str, cache_dir: str, max_clips: int) -> None:
    """Evaluates the first 1, 2, ... clips of a data set, as training does."""
    classifier = audioclf.load(checkpoint, device="cpu")
    model, extractor, cpu = classifier.model, load_feature_extractor(checkpoint), torch.device("cpu")
    parts = audioclf.load_dataset(data).parts.values()
    clips = [dataclasses.replace(clip, split="test") for part in parts for clip in part]
    with joined(cpu):
        for number in range(1, max_clips + 1):
            splits = make_splits(clips[:number], name="clips", labels=classifier.labels)
            config = audioclf.TrainConfig(batch_size=1 + number % 4, chunk_seconds=0.25 if number % 2 else None)
            decoded = decode(
                splits,
                sampling_rate=classifier.sampling_rate,
                max_seconds=30.0,
                chunk_seconds=config.chunk_seconds,
                bad_audio="error",
                cache_dir=cache_dir,
                progress=False,
            )
            loaders, _ = make_loaders(config, cpu, "fp32", splits, decoded, model, extractor, 1)
            loss = build_loss("auto", model.config)
            done = evaluate_loader(model, loaders["test"], loss, device=cpu, precision="fp32")
            tell({"metrics": done.metrics, "confusion": done.confusion.tolist(), "logits": done.logits.tolist()})


def tell(told: dict) -> None:
    with open(f"{sys.argv[2]}-{RANK}.jsonl", "a") as file:
        file.write(json.dumps(told) + "\n")


def main() -> None:
    for job in json.loads(Path(sys.argv[1]).read_text()):
        if "checkpoint" in job:
            evaluations(**job)
            continue
        options = {**job["options"], "loss": Trouble(**job["trouble"])} if "trouble" in job else job["options"]
        try:
            data, valid = job["data"], None
            if isinstance(data, dict):
                valid = data["valid"]
                data = datasets.load_dataset("parquet", data_files=data["parquet"], split="train", streaming=True)
            result = audioclf.train(data, valid, **options)
        except audioclf.AudioclfError as error:
            told = {"error": str(error)}
        else:
            steps = [row for row in result.history if row["event"] == "step"]
            told = {
                "best": result.best_metrics,
                "test": result.test_metrics,
                "steps": [[row["step"], row["loss"], row["grad_norm"], row["learning_rate"]] for row in steps],
            }
        tell(told)


if __name__ == "__main__":
    main()
