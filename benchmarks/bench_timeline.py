"""Scores over time in DistilHuBERT's shape, random weights: `timeline` beside a loop over transformers' pipeline.

Usage: python benchmarks/bench_timeline.py [--seconds 7200] [--short 120] [--window 5] [--hop 2.5] [--precision fp32]
       [--tiny] [--rounds 2] [--json FILE]

Both sides first classify the same windows of a short file (wav, 16 kHz), transformers one after the other, as a plain
loop does, in fp32; the largest difference of their scores is told. Then `timeline` alone takes the long file (FLAC,
16 kHz) once, in a process of its own whose peak memory after the short file and after the long one is told, and the
seconds of all its threads (which on a busy machine say more than the clock).
"""

import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import transformers
from bench_inference import RATE, save_model
from measure import interleaved, parser, write

import audioclf
from audioclf.runtime import DTYPES

TINY = {
    "conv_dim": (16,) * 7,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}


def main() -> None:
    made = parser(__doc__, rounds=2)
    made.add_argument("--seconds", type=int, default=7200, help="length of the long file")
    made.add_argument("--short", type=int, default=120, help="length of the file that both sides classify")
    made.add_argument("--window", type=float, default=5.0)
    made.add_argument("--hop", type=float, default=2.5)
    made.add_argument("--precision", choices=list(DTYPES), default="fp32", help="audioclf's; the pipeline has fp32")
    made.add_argument("--tiny", action="store_true", help="a model of the tests' size")
    options = made.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        save_tiny(Path(folder)) if options.tiny else save_model(Path(folder))
        short, long = Path(folder) / "short.wav", Path(folder) / "long.flac"
        write_noise(short, options.short)
        write_noise(long, options.seconds)
        rows, difference = compare(folder, short, options)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            alone = pool.submit(take_long, folder, short, long, options).result()
    for row in rows.values():
        row["times real time"] = round(options.short / row["seconds"], 1)
        row["audioclf is times as fast"] = round(row["seconds"] / rows["audioclf"]["seconds"], 2)
    alone["times real time"] = round(options.seconds / alone["seconds"], 1)
    write(options, {"short file": rows, "largest difference": difference, "long file": alone})


def compare(folder: str, file: Path, options) -> tuple[dict[str, dict[str, float]], float]:
    """Seconds of each side on the same windows, and the largest difference between their scores."""
    classifier = audioclf.load(folder, device="cpu", precision=options.precision)
    pipe = transformers.pipeline("audio-classification", model=folder, device="cpu", top_k=None)
    spans = (over_time(classifier, file, options).times * RATE).round().astype(int)
    found: dict[str, np.ndarray] = {}

    def ours() -> None:
        found["audioclf"] = over_time(classifier, file, options).scores

    def theirs() -> None:
        sound = soundfile.read(file, dtype="float32")[0]
        scores = [pipe({"raw": sound[start:end], "sampling_rate": RATE}) for start, end in spans]
        by_label = [{entry["label"]: entry["score"] for entry in row} for row in scores]
        found["pipeline"] = np.array([[row[label] for label in classifier.labels] for row in by_label])

    rows, _ = interleaved({"pipeline": theirs, "audioclf": ours}, options.rounds)
    return rows, float(np.abs(found["audioclf"] - found["pipeline"]).max())


def take_long(folder: str, short: Path, long: Path, options) -> dict[str, Any]:
    """Seconds of the long file, and this process's peak memory in GiB after the short and after the long one."""
    classifier = audioclf.load(folder, device="cpu", precision=options.precision)
    over_time(classifier, short, options)
    before = peak()
    began, cpu_began = time.perf_counter(), time.process_time()
    windows = len(over_time(classifier, long, options).times)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "windows": windows,
        "peak_gib after short": before,
        "peak_gib": peak(),
    }


def over_time(classifier: audioclf.Classifier, file: Path, options) -> audioclf.Timeline:
    return classifier.timeline(file, window_seconds=options.window, hop_seconds=options.hop)


def peak() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)


def save_tiny(folder: Path) -> None:
    """A classifier of a few thousand parameters with random weights."""
    torch.manual_seed(0)
    config = transformers.HubertConfig(num_labels=10, **TINY)
    transformers.HubertForSequenceClassification(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)


def write_noise(file: Path, seconds: int) -> None:
    """Noise whose loudness changes from second to second, written as it is drawn."""
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(file, "w", RATE, 1, subtype="PCM_16") as out:
        for _ in range(seconds):
            out.write(rng.uniform(0.01, 0.1) * rng.standard_normal(RATE))


if __name__ == "__main__":
    main()
