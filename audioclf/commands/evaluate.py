"""`audioclf evaluate`."""

import json
import sys

from ..config import BadAudio, Device, Precision
from .options import AsJson, Checkpoint, Data, DataOptions, HowToRead


def evaluate(
    checkpoint: Checkpoint,
    data: Data,
    split: str = "test",
    batch_size: int = 8,
    precision: Precision = "fp32",
    device: Device = "auto",
    bad_audio: BadAudio = "auto",
    cache_dir: str | None = None,
    as_json: AsJson = False,
    reading: HowToRead = DataOptions(),
) -> int:
    """Score a checkpoint on one part of a data set.

    Args:
        split: The part: train, valid or test.
        batch_size: Clips in one forward pass.
        precision: Arithmetic of the forward pass.
        device: Where to compute.
        bad_audio: Unreadable clips: skip them, stop (error), or skip up to 1 % (auto).
        cache_dir: Folder for decoded audio.
        as_json: Print one JSON object.
        reading: How to read the data set.
    """
    splits = reading.load(data, cache_dir)
    from ..inference import load
    from ..progress import interval_lines
    from ..scoring import evaluate as score

    metrics = score(
        load(checkpoint, precision=precision, device=device),
        splits,
        split,
        batch_size=batch_size,
        bad_audio=bad_audio,
        cache_dir=cache_dir,
        progress=sys.stderr.isatty(),
    )
    if as_json:
        print(json.dumps(metrics, indent=2))
    else:
        names = [name for name in metrics if f"{name}_ci" in metrics]
        alone = [f"  {name:<26}{metrics[name]:.4f}" for name in ("loss", "ece")]
        print("\n".join([f"{splits.name}, {split}, with 95 % intervals:", *interval_lines(metrics, names), *alone]))
    return 0
