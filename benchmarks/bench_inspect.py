"""`audioclf.inspect`: how long it takes, and how many planted copies it finds.

Usage: python benchmarks/bench_inspect.py [--clips 1000] [--seconds 30] [--sets music music-hard ...] [--planted 210]
       [--seed 0] [--cache-dir FOLDER] [--json FILE]

Speed: clips of random notes and noise (wav, 22.05 kHz) are decoded into the cache, then inspected. Copies: the clips of
each demo set (of environment and events one piece a recording, as the pieces of one share sounds), among which copies
of some are planted, one change each: gain, polarity, the first 0.2 s cut off, 0.2 s of silence before it, noise at
30 dB, mp3, ogg. A pair that is found counts as right when one is the planted copy of the other, or both of a third.
"""

import tempfile
import time
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from measure import parser, write

import audioclf
from audioclf.clips import stored
from audioclf.fingerprint import SAMPLING_RATE
from audioclf.inspection import Inspection

CHANGES = ("gain", "polarity", "cut", "delay", "noise", "mp3", "ogg")
RATE = 22_050


def main() -> None:
    made = parser(__doc__, rounds=1)
    made.add_argument("--clips", type=int, default=1000)
    made.add_argument("--seconds", type=float, default=30.0)
    made.add_argument("--sets", nargs="*", default=["music", "music-hard", "keywords", "emotion", "environment"])
    made.add_argument("--planted", type=int, default=210, help="copies in each set")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--cache-dir", help="where the demo sets lie, or are written")
    options = made.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures: dict[str, Any] = {}
        if options.clips:
            figures["speed"] = speed(Path(folder) / "speed", options)
        figures["copies"] = {name: copies(name, Path(folder) / name, options) for name in options.sets}
        write(options, figures)


def speed(folder: Path, options) -> dict[str, Any]:
    """Seconds to decode the clips, and to inspect them then."""
    rng = np.random.default_rng(options.seed)
    folder.mkdir()
    clips, notes = [], bank(rng)
    for number in range(options.clips):
        path = folder / f"{number}.wav"
        soundfile.write(path, melody(options.seconds, notes, rng), RATE)
        clips.append(audioclf.Example(str(path), "odd" if number % 2 else "even"))
    splits = audioclf.make_splits(clips, name="notes")
    began = time.perf_counter()
    stored(splits, sampling_rate=SAMPLING_RATE, cache_dir=folder / "cache")
    decoded = time.perf_counter()
    cpu = time.process_time()
    found = audioclf.inspect(splits, cache_dir=folder / "cache")
    return {
        "decoding_seconds": round(decoded - began, 1),
        "inspect_seconds": round(time.perf_counter() - decoded, 1),
        "inspect_cpu_seconds": round(time.process_time() - cpu, 1),
        "findings": {finding.kind: len(finding.clips) for finding in found.findings},
    }


def bank(rng: np.random.Generator) -> list[np.ndarray]:
    """Notes of three partials that die away, (T,), of five octaves."""
    at = np.arange(int(0.4 * RATE)) / RATE
    pitches = 110 * 2 ** (rng.integers(0, 60, 300) / 12)
    partials = (sum(rng.uniform(0.2, 1) * np.sin(2 * np.pi * hertz * k * at) for k in (1, 2, 3)) for hertz in pitches)
    return [0.1 * wave * np.exp(-at / 0.1) for wave in partials]


def melody(seconds: float, notes: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A random note every tenth of a second, over a little noise, (T,)."""
    wave = 0.002 * rng.standard_normal(int(seconds * RATE), dtype=np.float32)
    for start in range(0, len(wave) - len(notes[0]), RATE // 10):
        wave[start : start + len(notes[0])] += rng.uniform(0.2, 1) * notes[rng.integers(len(notes))]
    return wave / max(1.0, 1.05 * np.abs(wave).max())


def copies(name: str, folder: Path, options) -> dict[str, Any]:
    """Recall and precision over pairs, and how many of each change were found."""
    rng = np.random.default_rng(options.seed)
    splits = audioclf.load_dataset("demo", protocol=name, cache_dir=options.cache_dir)
    clips, groups = [], set()
    for clip in (clip for part in splits.parts.values() for clip in part):
        if name not in ("environment", "events") or clip.group not in groups:
            clips.append(clip)
            groups.add(clip.group)
    folder.mkdir()
    source = {clip.audio: clip.audio for clip in clips}
    change_of = {}
    for number, row in enumerate(rng.choice(len(clips), min(options.planted, len(clips)), replace=False)):
        change = CHANGES[number % len(CHANGES)]
        path = plant(clips[row].audio, folder / str(number), change, rng)
        source[path], change_of[path] = clips[row].audio, change
        clips.append(audioclf.Example(path, clips[row].label))
    whole = audioclf.make_splits([audioclf.Example(c.audio, c.label) for c in clips], name=name, labels=splits.labels)
    began = time.perf_counter()
    pairs = found_pairs(audioclf.inspect(whole, cache_dir=folder / "cache"))
    right = {pair for pair in pairs if len({source[file] for file in pair}) == 1}
    hits = Counter(change for path, change in change_of.items() if frozenset((path, source[path])) in right)
    return {
        "clips": len(clips),
        "planted": len(change_of),
        "recall": round(hits.total() / len(change_of), 4),
        "precision": round(len(right) / max(1, len(pairs)), 4),
        "found": {change: f"{hits[change]} of {list(change_of.values()).count(change)}" for change in CHANGES},
        "wrong": [sorted(pair) for pair in pairs - right],
        "seconds, decoding included": round(time.perf_counter() - began, 1),
    }


def found_pairs(found: Inspection) -> set[frozenset[str]]:
    """Each two clips that are in one set of copies."""
    sets: dict[tuple[str, int], list[str]] = {}
    for finding in found.findings:
        for clip in finding.clips:
            if clip.set is not None:
                sets.setdefault((finding.kind, clip.set), []).append(clip.file)
    return {frozenset(pair) for files in sets.values() for pair in combinations(files, 2)}


def plant(source: str, target: Path, change: str, rng: np.random.Generator) -> str:
    """Writes a changed copy; returns its path."""
    wave, rate = soundfile.read(source)
    changed = {
        "gain": lambda: wave * 10 ** (rng.uniform(-20, -3) / 20),
        "polarity": lambda: -wave,
        "cut": lambda: wave[round(0.2 * rate) :],
        "delay": lambda: np.concatenate([np.zeros(round(0.2 * rate)), wave]),
        "noise": lambda: wave + rng.standard_normal(len(wave)) * np.sqrt(np.mean(wave**2) / 1000),
    }.get(change, lambda: wave)()
    path = target.with_suffix(f".{change}" if change in ("mp3", "ogg") else ".wav")
    soundfile.write(path, changed, rate)
    return str(path)


if __name__ == "__main__":
    main()
