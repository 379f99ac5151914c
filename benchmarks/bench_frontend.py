"""The waveform CNN in DistilHuBERT's shape: time and memory of transformers' form and ours, side by side.

Usage: python benchmarks/bench_frontend.py [--seconds 10] [--clips 4] [--precision fp32] [--device cpu]
       [--rounds 5] [--json FILE]

The clips of a batch are 100, 90, 80, ... % of its length, as a bucketed batch's are; transformers cannot but compute
their padding. Rounds are interleaved and medians printed, beside the time that the products alone would take at the
speed of a large matrix product measured in the same run.
"""

import argparse
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import torch
import transformers
from measure import interleaved, num_operations, parser, peak_gib, write

from audioclf.models.frontend import encode_waveform
from audioclf.runtime import DTYPES, autocast

RATE = 16_000
VARIANTS = ("transformers", "reference form, not masked", "reference form, masked", "fast form, masked")
FULL_SIZE = transformers.HubertConfig(num_hidden_layers=2, feat_proj_layer_norm=False)  # DistilHuBERT's


def main() -> None:
    made = parser(__doc__, rounds=5, device=True)
    made.add_argument("--seconds", type=float, default=10)
    made.add_argument("--clips", type=int, default=4)
    made.add_argument("--precision", choices=list(DTYPES), default="fp32")
    options = made.parse_args()
    write(options, {"forward": measure(options, False), "both passes": measure(options, True)})


def measure(options: argparse.Namespace, backward: bool) -> dict[str, dict]:
    """A row a variant, for the forward pass or for both."""
    shape = (options.clips, options.seconds, options.precision, options.device)
    peaks = {}
    for variant in VARIANTS:  # each in a new process, whose peak is its own
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peaks[variant] = pool.submit(peak_memory, variant, backward, *shape).result()
    passes = {variant: make_pass(variant, backward, *shape) for variant in VARIANTS}
    rows, speed = interleaved(passes, options.rounds, options.precision, options.device)
    for variant, row in rows.items():
        row["products alone"] = round(num_operations(passes[variant]) / speed / 1e9, 3)
        row["peak_gib"] = round(peaks[variant], 2)
        row["times as fast as transformers"] = round(rows["transformers"]["seconds"] / row["seconds"], 2)
    return {"product_gflops": round(speed, 1), **rows}


def make_pass(
    variant: str, backward: bool, clips: int, seconds: float, precision: str, device: str
) -> Callable[[], None]:
    """One pass of the CNN over a batch, ready to be called."""
    torch.manual_seed(0)
    cnn = transformers.HubertModel(FULL_SIZE).feature_extractor.train(backward).to(device)
    waveforms = torch.randn(clips, round(seconds * RATE)).to(device)
    shares = torch.tensor([max(10 - clip, 5) for clip in range(clips)])
    lengths = None if "not" in variant else waveforms.shape[1] * shares // 10

    def run() -> None:
        with torch.inference_mode(not backward), autocast(torch.device(device), precision):
            if variant == "transformers":
                frames = cnn(waveforms)
            else:
                frames = encode_waveform(cnn, waveforms, lengths, variant.split()[0])
        if backward:
            frames.float().square().mean().backward()
            cnn.zero_grad()

    return run


def peak_memory(variant: str, backward: bool, clips: int, seconds: float, precision: str, device: str) -> float:
    """Peak in GiB after one pass in a process of its own."""
    make_pass(variant, backward, clips, seconds, precision, device)()
    return peak_gib(device)


if __name__ == "__main__":
    main()
