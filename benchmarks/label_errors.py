"""Whether the report finds wrong labels: 5 % are planted, in all parts; how many of those of validation come first?

    python -m benchmarks.label_errors --protocols music keywords emotion --seeds 0 1 2

Prints, for each protocol, the share of the planted ones in the first tenth of the report's list, over all seeds.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import audioclf
from audioclf.evaluation import probabilities
from audioclf.inference import load
from audioclf.review import label_quality, likely_wrong
from audioclf.scoring import evaluate_clips

sys.path.append(str(Path(__file__).parent.parent / "examples"))
from demo_encoder import demo_encoder

SHARE = 0.05
FIRST = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocols", nargs="+", default=["music", "keywords", "emotion"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    figures = {}
    for protocol in options.protocols:
        rows = [one(protocol, seed, options.epochs) for seed in options.seeds]
        planted, first, marked, right = (sum(row[index] for row in rows) for index in range(4))
        figures[protocol] = {
            "planted": planted,
            "in the first tenth": round(first / planted, 3),
            "recall of the marks": round(right / planted, 3),
            "precision of the marks": round(right / max(marked, 1), 3),
        }
        print(protocol, json.dumps(figures[protocol]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


def one(protocol: str, seed: int, num_epochs: int) -> tuple[int, int, int, int]:
    """Planted, of these in the first tenth, marked as likely wrong, and rightly so; of the clips of valid and test."""
    rng = np.random.default_rng(seed)
    splits = audioclf.load_dataset("demo", protocol=protocol)
    parts, wrong = {}, {}
    for part, clips in splits.parts.items():
        chosen = set(rng.permutation(len(clips))[: round(SHARE * len(clips))].tolist())
        others = [[label for label in splits.labels if label != clip.label] for clip in clips]
        parts[part] = tuple(
            replace(clip, label=str(rng.choice(others[row]))) if row in chosen else clip
            for row, clip in enumerate(clips)
        )
        wrong |= {clip.name: row in chosen for row, clip in enumerate(clips)}
    noisy = replace(splits, **parts)
    with tempfile.TemporaryDirectory() as folder:
        result = audioclf.train(
            noisy,
            model=demo_encoder(),
            output_dir=folder + "/run",
            num_epochs=num_epochs,
            learning_rate=1e-3,
            precision="fp32",
            seed=seed,
            progress=False,
            report=False,
        )
        classifier = load(result.checkpoint_dir)
        totals = np.zeros(4, int)
        for part in ("valid", "test"):
            if part in noisy.parts:
                evaluation, clips = evaluate_clips(classifier, noisy, part)
                scores = probabilities(torch.from_numpy(evaluation.logits), False).numpy()
                planted = np.array([wrong[name] for name in clips.names])
                order = np.argsort(label_quality(clips.labels, scores), kind="stable")
                marks = likely_wrong(clips.labels, scores)
                first = planted[order[: round(FIRST * len(order))]]
                totals += [planted.sum(), first.sum(), marks.sum(), (marks & planted).sum()]
    return tuple(totals.tolist())


if __name__ == "__main__":
    main()
