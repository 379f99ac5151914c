"""Ten styles of music.

What tells the styles apart is mostly *when* things happen (tempo, groove, attack, arpeggio, glide, tremolo), while key,
timbre, mix, equaliser, noise and loudness are drawn for each clip from distributions that the styles share or nearly
share.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from ...errors import DatasetError
from .files import Clip
from .sound import add, master

SAMPLING_RATE = 22_050
SECONDS = 3.0
CLIPS_PER_STYLE = {"train": 50, "valid": 15}
VERSION = "demo-v1"
"""Names the folder of the corpus: to be changed whenever a sample of any clip changes."""
SEED = 20_240_711
METRIC = None
NOTE = "Demo: synthetic clips; its scores show that the library works and say nothing about real music."

_NUM_SAMPLES = int(SECONDS * SAMPLING_RATE)
_LEAD_IN_SECONDS = 1.5  # notes struck this long before the clip still ring into it
_TABLE_SIZE = 1024  # samples of one stored period of a waveform, a power of two

# Chord shapes and progressions, in semitones.
_MAJOR, _MINOR, _SEVENTH, _FIFTH, _OPEN = (0, 4, 7, 12), (0, 3, 7, 12), (0, 4, 10, 14), (0, 7, 12, 19), (0, 7, 14, 16)
_POP = ((0, 7, 9, 5), (0, 9, 5, 7), (9, 5, 0, 7))
_DARK = ((0, 0, 8, 10), (0, 10, 8, 10), (0, 3, 10, 5))
_JAZZ = ((2, 7, 0, 9), (0, 9, 2, 7), (4, 9, 2, 7))


@dataclass(frozen=True)
class Style:
    """A groove and a manner of playing it; a pair of numbers is the range a clip's value is drawn from.

    A pattern has one character a step and repeats: `.` rests, `x` strikes, `?` strikes one time in two, and a digit
    plays that tone of the chord. Struck, `chord` plays the whole chord, `bass` its root and `lead` any tone of it.
    """

    bpm: tuple[float, float]
    steps_per_beat: int
    shapes: tuple[tuple[int, ...], ...]
    progressions: tuple[tuple[int, ...], ...]  # roots above the key; each lasts one `chord` pattern
    attack: tuple[float, float]  # seconds, of the chords
    decay: tuple[float, float]  # seconds, of the chords
    chord: str
    bass: str = "."
    lead: str = "."
    kick: str = "."
    snare: str = "."
    hat: str = "."
    octave: int = 0  # of the chords, above the usual one
    rolloff: tuple[float, float] = (0.7, 2.0)  # of the chords' partials: low is bright
    vibrato: float = 0.0  # semitones either way
    tremolo: float = 0.0  # depth of the chords' tremolo, 0 to 1
    glide: float = 0.0  # semitones by which a note of bass or lead starts too low
    drive: float = 0.0  # distortion of the chords; 0 is clean
    echo_beats: float = 0.0  # between repeats of the whole mix; 0 is dry


# fmt: off
STYLES = {
    "ambient": Style(
        (48, 66), 2, (_OPEN, _MAJOR, _MINOR), _POP, attack=(0.5, 1.2), decay=(3.0, 6.0), rolloff=(1.2, 2.2),
        vibrato=0.15, chord="x.......", lead="....?..."),
    "ballad": Style(
        (60, 78), 4, (_MAJOR, _MINOR), _POP, attack=(0.002, 0.01), decay=(0.35, 0.7), vibrato=0.5,
        chord="0.1.2.3.2.1.2.1.", bass="x...............", lead="....x.......?..."),
    "chiptune": Style(
        (120, 150), 8, (_MAJOR, _MINOR), _POP, attack=(0.001, 0.003), decay=(0.05, 0.15), octave=1, rolloff=(0.7, 1.2),
        chord="01230123" * 4, bass="x...x...", hat="....x..."),
    "disco": Style(
        (112, 128), 4, (_MINOR, _SEVENTH), _DARK, attack=(0.002, 0.01), decay=(0.08, 0.2),
        chord="...x..x....x..x.", bass="0.3.0.3.", kick="x...", snare="....x...", hat="..x."),
    "dub": Style(
        (64, 78), 4, (_MINOR, _MAJOR), _DARK, attack=(0.002, 0.008), decay=(0.05, 0.1), glide=-9.0, echo_beats=0.75,
        chord="..x...x...x...x.", bass="x..x....2..x.1..", lead="........x.......", kick="........x.......",
        snare="........x.......", hat="x.?."),
    "march": Style(
        (104, 120), 4, (_MAJOR,), _POP, attack=(0.02, 0.05), decay=(0.15, 0.3),
        chord="x...x...x...x.x.", bass="x...2...", kick="x.......", snare="x.xxx.x.x.xxxxxx"),
    "metal": Style(
        (150, 185), 4, (_FIFTH,), _DARK, attack=(0.001, 0.004), decay=(0.03, 0.06), drive=8.0,
        chord="x.xxx.xxx.xxx.x.", bass="x.xxx.xx", kick="xx.x", snare="....x...", hat="x..."),
    "swing": Style(
        (140, 190), 3, (_SEVENTH,), _JAZZ, attack=(0.004, 0.015), decay=(0.06, 0.12), vibrato=0.2,
        chord="x....x......", bass="0..1..2..1..", lead="..?..?..?..?", hat="x..x.x"),
    "techno": Style(
        (126, 142), 4, (_MINOR,), ((0, 0, 0, 0),), attack=(0.002, 0.01), decay=(0.04, 0.12), glide=12.0,
        chord="x..x..x...x..x..", bass="?xx??xx?", kick="x...", hat="xxxx"),
    "waltz": Style(
        (130, 170), 2, (_MAJOR, _SEVENTH), _POP, attack=(0.01, 0.04), decay=(0.25, 0.4), octave=1, vibrato=0.3,
        tremolo=1.0, chord="..x.x.", bass="x.....", lead="x...x.x.x.?."),
}
# fmt: on
LABELS: tuple[str, ...] = tuple(sorted(STYLES))


def clips() -> list[Clip]:
    """All clips."""
    return clips_of(CLIPS_PER_STYLE, synthesise)


def clips_of(counts: dict[str, int], make: Callable[[str, int], np.ndarray]) -> list[Clip]:
    """So many clips a style in each split; an index occurs once a style, so no clip is in two splits."""
    found = []
    for style in LABELS:
        first = 0
        for split, count in counts.items():
            for index in range(first, first + count):
                path = f"{split}/{style}/{style}.{index:05d}.wav"
                found.append(Clip(path, partial(make, style, index), style, split))
            first += count
    return found


def synthesise(style: str, index: int) -> np.ndarray:
    """Play one clip; the same `style` and `index` give the same samples.

    Returns:
        Waveform at `SAMPLING_RATE`, float32, (T,), within [-1, 1].

    Raises:
        DatasetError: when there is no such style.

    Example:
        >>> synthesise("waltz", 0).shape
        (66150,)
    """
    if style not in STYLES:
        raise DatasetError(f"demo has no style {style!r}; choose one of {', '.join(LABELS)}.")
    rng = np.random.default_rng([SEED, LABELS.index(style), index])
    return master(play(STYLES[style], rng), rng, SAMPLING_RATE)


def play(s: Style, rng: np.random.Generator) -> np.ndarray:
    """A stretch of a piece in a style, (T,); key, timbre and mix are drawn."""
    beat = 60 / rng.uniform(*s.bpm)
    step = beat / s.steps_per_beat
    key = rng.uniform(36, 48)  # MIDI number of the lowest tonic; the fraction is the tuning
    roots = s.progressions[rng.integers(len(s.progressions))]
    shapes = [s.shapes[i] for i in rng.integers(len(s.shapes), size=len(roots))]
    # The clip is cut out of a piece that is under way: it starts anywhere in the progression.
    origin = -rng.uniform(0, len(roots) * len(s.chord) * step)

    def hits(pattern: str) -> Iterator[tuple[int, str, int, tuple[int, ...], float]]:
        """Yield (first sample, character, root, chord shape, velocity) of each hit that is heard in the clip."""
        for i in range(int(np.ceil((SECONDS - origin) / step))):
            mark, start = pattern[i % len(pattern)], origin + i * step
            if mark == "." or start < -_LEAD_IN_SECONDS or (mark == "?" and rng.random() < 0.5):
                continue
            bar = i // len(s.chord) % len(roots)
            first = int((start + rng.normal(0, 0.004)) * SAMPLING_RATE)  # nobody plays on the grid
            yield first, mark, roots[bar], shapes[bar], rng.uniform(0.6, 1.0)

    attack, decay = rng.uniform(*s.attack), rng.uniform(*s.decay)
    gestures = {
        "chord": _gesture(attack, decay, vibrato=s.vibrato / 3, tremolo=s.tremolo),
        "bass": _gesture(0.005, 2 * step, glide=s.glide),
        "lead": _gesture(max(attack, 0.02), 3 * step, vibrato=s.vibrato, glide=s.glide),
    }
    octaves = {"chord": 1 + s.octave, "bass": 0, "lead": 2}
    layers = []
    for name, gesture in gestures.items():
        layer = np.zeros(_NUM_SAMPLES, np.float32)
        partials = _partials(rng, s.rolloff if name == "chord" else (0.7, 2.0))
        for start, mark, root, shape, velocity in hits(getattr(s, name)):
            struck = {"chord": shape, "bass": shape[:1], "lead": (rng.choice(shape),)}[name]
            for tone in (shape[int(mark)],) if mark.isdigit() else struck:
                add(layer, velocity * _note(key + 12 * octaves[name] + root + tone, partials, gesture), start)
        if name == "chord" and s.drive:
            layer = np.tanh(s.drive * layer / np.abs(layer).max())
        layers.append(layer)
    for name, drum in (("kick", _kick(rng)), ("snare", _snare(rng)), ("hat", _hat(rng))):
        layer = np.zeros(_NUM_SAMPLES, np.float32)
        for start, _, _, _, velocity in hits(getattr(s, name)):
            add(layer, velocity * drum, start)
        layers.append(layer)

    mix = np.zeros(_NUM_SAMPLES, np.float32)
    for layer in layers:
        if layer.any():
            mix += 10 ** (rng.uniform(-4, 0) / 20) * layer / np.abs(layer).max()
    if s.echo_beats:
        dry = mix.copy()
        for repeat in (1, 2, 3):
            add(mix, 0.5**repeat * dry, int(repeat * s.echo_beats * beat * SAMPLING_RATE))
    return mix


def _partials(rng: np.random.Generator, rolloff: tuple[float, float]) -> np.ndarray:
    """Draw the amplitudes of 24 partials, (24,): from flute to saw, sometimes hollow, with one broad resonance."""
    order = np.arange(1, 25)
    amplitudes = order ** -rng.uniform(*rolloff)
    if rng.random() < 0.4:
        amplitudes[1::2] *= 0.1
    return amplitudes * (1 + rng.uniform(0, 3) * np.exp(-0.5 * ((order - rng.uniform(2, 12)) / 1.5) ** 2))


def _gesture(
    attack: float, decay: float, vibrato: float = 0, tremolo: float = 0, glide: float = 0
) -> tuple[np.ndarray, np.ndarray]:
    """How all notes of a layer are played: a clock that vibrato and glide bend (seconds) and an envelope, both (T,)."""
    length = int(min(attack + 4 * decay, SECONDS + _LEAD_IN_SECONDS) * SAMPLING_RATE)
    clock = np.arange(length, dtype=np.float32) / SAMPLING_RATE
    envelope = np.minimum(clock / attack, 1) * np.exp(-np.maximum(clock - attack, 0) / decay)
    if tremolo:
        envelope *= 1 - tremolo * (0.5 - 0.5 * np.cos(2 * np.pi * 6.5 * clock))
    if vibrato or glide:
        bend = vibrato * np.sin(2 * np.pi * 5.5 * clock) - glide * np.exp(-clock / 0.06)
        clock = np.cumsum(np.exp2(bend / 12), dtype=np.float64) / SAMPLING_RATE
    return clock.astype(np.float32), envelope.astype(np.float32)


def _note(pitch: float, partials: np.ndarray, gesture: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """One note of MIDI number `pitch`, (T,), read along the gesture's clock from a table of one period."""
    clock, envelope = gesture
    hertz = 440 * 2 ** ((pitch - 69) / 12)
    count = min(len(partials), int(0.45 * SAMPLING_RATE / hertz))  # no partial may lie above Nyquist: it would alias
    spectrum = np.zeros(_TABLE_SIZE // 2 + 1, complex)
    spectrum[1 : count + 1] = -1j * partials[:count]
    table = (np.fft.irfft(spectrum, norm="forward") / partials.sum()).astype(np.float32)
    return table[(clock * np.float32(hertz * _TABLE_SIZE)).astype(np.int32) & (_TABLE_SIZE - 1)] * envelope


def _kick(rng: np.random.Generator) -> np.ndarray:
    """A drum skin: a sine that falls from about 150 Hz to about 50 Hz."""
    t = np.arange(int(0.3 * SAMPLING_RATE)) / SAMPLING_RATE
    hertz = rng.uniform(42, 60) + rng.uniform(80, 160) * np.exp(-t / 0.03)
    return np.sin(2 * np.pi * np.cumsum(hertz) / SAMPLING_RATE) * np.exp(-t / rng.uniform(0.05, 0.12))


def _snare(rng: np.random.Generator) -> np.ndarray:
    """A burst of noise over a short tone of about 190 Hz."""
    t = np.arange(int(0.25 * SAMPLING_RATE)) / SAMPLING_RATE
    noise = rng.normal(0, 0.35, len(t)) * np.exp(-t / rng.uniform(0.03, 0.07))
    return noise + 0.6 * np.sin(2 * np.pi * rng.uniform(160, 230) * t) * np.exp(-t / 0.04)


def _hat(rng: np.random.Generator) -> np.ndarray:
    """A tick of noise with its low end taken away."""
    t = np.arange(int(0.12 * SAMPLING_RATE)) / SAMPLING_RATE
    return np.diff(rng.normal(0, 0.3, len(t) + 2), n=2) * np.exp(-t / rng.uniform(0.01, 0.04))
