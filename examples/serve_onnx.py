"""Classifies a sound with the file that `audioclf export` writes; neither torch nor audioclf is needed.

pip install numpy onnxruntime soundfile soxr
python examples/serve_onnx.py model.onnx song.wav
"""

import json
import sys

import numpy as np
import onnxruntime
import soundfile
import soxr


def classify(model: str, file: str) -> list[tuple[str, float, bool]]:
    """Each label, its score, and whether that reaches the label's threshold in a multi-label task; likeliest first."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    about = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
    rate = about["sampling_rate"]
    sound, its_rate = soundfile.read(file, dtype="float32", always_2d=True)
    waveform = soxr.resample(sound.mean(axis=1), its_rate, rate)
    if "max_seconds" in about:
        waveform = waveform[: round(about["max_seconds"] * rate)]
    size = round(about["chunk_seconds"] * rate) if "chunk_seconds" in about else len(waveform)
    # As few pieces as cover the sound, evenly spread; one where it is no longer than a piece.
    starts = np.linspace(0, max(0, len(waveform) - size), -(-len(waveform) // size)).astype(int)
    pieces = [waveform[None, start : start + size] for start in starts]
    rows = [session.run(None, {"waveforms": p, "lengths": np.array([p.shape[1]], np.int64)})[0][0] for p in pieces]
    scores = np.mean(rows, axis=0).tolist()
    thresholds = about.get("thresholds", [np.inf] * len(scores))
    told = [(*entry, entry[1] >= least) for *entry, least in zip(about["labels"], scores, thresholds, strict=True)]
    return sorted(told, key=lambda entry: -entry[1])


if __name__ == "__main__":
    for label, score, detected in classify(*sys.argv[1:]):
        print(f"{score:.3f}{'*' * detected} {label}")
