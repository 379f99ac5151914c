"""Speech Commands: keyword spotting, 105,829 clips of 35 words (v0.02) of up to 1 s at 16 kHz, by 2,618 speakers.

Source: Warden (2018), "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition".

The protocol `12` follows SUPERB (Yang et al., 2021, and its implementation in s3prl) in the classes and their order,
in taking every other word as `_unknown_`, and in testing on the official test set of the twelve classes where that is
at hand. SUPERB draws train and valid by a hash of the speaker; the official lists come from the same hash. Two things
are not SUPERB's: it takes 1 s at random from every noise file as `_silence_` in both train and valid, and it draws
classes equally often. Here each noise file is in one part only, cut into pieces of 1 s every 0.5 s, with running_tap
in valid, as TensorFlow Datasets does it, and exercise_bike in test where the official test set is not at hand, which
is our choice; and for equal classes there is `class_weights="balanced"`.
"""

import re
from dataclasses import replace
from pathlib import Path

from ..audio import header_seconds
from ..errors import DatasetError
from . import archive
from .base import AudioSplits, Example
from .corpus import choose_protocol, find_corpus, present, require_root
from .folder import audio_files, subfolders
from .making import make_splits

SOURCE = "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz (2.4 GB)"
PROTOCOLS = ("35", "12")
LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}
NUM_WORDS = 35
KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN, SILENCE = "_unknown_", "_silence_"
NOISE = "_background_noise_"
NOISE_PARTS = {"running_tap.wav": "valid", "exercise_bike.wav": "test"}
"""Where the pieces of a noise file go; those of the others to train. Test only if there is no official test set."""
PIECE_SECONDS, HOP_SECONDS = 1.0, 0.5
TEST_SET = "speech_commands_test_set"
NEW_WORD = "backward"
"""One of the five words that version 0.01 lacks."""
SPEAKER = re.compile(r"([0-9a-f]+)_nohash_")
MAX_UNPACKED_BYTES = 16 * 2**30


def load(root: str | Path | None, protocol: str | None, cache_dir: str | Path) -> AudioSplits:
    """Speech Commands from a folder or its tar.gz, of version 0.02 or 0.01, with its official parts.

    Args:
        root: The folder with the words' folders and the two lists (or one above it), or the archive.
        protocol: `35` (the default): the words that there are, 30 in version 0.01. `12`: ten keywords, `_unknown_`
            and `_silence_`. Its test part is the official one if `speech_commands_test_set_v0.02` (`_v0.01` for that
            version), or that with .tar.gz, lies in the folder or beside it.
        cache_dir: Where an archive is unpacked.

    Raises:
        DatasetError: when it cannot be found or read.
    """
    protocol = choose_protocol("speech_commands", protocol, PROTOCOLS)
    root = Path(require_root(root, "Speech Commands", SOURCE)).expanduser()
    unpack_into = Path(cache_dir) / "speech_commands"
    folder = find_corpus(
        root,
        title="Speech Commands",
        holds=lambda folder: all((folder / name).is_file() for name in LISTS.values()),
        lacks=f"{' and '.join(LISTS.values())} are not both in it",
        archives=("speech_commands_v0.02.tar.gz", "speech_commands_v0.01.tar.gz"),
        unpack_into=unpack_into,
        max_bytes=MAX_UNPACKED_BYTES,
    )
    clips, words = _words(folder)
    notes = []
    if protocol == "12":
        clips = [replace(clip, label=clip.label if clip.label in KEYWORDS else UNKNOWN) for clip in clips]
        test_set = _official_test_set(folder, root if root.is_dir() else root.parent, unpack_into)
        if test_set is None:
            notes.append(
                f"The test part is that of {LISTS['test']}; published scores are on the official test set "
                f"{_test_set_name(folder)}, which is used when it lies beside the words."
            )
        else:
            clips = [clip for clip in clips if clip.split != "test"] + _test_clips(test_set)
        clips += _silence(folder / NOISE, with_test=test_set is None)
    elif len(words) != NUM_WORDS:
        notes.append(f"There are {len(words)} words here; version 0.02 has {NUM_WORDS}.")
    labels = words if protocol == "35" else [*KEYWORDS, UNKNOWN, SILENCE]
    clips, missing = present(clips, labels, repr(str(folder)))
    return make_splits(clips, name=f"speech_commands ({protocol})", labels=labels, notes=[*missing, *notes])


def _words(folder: Path) -> tuple[list[Example], list[str]]:
    """All clips of words, those too that are listed and not there, and the words of which there are clips."""
    listed: dict[str, str] = {}
    for part, name in LISTS.items():
        entries = [line.strip() for line in (folder / name).read_text(encoding="utf-8-sig").splitlines()]
        if both := listed.keys() & set(entries):
            raise DatasetError(f"{str(folder)!r}: {min(both)!r} stands in both lists; fetch it again.")
        listed |= {entry: part for entry in entries if entry}
    clips, words = [], []
    for word in subfolders(folder):
        paths = audio_files(word)
        if not paths or word.name.startswith(("_", TEST_SET)):
            continue
        words.append(word.name)
        for path in paths:
            split = listed.pop(f"{word.name}/{path.name}", "train")
            clips.append(Example(str(path), word.name, split, group=_speaker(path)))
    clips += [Example(str(folder / entry), entry.split("/")[0], part) for entry, part in listed.items()]
    return clips, words


def _speaker(path: Path) -> str | None:
    match = SPEAKER.search(path.name)
    return match and match[1]


def _test_set_name(folder: Path) -> str:
    """The name of the official test set of the twelve classes that belongs to the folder's version."""
    return f"{TEST_SET}_v0.02" if (folder / NEW_WORD).is_dir() else f"{TEST_SET}_v0.01"


def _official_test_set(folder: Path, given: Path, unpack_into: Path) -> Path | None:
    """Its folder: in the words' folder, beside it, or where the user pointed."""
    name = _test_set_name(folder)
    for place in (folder, folder.parent, given):
        if (place / name).is_dir():
            return place / name
        if (place / f"{name}.tar.gz").is_file():
            return archive.unpack(place / f"{name}.tar.gz", unpack_into, MAX_UNPACKED_BYTES)
    return None


def _test_clips(test_set: Path) -> list[Example]:
    clips = []
    for label in (*KEYWORDS, UNKNOWN, SILENCE):
        paths = audio_files(test_set / label)
        if not paths:
            raise DatasetError(f"{str(test_set)!r} is no whole test set: there is no audio in the folder {label!r}.")
        clips += [Example(str(path), label, "test", group=_speaker(path)) for path in paths]
    return clips


def _silence(noise: Path, with_test: bool) -> list[Example]:
    """Pieces of the noise files, each file in one part only."""
    parts = {name: part for name, part in NOISE_PARTS.items() if part != "test" or with_test}
    paths = audio_files(noise)
    if absent := parts.keys() - {path.name for path in paths}:
        raise DatasetError(f"{str(noise / min(absent))!r} is missing, from which {SILENCE} is cut; fetch it again.")
    return [
        Example(str(path), SILENCE, parts.get(path.name, "train"), f"{NOISE}/{path.name}", start, start + PIECE_SECONDS)
        for path in paths
        for start in _piece_starts(path)
    ]


def _piece_starts(path: Path) -> list[float]:
    seconds = header_seconds(str(path))
    if seconds is None:
        raise DatasetError(f"{str(path)!r}, from which {SILENCE} is cut, cannot be read; fetch it again.")
    return [number * HOP_SECONDS for number in range(1 + int((seconds - PIECE_SECONDS) // HOP_SECONDS))]
