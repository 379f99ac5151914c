"""Emotion: fine-tunes an encoder on acted speech, RAVDESS or CREMA-D, and tests on an actor it has never heard.

    python examples/emotion.py --data Audio_Speech_Actors_01-24.zip --actor 24
    python examples/emotion.py --corpus crema_d --data path/to/AudioWAV --actor 1091
    python examples/emotion.py --demo                   # no download: five synthetic emotions, a small model

The metric is unweighted average recall, as is usual for emotion: every class counts alike, however few clips it has.
Published scores leave out one actor, or some, in turn. Validation actors are not among the training actors either. The
demo's emotions are synthetic: its score says nothing about real ones.
"""

import argparse
import sys

from demo_encoder import demo_encoder

import audioclf

RECIPE = {
    "num_epochs": 20,
    "batch_size": 16,
    "learning_rate": 5e-5,
    "max_seconds": 6.0,
    "freeze": "feature_encoder",
    "class_weights": "balanced",
}
DEMO = {"num_epochs": 8, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", help="ravdess (when not given) or crema_d")
    parser.add_argument("--data", help="the corpus: its folder or zip")
    parser.add_argument("--actor", help="the actor that is test; in the demo ten of them when not given")
    parser.add_argument("--model", help="a hub id or a local folder; ntu-spml/distilhubert when not given")
    parser.add_argument("--demo", action="store_true", help="run offline on synthetic speech")
    parser.add_argument("--output-dir", default="emotion_output", help="folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in it")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run in it")
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    for name in ("corpus", "data", "model"):
        if options.demo and getattr(options, name):
            parser.error(f"--demo brings its own data and model: leave out --{name}.")
    if not options.demo and not options.actor:
        parser.error("--actor says who is tested on, such as 24 (crema_d: 1091).")
    run = {name: getattr(options, name) for name in ("output_dir", "overwrite", "resume", "seed")}
    try:
        if options.demo:
            data = audioclf.load_dataset("demo", protocol="emotion", fold=options.actor)
            result = audioclf.train(data, model=demo_encoder(), **DEMO, **run)
        else:
            data = audioclf.load_dataset(options.corpus or "ravdess", root=options.data, fold=options.actor)
            result = audioclf.train(data, model=options.model or "ntu-spml/distilhubert", **RECIPE, **run)
    except audioclf.AudioclfError as error:
        print(f"emotion.py: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("To go on, run it again with --resume.", file=sys.stderr)
        sys.exit(130)
    low, high = result.test_metrics["uar_ci"]
    print(f"test UAR {result.test_metrics['uar']:.3f}, 95 % interval {low:.3f} to {high:.3f}")
    print(f"test accuracy {result.test_metrics['accuracy']:.3f}, macro F1 {result.test_metrics['macro_f1']:.3f}")


if __name__ == "__main__":
    main()
