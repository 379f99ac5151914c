"""A table of millions of clips: from the start of Python to a data set, and to the first batch of training on it.

Usage: python benchmarks/bench_manifest.py [--rows 2000000] [--rounds 3] [--json FILE]

The table has paths of 31 characters, 500 labels and a column of splits, 20 clips of which are valid; the files are
links to 1,000 sounds of 1 s. Training streams them (`steps_per_epoch`), DistilHuBERT's full shape with random weights;
it is stopped when the loss of its first batch is known. Each round is a process of its own. A loop of Python beside it
tells how fast the machine is at that.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from measure import parser, write

LOADED = """
import resource, sys
import audioclf
splits = audioclf.load_dataset(sys.argv[1])
assert len(splits.valid) == 20
print(len(splits.train), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
FIRST_BATCH = """
import os, resource, sys
import torch, transformers
import audioclf
class Loss(torch.nn.CrossEntropyLoss):
    def forward(self, logits, labels):
        print(len(labels), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
        os._exit(0)
config = transformers.HubertConfig(num_hidden_layers=2, feat_proj_layer_norm=False)
audioclf.train(
    audioclf.load_dataset(sys.argv[1]), model=config, loss=lambda config: Loss(reduction="none"), steps_per_epoch=1,
    num_epochs=1, output_dir=sys.argv[2], cache_dir=sys.argv[2] + " cache", device="cpu", precision="fp32",
    progress=False,
)
"""


def main() -> None:
    made = parser(__doc__, rounds=3)
    made.add_argument("--rows", type=int, default=2_000_000)
    options = made.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        table = write_table(Path(folder), options.rows)
        for number in range(options.rounds):
            (train, loaded_peak), loaded = timed(LOADED, str(table))
            assert train == options.rows - 20
            (clips, peak), first = timed(FIRST_BATCH, str(table), f"{folder}/run {number}")
            assert clips == 8
            began = time.perf_counter()
            for _ in range(10_000_000):
                pass
            loop = time.perf_counter() - began
            seconds = {"data set": round(loaded, 1), "first batch": round(first, 1), "10M empty loops": round(loop, 2)}
            peaks = {"data set": round(loaded_peak / 2**20, 2), "first batch": round(peak / 2**20, 2)}
            rounds.append({"seconds": seconds, "peak_gib": peaks})
    write(options, {"each round": rounds})


def write_table(folder: Path, num_rows: int) -> Path:
    """The table, and a link for each of its rows."""
    table, rng, parts = folder / "clips.csv", np.random.default_rng(0), range(1000)
    for part in parts:
        own = folder / f"audio/part{part:03}"
        own.mkdir(parents=True)
        soundfile.write(own / "sound.wav", 0.1 * rng.standard_normal(22_050), 22_050)
    every = num_rows // 20
    with open(table, "w", encoding="utf-8") as file:
        file.write("path,label,split\n")
        for i in range(num_rows):
            name = f"audio/part{i % 1000:03}/clip{i:07}.wav"
            os.link(folder / f"audio/part{i % 1000:03}/sound.wav", folder / name)
            file.write(f"{name},label{i % 500},{'train' if i % every else 'valid'}\n")
    return table


def timed(script: str, *arguments: str) -> tuple[list[int], float]:
    """The numbers that a process prints, and how long it takes."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script, *arguments], check=True, capture_output=True, text=True)
    return [int(value) for value in done.stdout.split()], time.perf_counter() - began


if __name__ == "__main__":
    main()
