"""Peak memory of training DistilHuBERT's full shape (23.7 million parameters, random weights) on 30 s clips.

Usage: python benchmarks/memory_full_size.py [--batch-size 2] [--accumulate 4] [--precision fp32]

Two optimizer steps of an effective batch of `batch-size * accumulate` clips of noise at 16 kHz, from files, with one
validation. The peak is that of the whole process, imports included.
"""

import argparse
import json
import resource
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch
from transformers import HubertConfig

import audioclf

SECONDS, RATE = 30, 16_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--accumulate", type=int, default=4)
    parser.add_argument("--precision", default="fp32")
    options = parser.parse_args()
    config = HubertConfig(
        num_hidden_layers=2, apply_spec_augment=False, feat_proj_layer_norm=False, final_dropout=0.0, layerdrop=0.0
    )
    with tempfile.TemporaryDirectory() as folder:
        write_clips(Path(folder) / "data", 2 * options.batch_size * options.accumulate)
        result = audioclf.train(
            Path(folder) / "data",
            output_dir=Path(folder) / "run",
            cache_dir=Path(folder) / "cache",
            model=config,
            num_epochs=1,
            batch_size=options.batch_size,
            gradient_accumulation_steps=options.accumulate,
            precision=options.precision,
            logging_steps=1,
            progress=False,
        )
    steps = [row for row in result.history if row["event"] == "step"]
    print(
        json.dumps(
            {
                "steps": len(steps),
                "batch_size": options.batch_size,
                "gradient_accumulation_steps": options.accumulate,
                "precision": options.precision,
                "clip_seconds": SECONDS,
                "threads": torch.get_num_threads(),
                "seconds_in_all": round(steps[-1]["time"]["seconds"], 1),
                "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            }
        )
    )


def write_clips(folder: Path, num_train: int) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", num_train), ("valid", 2)):
        for number in range(count):
            path = folder / split / "ab"[number % 2] / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.1 * rng.standard_normal(SECONDS * RATE), RATE)


if __name__ == "__main__":
    main()
