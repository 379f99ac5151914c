"""FSD50K: sound events, 200 classes of which a clip may have several, 51,197 clips of 0.3 to 30 s at 44.1 kHz.

Source: Fonseca, Favory, Pons, Font & Serra (2022), "FSD50K: an Open Dataset of Human-Labeled Sound Events". The
score is the mean average precision over the classes.
"""

from pathlib import Path

from ..errors import DatasetError
from .base import AudioSplits, Example, split_name
from .corpus import find_corpus, labels_by_id, present, read_table, require_root
from .making import make_splits
from .manifest import label_names

SOURCE = "https://zenodo.org/records/4060432 (all of its zips, to be unpacked into one folder)"
GROUND_TRUTH = "FSD50K.ground_truth"


def load(root: str | Path | None) -> AudioSplits:
    """FSD50K from a folder: train and valid are dev.csv's own, test is eval.csv.

    Args:
        root: The folder with `FSD50K.ground_truth`, `FSD50K.dev_audio` and `FSD50K.eval_audio` (or one above it).

    Raises:
        DatasetError: when it cannot be found or read.
    """
    folder = find_corpus(
        require_root(root, "FSD50K", SOURCE),
        title="FSD50K",
        holds=lambda folder: (folder / GROUND_TRUTH).is_dir(),
        lacks=f"there is no folder {GROUND_TRUTH} in it",
    )
    labels = _vocabulary(folder / GROUND_TRUTH / "vocabulary.csv")
    clips, notes = [], []
    for part in ("dev", "eval"):
        table = folder / GROUND_TRUTH / f"{part}.csv"
        there, missing = present(_clips(table, folder / f"FSD50K.{part}_audio"), labels, repr(str(table)))
        clips, notes = clips + there, notes + missing
    return make_splits(clips, name="fsd50k", labels=labels, notes=notes, metric="map")


def _vocabulary(path: Path) -> list[str]:
    """The classes in their official order, from rows of index, label and id in AudioSet, without a header."""
    if not path.is_file():
        raise DatasetError(f"{str(path)!r} is missing, which names the classes; fetch it again.")
    rows = [line.split(",") for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if any(len(row) != 3 for row in rows):
        raise DatasetError(f"{str(path)!r} is no vocabulary of FSD50K: its rows must be index,label,mid.")
    return labels_by_id(((number, label) for number, label, _ in rows), repr(str(path)))


def _clips(table: Path, audio: Path) -> list[Example]:
    is_dev = table.name == "dev.csv"
    where = repr(str(table))
    return [
        Example(
            audio=str(audio / f"{row['fname']}.wav"),
            label=label_names(row["labels"], where),
            split=split_name(row["split"], where) if is_dev else "test",
        )
        for row in read_table(table, ("fname", "labels", "split") if is_dev else ("fname", "labels"))
    ]
