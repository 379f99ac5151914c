"""Environmental sound: fine-tunes an encoder on ESC-50, ESC-10 or UrbanSound8K, and tests on one official fold.

    python examples/environmental_sound.py                               # fetches ESC-50 (0.8 GB) from the hub
    python examples/environmental_sound.py --data ESC-50-master.zip --protocol esc10 --fold 1
    python examples/environmental_sound.py --corpus urbansound8k --data UrbanSound8K.tar.gz --fold 10
    python examples/environmental_sound.py --demo       # no download: eight synthetic sounds, a small model

Published scores are the mean over all folds, with a run for each. The folds keep together what was cut from one
recording; so does the validation part, which is cut from the training folds. The demo's sounds are synthetic: its score
says nothing about real ones.
"""

import argparse
import sys

from demo_encoder import demo_encoder

import audioclf

# 2,000 clips are few: many passes.
RECIPE = {"num_epochs": 30, "batch_size": 16, "learning_rate": 5e-5, "max_seconds": 5.0, "augment": "noise"}
DEMO = {"num_epochs": 5, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", help="esc50 (when not given) or urbansound8k")
    parser.add_argument("--data", help="the corpus: its folder or archive")
    parser.add_argument("--protocol", help="for esc50: esc50 or esc10")
    parser.add_argument("--fold", help="the fold that is test; the last when not given")
    parser.add_argument("--model", help="a hub id or a local folder; ntu-spml/distilhubert when not given")
    parser.add_argument("--demo", action="store_true", help="run offline on synthetic sounds")
    parser.add_argument("--output-dir", default="environmental_sound_output", help="folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in it")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run in it")
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    for name in ("corpus", "data", "protocol", "model"):
        if options.demo and getattr(options, name):
            parser.error(f"--demo brings its own data and model: leave out --{name}.")
    run = {name: getattr(options, name) for name in ("output_dir", "overwrite", "resume", "seed")}
    try:
        if options.demo:
            data = audioclf.load_dataset("demo", protocol="environment", fold=options.fold)
            result = audioclf.train(data, model=demo_encoder(), **DEMO, **run)
        else:
            data = audioclf.load_dataset(
                options.corpus or "esc50", root=options.data, protocol=options.protocol, fold=options.fold
            )
            result = audioclf.train(data, model=options.model or "ntu-spml/distilhubert", **RECIPE, **run)
    except audioclf.AudioclfError as error:
        print(f"environmental_sound.py: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("To go on, run it again with --resume.", file=sys.stderr)
        sys.exit(130)
    low, high = result.test_metrics["accuracy_ci"]
    print(f"test accuracy {result.test_metrics['accuracy']:.3f}, 95 % interval {low:.3f} to {high:.3f}")
    print(f"test macro F1 {result.test_metrics['macro_f1']:.3f}")


if __name__ == "__main__":
    main()
