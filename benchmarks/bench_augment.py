"""Augmentation: milliseconds a clip, for each transform and preset, beside a training step of the same clips.

Usage: python benchmarks/bench_augment.py [--seconds 10] [--clips 2] [--precision fp32] [--rounds 3] [--json FILE]

Clips of noise at 16 kHz, one thread, each transform over 60 clips (their strengths, and what presets leave out, are
drawn), mixup by what it adds to reading two clips. The step is that of bench_train_step.py: DistilHuBERT's full shape,
forward, backward, clipping, AdamW. "share of a step" is what a batch of `strong` takes of it, one after the other.
"with one worker" are steps of batches that a worker prepares beside them, by turns.
"""

import argparse
import itertools
import tempfile
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from bench_train_step import make_step
from measure import interleaved, parser, write
from transformers import HubertConfig, Wav2Vec2FeatureExtractor

from audioclf import cache
from audioclf.augment import PRESETS, TRANSFORMS, Augmentation, make_augmentation
from audioclf.clips import Clips
from audioclf.collate import make_collator
from audioclf.loaders import make_loader, prefetch
from audioclf.mixup import MixedClips
from audioclf.runtime import DTYPES

RATE, NUM_CLIPS = 16_000, 60


def main() -> None:
    made = parser(__doc__, rounds=3)
    made.add_argument("--seconds", type=float, default=10)
    made.add_argument("--clips", type=int, default=2, help="clips of a step")
    made.add_argument("--precision", choices=list(DTYPES), default="fp32")
    options = made.parse_args()
    names = [*TRANSFORMS, *PRESETS]
    with tempfile.TemporaryDirectory() as folder:
        clips = clips_of_noise(folder, round(options.seconds * RATE))
        sides = {
            name: passes(MixedClips(clips, 0, 10) if name == "mixup" else clips, name) for name in (*names, "mixup")
        }
        rows, _ = interleaved({"reading": passes(clips, "none"), **sides}, options.rounds)
        step = make_step("audioclf", step_options(options))
        steps, _ = interleaved({"step": step}, options.rounds, options.precision)
        worked = {name: steps_with_a_worker(clips, name, step, options.clips) for name in ("none", *PRESETS)}
        with_worker, _ = interleaved(worked, 3 * options.rounds)
    milliseconds = {name: round(1e3 * row["seconds"] / NUM_CLIPS, 2) for name, row in rows.items()}
    of_a_step = 1e3 * steps["step"]["seconds"] / options.clips
    figures = {"ms a clip": milliseconds, "ms of a step a clip": round(of_a_step, 1), "step": steps["step"]}
    figures["with one worker"] = with_worker
    write(
        options, figures | {"share of a step": {n: round(milliseconds[n] / of_a_step, 4) for n in (*PRESETS, "mixup")}}
    )


def clips_of_noise(folder: str, num_samples: int) -> Clips:
    rng = np.random.default_rng(0)
    store = cache.build(
        [str(number) for number in range(NUM_CLIPS)],
        lambda _: 0.1 * rng.standard_normal(num_samples, dtype=np.float32),
        recipe="noise",
        cache_dir=folder,
        num_threads=1,
    )
    everything = range(NUM_CLIPS)
    return Clips(
        store=store,
        positions=tuple(everything),
        starts=np.zeros(NUM_CLIPS, np.int64),
        names=tuple(map(str, everything)),
        groups=np.arange(NUM_CLIPS),
        labels=np.arange(NUM_CLIPS) % 10,
        lengths=store.lengths,
        augmentation=Augmentation(0),
    )


def passes(clips: Clips | MixedClips, name: str):
    """One pass over all clips, ready to be called."""
    augmentation = make_augmentation(0, False, name, RATE)

    def run() -> None:
        for index in range(NUM_CLIPS):
            item = clips[index, 1]
            augmentation(item["waveform"], len(item["waveform"]), 1, index)

    return run


def steps_with_a_worker(clips: Clips, name: str, step: Callable[[], None], batch_size: int) -> Callable[[], None]:
    """A step, once its batch has come from a worker that prepares the next ones meanwhile; ready to be called."""
    augmented = replace(clips, augmentation=make_augmentation(0, False, name, RATE))
    collate = make_collator(HubertConfig(), Wav2Vec2FeatureExtractor())
    loader = make_loader(augmented, collate, batch_size=batch_size, seed=0, num_workers=1, pin_memory=False)
    batches = itertools.chain.from_iterable(prefetch(loader) for _ in itertools.count())

    def run() -> None:
        next(batches)
        step()

    return run


def step_options(options: argparse.Namespace) -> argparse.Namespace:
    return argparse.Namespace(**vars(options), device="cpu", freeze="none", cached=False, keep_memory=False)


if __name__ == "__main__":
    main()
