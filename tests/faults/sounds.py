"""H: audio files that are damaged, lie, or are merely odd."""

import json
import random
import resource as limits
import signal
import struct
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import audioclf
from audioclf import audio

from .harness import child, ended

FORMATS = [
    *(("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "FLOAT"), ("wav", "ULAW"), ("wav", "IMA_ADPCM"), ("wav", "PCM_U8")),
    *(("flac", "PCM_16"), ("ogg", "VORBIS"), ("ogg", "OPUS"), ("mp3", "MPEG_LAYER_III"), ("aiff", "PCM_16")),
    *(("au", "PCM_16"), ("caf", "ALAC_16"), ("w64", "PCM_16"), ("rf64", "PCM_16")),
]
SECONDS_A_FILE = 10
"""A file that takes longer hangs."""


def damaged_sounds(workspace: Path, data: Path, quick: bool) -> dict[str, Any]:
    """Mutated files: finite audio or one error that names the file; bounded memory; no crash, no hang."""
    count = 150 if quick else 6000
    report = workspace / "sounds.json"
    process = child(_mutate_and_load, workspace, count, report)
    assert ended(process) == 0, process.exitcode
    figures = json.loads(report.read_text())
    assert figures["audio"] + figures["refused"] == count
    assert figures["memory it took, MB"] < 300
    return figures | {"odd files by hand": _odd_files(workspace)}


def _mutate_and_load(workspace: Path, count: int, report: Path) -> None:
    rng = random.Random(3)
    waveform = 0.3 * np.sin(np.arange(4800) / 9) + 0.01 * np.random.default_rng(0).standard_normal(4800)
    originals = []
    for number, (kind, subtype) in enumerate(FORMATS):
        path = workspace / f"original {number}.{kind}"
        rate = 16_000 if subtype == "OPUS" else 22_050
        soundfile.write(path, np.stack([waveform, -waveform], 1) if number % 2 else waveform, rate, subtype=subtype)
        assert audio.load(path, 16_000).size
        originals.append((kind, path.read_bytes()))
    outcomes = {"audio": 0, "refused": 0}
    before = limits.getrusage(limits.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        kind, content = originals[number % len(originals)]
        path = workspace / f"dämaged 음악 {number % 7}.{kind}"
        path.write_bytes(_mutated(bytearray(content), rng))
        signal.alarm(SECONDS_A_FILE)
        loaded, said = _loaded(path)
        if loaded is None:
            assert path.name in said, said
            assert "\n" not in said, said
            outcomes["refused"] += 1
        else:
            assert loaded.dtype == np.float32
            assert np.isfinite(loaded).all()
            outcomes["audio"] += 1
        signal.alarm(0)
    taken = (limits.getrusage(limits.RUSAGE_SELF).ru_maxrss - before) / 1024
    report.write_text(json.dumps({"files": count, **outcomes, "memory it took, MB": round(taken)}))


def _loaded(path: Path) -> tuple[np.ndarray | None, str]:
    """The waveform, or why there is none."""
    try:
        return audio.load(path, 16_000), ""
    except audioclf.AudioError as error:
        return None, str(error)


def _mutated(content: bytearray, rng: random.Random) -> bytes:
    """Flips, cuts, insertions, repetitions and runs of zeros; half of them in the header."""
    for _ in range(rng.choice((1, 1, 2, 5, 30))):
        end = min(len(content), 64) if rng.random() < 0.5 else len(content)
        if not end:
            break
        place, length = rng.randrange(end), rng.randrange(1, 40)
        kind = rng.randrange(6)
        if kind == 0:
            content[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[place : place + 4] = rng.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\1\0\0\0")
            )
        elif kind == 2:
            del content[place : place + length]
        elif kind == 3:
            content[place:place] = rng.randbytes(length)
        elif kind == 4:
            content[place:place] = content[place : place + length]
        elif rng.random() < 0.3:
            del content[place:]
    return bytes(content)


def _odd_files(workspace: Path) -> int:
    """Files made by hand, each with what has to come of it: samples at 16 kHz, or words of the refusal."""
    tone = (0.3 * np.sin(np.arange(16_000) / 9)).astype(np.float32)
    made = 0

    def expect(
        name: str, samples: Any, rate: int, wanted: int | str, subtype: str = "PCM_16", patch: Any = None
    ) -> None:
        nonlocal made
        made += 1
        path = workspace / name
        soundfile.write(path, samples, rate, subtype=subtype)
        if patch is not None:
            path.write_bytes(patch(path.read_bytes()))
        loaded, said = _loaded(path)
        if loaded is None:
            assert isinstance(wanted, str), (name, said)
            assert wanted in said, (name, said)
        else:
            assert isinstance(wanted, int), (name, wanted)
            assert abs(len(loaded) - wanted) <= 1, (name, len(loaded), wanted)
            assert np.isfinite(loaded).all(), name

    for channels in range(1, 9):
        expect(f"{channels} channels.wav", np.stack([tone] * channels, 1), 16_000, 16_000)
    for rate in (8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000):
        expect(f"{rate}.wav", tone[:8000], rate, round(8000 * 16_000 / rate))
    expect("no samples.wav", tone[:0], 16_000, "holds no samples")
    for count in (1, 399, 400):
        expect(f"{count} samples.wav", tone[:count], 16_000, count)
    for value in ("nan", "inf", "-inf"):
        spoilt = tone.copy()
        spoilt[100] = float(value)
        expect(f"{value}.wav", spoilt, 16_000, "holds NaN or infinite samples", "FLOAT")
    expect("silence.wav", np.zeros(16_000), 16_000, 16_000)
    expect("constant.wav", np.full(16_000, 0.5), 16_000, 16_000)
    expect("full scale.wav", np.sign(tone), 16_000, 16_000)
    expect("beyond full scale.wav", 100 * tone, 16_000, 16_000, "FLOAT")
    for form in ("NFC", "NFD"):
        expect(unicodedata.normalize(form, f"한국어 노래 {form}.wav"), tone, 16_000, 16_000)
    expect("quote ' and \" and $.wav", tone, 16_000, 16_000)
    expect("line\nbreak.wav", tone, 16_000, 16_000)
    expect("a" * 251 + ".wav", tone, 16_000, 16_000)
    expect("cut short.wav", tone, 16_000, "is truncated", patch=lambda content: content[:-100])
    expect("cut to the header.wav", tone, 16_000, "is truncated", patch=lambda content: content[:44])
    expect("empty.wav", tone, 16_000, "is empty (0 bytes)", patch=lambda content: b"")
    expect("text.wav", tone, 16_000, "cannot read it", patch=lambda content: b"not a sound, but a text" * 9)
    expect(
        "more rate.wav", tone, 16_000, "sampling rate of 1 Hz", patch=lambda c: c[:24] + struct.pack("<I", 1) + c[28:]
    )
    expect("many.wav", tone, 16_000, "channels", patch=lambda c: c[:22] + struct.pack("<H", 500) + c[24:])
    return made
