"""GTZAN: music genre, ten classes of 100 clips of 30 s at 22,050 Hz.

Source: Tzanetakis & Cook (2002); faults and the fault-filtered split: Sturm (2013), "The GTZAN dataset: its contents,
its faults, their effects on evaluation, and its future use", and Kereliuk, Sturm & Larsen (2015), whose lists
torchaudio ships.
"""

from dataclasses import replace
from pathlib import Path

from ..errors import DatasetError
from . import archive
from .base import AudioSplits, Example, make_splits
from .folder import audio_files
from .split import cut_valid

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
PROTOCOLS = ("random", "fault-filtered")
HUB_ID, HUB_FILE = "marsyas/gtzan", "data/genres.tar.gz"
FOLDERS = (".", "genres", "genres_original", "Data/genres_original", "gtzan/genres")
"""Where the genre folders lie in the known copies (the original archive, Kaggle's, torchaudio's)."""
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
    protocol = protocol or "random"
    if protocol not in PROTOCOLS:
        raise DatasetError(f"gtzan has no protocol {protocol!r}; choose {' or '.join(PROTOCOLS)}.")
    clips, notes = _clips(_genres_folder(root, Path(cache_dir) / "gtzan"))
    if protocol == "fault-filtered":
        splits = _fault_filtered()
        kept = [replace(clip, split=splits[stem]) for clip in clips if (stem := Path(clip.audio).stem) in splits]
        return make_splits(kept, name="gtzan (fault-filtered)", labels=GENRES, notes=notes)
    notes.append(
        "This split has no test part: its score is a validation score, and the same artists are on both sides. "
        "protocol='fault-filtered' gives the honest one."
    )
    whole = make_splits(clips, name="gtzan (random)", labels=GENRES, notes=notes)
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


def _genres_folder(root: str | Path | None, unpack_into: Path) -> Path:
    """The folder that holds the ten genre folders, fetched and unpacked if need be."""
    if root is None:
        return _find(archive.unpack(_fetch(), unpack_into, MAX_UNPACKED_BYTES))
    root = Path(root).expanduser()
    if root.is_file():
        return _find(archive.unpack(root, unpack_into, MAX_UNPACKED_BYTES))
    if not root.is_dir():
        raise DatasetError(f"gtzan: {str(root)!r} is no folder and no archive.")
    if (root / "genres.tar.gz").is_file() and not any((root / place / GENRES[0]).is_dir() for place in FOLDERS):
        return _find(archive.unpack(root / "genres.tar.gz", unpack_into, MAX_UNPACKED_BYTES))
    return _find(root)


def _find(root: Path) -> Path:
    for place in FOLDERS:
        if (root / place / GENRES[0]).is_dir():
            return root / place
    raise DatasetError(f"{str(root)!r} is no GTZAN: there are no folders {', '.join(GENRES[:3])}, ... in it.")


def _fetch() -> str:
    from huggingface_hub import hf_hub_download

    try:
        return hf_hub_download(HUB_ID, HUB_FILE, repo_type="dataset")
    except Exception as error:  # what a network client may raise has no common base
        reason = str(error).strip().split("\n")[0]
        raise DatasetError(
            f"GTZAN (1.2 GB) could not be fetched from the hub ({type(error).__name__}: {reason}). If you have a copy, "
            "give its folder or genres.tar.gz as root; to see the library at work without it, take the data set demo."
        ) from error


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
