"""Epochs by one process with all threads, by one with half of them, and by two with half of them each (gloo).

Usage: python benchmarks/bench_scaling.py [--clips 48] [--seconds 5] [--threads 2] [--precision fp32] [--rounds 2]
       [--json FILE]

DistilHuBERT's shape with random weights, noise of 0.5 to 1 times that length, a step of 8 clips for all together. What
counts is the second epoch, without its validation's decoding or the start of the processes; the sides take turns.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import transformers
from measure import parser, write

RATE, BATCH_SIZE = 16_000, 8
SCRIPT = """
import json, sys
import audioclf
result = audioclf.train(**json.loads(sys.argv[1]))
if audioclf.is_first_process():
    first, second = (row["time"]["seconds"] for row in result.history if row["event"] == "epoch")
    print(json.dumps(second - first))
"""


def main() -> None:
    made = parser(__doc__, rounds=2)
    made.add_argument("--clips", type=int, default=48, help="training clips; two validate")
    made.add_argument("--seconds", type=float, default=5)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--precision", default="fp32")
    options = made.parse_args()
    half = options.threads // 2
    sides = {
        f"1 process, {options.threads} threads": (1, options.threads),
        f"1 process, {half} thread(s)": (1, half),
        f"2 processes, {half} thread(s) each": (2, half),
    }
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), options.clips, options.seconds)
        for _ in range(options.rounds):
            for side, (processes, threads) in sides.items():
                seconds[side].append(epoch_seconds(Path(folder), processes, threads, options.precision))
    whole, alone, together = (float(np.median(taken)) for taken in seconds.values())
    figures = {
        "seconds of the second epoch": seconds,
        "two processes beside one with as many threads in all": round(whole / together, 2),
        "two processes beside one of them alone": round(alone / together, 2),
    }
    write(options, figures)


def prepare(folder: Path, num_clips: int, seconds: float) -> None:
    """Noise in two classes, the script, and the model's shape."""
    rng = np.random.default_rng(0)
    for split, count in (("train", num_clips), ("valid", 2)):
        for number in range(count):
            path = folder / "data" / split / "ab"[number % 2] / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.1 * rng.standard_normal(int(seconds * RATE * rng.uniform(0.5, 1))), RATE)
    (folder / "train.py").write_text(SCRIPT, encoding="utf-8")
    transformers.HubertConfig(num_hidden_layers=2, feat_proj_layer_norm=False).to_json_file(folder / "shape.json")


def epoch_seconds(folder: Path, processes: int, threads: int, precision: str) -> float:
    """The second epoch of a training by so many processes."""
    training = {
        "data": str(folder / "data"),
        "model": str(folder / "shape.json"),
        "output_dir": str(folder / "run"),
        "overwrite": True,
        "cache_dir": str(folder / "cache"),
        "num_epochs": 2,
        "batch_size": BATCH_SIZE // processes,
        "precision": precision,
        "device": "cpu",
        "report": False,
        "progress": False,
    }
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*launch, str(folder / "train.py"), json.dumps(training)],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return round(float(done.stdout.splitlines()[-1]), 2)


if __name__ == "__main__":
    main()
