"""`audioclf inspect`."""

import json
import sys

from ..config import TrainConfig
from .options import AsJson, Data, DataOptions, HowToRead


def inspect(
    data: Data,
    max_seconds: float = TrainConfig.max_seconds,
    min_clips: int = 10,
    cache_dir: str | None = None,
    as_json: AsJson = False,
    reading: HowToRead = DataOptions(),
) -> int:
    """Tell what a data set holds and what may be wrong with it, before training; the status is 0 whatever is found.

    Args:
        max_seconds: What training will hear of a clip.
        min_clips: Clips that each class should have in train.
        cache_dir: Folder for decoded audio, which training then finds there.
        as_json: Print one JSON object, with all clips of each finding.
        reading: How to read the data set.
    """
    splits = reading.load(data, cache_dir)
    from ..inspecting import inspect as look

    found = look(
        splits, max_seconds=max_seconds, min_clips=min_clips, cache_dir=cache_dir, progress=sys.stderr.isatty()
    )
    print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) if as_json else found)
    return 0
