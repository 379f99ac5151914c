"""`audioclf report`."""

import sys

from ..config import Device, Precision
from .options import Checkpoint, Data, DataOptions, HowToRead


def report(
    checkpoint: Checkpoint,
    data: Data,
    split: str = "test",
    output: str = "report.html",
    precision: Precision = "fp32",
    device: Device = "auto",
    cache_dir: str | None = None,
    reading: HowToRead = DataOptions(),
) -> int:
    """Write a page on how a checkpoint does on one part of a data set, with its worst mistakes to listen to.

    A run writes such a page of validation and test by itself.

    Args:
        split: The part: train, valid or test.
        output: The file, which is replaced if it is there.
        precision: Arithmetic of the forward pass.
        device: Where to compute.
        cache_dir: Folder for decoded audio.
        reading: How to read the data set.
    """
    splits = reading.load(data, cache_dir)
    from ..reporting import report as write

    options = {"precision": precision, "device": device, "cache_dir": cache_dir, "progress": sys.stderr.isatty()}
    print(write(checkpoint, splits, split, output, **options))
    return 0
