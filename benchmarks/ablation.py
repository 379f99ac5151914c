"""What each lever gains: `python benchmarks/ablation.py [--set music-hard] [--seeds 5] [--only NAME ...] [--jobs 1]`.

Every recipe is trained with the same seeds on a demonstration set and compared with the plain one, pair by pair, on the
test part. They start from an encoder that was trained to tell languages and environmental sounds apart, as a user's
encoder was trained on other sound than the user's; --start random has it untrained. Runs are kept in the output folder,
so the command goes on where it was cut; with --jobs, several are trained at a time.
"""

import argparse
import multiprocessing
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import audioclf

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from demo_encoder import demo_encoder

PLAIN = {"num_epochs": 8, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32"}
SETS = {
    "music-hard": {"clips_per_class": 24, "num_epochs": 8, "chunk_seconds": 1.5},
    "keywords": {"clips_per_class": 12, "num_epochs": 16, "chunk_seconds": 0.5},
    "emotion": {"clips_per_class": 12, "num_epochs": 16, "chunk_seconds": 1.0},
}
"""Sets to compare on: so few clips to train on that much is left to gain, and pieces of half their clips' length."""
SOURCES = ("languages", "environment")
"""The sets that the encoder is trained on first."""


def levers(chosen: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The recipes that are compared with the plain one."""
    pieces, epochs = chosen["chunk_seconds"], chosen["num_epochs"]
    return {
        "pieces": {"chunk_seconds": pieces},
        "random pieces": {"chunk_seconds": pieces, "random_crop": True},
        "light": {"augment": "light"},
        "strong": {"augment": "strong"},
        "mixup": {"augment": ("mixup",)},
        "dropout": {"dropout": 0.1},
        "lora": {"lora_rank": 8},
        "head attention": {"head": "attention"},
        "head mix": {"head": "mix"},
        "head multihead": {"head": "multihead"},
        "head mlp": {"head": "mlp"},
        "epochs twice": {"num_epochs": 2 * epochs},
        "epochs twice, light": {"num_epochs": 2 * epochs, "augment": "light"},
        "epochs twice, strong": {"num_epochs": 2 * epochs, "augment": "strong"},
        "epochs twice, mixup": {"num_epochs": 2 * epochs, "augment": ("mixup",)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=SETS, default="music-hard", help="the demonstration set")
    parser.add_argument("--start", choices=["pretrained", "random"], default="pretrained", help="the encoder")
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0 on")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the levers")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on one thread")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("benchmark_results"), help="folder for runs and figures")
    options = parser.parse_args()
    shared = plain(options.set, options.start, options.device, options.out)
    recipes = {"plain": {}, **levers(SETS[options.set])}
    recipes = {name: own for name, own in recipes.items() if options.only is None or name in ("plain", *options.only)}
    folder = options.out / f"ablation-{options.set}-{options.start}"
    data = few(options.set)
    if options.jobs > 1:
        train_side_by_side(recipes, data, options, folder, shared)
    found = audioclf.compare(recipes, data, seeds=range(options.seeds), output_dir=folder, **shared)
    for name, difference in found.differences.items():
        print(f"{name:<20} {difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]")


def plain(name: str, start: str, device: str, out: Path) -> dict[str, Any]:
    """Options of the plain recipe on a set."""
    shared = {**PLAIN, "device": device, "resume": True, "progress": False, "model": demo_encoder()}
    if start == "pretrained":
        shared["model"] = pretrained_encoder(out / "pretrained", shared)
    return {**shared, "num_epochs": SETS[name]["num_epochs"]}


def few(name: str) -> audioclf.AudioSplits:
    """A set with its first clips of each class only to train on."""
    data, seen = audioclf.load_dataset("demo", protocol=name), Counter()
    kept = []
    for clip in data.train:
        seen[clip.label] += 1
        if seen[clip.label] <= SETS[name]["clips_per_class"]:
            kept.append(clip)
    return replace(data, train=tuple(kept))


def pretrained_encoder(folder: Path, shared: dict[str, Any]) -> str:
    """The small encoder after training on sound that none of the comparisons is about."""
    examples = []
    for name in SOURCES:
        for part, clips in audioclf.load_dataset("demo", protocol=name).parts.items():
            split = "valid" if part == "valid" else "train"
            examples += [replace(clip, label=f"{name} {clip.label}", split=split, fold=None) for clip in clips]
    data = audioclf.make_splits(examples, name="sources")
    return str(audioclf.train(data, output_dir=folder, **{**shared, "num_epochs": 8}).checkpoint_dir)


def train_side_by_side(recipes, data, options: argparse.Namespace, folder: Path, shared: dict[str, Any]) -> None:
    """The runs that `compare` will find there."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, context, torch.set_num_threads, (1,)) as pool:
        runs = []
        for seed in range(options.seeds):
            for name, own in recipes.items():
                where = {"output_dir": folder / name / f"seed-{seed}", "seed": seed}
                runs.append(pool.submit(audioclf.train, data, **{**shared, **own, **where}))
        for run in runs:
            run.result()


if __name__ == "__main__":
    main()
