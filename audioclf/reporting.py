"""What a run leaves for people at its end, report, model card and hub; and the report of any checkpoint on any data."""

import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from . import __version__
from .card import write_card
from .checkpoint import located
from .datasets.base import AudioSplits, split_name
from .datasets.load import load_dataset
from .distributed import is_first_process, on_first
from .errors import AudioclfError, ConfigError
from .evaluation import Evaluation
from .export import read_metadata
from .findings import of_table
from .finish import evaluate_part, load_best
from .hub import push
from .inference import load
from .inspecting import inspect
from .metrics import metrics_of
from .report_page import REPORT_FILE, Judged, write_page
from .result import read_history
from .run import Run
from .scoring import evaluate_clips

TITLES = {"train": "Train", "valid": "Validation", "test": "Test"}


def report_run(run: Run, splits: AudioSplits, best: Evaluation, test: Evaluation | None) -> None:
    """Writes the report of a run that has come to its end; that it cannot be written is told, and no more.

    Args:
        run: The run.
        splits: Its data.
        best: The validation of the best checkpoint.
        test: Its test, if there is one.
    """
    if best.logits is None:  # the run went on after that epoch, whose logits were not saved
        best = evaluate_part(run, "valid", load_best(run), best.classes.get("threshold"))
    found = [("valid", best), *([("test", test)] if test is not None else [])]
    facts = {"epoch": run.state.best_epoch, "step": run.state.step, "device": run.device.type}
    facts |= {"precision": run.precision, **_versions(), **_used(run.reporter.history, run.device)}
    path = run.output_dir / REPORT_FILE
    try:
        on_first(
            lambda: write_page(
                path,
                title=f"{splits.name}: {_model_name(run.config.to_dict())}",
                labels=splits.labels,
                sampling_rate=run.extractor.sampling_rate,
                parts=[_judged(splits, part, each, run.loaders[part].dataset.whole) for part, each in found],
                findings=of_table(splits),
                facts=facts,
                options=run.config.to_dict(),
                history=run.reporter.history,
                metric=run.metric,
            )
        )
    # Whatever a plot or a full disk may raise: the run is done, and worth more than its page.
    except Exception as error:
        run.reporter.say(f"{str(path)!r} could not be written ({type(error).__name__}: {error}).")
    else:
        run.reporter.say(f"Report: {path}")


def card_run(run: Run, splits: AudioSplits, best: Evaluation, test: Evaluation | None) -> None:
    """Writes the model card into the best checkpoint; that it cannot be written is told, and no more."""
    groups = any(clip.group is not None for clips in splits.parts.values() for clip in clips)
    found = {"valid": best, **({} if test is None else {"test": test})}
    folder = run.output_dir / "best"
    try:
        on_first(lambda: write_card(folder, found, groups=groups, repo=run.config.push_to_hub))
    except Exception as error:  # as for the report
        run.reporter.say(f"The model card in {str(folder)!r} could not be written ({type(error).__name__}: {error}).")


def push_run(run: Run) -> None:
    """Pushes the best checkpoint; a hub that refuses is told on standard error, and the run is not lost by it."""
    folder, config = run.output_dir / "best", run.config
    try:
        address = on_first(lambda: push(folder, config.push_to_hub, private=config.hub_private))
    except AudioclfError as error:
        if is_first_process():
            words = ["audioclf", "push", str(folder), config.push_to_hub, *["--private"] * config.hub_private]
            print(f"audioclf: {error} The run is whole; try again with: {shlex.join(words)}", file=sys.stderr)
    else:
        run.reporter.say(f"Pushed to {address}")


def report(
    checkpoint: str | Path,
    data: Any,
    split: str = "test",
    output: str | Path | None = None,
    *,
    cache_dir: str | None = None,
    progress: bool = False,
    **options: Any,
) -> Path:
    """Writes the report of a checkpoint on one part of a data set, with all that `inspect` finds in the data.

    Args:
        checkpoint: A checkpoint as `load` takes it, or the folder of a run, whose curves are shown too.
        data: A data set in any form that `train` takes; its labels must be among the checkpoint's.
        split: `train`, `valid` or `test`. A model may know even wrong labels of the clips it was trained on by heart.
        output: The file; report.html in the current folder when not given.
        cache_dir, progress: As in `TrainConfig`.
        **options: Those of `load`: precision, device.

    Returns:
        The file.

    Raises:
        DatasetError: when the data has no such part, or a label that the checkpoint does not know.
        ConfigError: when the file cannot be written.

    Example:
        >>> report("runs/first", "clips.csv", split="valid", output="valid.html")
    """
    path = Path(REPORT_FILE if output is None else output)
    where = located(checkpoint)
    classifier = load(where, **options)
    splits = load_dataset(data, cache_dir=cache_dir)
    part = split_name(split, "split")
    evaluation, clips = evaluate_clips(classifier, splits, part, cache_dir=cache_dir, progress=progress)
    metadata = read_metadata(where)
    history = read_history(Path(where).parent)
    facts = {"checkpoint": where, **({"epoch": metadata["epoch"]} if "epoch" in metadata else {}), **_versions()}
    try:
        write_page(
            path,
            title=f"{splits.name}: {_model_name(metadata.get('config', {'model': where}))}",
            labels=classifier.labels,
            sampling_rate=classifier.sampling_rate,
            parts=[_judged(splits, part, evaluation, clips)],
            findings=inspect(splits, cache_dir=cache_dir, progress=progress).findings,
            facts=facts,
            options=metadata.get("config", {}),
            history=history,
            metric=metrics_of(splits.multi_label, len(classifier.labels))[0],
        )
    except OSError as error:
        raise ConfigError(f"output={str(path)!r} cannot be written ({error.strerror or error}).") from error
    return path


def _model_name(options: dict[str, Any]) -> str:
    model = options["model"]
    return model if isinstance(model, str) else f"{model['model_type']} from random weights"


def _judged(splits: AudioSplits, part: str, evaluation: Evaluation, clips: Any) -> Judged:
    groups = {clip.name: clip.group for clip in splits.parts.get(part, ())}
    return Judged(TITLES[part], evaluation, clips, [groups.get(name) for name in clips.names])


def _versions() -> dict[str, str]:
    return {
        "audioclf": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "Python": platform.python_version(),
    }


def _used(history: Sequence[dict[str, Any]], device: torch.device) -> dict[str, str]:
    """Time and memory that a run has taken."""
    seconds = history[-1]["time"]["seconds"]
    used = {"time": f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 3600:.2f} h"}
    if device.type == "cuda":
        used["GPU memory"] = f"{torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB"
    if sys.platform != "win32":
        import resource  # Windows has no such module

        unit = 1 if sys.platform == "darwin" else 1024
        used["memory"] = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.2f} GiB"
    return used
