"""Music genres: fine-tunes DistilHuBERT on GTZAN by the recipe of the Hugging Face audio course.

    python examples/gtzan.py                        # fetches GTZAN (1.2 GB) and DistilHuBERT from the hub
    python examples/gtzan.py --data path/to/gtzan   # a folder with the genre folders, or genres.tar.gz
    python examples/gtzan.py --demo                 # no download: synthetic clips, a small model, two minutes
    torchrun --nproc-per-node=2 examples/gtzan.py   # on two GPUs, with twice the effective batch

The demo shows the whole library at work on ten styles of music that a program makes up, with a small encoder that
starts from random weights. Its score says nothing about real music.
"""

import argparse
import sys

from demo_encoder import demo_encoder

import audioclf

COURSE = {
    "model": "ntu-spml/distilhubert",
    "num_epochs": 10,
    "batch_size": 8,
    "learning_rate": 5e-5,
    "warmup_ratio": 0.1,
    "max_seconds": 30.0,
}

DEMO = {"num_epochs": 8, "batch_size": 8, "learning_rate": 1e-3, "warmup_ratio": 0.1, "precision": "fp32"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a local copy of GTZAN: its folder or genres.tar.gz")
    parser.add_argument("--protocol", default="random", help="random (the course's) or fault-filtered (honest)")
    parser.add_argument("--demo", action="store_true", help="run offline on synthetic clips")
    parser.add_argument("--output-dir", help="folder for the results; gtzan_output or gtzan_demo when not given")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in it")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run in it")
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    if options.demo and (options.data or options.protocol != "random"):
        parser.error("--demo brings its own data: leave out --data and --protocol.")
    run = {
        "output_dir": options.output_dir or ("gtzan_demo" if options.demo else "gtzan_output"),
        "overwrite": options.overwrite,
        "resume": options.resume,
        "seed": options.seed,
    }
    try:
        if options.demo:
            result = audioclf.train("demo", model=demo_encoder(), **DEMO, **run)
        else:
            data = audioclf.load_dataset("gtzan", root=options.data, protocol=options.protocol)
            result = audioclf.train(data, **COURSE, **run)
    except audioclf.AudioclfError as error:
        print(f"gtzan.py: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("To go on, run it again with --resume.", file=sys.stderr)
        sys.exit(130)
    if not audioclf.is_first_process():  # of several under torchrun one tells
        return
    low, high = result.best_metrics["accuracy_ci"]
    print(f"validation accuracy {result.best_metrics['accuracy']:.3f}, 95 % interval {low:.3f} to {high:.3f}")
    if result.test_metrics:
        print(f"test accuracy {result.test_metrics['accuracy']:.3f}")


if __name__ == "__main__":
    main()
