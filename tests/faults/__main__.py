"""Injures real runs and checks what has to hold: `python -m tests.faults [ROW ...] [--quick] [--json FILE]`.

Rows: A resuming, B kills, C full disk, D damage, E signals, F numbers, G memory, H sounds, I refusals, J trust. Each
prints its figures; the first thing that does not hold ends it with a traceback.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # as pytest does: conftest and faults are found there

import torch

from faults.harness import write_corpus
from faults.matrix import ROWS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", default=sorted(ROWS), choices=sorted(ROWS), help="all when not given")
    parser.add_argument("--quick", action="store_true", help="a few of each kind only")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in a shell's background job it would be ignored
    figures = {}
    for row in options.rows:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            workspace = Path(folder)
            figures[row] = ROWS[row](workspace, write_corpus(workspace / "data"), options.quick)
        figures[row]["seconds"] = round(time.monotonic() - began)
        print(row, json.dumps(figures[row]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
