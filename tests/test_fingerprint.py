"""Copies are found whatever is done to them, and clips that only sound alike are not."""

import io

import numpy as np
import pytest
import soundfile

from audioclf import audio
from audioclf.copies import find_copies
from audioclf.fingerprint import HOP, MIN_SIMILARITY, SAMPLING_RATE, candidates, landmarks, similarity

SHIFT = round(0.2 * SAMPLING_RATE)


def melody(seed: int, seconds: float = 3.0) -> np.ndarray:
    """Random notes of a scale, every tenth of a second, over faint noise."""
    rng = np.random.default_rng(seed)
    wave = 0.001 * rng.standard_normal(int(seconds * SAMPLING_RATE))
    time = np.arange(SAMPLING_RATE // 4) / SAMPLING_RATE
    for start in range(0, len(wave) - len(time), SAMPLING_RATE // 10):
        pitch = 220 * 2 ** (rng.integers(0, 36) / 12)
        note = np.sin(2 * np.pi * pitch * time + rng.uniform(0, 6.28)) * np.exp(-time / 0.08)
        wave[start : start + len(time)] += 0.2 * rng.uniform(0.3, 1) * note
    return wave.astype(np.float32)


def coded(wave: np.ndarray, kind: str) -> np.ndarray:
    stream = io.BytesIO()
    soundfile.write(stream, wave, SAMPLING_RATE, format=kind)
    return audio.load(stream.getvalue(), SAMPLING_RATE)


def noisy(wave: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(1).standard_normal(len(wave)) * np.sqrt(np.mean(wave**2) / 1000)
    return (wave + noise).astype(np.float32)


CHANGES = {
    "gain": (lambda wave: 0.1 * wave, 0),
    "polarity": (lambda wave: -wave, 0),
    "cut": (lambda wave: wave[SHIFT:], SHIFT),
    "delay": (lambda wave: np.concatenate([np.zeros(SHIFT, np.float32), wave]), -SHIFT),
    "noise": (noisy, 0),
    "mp3": (lambda wave: coded(wave, "MP3"), 0),
    "ogg": (lambda wave: coded(wave, "OGG"), 0),
    "all": (lambda wave: coded(noisy(0.3 * wave[SHIFT:]), "OGG"), SHIFT),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_among_others_at_its_lag(change):
    alter, expected = CHANGES[change]
    clips = [*map(melody, range(8)), alter(melody(3))]
    found = candidates([landmarks(clip) for clip in clips])
    (row,) = np.flatnonzero((found.pairs == (3, 8)).all(axis=1))
    assert found.votes[row] == found.votes.max()
    assert abs(found.lags[row] - expected) <= HOP
    value, lag = similarity(clips[3], clips[8], int(found.lags[row]))
    assert value >= MIN_SIMILARITY
    assert abs(lag - expected) <= 1
    assert [one.clips for one in find(clips)] == [(3, 8)]


@pytest.mark.parametrize("seconds", [0.6, 1.0])
def test_short_clips(seconds):
    clips = [melody(seed, seconds) for seed in range(8)]
    copies = [noisy(0.5 * clip) for clip in clips]
    assert {one.clips for one in find(clips + copies)} == {(number, number + 8) for number in range(8)}


def test_a_piece_of_a_long_recording():
    long = melody(0, 40.0)
    (one,) = find([long, melody(1), long[25 * SAMPLING_RATE : 29 * SAMPLING_RATE].copy()])
    assert one.clips == (0, 2)
    assert one.lags == (-25 * SAMPLING_RATE, 25 * SAMPLING_RATE)


def test_similarity_is_the_correlation_where_the_spectrum_is_flat():
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, SAMPLING_RATE)).astype(np.float32)
    mixed = 0.8 * one + 0.6 * other
    expected = np.corrcoef(one[160:], mixed[160:])[0, 1]
    assert similarity(one, mixed[160:], 160)[0] == pytest.approx(expected, abs=0.03)
    assert similarity(one, other, 0)[0] < 0.1


def test_a_common_hum_makes_no_copies():
    hum = np.sin(2 * np.pi * 50 * np.arange(3 * SAMPLING_RATE) / SAMPLING_RATE).astype(np.float32)
    one, other = hum + melody(0), hum + melody(1)
    assert np.corrcoef(one, other)[0, 1] > 0.95
    assert similarity(one, other, 0)[0] < 0.7


def test_sets_join_pairs_and_tell_exact_copies():
    clips = [melody(0), melody(1), melody(0), 0.5 * melody(1), noisy(melody(1)), melody(2), melody(3)[:100]]
    exact, near = sorted(find(clips), key=lambda one: one.clips)
    assert (exact.clips, exact.is_exact, exact.similarity) == ((0, 2), True, (1.0, 1.0))
    assert (near.clips, near.is_exact) == ((1, 3, 4), False)
    assert min(near.similarity) > 0.98


def test_nothing_to_compare():
    assert find([]) == []
    assert find([melody(0)]) == []
    assert find([melody(0)[:100], melody(1)[:100]]) == []


def find(clips: list[np.ndarray]) -> list:
    digests = [clip.tobytes() for clip in clips]
    return find_copies(digests, [landmarks(clip) for clip in clips], lambda index: clips[index], num_threads=1)
