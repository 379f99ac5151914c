"""The data path: how much padding is computed, and how long a training step waits for its batch.

Usage: python benchmarks/bench_loader.py [--batches 6] [--json FILE]

Padding: 2,000 clips of 1 to 30 s in batches of 8 and in batches of at most 120 s, beside batches drawn at random.
Waiting: the share of an epoch that the loop spends asking for its next batch, decoded waveforms of 1 to 6 s on disk,
batches of 4, DistilHuBERT's shape: all of it trained; with its CNN frozen and cached; and its head alone, with the
features of all layers read from disk, where nearly nothing is left to compute.
"""

import itertools
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
import transformers
from measure import parser, write

import audioclf
from audioclf.clips import decode
from audioclf.config import TrainConfig
from audioclf.evaluation import forward
from audioclf.loaders import make_loaders, prefetch
from audioclf.models.classifier import build_classifier, freeze, place
from audioclf.sampling import LengthBucketSampler

RATE, CPU = 16_000, torch.device("cpu")


def main() -> None:
    made = parser(__doc__, rounds=1)
    made.add_argument("--batches", type=int, default=6, help="batches of an epoch")
    options = made.parse_args()
    waits = {part: waiting(part, options.batches) for part in ("none", "feature_encoder", "backbone")}
    write(options, {"share of padding": padding(), "share of waiting, by freeze": waits})


def padding() -> dict[str, float]:
    """Share of the samples computed that are padding."""
    lengths = np.random.default_rng(0).integers(RATE, 30 * RATE, 2000)
    random = np.random.default_rng(1).permutation(2000).reshape(-1, 8)
    orders = {
        "drawn at random, 8 clips": [list(batch) for batch in random],
        "bucketed, 8 clips": batches_of(LengthBucketSampler(lengths, 8, seed=0)),
        "bucketed, 120 s": batches_of(LengthBucketSampler(lengths, 2000, seed=0, max_samples=120 * RATE)),
        "evaluation, 8 clips": batches_of(LengthBucketSampler(lengths, 8, seed=None)),
    }
    computed = {name: sum(len(b) * lengths[b].max() for b in batches) for name, batches in orders.items()}
    return {name: round(1 - int(lengths.sum()) / int(total), 4) for name, total in computed.items()}


def batches_of(sampler: LengthBucketSampler) -> list[list[int]]:
    return [[index for index, _ in batch] for batch in sampler]


def waiting(part: str, num_batches: int) -> dict[str, float]:
    """Seconds of one epoch, and the share of it that passed before batches were there."""
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder) / "data", 4 * num_batches)
        splits = audioclf.load_dataset(str(Path(folder) / "data"))
        shape = transformers.HubertConfig(num_hidden_layers=2, feat_proj_layer_norm=False, apply_spec_augment=False)
        torch.manual_seed(0)
        model = place(build_classifier(shape, "mean", splits.labels), CPU)
        freeze(model, part)
        config = TrainConfig(batch_size=4, freeze=part, cache_dir=folder, progress=False)
        decoded = decode(splits, sampling_rate=RATE, max_seconds=30.0, cache_dir=folder)
        extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)
        loaders, _ = make_loaders(config, CPU, "fp32", splits, decoded, model, extractor, 1)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
        model.train()
        waited, began = 0.0, time.perf_counter()
        batches = prefetch(loaders["train"])
        for _ in itertools.count():
            asked = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - asked
            if batch is None:
                break
            loss = torch.nn.functional.cross_entropy(forward(model, batch, CPU, "fp32"), batch["labels"])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        seconds = time.perf_counter() - began
    return {"seconds": round(seconds, 3), "waited": round(waited, 4), "share": round(waited / seconds, 4)}


def write_corpus(root: Path, num_clips: int) -> None:
    """Noise of 1 to 6 s in two classes, with a validation part of two clips."""
    rng = np.random.default_rng(0)
    for number, seconds in enumerate([*np.linspace(1, 6, num_clips), 1.0, 1.0]):
        split = "train" if number < num_clips else "valid"
        path = root / split / "ab"[number % 2] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(int(seconds * RATE)), RATE)


if __name__ == "__main__":
    main()
