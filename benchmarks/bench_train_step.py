"""One optimizer step of DistilHuBERT's full shape: ours and transformers' model under Trainer's recipe, side by side.

Usage: python benchmarks/bench_train_step.py [--clips 2] [--seconds 30] [--precision fp32] [--freeze none]
       [--cached] [--keep-memory] [--rounds 3] [--json FILE]

Random weights, the config's own dropout of 0.1, train mode; forward, loss, backward, clipping, AdamW. Both sides run in
one process, interleaved, and medians are printed; peak memory is measured in a process of its own. --cached gives ours
the features of a frozen encoder, as `cache_features` does. --keep-memory lets the C library keep freed memory, for both
sides alike.
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

from audioclf.allocator import keep_freed_memory
from audioclf.evaluation import forward
from audioclf.models.classifier import build_classifier, freeze, place
from audioclf.runtime import DTYPES, autocast

RATE, LABELS, CPU = 16_000, [str(label) for label in range(10)], torch.device("cpu")
SIDES = ("transformers", "audioclf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--precision", choices=list(DTYPES), default="fp32")
    parser.add_argument("--freeze", choices=["none", "feature_encoder", "backbone"], default="none")
    parser.add_argument("--cached", action="store_true")
    parser.add_argument("--keep-memory", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    peaks = {}
    for side in SIDES:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peaks[side] = pool.submit(peak_memory, side, options).result()
    steps = {side: make_step(side, options) for side in SIDES}
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(options.rounds + 1):  # the first one warms up
        for side, step in steps.items():
            began = time.perf_counter()
            step()
            times[side].append(time.perf_counter() - began)
    report = {name: value for name, value in vars(options).items() if name != "json"}
    report |= {"threads": torch.get_num_threads(), "cpu": torch.backends.cpu.get_cpu_capability()}
    report |= {"torch": torch.__version__, "transformers": transformers.__version__}
    for side in SIDES:
        low, median, high = np.quantile(times[side][1:], (0, 0.5, 1)).round(3).tolist()
        report[side] = {"seconds": median, "least": low, "most": high, "peak_gib": round(peaks[side], 2)}
    theirs, ours = (report[side] for side in SIDES)
    report["times as fast"] = round(theirs["seconds"] / ours["seconds"], 2)
    report["share of memory"] = round(ours["peak_gib"] / theirs["peak_gib"], 2)
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def make_step(side: str, options: argparse.Namespace) -> Callable[[], None]:
    """One step of either side on the same batch, ready to be called."""
    if options.keep_memory:
        keep_freed_memory()
    torch.manual_seed(0)
    shape = {"num_hidden_layers": 2, "feat_proj_layer_norm": False, "apply_spec_augment": False}
    config = transformers.HubertConfig(final_dropout=0.0, layerdrop=0.0, num_labels=len(LABELS), **shape)
    values = torch.randn(options.clips, round(options.seconds * RATE))
    batch = {"input_values": values, "attention_mask": torch.ones(values.shape, dtype=torch.long)}
    labels = torch.arange(options.clips) % len(LABELS)
    if side == "transformers":
        model = transformers.AutoModelForAudioClassification.from_config(config)
        if options.freeze != "none":
            model.freeze_feature_encoder()
        if options.freeze == "backbone":
            model.freeze_base_model()

        def logits() -> torch.Tensor:
            with autocast(CPU, options.precision):
                return model(**batch).logits.float()
    else:
        model = place(build_classifier(config, "mean", LABELS), CPU)
        freeze(model, options.freeze)
        if options.cached:
            with torch.no_grad(), autocast(CPU, options.precision):
                features = model.eval().features(values).to(DTYPES[options.precision])
            batch = {"features": features, "num_frames": torch.full((options.clips,), features.shape[1])}

        def logits() -> torch.Tensor:
            return forward(model, batch, CPU, options.precision)

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-5, fused=True)
    model.train()

    def step() -> None:
        torch.nn.functional.cross_entropy(logits(), labels).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def peak_memory(side: str, options: argparse.Namespace) -> float:
    """Peak of this process in GiB after two steps."""
    step = make_step(side, options)
    step()
    step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
