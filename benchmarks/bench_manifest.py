"""A table of millions of clips: seconds and memory from the start of Python to a data set that is divided into parts.

Usage: python benchmarks/bench_manifest.py [--rows 2000000] [--rounds 3] [--json FILE]

The table has paths of 31 characters, 500 labels and a column of splits; the files need not be there, as none is looked
at before its clip is wanted. Each round is a process of its own.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import parser, write

SCRIPT = """
import resource, sys
import audioclf
splits = audioclf.load_dataset(sys.argv[1])
print(len(splits.train), len(splits.valid), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def main() -> None:
    made = parser(__doc__, rounds=3)
    made.add_argument("--rows", type=int, default=2_000_000)
    options = made.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "clips.csv"
        with open(table, "w", encoding="utf-8") as file:
            file.write("path,label,split\n")
            for i in range(options.rows):
                file.write(f"audio/part{i % 1000:03}/clip{i:07}.wav,label{i % 500},{'train' if i % 50 else 'valid'}\n")
        for _ in range(options.rounds):
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", SCRIPT, str(table)], check=True, capture_output=True, text=True
            )
            train, valid, peak = map(int, done.stdout.split())
            rounds.append({"seconds": round(time.perf_counter() - began, 2), "peak_gib": round(peak / 2**20, 2)})
            assert train + valid == options.rows
    write(options, {"each round": rounds})


if __name__ == "__main__":
    main()
