"""ESC-50: environmental sound, 50 classes of 40 clips of 5 s at 44.1 kHz, in five official folds.

Source: Piczak (2015), "ESC: Dataset for Environmental Sound Classification". Its folds keep the clips that were cut
from one Freesound recording together; the score is the mean accuracy over the five.
"""

from pathlib import Path

from . import hub
from .base import AudioSource, AudioSplits, Example
from .corpus import choose_protocol, find_corpus, hold_out_or_last, labels_by_id, present, read_table
from .making import make_splits

PROTOCOLS = ("esc50", "esc10")
TABLE = "meta/esc50.csv"
COLUMNS = ("filename", "fold", "target", "category", "esc10", "src_file")
HUB_ID = "ashraq/esc50"
MAX_UNPACKED_BYTES = 4 * 2**30


def load(root: str | Path | None, protocol: str | None, fold: int | str | None, cache_dir: str | Path) -> AudioSplits:
    """ESC-50 from a folder, the zip of its repository, or the hub.

    Args:
        root: The folder with `meta/esc50.csv` and `audio/` (or one above it), the zip, or None to fetch it.
        protocol: `esc50` (the default), or `esc10`: ten of its classes that are easily told apart.
        fold: The official fold, 1 to 5, that is test; when not given the last, with a note.
        cache_dir: Where an archive is unpacked.

    Raises:
        DatasetError: when it cannot be found, fetched or read.
    """
    protocol = choose_protocol("esc50", protocol, PROTOCOLS)
    rows, where = _hub_rows() if root is None else _folder_rows(root, Path(cache_dir) / "esc50")
    if protocol == "esc10":
        rows = [(audio, row) for audio, row in rows if row["esc10"].lower() == "true"]
    labels = labels_by_id(((row["target"], row["category"]) for _, row in rows), where)
    clips, notes = present(
        [Example(audio, label=row["category"], group=row["src_file"], fold=row["fold"]) for audio, row in rows],
        labels,
        where,
    )
    clips, fold_notes = hold_out_or_last(clips, fold, protocol)
    return make_splits(clips, name=protocol, labels=labels, notes=notes, split_notes=fold_notes)


def _folder_rows(root: str | Path, unpack_into: Path) -> tuple[list[tuple[str, dict[str, str]]], str]:
    """The path and the row of each clip in the table, and the table's name."""
    folder = find_corpus(
        root,
        title="ESC-50",
        holds=lambda folder: (folder / TABLE).is_file(),
        lacks=f"there is no {TABLE} in it",
        archives=("ESC-50-master.zip",),
        unpack_into=unpack_into,
        max_bytes=MAX_UNPACKED_BYTES,
    )
    rows = read_table(folder / TABLE, COLUMNS)
    return [(str(folder / "audio" / row["filename"]), row) for row in rows], repr(str(folder / TABLE))


def _hub_rows() -> tuple[list[tuple[AudioSource, dict[str, str]]], str]:
    """The audio and the row of each clip of the copy on the hub, and its id."""
    import datasets

    with hub.fetching("ESC-50 (0.8 GB)", "If you have a copy, give its folder or ESC-50-master.zip as root."):
        data = datasets.load_dataset(HUB_ID, split="train")  # its only part, with all the folds
    rows = hub.audio_rows(data, COLUMNS, HUB_ID)
    return [(audio, dict(zip(COLUMNS, map(str, values), strict=True))) for audio, values in rows], HUB_ID
