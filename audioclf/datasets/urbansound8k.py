"""UrbanSound8K: sounds of the street, ten classes, 8,732 clips of up to 4 s of varied rate and channels, in ten folds.

Source: Salamon, Jacoby & Bello (2014), "A Dataset and Taxonomy for Urban Sound Research". Its folds keep the clips
that were cut from one Freesound recording together; the score is the mean accuracy over the ten.
"""

from pathlib import Path

from .base import AudioSplits, Example
from .corpus import find_corpus, hold_out_or_last, labels_by_id, present, read_table, require_root
from .making import make_splits

SOURCE = "https://zenodo.org/records/1203745 (UrbanSound8K.tar.gz, 6 GB)"
TABLES = {"metadata/UrbanSound8K.csv": "audio", "UrbanSound8K.csv": "."}
"""The table, and where the folders of the folds lie: in the original and in Kaggle's copy."""
COLUMNS = ("slice_file_name", "fsID", "fold", "classID", "class")
MAX_UNPACKED_BYTES = 16 * 2**30


def load(root: str | Path | None, fold: int | str | None, cache_dir: str | Path) -> AudioSplits:
    """UrbanSound8K from a folder or its `UrbanSound8K.tar.gz`.

    The columns `start` and `end` of its table are times in the Freesound recording, not in the clip.

    Args:
        root: The folder with `metadata/` and `audio/` (or one above it), or the archive.
        fold: The official fold, 1 to 10, that is test; when not given the last, with a note.
        cache_dir: Where an archive is unpacked.

    Raises:
        DatasetError: when it cannot be found or read.
    """
    folder = find_corpus(
        require_root(root, "UrbanSound8K", SOURCE),
        title="UrbanSound8K",
        holds=lambda folder: any((folder / table).is_file() for table in TABLES),
        lacks="there is no metadata/UrbanSound8K.csv in it",
        archives=("UrbanSound8K.tar.gz",),
        unpack_into=Path(cache_dir) / "urbansound8k",
        max_bytes=MAX_UNPACKED_BYTES,
    )
    table = next(table for table in TABLES if (folder / table).is_file())
    where = repr(str(folder / table))
    rows = read_table(folder / table, COLUMNS)
    labels = labels_by_id(((row["classID"], row["class"]) for row in rows), where)
    clips = [
        Example(
            audio=str(folder / TABLES[table] / f"fold{row['fold']}" / row["slice_file_name"]),
            label=row["class"],
            group=row["fsID"],
            fold=row["fold"],
        )
        for row in rows
    ]
    clips, notes = present(clips, labels, where)
    clips, fold_notes = hold_out_or_last(clips, fold, "urbansound8k")
    return make_splits(clips, name="urbansound8k", labels=labels, notes=notes, split_notes=fold_notes)
