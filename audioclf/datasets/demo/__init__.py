"""The embedded demonstration sets, synthesised with numpy: one for each kind of task, by `protocol`.

They need no download and no licence, are made in seconds, and are honest work for a classifier: what tells the classes
apart is mostly what happens when, while speaker, equaliser, noise and loudness are drawn alike for all of them.
`benchmarks/demo_baseline.py` says how far a spectrum averaged over time gets. Scores here say nothing about real sound.
"""

from pathlib import Path

from ...errors import ConfigError
from ..base import AudioSplits
from ..corpus import choose_protocol, hold_out
from ..making import make_splits
from . import emotion, environment, events, files, keywords, languages, music, music_hard

SETS = {
    "music": music,
    "music-hard": music_hard,
    "keywords": keywords,
    "languages": languages,
    "emotion": emotion,
    "environment": environment,
    "events": events,
}
"""The sets by protocol: modules with `VERSION`, `LABELS`, `SAMPLING_RATE`, `METRIC`, `NOTE` and `clips()`."""


def load(root: str | Path | None, protocol: str | None, fold: int | str | None, cache_dir: str | Path) -> AudioSplits:
    """One of the sets, written below `root` (or `cache_dir` when that is None) if it isn't there yet.

    Args:
        root: Folder that holds, or will hold, the folder named by the set's `VERSION`.
        protocol: Which set; `music` when not given.
        fold: For the sets with folds: the one that is test, while all others are train.
        cache_dir: Where it is written without a root.

    Raises:
        DatasetError: for a set or a fold that there is not, and a folder that cannot be written.
        ConfigError: for a fold of a set without folds.
    """
    name = choose_protocol("demo", protocol, tuple(SETS))
    chosen = SETS[name]
    folder = Path(root or cache_dir).expanduser() / chosen.VERSION
    clips = chosen.clips()
    examples = [clip.example(folder) for clip in clips]
    if fold is not None and clips[0].fold is None:
        raise ConfigError(f"fold={fold!r} means nothing for the demo set {name}; leave it out.")
    if fold is not None:
        examples = hold_out(examples, fold, f"demo's {name}")
    files.write(folder, clips, chosen.SAMPLING_RATE)
    title = "demo" if chosen is music else f"demo-{name}"
    return make_splits(examples, name=title, labels=chosen.LABELS, notes=(chosen.NOTE,), metric=chosen.METRIC)
