"""Searches options with Optuna (`pip install "audioclf[search]"`): whichever does best on the valid part.

    python examples/search.py clips.csv --trials 30     # data in any form that audioclf.train takes
    python examples/search.py --demo                    # no download: synthetic music, a small model

A trial trains for 1, 2, 4, then 8 epochs, each time going on where it was; one that lags behind the others is given up.
With a constant rate that is the same as to train for 8 at once. The score is that of the clips that were searched on,
so it flatters; the test part is left alone for the run with the options found. The same command goes on with a search.
"""

import argparse
import sys
from dataclasses import replace

import optuna
from demo_encoder import demo_encoder

import audioclf

RUNGS = (1, 2, 4, 8)


def search(data: audioclf.AudioSplits, model, output_dir: str, num_trials: int, rates: tuple[float, float]) -> None:
    metric = data.metric or ("map" if data.multi_label else "accuracy")
    data = replace(data, test=())

    def train(trial: optuna.Trial) -> float:
        options = {
            "learning_rate": trial.suggest_float("learning_rate", *rates, log=True),
            "augment": trial.suggest_categorical("augment", ["none", "light", "strong"]),
            "head": trial.suggest_categorical("head", ["mean", "attention"]),
        }
        run = {"output_dir": f"{output_dir}/trial-{trial.number}", "resume": True, "progress": False}
        for num_epochs in RUNGS:
            fixed = {
                "num_epochs": num_epochs,
                "lr_schedule": "constant",
                "warmup_ratio": 0.0,
                "metric_for_best": metric,
            }
            score = audioclf.train(data, model=model, **options, **fixed, **run).best_metrics[metric]
            trial.report(score, num_epochs)
            if trial.should_prune():
                raise optuna.TrialPruned
        return score

    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
        storage=f"sqlite:///{output_dir}.db",
        study_name="audioclf",
        load_if_exists=True,
    )
    study.optimize(train, num_trials, catch=audioclf.TrainingError)
    given_up = len(study.get_trials(states=[optuna.trial.TrialState.PRUNED]))
    found = ", ".join(f"{name}={value!r}" for name, value in study.best_params.items())
    print(
        f"{len(study.trials)} trials, {given_up} of them given up; valid {metric} {study.best_value:.3f} with {found}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="a folder, a .csv, .tsv or .jsonl table, or a data set by name")
    parser.add_argument("--model", default="ntu-spml/distilhubert", help="a hub id or a local folder")
    parser.add_argument("--demo", action="store_true", help="run offline on synthetic music")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--output-dir", default="search_output", help="folder for the runs")
    options = parser.parse_args()
    if options.demo == bool(options.data):
        parser.error("give either data, or --demo.")
    try:
        data = (
            audioclf.load_dataset("demo", protocol="music-hard")
            if options.demo
            else audioclf.load_dataset(options.data)
        )
        model, rates = (demo_encoder(), (3e-4, 3e-3)) if options.demo else (options.model, (1e-5, 3e-4))
        search(data, model, options.output_dir, options.trials, rates)
    except audioclf.AudioclfError as error:
        print(f"search.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
