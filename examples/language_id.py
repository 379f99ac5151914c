"""Spoken language: fine-tunes an encoder on CommonLanguage, VoxLingua107 or FLEURS.

    python examples/language_id.py --data CommonLanguage.zip
    python examples/language_id.py --corpus voxlingua107 --data path/to/voxlingua107 --labels en fr ko
    python examples/language_id.py --corpus fleurs --labels en_us fr_fr ko_kr    # fetches these from the hub
    python examples/language_id.py --demo               # no download: five invented languages, a small model

The recipe is that of transformers' audio-classification example for CommonLanguage, which tells an accuracy of 0.795
with facebook/wav2vec2-base, the default here, and of 0.280 with DistilHuBERT: for the 45 languages two layers are too
few. The demo's languages are synthetic: its score says nothing about real ones.
"""

import argparse
import sys

from demo_encoder import demo_encoder

import audioclf

RECIPE = {
    "num_epochs": 10,
    "batch_size": 8,
    "gradient_accumulation_steps": 16,  # its 4 GPUs, with 4 batches each
    "learning_rate": 3e-5,
    "max_seconds": 16.0,
    "random_crop": True,
    "freeze": "feature_encoder",
}
DEMO = {"num_epochs": 6, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", help="common_language (when not given), voxlingua107 or fleurs")
    parser.add_argument("--data", help="the corpus: its folder, or CommonLanguage.zip")
    parser.add_argument("--labels", nargs="+", help="the languages, when not all")
    parser.add_argument("--model", help="a hub id or a local folder; facebook/wav2vec2-base when not given")
    parser.add_argument("--demo", action="store_true", help="run offline on synthetic languages")
    parser.add_argument("--output-dir", default="language_id_output", help="folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in it")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run in it")
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    for name in ("corpus", "data", "labels", "model"):
        if options.demo and getattr(options, name):
            parser.error(f"--demo brings its own data and model: leave out --{name}.")
    run = {name: getattr(options, name) for name in ("output_dir", "overwrite", "resume", "seed")}
    try:
        if options.demo:
            data = audioclf.load_dataset("demo", protocol="languages")
            result = audioclf.train(data, model=demo_encoder(), **DEMO, **run)
        else:
            data = audioclf.load_dataset(options.corpus or "common_language", root=options.data, labels=options.labels)
            result = audioclf.train(data, model=options.model or "facebook/wav2vec2-base", **RECIPE, **run)
    except audioclf.AudioclfError as error:
        print(f"language_id.py: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("To go on, run it again with --resume.", file=sys.stderr)
        sys.exit(130)
    # VoxLingua107 has a valid part and no test part.
    part, metrics = ("test", result.test_metrics) if result.test_metrics else ("validation", result.best_metrics)
    low, high = metrics["accuracy_ci"]
    print(f"{part} accuracy {metrics['accuracy']:.3f}, 95 % interval {low:.3f} to {high:.3f}")
    print(f"{part} macro F1 {metrics['macro_f1']:.3f}")


if __name__ == "__main__":
    main()
