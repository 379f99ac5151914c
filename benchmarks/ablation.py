"""What each lever gains: `python benchmarks/ablation.py [--set music-hard] [--seeds 5] [--only NAME ...]`.

Every recipe is trained with the same seeds on a demonstration set and compared with the plain one, pair by pair, on the
test part. Runs are kept in the output folder, so the command goes on where it was cut.
"""

import argparse
import json
import sys
from pathlib import Path

import audioclf

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from demo_encoder import demo_encoder

PLAIN = {"num_epochs": 8, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32", "num_workers": 0}
LEVERS = {
    "pieces": {"chunk_seconds": 1.5},
    "random pieces": {"chunk_seconds": 1.5, "random_crop": True},
    "light": {"augment": "light"},
    "strong": {"augment": "strong"},
    "mixup": {"augment": ("mixup",)},
    "layer decay": {"layer_decay": 0.7},
    "head first": {"head_first_steps": 30},
    "average of weights": {"ema_decay": 0.99},
    "label smoothing": {"label_smoothing": 0.1},
    "dropout": {"dropout": 0.1},
    "layerdrop": {"layerdrop": 0.1},
    "head attention": {"head": "attention"},
    "head mix": {"head": "mix"},
    "head multihead": {"head": "multihead"},
    "head mlp": {"head": "mlp"},
    "epochs twice": {"num_epochs": 16},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="music-hard", help="protocol of the demonstration set")
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0 on")
    parser.add_argument("--only", nargs="+", choices=LEVERS, default=list(LEVERS), help="some of the levers")
    parser.add_argument("--out", type=Path, default=Path("benchmark_results"), help="folder for runs and figures")
    options = parser.parse_args()
    found = audioclf.compare(
        {"plain": {}, **{name: LEVERS[name] for name in options.only}},
        audioclf.load_dataset("demo", protocol=options.set),
        seeds=range(options.seeds),
        output_dir=str(options.out / f"ablation-{options.set}"),
        model=demo_encoder(),
        resume=True,
        progress=False,
        **PLAIN,
    )
    for name, difference in found.differences.items():
        print(f"{name:<20} {difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]")
    rows = {name: vars(difference) for name, difference in found.differences.items()}
    (options.out / f"ablation-{options.set}.json").write_text(json.dumps({"scores": found.scores, **rows}, indent=2))


if __name__ == "__main__":
    main()
