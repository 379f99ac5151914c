"""What torchrun runs for test_distributed: the trainings it is told, and what came of them, a JSON line each.

Imported once, as that is the slow part. A training may be told that a process of it dies, or gets a signal, while it
computes its n-th micro-batch; the mark of that is a file, so that it happens once.
"""

import json
import os
import signal
import sys
from pathlib import Path

import datasets
import torch

import audioclf

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


def main() -> None:
    for job in json.loads(Path(sys.argv[1]).read_text()):
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
        with open(f"{sys.argv[2]}-{RANK}.jsonl", "a") as file:
            file.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
