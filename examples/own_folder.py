"""Your own clips: trains on a folder or table, scores the test part, and classifies single files.

    python examples/own_folder.py path/to/clips         # one folder a class, or in train/, valid/ and test/ each
    python examples/own_folder.py clips.csv --group-column speaker   # columns path, label, and maybe split
    python examples/own_folder.py --demo                # no download: writes a small folder first, and trains on it

Without a valid part one is cut from train. Without a test part the only score is that of the valid part, which chose
the best epoch, and so flatters. The demo's clips are synthetic: its score says nothing about real ones.
"""

import argparse
import shutil
import sys
from pathlib import Path

from demo_encoder import demo_encoder

import audioclf

RECIPE = {"num_epochs": 20, "batch_size": 8, "learning_rate": 5e-5, "max_seconds": 10.0, "random_crop": True}
DEMO = {"num_epochs": 10, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32"}
DEMO_LABELS = ("gum", "left", "no", "pal", "stop")


def write_folder(root: Path) -> Path:
    """Plain wav files as anyone may have them, `PART/CLASS/NAME.wav`: five words of the demonstration set."""
    for part, clips in audioclf.load_dataset("demo", protocol="keywords").parts.items():
        for clip in clips:
            if clip.label in DEMO_LABELS:
                folder = root / part / clip.label
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy2(clip.audio, folder)  # with its time, by which a resumed run knows it
    return root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="a folder, or a .csv, .tsv or .jsonl table")
    parser.add_argument("--label-column", help="column of the labels in a table")
    parser.add_argument("--group-column", help="column of what must not be on two sides of a split, such as speaker")
    parser.add_argument("--model", help="a hub id or a local folder; ntu-spml/distilhubert when not given")
    parser.add_argument("--demo", action="store_true", help="run offline on a folder of synthetic words")
    parser.add_argument("--output-dir", default="own_folder_output", help="folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in it")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run in it")
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    if options.demo == bool(options.data):
        parser.error("give either a folder or table of clips, or --demo.")
    if options.demo and options.model:
        parser.error("--demo brings its own model: leave out --model.")
    run = {name: getattr(options, name) for name in ("output_dir", "overwrite", "resume", "seed")}
    try:
        data = write_folder(Path(f"{options.output_dir}_clips")) if options.demo else options.data
        columns = {"label_column": options.label_column, "group_column": options.group_column}
        splits = audioclf.load_dataset(data, **columns)
        if options.demo:
            result = audioclf.train(splits, model=demo_encoder(), **DEMO, **run)
        else:
            result = audioclf.train(splits, model=options.model or "ntu-spml/distilhubert", **RECIPE, **run)

        # From here on only the checkpoint is needed: another script, another day.
        part, metrics = "valid", result.best_metrics
        if splits.test:
            part, metrics = "test", audioclf.evaluate(result.checkpoint_dir, splits, split="test")
        files = [clip.audio for clip in (splits.test or splits.train)[::100]]
        predictions = audioclf.load(result.checkpoint_dir)(files, top_k=2)
    except audioclf.AudioclfError as error:
        print(f"own_folder.py: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("To go on, run it again with --resume.", file=sys.stderr)
        sys.exit(130)
    for file, best in zip(files, predictions, strict=True):
        print(file, *(f"{entry['label']} {entry['score']:.2f}" for entry in best), sep="  ")
    for name in ("accuracy", "macro_f1", "map"):
        if name in metrics:
            low, high = metrics[f"{name}_ci"]
            print(f"{part} {name} {metrics[name]:.3f}, 95 % interval {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main()
