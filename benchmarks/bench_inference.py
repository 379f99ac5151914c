"""Classifying clips of 1 to 30 s in DistilHuBERT's shape: audioclf, transformers' pipeline, and its bare model.

Usage: python benchmarks/bench_inference.py [--clips 16] [--batch-size 8] [--precision fp32] [--device cpu]
       [--rounds 2] [--json FILE]

All sides get the same decoded waveforms in one random order, in batches of the same number of clips; transformers in
fp32, audioclf in the precision asked for, with the largest difference of a score that it makes. The pipeline and the
bare model (feature extractor, padding, attention mask) take them as they come; audioclf sorts them by length.
"peak_gib" is that of a process of its own, which does it once.
"""

import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import transformers
from measure import interleaved, parser, peak_gib, write

import audioclf
from audioclf.allocator import keep_freed_memory
from audioclf.runtime import DTYPES

RATE = 16_000


def main() -> None:
    made = parser(__doc__, rounds=2, device=True)
    made.add_argument("--clips", type=int, default=16)
    made.add_argument("--batch-size", type=int, default=8)
    made.add_argument("--precision", choices=list(DTYPES), default="fp32", help="audioclf's; the others have fp32")
    made.add_argument("--keep-memory", action="store_true", help="the allocator's settings of our commands, all sides")
    options = made.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder))
        peaks = {}
        for side in ("pipeline", "bare model", "audioclf"):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                peaks[side] = pool.submit(peak_memory, side, folder, options).result()
        sides = {side: make(side, folder, options) for side in peaks}
        rows, _ = interleaved(sides, options.rounds, device=options.device)
        exact, ours = (audioclf.load(folder, device=options.device, precision=p) for p in ("fp32", options.precision))
        clips = [{"array": clip, "sampling_rate": RATE} for clip in make_clips(options.clips)]
        difference = float(np.abs(exact.probabilities(clips) - ours.probabilities(clips)).max())
    seconds = sum(len(clip) for clip in make_clips(options.clips)) / RATE
    for side, row in rows.items():
        row["peak_gib"] = round(peaks[side], 2)
        row["seconds of audio a second"] = round(seconds / row["seconds"], 2)
        row["audioclf is times as fast"] = round(row["seconds"] / rows["audioclf"]["seconds"], 2)
    figures = {"seconds of audio": round(seconds, 1), "largest difference to fp32": difference, "sides": rows}
    write(options, figures)


def save_model(folder: Path) -> None:
    """A classifier of full size with random weights."""
    torch.manual_seed(0)
    config = transformers.HubertConfig(num_hidden_layers=2, feat_proj_layer_norm=False, num_labels=10)
    transformers.HubertForSequenceClassification(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)


def make_clips(count: int) -> list[np.ndarray]:
    """Noise of 1 to 30 s, evenly spread, in random order."""
    rng = np.random.default_rng(0)
    lengths = rng.permutation(np.linspace(1, 30, count)) * RATE
    return [rng.standard_normal(int(length)).astype(np.float32) for length in lengths]


def make(side: str, folder: str, options) -> Callable[[], None]:
    """One pass over all clips, ready to be called."""
    if options.keep_memory:
        keep_freed_memory()
    clips, size = make_clips(options.clips), options.batch_size
    if side == "audioclf":
        classifier = audioclf.load(folder, device=options.device, precision=options.precision)
        sounds = [{"array": clip, "sampling_rate": RATE} for clip in clips]
        return lambda: classifier(sounds, batch_size=size)
    if side == "pipeline":
        pipe = transformers.pipeline("audio-classification", model=folder, device=options.device, batch_size=size)
        return lambda: pipe([{"raw": clip, "sampling_rate": RATE} for clip in clips])
    model = transformers.AutoModelForAudioClassification.from_pretrained(folder).eval().to(options.device)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)

    def run() -> None:
        with torch.inference_mode():
            for start in range(0, len(clips), size):
                batch = extractor(clips[start : start + size], sampling_rate=RATE, padding=True, return_tensors="pt")
                model(**batch.to(options.device)).logits.softmax(-1)

    return run


def peak_memory(side: str, folder: str, options) -> float:
    """Peak in GiB after one pass in a process of its own."""
    make(side, folder, options)()
    return peak_gib(options.device)


if __name__ == "__main__":
    main()
