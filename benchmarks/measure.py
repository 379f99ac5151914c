"""What the benchmarks share: interleaved rounds, the machine, and the speed of a plain product on it."""

import argparse
import json
import math
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from audioclf.runtime import DTYPES


def parser(description: str, rounds: int, device: bool = False) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has, and `--device` for those that can compute on a GPU."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds, help="rounds that count; one more warms up")
    made.add_argument("--json", type=Path, help="file for the figures")
    if device:
        made.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    return made


def interleaved(
    sides: dict[str, Callable[[], Any]], rounds: int, precision: str = "fp32", device: str = "cpu"
) -> tuple[dict[str, dict[str, float]], float]:
    """Median, least and most seconds of each side, and the median speed of a plain product in GFLOP/s.

    They take turns, so that a slow minute of the machine meets all.
    """
    times: dict[str, list[float]] = {side: [] for side in sides}
    speeds = []
    for _ in range(rounds + 1):
        speeds.append(product_speed(precision, device))
        for side, run in sides.items():
            times[side].append(seconds_of(run, device))
    rows = {}
    for side, seconds in times.items():
        low, median, high = np.quantile(seconds[1:], (0, 0.5, 1)).round(4).tolist()
        rows[side] = {"seconds": median, "least": low, "most": high}
    return rows, float(np.median(speeds))


def seconds_of(run: Callable[[], Any], device: str) -> float:
    """Seconds until all that it started on the device is done."""
    began = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def peak_gib(device: str) -> float:
    """Most memory so far in GiB: of the tensors on a GPU, else of the process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def write(options: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Prints a benchmark's figures with its options and the machine; keeps them with --json."""
    report = {name: value for name, value in vars(options).items() if name != "json"} | machine() | figures
    text = json.dumps(report, indent=2)
    print(text, flush=True)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """What a figure depends on."""
    return {
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def num_operations(run: Callable[[], Any]) -> int:
    """Multiplications and additions of one run's matrix products and convolutions."""
    own = {torch.ops.aten.convolution_backward: _gradient_operations}
    with FlopCounterMode(display=False, custom_mapping=own) as counter:
        run()
    return counter.get_total_flops()


def _gradient_operations(grad: list[int], _: list[int], weight: list[int], *rest: Any, **__) -> int:
    """Those of the forward pass for each gradient that is asked for; torch's own count forgets the groups."""
    needs_inputs, needs_weights, _ = rest[-1]
    return 2 * math.prod(grad) * math.prod(weight[1:]) * (needs_inputs + needs_weights)


def product_speed(precision: str, device: str) -> float:
    """GFLOP/s of a product of the CNN's second layer's shape, with more rows on a GPU; the best of five."""
    rows, inner, columns = 2048 if device == "cpu" else 65_536, 1024, 512
    shapes = ((rows, inner), (inner, columns))
    left, right = (torch.randn(shape, device=device).to(DTYPES[precision]) for shape in shapes)

    def products() -> None:
        for _ in range(5):
            left @ right

    best = min(seconds_of(products, device) for _ in range(5)) / 5
    return 2 * rows * inner * columns / best / 1e9
