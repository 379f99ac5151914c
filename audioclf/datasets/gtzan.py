"""GTZAN: music genre, ten classes of 100 clips of 30 s at 22,050 Hz.

Source: Tzanetakis & Cook (2002); faults and the fault-filtered split: Sturm (2013), "The GTZAN dataset: its contents,
its faults, their effects on evaluation, and its future use", and Kereliuk, Sturm & Larsen (2015), whose lists
torchaudio ships.
"""

from dataclasses import replace
from pathlib import Path

from ..errors import DatasetError
from . import hub
from .base import AudioSplits, Example
from .corpus import choose_protocol, find_corpus
from .folder import audio_files
from .making import make_splits
from .split import cut_valid

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
PROTOCOLS = ("random", "fault-filtered")
HUB_ID, HUB_FILE = "marsyas/gtzan", "data/genres.tar.gz"
MAX_UNPACKED_BYTES = 4 * 2**30
CORRUPT = "jazz.00054"
RANDOM_VALID_FRACTION, RANDOM_SEED = 0.1, 42


def load(root: str | Path | None, protocol: str | None, cache_dir: str | Path) -> AudioSplits:
    """GTZAN from a folder, its `genres.tar.gz`, or the hub.

    Args:
        root: A folder with the genre folders (or the archive) in it, the archive itself, or None to fetch it.
        protocol: `random` (90 % train, 10 % valid, stratified, seed 42: what tutorials use) or `fault-filtered`
            (train, valid, test; no artist on two sides). `random` when not given.
        cache_dir: Where an archive is unpacked.

    Raises:
        DatasetError: when it cannot be found, fetched or read.
    """
    protocol = choose_protocol("gtzan", protocol, PROTOCOLS)
    folder = find_corpus(
        _fetch() if root is None else root,
        title="GTZAN",
        # Kaggle's copy has pictures in folders of the same names beside it.
        holds=lambda folder: bool(audio_files(folder / GENRES[0])),
        lacks=f"there are no folders {', '.join(GENRES[:3])}, ... in it",
        archives=("genres.tar.gz",),
        unpack_into=Path(cache_dir) / "gtzan",
        max_bytes=MAX_UNPACKED_BYTES,
    )
    clips, notes = _clips(folder)
    if protocol == "fault-filtered":
        splits = _fault_filtered()
        kept = [replace(clip, split=splits[stem]) for clip in clips if (stem := Path(clip.audio).stem) in splits]
        return make_splits(kept, name="gtzan (fault-filtered)", labels=GENRES, notes=notes)
    split_notes = [
        "This split has no test part: its score is a validation score, and the same artists are on both sides. "
        "protocol='fault-filtered' gives the honest one."
    ]
    whole = make_splits(clips, name="gtzan (random)", labels=GENRES, notes=notes, split_notes=split_notes)
    return cut_valid(whole, RANDOM_VALID_FRACTION, RANDOM_SEED)


def _clips(folder: Path) -> tuple[list[Example], list[str]]:
    clips, notes = [], []
    for genre in GENRES:
        if not (folder / genre).is_dir():
            raise DatasetError(f"{str(folder)!r} is no whole GTZAN: the folder {genre!r} is missing.")
        paths = audio_files(folder / genre)
        if not paths:
            raise DatasetError(f"{str(folder)!r} is no whole GTZAN: there is no audio in the folder {genre!r}.")
        for path in paths:
            if path.stem == CORRUPT and path.suffix == ".wav" and not _is_riff(path):
                notes.append(f"{path.name} has no wav header in this copy, as in most; it is left out.")
            else:
                clips.append(Example(audio=str(path), label=genre))
    return clips, notes


def _is_riff(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"RIFF"


def _fetch() -> str:
    from huggingface_hub import hf_hub_download

    advice = (
        "If you have a copy, give its folder or genres.tar.gz as root; to see the library at work without it, take "
        "the data set demo."
    )
    with hub.fetching("GTZAN (1.2 GB)", advice):
        return hf_hub_download(HUB_ID, HUB_FILE, repo_type="dataset")


def _fault_filtered() -> dict[str, str]:
    """Split of each file stem of the fault-filtered protocol."""
    try:
        from torchaudio.datasets import gtzan as lists
    except (ImportError, OSError, RuntimeError) as error:
        raise DatasetError(
            f"gtzan's fault-filtered split needs torchaudio's lists, and torchaudio does not import ({error}); "
            "install the torchaudio that matches your torch, or take protocol='random'."
        ) from error
    parts = {"train": lists.filtered_train, "valid": lists.filtered_valid, "test": lists.filtered_test}
    return {stem: part for part, stems in parts.items() for stem in stems}
