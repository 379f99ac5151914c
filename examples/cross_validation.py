"""Cross-validation: every fold is tested once, by a model that has not seen it and was not chosen by it.

    python examples/cross_validation.py esc50                                 # its five official folds, from the hub
    python examples/cross_validation.py urbansound8k --root UrbanSound8K      # its ten
    python examples/cross_validation.py crema_d --root AudioWAV --folds 10    # ten folds of whole actors
    python examples/cross_validation.py clips.csv --folds group               # leaves out one group after the other
    python examples/cross_validation.py --demo                                # no download: eight synthetic sounds

A run that was cut goes on, fold by fold, with --resume. The demo's clips are synthetic: its score says nothing about
real sounds.
"""

import argparse
import sys
from dataclasses import replace

from demo_encoder import demo_encoder

import audioclf

RECIPE = {"num_epochs": 20, "batch_size": 16, "learning_rate": 5e-5, "max_seconds": 5.0}
DEMO = {"num_epochs": 5, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32", "max_seconds": 2.0}


def demo_data() -> audioclf.AudioSplits:
    """Half of the demonstration set of sounds: one piece of each recording, so that five runs take a minute or two."""
    whole = audioclf.load_dataset("demo", protocol="environment")
    halves = {part: [clip for clip in clips if clip.audio.endswith("_0.wav")] for part, clips in whole.parts.items()}
    return replace(whole, **halves)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="a corpus by name, a folder, or a table")
    parser.add_argument("--root", help="where a corpus that goes by a name lies")
    parser.add_argument("--folds", default="official", help="official, group, or a number of folds")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42], help="a run with each of them for every fold")
    parser.add_argument("--model", default="ntu-spml/distilhubert", help="a short name, hub id or local folder")
    parser.add_argument("--demo", action="store_true", help="run offline on synthetic sounds")
    parser.add_argument("--output-dir", default="cross_validation_output", help="folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier cross-validation in it")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted one in it")
    options = parser.parse_args()
    if options.demo == bool(options.data):
        parser.error("give either a data set, or --demo.")
    folds = int(options.folds) if options.folds.isdecimal() else options.folds
    run = {name: getattr(options, name) for name in ("output_dir", "overwrite", "resume", "seeds")}
    try:
        if options.demo:
            data, recipe = demo_data(), {"model": demo_encoder(), **DEMO}
        else:
            data, recipe = audioclf.load_dataset(options.data, root=options.root), {"model": options.model, **RECIPE}
        result = audioclf.cross_validate(data, folds, **recipe, **run)
    except audioclf.AudioclfError as error:
        print(f"cross_validation.py: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("To go on, run it again with --resume.", file=sys.stderr)
        sys.exit(130)
    for name in ("accuracy", "map"):
        if name in result.mean:
            low, high = result.pooled[f"{name}_ci"]
            print(f"mean {name} of {len(result.runs)} runs {result.mean[name]:.3f}, deviation {result.std[name]:.3f}")
            print(f"{name} of all clips {result.pooled[name]:.3f}, 95 % interval {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main()
