"""Augmentation with folders of recordings: background noise, and rooms by their impulse responses.

Shapes: T samples.
"""

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import audio, cache, effects
from .bad_audio import listing
from .checks import check_number
from .config import default_cache_dir
from .datasets.base import file_state
from .errors import AudioError, ConfigError


@dataclass(frozen=True)
class BackgroundNoise:
    """Adds a random stretch of a random recording, one that is too short again and again; a transform for `augment`.

    Recordings are decoded once into the cache and read from there by every worker, so that none of them holds any in
    memory. A clip, or a stretch, without any sound stays as it is.

    Attributes:
        folder: Where the recordings lie, at any depth.
        snr_db: Range of the ratio of the clip's mean power to the noise's, drawn evenly in dB.
        fingerprint: Of the recordings' names and sizes: a run goes on only with those that it began with.

    Raises:
        ConfigError, AudioError: for a folder without recordings, or a range that is none.

    Example:
        >>> noise = BackgroundNoise("recordings/streets", snr_db=(5, 30))
        >>> audioclf.train("esc50", augment=["shift", noise])
    """

    folder: str
    snr_db: tuple[float, float] = (5.0, 30.0)
    fingerprint: str = field(init=False)
    store: cache.ArrayStore | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", str(self.folder))
        object.__setattr__(self, "fingerprint", _fingerprint(self.folder))
        object.__setattr__(self, "snr_db", tuple(self.snr_db))
        if len(self.snr_db) != 2 or self.snr_db[0] > self.snr_db[1]:
            raise ConfigError(f"snr_db={self.snr_db!r} must be a lowest and a highest ratio in dB.")
        for value in self.snr_db:
            check_number("snr_db", value)

    def __call__(self, waveform: np.ndarray, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
        """The waveform with noise, (T,)."""
        recording = _draw(self.store or _open_once(self.folder, self.fingerprint, sampling_rate), rng)
        if len(recording) > len(waveform):
            start = int(rng.integers(len(recording) - len(waveform) + 1))
            noise = recording[start : start + len(waveform)]
        else:
            noise = np.resize(np.roll(recording, -int(rng.integers(len(recording)))), len(waveform))
        return effects.mix_at_snr(waveform, noise, rng.uniform(*self.snr_db))

    def opened(self, **options: Any) -> "BackgroundNoise":
        """With its recordings decoded; the options are those of `open_folder`."""
        return replace(self, store=open_folder(self.folder, **options))


@dataclass(frozen=True)
class ImpulseResponses:
    """Puts the clip into a room whose impulse response is drawn from a folder; a transform for `augment`.

    Attributes:
        folder: Where the impulse responses lie, a sound file each, at any depth.
        fingerprint: Of the files' names and sizes: a run goes on only with those that it began with.

    Raises:
        AudioError: for a folder without any.

    Example:
        >>> rooms = ImpulseResponses("recordings/rooms")
        >>> audioclf.train("esc50", augment=["shift", audioclf.Sometimes(0.5, rooms)])
    """

    folder: str
    fingerprint: str = field(init=False)
    store: cache.ArrayStore | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", str(self.folder))
        object.__setattr__(self, "fingerprint", _fingerprint(self.folder))

    def __call__(self, waveform: np.ndarray, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
        """The waveform as it sounds there, (T,)."""
        return effects.reverberate(
            waveform, _draw(self.store or _open_once(self.folder, self.fingerprint, sampling_rate), rng)
        )

    def opened(self, **options: Any) -> "ImpulseResponses":
        """With the responses decoded; the options are those of `open_folder`."""
        return replace(self, store=open_folder(self.folder, **options))


def open_folder(
    folder: str, sampling_rate: int, cache_dir: str | None = None, progress: bool = False
) -> cache.ArrayStore:
    """The recordings of a folder, decoded once and for all later runs.

    Raises:
        AudioError: for recordings that cannot be read, naming them.
    """
    files = _files(folder)
    store = cache.build(
        [file_state(str(file)) for file in files],
        lambda i: audio.load(files[i], sampling_rate),
        recipe=f"v1 recordings mono {sampling_rate} Hz soxr {audio.RESAMPLE_QUALITY} float32",
        cache_dir=cache_dir or default_cache_dir(),
        names=[str(file) for file in files],
        progress=progress,
    )
    if store.errors:
        reasons = list(store.errors.values())
        raise AudioError(
            f"{len(reasons)} of {len(files)} recordings in {folder!r} cannot be used; repair or remove them:\n"
            f"{listing(reasons)}"
        )
    return store


@functools.lru_cache(maxsize=16)
def _open_once(folder: str, _fingerprint: str, sampling_rate: int) -> cache.ArrayStore:
    """For one that no run has opened: within a callable of the user's own, or to try it out."""
    return open_folder(folder, sampling_rate)


def _draw(store: cache.ArrayStore, rng: np.random.Generator) -> np.ndarray:
    return store.array(int(rng.integers(len(store.lengths))))


def _files(folder: str) -> list[Path]:
    """Audio files below a folder, in the order of their names below it.

    Raises:
        AudioError: when there is none.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise AudioError(f"{folder!r}: no such folder of recordings.")
    files = sorted(path for path in root.rglob("*") if audio.is_audio_path(path) and path.is_file())
    if not files:
        raise AudioError(f"{folder!r}: holds no audio files.")
    return files


def _fingerprint(folder: str) -> str:
    root = Path(folder).expanduser()
    return _hash(f"{path.relative_to(root).as_posix()} {path.stat().st_size}" for path in _files(folder))


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:12]
