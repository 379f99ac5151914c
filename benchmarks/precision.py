"""What half precision costs in accuracy: the demonstration in fp32, bf16 and fp16, over several seeds.

Usage: python benchmarks/precision.py [--seeds 42 0 1] [--precisions fp32 bf16 fp16] [--device cpu]

Prints one JSON line a run as it ends. On a CPU without fast half precision a bf16 run takes ten times as long as fp32.
"""

import argparse
import json
import runpy
import sys
import tempfile
import time
from pathlib import Path

import torch

import audioclf

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))  # as when one of them is run
EXAMPLE = runpy.run_path(str(EXAMPLES / "gtzan.py"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 0, 1])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16", "fp16"])
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    for seed in options.seeds:
        for precision in options.precisions:
            print(json.dumps(run(seed, precision, options.device)), flush=True)


def run(seed: int, precision: str, device: str) -> dict:
    """One demonstration: its validation accuracy, loss, steps skipped for overflow, and seconds."""
    recipe = {**EXAMPLE["DEMO"], "precision": precision, "seed": seed, "device": device, "progress": False}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        result = audioclf.train("demo", model=EXAMPLE["demo_encoder"](), output_dir=f"{folder}/run", **recipe)
    epochs = [row for row in result.history if row["event"] == "epoch"]
    return {
        "seed": seed,
        "precision": precision,
        "accuracy": result.best_metrics["accuracy"],
        "loss": result.best_metrics["loss"],
        "last_accuracy": epochs[-1]["accuracy"],
        "skipped_steps": epochs[-1]["skipped_steps"],
        "seconds": round(time.perf_counter() - began, 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
