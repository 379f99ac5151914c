"""Classifying clips in DistilHuBERT's shape: audioclf, and onnxruntime with the file that `audioclf export` writes.

Usage: python benchmarks/bench_onnx.py [--seconds 5 10] [--batch-size 1] [--threads 1] [--rounds 5] [--json FILE]

Both sides compute in fp32 on the CPU with so many threads, from the same decoded waveforms to scores, and take turns.
"difference" is the largest one of a score between them.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from bench_inference import RATE, save_model
from measure import interleaved, parser, write

import audioclf


def main() -> None:
    made = parser(__doc__, rounds=5)
    made.add_argument("--seconds", type=float, nargs="+", default=[5, 10], help="length of the clips")
    made.add_argument("--batch-size", type=int, default=1, help="clips in one forward pass")
    made.add_argument("--threads", type=int, default=1)
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder))
        file = Path(folder) / "model.onnx"
        audioclf.export_onnx(folder, file)
        classifier = audioclf.load(folder, device="cpu")
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
        figures = {f"{seconds:g} s": measure(classifier, session, seconds, options) for seconds in options.seconds}
        size = file.stat().st_size / 2**20
    write(options, {"onnxruntime": onnxruntime.__version__, "file in MiB": round(size, 1)} | figures)


def measure(classifier: audioclf.Classifier, session: onnxruntime.InferenceSession, seconds: float, options) -> dict:
    """Seconds a batch of each side."""
    rng, num_samples = np.random.default_rng(0), int(seconds * RATE)
    batch = rng.standard_normal((options.batch_size, num_samples)).astype(np.float32)
    inputs = {"waveforms": batch, "lengths": np.full(len(batch), num_samples)}
    sounds = [{"array": clip, "sampling_rate": RATE} for clip in batch]
    sides = {
        "audioclf": lambda: classifier.probabilities(sounds, options.batch_size),
        "onnxruntime": lambda: session.run(None, inputs)[0],
    }
    ours, theirs = (run() for run in sides.values())
    rows, _ = interleaved(sides, options.rounds)
    return {"sides": rows, "difference": float(np.abs(ours - theirs).max())}


if __name__ == "__main__":
    main()
