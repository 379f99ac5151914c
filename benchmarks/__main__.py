"""Runs the benchmarks of speed one after the other: `python -m benchmarks [--out FOLDER]`, 20 minutes on two cores.

Each one's figures go to a JSON file in the folder. The other files here measure accuracy and exactness; they take
longer and are run by themselves.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
RUNS = {
    "frontend": ["bench_frontend.py", "--seconds", "2", "--rounds", "2"],
    "step, all trained": ["bench_train_step.py", "--seconds", "10"],
    "step, all trained, same allocator": ["bench_train_step.py", "--seconds", "10", "--keep-memory"],
    "step, features cached": [*("bench_train_step.py", "--seconds", "10", "--freeze", "feature_encoder", "--cached")],
    "step, features cached, same allocator": [
        *("bench_train_step.py", "--seconds", "10", "--freeze", "feature_encoder", "--cached", "--keep-memory")
    ],
    "epoch": ["bench_epoch.py"],
    "inference": ["bench_inference.py", "--clips", "8", "--rounds", "2"],
    "onnx": ["bench_onnx.py", "--rounds", "2"],
    "loader": ["bench_loader.py"],
    "augment": ["bench_augment.py"],
    "inspect": ["bench_inspect.py", "--sets"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmark_results"), help="folder for the figures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, (script, *arguments) in RUNS.items():
        began = time.monotonic()
        print(f"== {name}: {script} {' '.join(arguments)}", flush=True)
        file = options.out / (name.replace(", ", "-").replace(" ", "_") + ".json")
        subprocess.run([sys.executable, str(HERE / script), *arguments, "--json", str(file)], check=True)
        print(f"== {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
