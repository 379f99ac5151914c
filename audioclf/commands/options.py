"""Options that several subcommands have."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from ..config import TrainConfig
from ..recipes import Recipe

if TYPE_CHECKING:
    from ..datasets.base import AudioSplits

Data = Annotated[
    Positional[str],
    tyro.conf.arg(
        metavar="DATA",
        help="A corpus by name (gtzan, speech_commands, esc50, ...: docs/corpora.md), demo, a folder of class folders, "
        "a CSV, TSV or JSON-lines manifest, or a hub data set id.",
    ),
]
Checkpoint = Annotated[
    Positional[str], tyro.conf.arg(metavar="CHECKPOINT", help="A checkpoint's folder, a run's, or a hub id.")
]
RecipeName = Annotated[
    Recipe,
    tyro.conf.arg(
        name="recipe",
        help="Options that go together and take the place of the defaults: the course's, fast (its waveform CNN "
        "frozen, and computed once) or best (augmentation, random pieces, more epochs).",
    ),
]
ConfigFile = Annotated[
    str | None,
    tyro.conf.arg(
        name="config",
        metavar="FILE",
        help="YAML file of any of these options, data among them, by the names that are shown here with _ for -; those "
        "given here go before it.",
    ),
]
PrintConfig = Annotated[bool, tyro.conf.arg(help="Print all options as such a file, and do nothing else.")]
AsJson = Annotated[bool, tyro.conf.arg(name="json")]


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How to read the data set."""

    protocol: str | None = None
    """Official split or variant: for gtzan random or fault-filtered, for speech_commands 35 or 12, for esc50 esc50 or
    esc10, for demo music, music-hard, keywords, languages, emotion, environment or events, for a hub data set its
    configuration."""
    root: str | None = None
    """Where a named data set lies, as a folder or an archive."""
    fold: str | None = None
    """For a corpus with official folds, or a manifest with a column fold: the one that is test."""
    label_column: str | None = None
    """Column of the labels."""
    group_column: str | None = None
    """Column of what must not be on both sides of a split (speaker, artist)."""
    multi_label: bool | None = None
    """Whether a clip may have several labels, separated by commas; so in a column labels or tags, when not given."""
    labels: tuple[str, ...] | None = None
    """Class names in the order of their ids; for a corpus of languages those wanted."""
    streaming: bool | None = None
    """Whether the files of a hub data set are read as training comes to them, rather than fetched first."""

    def load(self, data: str, cache_dir: str | Path | None) -> "AudioSplits":
        """The data set.

        Raises:
            DatasetError, ConfigError: as `load_dataset`.
        """
        from ..datasets.load import load_dataset

        return load_dataset(data, **vars(self), cache_dir=cache_dir)


HowToRead = Annotated[OmitArgPrefixes[DataOptions], tyro.conf.arg(name="data")]
Training = Annotated[OmitArgPrefixes[TrainConfig], tyro.conf.arg(name="training")]
