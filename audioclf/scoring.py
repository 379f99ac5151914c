"""`evaluate`: a trained checkpoint's scores on one part of a data set."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from .checks import check_choice, check_int
from .clips import Clips, decode
from .config import BadAudio
from .datasets.base import AudioSplits, split_name
from .datasets.load import load_dataset
from .errors import DatasetError
from .evaluation import Evaluation, evaluate_loader
from .inference import Classifier, load
from .loaders import make_loader
from .models.losses import build_loss


def evaluate(
    classifier: Classifier | str | Path,
    data: Any,
    split: str = "test",
    *,
    batch_size: int = 8,
    bad_audio: str = "auto",
    cache_dir: str | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Scores a checkpoint on one part of a data set.

    Args:
        classifier: What `load` returns, or what it takes.
        data: A data set in any form that `train` takes; its labels must be among the checkpoint's.
        split: `train`, `valid` or `test`.
        batch_size: Clips in one forward pass. It does not change the scores.
        bad_audio, cache_dir, progress: As in `TrainConfig`.

    Returns:
        `loss`, `ece`, and those of `audioclf.metrics`, for example `accuracy`, with their 95 % intervals, for example
        `accuracy_ci`. Multi-label data is scored at the checkpoint's thresholds.

    Raises:
        DatasetError: when the data has no such part, or a label that the checkpoint does not know.
    """
    if not isinstance(classifier, Classifier):
        classifier = load(classifier)
    splits = load_dataset(data, cache_dir=cache_dir)
    return evaluate_clips(classifier, splits, split, batch_size, bad_audio, cache_dir, progress)[0].metrics


def evaluate_clips(
    classifier: Classifier,
    splits: AudioSplits,
    split: str,
    batch_size: int = 8,
    bad_audio: str = "auto",
    cache_dir: str | None = None,
    progress: bool = False,
) -> tuple[Evaluation, Clips]:
    """The evaluation of one part of a loaded data set, and its clips; arguments and errors are those of `evaluate`."""
    check_int("batch_size", batch_size, minimum=1)
    check_choice("bad_audio", bad_audio, get_args(BadAudio))
    splits = _part_only(splits, split_name(split, "split"), classifier)
    decoded = decode(
        splits,
        sampling_rate=classifier.sampling_rate,
        max_seconds=classifier.max_seconds,
        chunk_seconds=classifier.chunk_seconds,
        bad_audio=bad_audio,
        cache_dir=cache_dir,
        progress=progress,
    )
    (clips,) = decoded.parts.values()
    loader = make_loader(
        clips,
        classifier.collator,
        batch_size=batch_size,
        seed=None,
        num_workers=0,
        pin_memory=classifier.device.type == "cuda",
    )
    evaluation = evaluate_loader(
        classifier.model,
        loader,
        build_loss("auto", classifier.model.config),
        device=classifier.device,
        precision=classifier.precision,
        thresholds=classifier.thresholds,
    )
    return evaluation, clips.whole


def _part_only(splits: AudioSplits, part: str, classifier: Classifier) -> AudioSplits:
    """The data set reduced to one part, its labels numbered as the checkpoint numbers them."""
    if part not in splits.parts:
        there = ", ".join(f"{name} ({len(clips)} clips)" for name, clips in splits.parts.items())
        raise DatasetError(f"{splits.name}: has no {part} part, only {there}; choose one of these as split.")
    labels, multi_label = classifier.labels, classifier.model.multi_label
    if splits.multi_label != multi_label:
        kinds = {True: "any number of labels", False: "one label"}
        raise DatasetError(
            f"{splits.name}: its clips have {kinds[splits.multi_label]}, but the checkpoint was trained to give "
            f"{kinds[multi_label]}; multi_label={multi_label} may read the labels so."
        )
    unknown = sorted({label for clip in splits.parts[part] for label in clip.labels} - set(labels))
    if unknown:
        raise DatasetError(
            f"{splits.name}: the checkpoint does not know {', '.join(map(repr, unknown))}; "
            f"it knows {', '.join(labels)}."
        )
    # Whatever the part is called, it is only scored here, as a test part is.
    return replace(splits, train=(), valid=(), test=splits.parts[part], labels=labels)
