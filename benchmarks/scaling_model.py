"""What an epoch costs on many processes: a model fitted here, held against real runs and a simulation, and projected.

Usage: python benchmarks/scaling_model.py [--rounds 2] [--json FILE]

One step of one process takes

    max(fixed + audio * per_second, audio * load / workers) + 2 (n - 1) / n * gradient / bandwidth

where `audio` is the seconds of sound of its share, `fixed` the optimizer, `per_second` forward and backward pass,
`load` decoding and preparing, `n` the number of processes; gradients are summed once the backward pass is over. An
epoch is its steps and, for each second of validation sound, `evaluate`. All is measured on one thread of this
machine, with DistilHuBERT's shape and random weights, in processes that do nothing else; the GPU's figures are those
of docs/results.md. The simulation draws lengths, lets workers and processes wait for each other, and has no formula.
"""

import heapq
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench_scaling import BATCH_SIZE, epoch_seconds, prepare
from measure import parser, write

PARAMETERS = 23_700_000
"""Of DistilHuBERT with its head; their gradients are summed in fp32."""
NUM_CLIPS, LONGEST = 48, 5.0
"""Clips of the real epochs, and their longest in seconds; the shortest has half of it."""
AUDIOSET = {"clips": 2_042_985, "seconds": 10.0, "valid_seconds": 20_383 * 10.0}
"""Train and evaluation part (Gemmeke et al. 2017)."""
H100 = {"fixed": 0.002, "per_second": (0.0522 - 0.002) / 240, "evaluate": 0.42 / 992}
"""docs/results.md: a step of 8 x 30 s in fp16 took 52.2 ms, of which 2 are taken to be the optimizer's (not measured
apart); inference of 992 s of sound in fp16 0.42 s."""
BANDWIDTHS = {"NVLink": 300e9, "PCIe 4": 20e9, "10 Gbit/s": 1.1e9}
"""Bytes a second, as makers state them; not measured."""
FITTED = """
import json, sys, time
import numpy as np, soundfile, torch, transformers
from audioclf.audio import load
from audioclf.collate import make_collator
from audioclf.models.classifier import build_classifier, place
from audioclf.optimizer import build_optimizer
from audioclf.config import TrainConfig

torch.set_num_threads(1)
rng = np.random.default_rng(0)
config, extractor = transformers.HubertConfig.from_json_file(sys.argv[1]), transformers.Wav2Vec2FeatureExtractor()
model = place(build_classifier(config, "mean", ("a", "b"), False, None), torch.device("cpu"), "auto")
optimizer = build_optimizer(model, TrainConfig(report=False), torch.device("cpu"))
collate = make_collator(model.config, extractor)

def median(function, times=3):
    taken = []
    for _ in range(times + 1):
        began = time.perf_counter()
        function()
        taken.append(time.perf_counter() - began)
    return float(np.median(taken[1:]))

def batch(seconds):
    clips = [0.1 * rng.standard_normal(int(16_000 * seconds), dtype=np.float32) for _ in range(4)]
    return collate([{"waveform": clip, "label": 0, "index": 0} for clip in clips])["input_values"]

def step(inputs):
    model.train()
    torch.nn.functional.cross_entropy(model(inputs, None), torch.zeros(4, dtype=torch.long)).backward()
    optimizer.step()
    optimizer.zero_grad()

def evaluate(inputs):
    model.eval()
    with torch.inference_mode():
        model(inputs, None)

short, long = batch(2), batch(5)
few, many = median(lambda: step(short)), median(lambda: step(long))
per_second = (many - few) / 12
fitted = {"fixed": few - 8 * per_second, "per_second": per_second, "evaluate": median(lambda: evaluate(long)) / 20}
sound = 0.1 * rng.standard_normal(22_050 * 30)
for ending in ("wav", "flac", "ogg", "mp3"):
    path = f"{sys.argv[2]}/sound.{ending}"
    soundfile.write(path, sound, 22_050)
    fitted[f"decode {ending}"] = median(lambda: load(path, 16_000), 7) / 30
fitted["prepare"] = median(lambda: batch(5), 7) / 20
print(json.dumps(fitted))
"""
REDUCED = """
import json, os, time
import torch, torch.distributed as dist
dist.init_process_group("gloo")
values, taken = torch.ones(%d), []
for _ in range(6):
    dist.barrier()
    began = time.perf_counter()
    dist.all_reduce(values)
    taken.append(time.perf_counter() - began)
if dist.get_rank() == 0:
    print(json.dumps(sorted(taken[1:])[2]))
"""


@dataclass(frozen=True)
class Costs:
    """Seconds on one process.

    Attributes:
        fixed: Of a step, whatever its sound.
        per_second: Of forward and backward pass of a second of sound.
        evaluate: Of evaluating a second of sound.
        load: Of decoding and preparing a second of sound.
        reduce: Of summing the gradients of two processes; of n it is 2 (n - 1) / n times as much.
    """

    fixed: float
    per_second: float
    evaluate: float
    load: float
    reduce: float

    def step(self, audio: float, processes: int, workers: float) -> float:
        """A step with so many seconds of sound for each process."""
        computed = self.fixed + audio * self.per_second
        return max(computed, audio * self.load / workers) + 2 * (processes - 1) / processes * self.reduce

    def epoch(self, seconds: float, step_audio: float, valid_seconds: float, processes: int, workers: float) -> float:
        """An epoch of so many seconds of sound, `step_audio` in a step of each process, with so many workers each."""
        steps = seconds / (step_audio * processes)
        return steps * self.step(step_audio, processes, workers) + valid_seconds / processes * self.evaluate


def simulated(costs: Costs, lengths: np.ndarray, batch_size: int, processes: int, workers: int) -> float:
    """An epoch without its validation, event by event.

    Each process has `workers` that prepare its batches in turn, at most two ahead for each worker; all processes wait
    for the last one before the gradients are summed.
    """
    steps = len(lengths) // (batch_size * processes)
    audio = lengths[: steps * batch_size * processes].reshape(steps, processes, batch_size).sum(axis=2)
    free = [[0.0] * workers for _ in range(processes)]  # when each worker is
    taken = [[0.0] * (steps + 1) for _ in range(processes)]  # when each batch began to be computed
    now = 0.0
    for number in range(steps):
        done = []
        for process in range(processes):
            begun = max(heapq.heappop(free[process]), taken[process][max(0, number - 2 * workers)])
            ready = begun + audio[number, process] * costs.load
            heapq.heappush(free[process], ready)
            start = max(now, ready)
            taken[process][number] = start
            done.append(start + costs.fixed + audio[number, process] * costs.per_second)
        now = max(done) + 2 * (processes - 1) / processes * costs.reduce
    return now


def main() -> None:
    options = parser(__doc__, rounds=2).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, NUM_CLIPS, LONGEST)
        fitted = told([sys.executable, "-c", FITTED, str(folder / "shape.json"), name])
        (folder / "reduce.py").write_text(REDUCED % PARAMETERS)
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        fitted["reduce"] = told([*launch, str(folder / "reduce.py")])
        measured = {
            processes: [epoch_seconds(folder, processes, 1, "fp32") for _ in range(options.rounds)]
            for processes in (1, 2)
        }
    cached = Costs(
        **{name: fitted[name] for name in ("fixed", "per_second", "evaluate", "reduce")}, load=fitted["prepare"]
    )
    write(options, {
        "fitted": {name: float(f"{value:.3g}") for name, value in fitted.items()},
        "held against real epochs": held_against(cached, measured),
        "held against the simulation": by_simulation(),
        "AudioSet": projected(fitted),
    })  # fmt: skip


def told(command: list[str]) -> dict[str, float] | float:
    """What a process on one thread prints last."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def held_against(costs: Costs, measured: dict[int, list[float]]) -> dict[str, dict[str, float]]:
    """The model's epoch beside those of `bench_scaling`, with two clips to validate."""
    rows, mean = {}, 0.75 * LONGEST
    for processes, taken in measured.items():
        audio = NUM_CLIPS * mean
        predicted = costs.epoch(audio, BATCH_SIZE * mean / processes, 2 * mean, processes, 1)
        median = float(np.median(taken))
        rows[f"{processes} process(es)"] = {
            "measured": median, "predicted": round(predicted, 2), "off": round(predicted / median - 1, 3)
        }  # fmt: skip
    return rows


def by_simulation() -> dict[str, float]:
    """How far the formula is from the simulation, with a GPU's costs: the loader faster, as fast and slower than it."""
    rng, rows = np.random.default_rng(0), {}
    for load in (0.0001, 0.0005, 0.002):
        for processes in (1, 8):
            for workers in (1, 4, 8):
                costs = Costs(**H100, load=load, reduce=0.0003)
                lengths = np.full(40_000, 10.0) if processes == 1 else rng.uniform(8, 12, 40_000)
                formula = costs.epoch(float(lengths.sum()), 8 * 10.0, 0.0, processes, workers)
                off = formula / simulated(costs, lengths, 8, processes, workers) - 1
                rows[f"load {1000 * load:g} ms/s, {processes} processes, {workers} workers"] = round(float(off), 3)
    return rows


def projected(fitted: dict[str, float]) -> dict[str, dict]:
    """AudioSet on H100s: minutes of an epoch, what limits it, and the workers from which that is the GPU."""
    rows = {}
    seconds = AUDIOSET["clips"] * AUDIOSET["seconds"]
    for ending in ("wav", "flac", "ogg", "mp3"):
        load = fitted[f"decode {ending}"] + fitted["prepare"]
        rows[f"workers a GPU beyond which the GPU is the limit, {ending}"] = round(load / H100["per_second"], 1)
    rows["minutes of an epoch, flac"] = {
        f"{processes} GPU(s), {workers} workers each, {network}": round(
            Costs(
                **H100, load=fitted["decode flac"] + fitted["prepare"], reduce=4 * PARAMETERS / bandwidth
            ).epoch(seconds, 80.0, AUDIOSET["valid_seconds"], processes, workers) / 60, 1
        )
        for processes in (1, 8)
        for workers in (1, 2, 4, 8)
        for network, bandwidth in (BANDWIDTHS if processes > 1 else {"alone": 1e30}).items()
    }  # fmt: skip
    rows["decoded audio, GB"] = round(seconds * 16_000 * 4 / 1e9)
    rows["GB/s of decoded audio that 8 GPUs read from a cache"] = round(8 / H100["per_second"] * 64_000 / 1e9, 2)
    return rows


if __name__ == "__main__":
    began = time.monotonic()
    main()
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
