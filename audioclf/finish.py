"""Evaluations of a run's parts, and what becomes of its best checkpoint once training is over."""

from typing import Any

import numpy as np

from . import checkpoint
from .calibration import divide_logits, fit_temperature
from .distributed import on_first
from .evaluation import Evaluation, evaluate_loader, evaluated_logits
from .export import read_metadata, save_pretrained
from .models.classifier import AudioClassifier, freeze, load_classifier, place
from .run import Run, described


def evaluate_part(
    run: Run, part: str, model: AudioClassifier | None = None, thresholds: np.ndarray | None = None
) -> Evaluation:
    """How a model, by default what the run has come to, does on one part."""
    return evaluate_loader(
        model or run.model,
        run.loaders[part],
        run.loss,
        device=run.device,
        precision=run.precision,
        thresholds=thresholds,
    )


def load_best(run: Run) -> AudioClassifier:
    """The best checkpoint as it lies on disk."""
    model = place(load_classifier(str(run.output_dir / "best"), run.config.head), run.device, run.config.frontend)
    freeze(model, run.config.freeze)
    return model


def calibrate(run: Run, model: AudioClassifier) -> tuple[Evaluation, dict[str, Any]]:
    """Scales the logits of the best checkpoint, `model` and on disk, by the temperature that validation asks for.

    A checkpoint that is scaled already, of a run that had come to its end before, stays as it is. Training never goes
    on from these weights but from those in `last`.

    Returns:
        The validation of what is now the best checkpoint; and the `temperature`, None where there is no best one, and
        loss and `ece` as they were, `uncalibrated`.

    Raises:
        CheckpointError: when it cannot be written; it is as it was then.
    """
    folder = run.output_dir / "best"
    metadata = read_metadata(str(folder))
    if "temperature" in metadata:
        return evaluate_part(run, "valid", model), {name: metadata[name] for name in ("temperature", "uncalibrated")}
    before = evaluate_part(run, "valid", model)
    loader, logits = run.loaders["valid"], before.logits
    if loader.dataset.firsts is not None:
        logits = evaluated_logits(model, loader, run.device, run.precision)
    told = {
        "temperature": fit_temperature(logits, loader.dataset.whole.labels, loader.dataset.firsts),
        "uncalibrated": {name: before.metrics[name] for name in ("loss", "ece")},
    }
    if told["temperature"] is None:
        return before, told
    divide_logits(model, told["temperature"])
    after = evaluate_part(run, "valid", model)
    metadata |= {**described(after), **told}
    on_first(checkpoint.write_folder, folder, lambda place: save_pretrained(model, run.extractor, place, metadata))
    return after, told
