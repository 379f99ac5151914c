"""The waveform CNN in DistilHuBERT's shape: time and memory of transformers' form and ours, side by side.

Usage: python benchmarks/bench_frontend.py [--seconds 10] [--clips 4] [--precision fp32] [--rounds 5] [--json FILE]

The clips of a batch are 100, 90, 80, ... % of its length, as a bucketed batch's are; transformers cannot but compute
their padding. Rounds are interleaved and medians printed, beside the time that the products alone would take at the
speed of a large matrix product measured in the same run.
"""

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import transformers

from audioclf.models.frontend import encode_waveform, num_frames
from audioclf.runtime import DTYPES, autocast

RATE = 16_000
VARIANTS = ("transformers", "reference form, not masked", "reference form, masked", "fast form, masked")
FULL_SIZE = transformers.HubertConfig(num_hidden_layers=2, feat_proj_layer_norm=False)  # DistilHuBERT's


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--precision", choices=list(DTYPES), default="fp32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    report = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "options": vars(options) | {"json": None},
    }
    report |= {"threads": torch.get_num_threads(), "cpu": torch.backends.cpu.get_cpu_capability()}
    report["product_gflops"] = product_speed(options.precision)
    print(json.dumps(report))
    report["rows"] = []
    for backward in (False, True):
        report["rows"] += measure(options, backward, report["product_gflops"])
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def measure(options: argparse.Namespace, backward: bool, gflops: float) -> list[dict]:
    """Prints and returns a row a variant, for the forward pass or for both."""
    shape = (options.clips, options.seconds, options.precision)
    peaks = {}
    for variant in VARIANTS:  # each in a new process, whose peak is its own
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peaks[variant] = pool.submit(peak_memory, variant, backward, *shape).result()
    passes = {variant: make_pass(variant, backward, *shape) for variant in VARIANTS}
    times: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for _ in range(options.rounds + 1):  # the first one warms up
        for variant, run in passes.items():
            began = time.perf_counter()
            run()
            times[variant].append(time.perf_counter() - began)
    floor = num_operations(options.clips * round(options.seconds * RATE)) * (3 if backward else 1) / gflops / 1e9
    rows = []
    for variant in VARIANTS:
        low, median, high = np.quantile(times[variant][1:], (0, 0.5, 1))
        rows.append({"pass": "forward and backward" if backward else "forward", "form": variant, "seconds": median})
        rows[-1] |= {"least": low, "most": high, "products alone": floor, "peak_gib": peaks[variant]}
        rows[-1]["times as fast as transformers"] = rows[0]["seconds"] / median
        print(" | ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in rows[-1].values()), flush=True)
    return rows


def make_pass(variant: str, backward: bool, clips: int, seconds: float, precision: str) -> Callable[[], None]:
    """One pass of the CNN over a batch, ready to be called."""
    torch.manual_seed(0)
    cnn = transformers.HubertModel(FULL_SIZE).feature_extractor.train(backward)
    waveforms = torch.randn(clips, round(seconds * RATE))
    shares = torch.tensor([max(10 - clip, 5) for clip in range(clips)])
    lengths = None if "not" in variant else waveforms.shape[1] * shares // 10

    def run() -> None:
        with torch.inference_mode(not backward), autocast(torch.device("cpu"), precision):
            if variant == "transformers":
                frames = cnn(waveforms)
            else:
                frames = encode_waveform(cnn, waveforms, lengths, variant.split()[0])
        if backward:
            frames.float().square().mean().backward()
            cnn.zero_grad()

    return run


def peak_memory(variant: str, backward: bool, clips: int, seconds: float, precision: str) -> float:
    """Peak of this process in GiB after one pass."""
    make_pass(variant, backward, clips, seconds, precision)()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def num_operations(num_samples: int) -> float:
    """Multiplications and additions of the CNN's products on so many samples."""
    total, channels, length = 0.0, 1, torch.tensor(num_samples)
    for layer, width in enumerate(FULL_SIZE.conv_dim):
        kernel, stride = FULL_SIZE.conv_kernel[layer], FULL_SIZE.conv_stride[layer]
        length = (length - kernel) // stride + 1
        total += 2 * float(length) * kernel * channels * width
        channels = width
    assert int(length) == int(num_frames(torch.tensor(num_samples), FULL_SIZE))
    return total


def product_speed(precision: str) -> float:
    """GFLOP/s of a product of the CNN's second layer's shape."""
    rows, inner, columns = 2048, 1024, 512
    left, right = (torch.randn(shape).to(DTYPES[precision]) for shape in ((rows, inner), (inner, columns)))
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        for _ in range(5):
            left @ right
        best = min(best, (time.perf_counter() - began) / 5)
    return 2 * rows * inner * columns / best / 1e9


if __name__ == "__main__":
    main()
