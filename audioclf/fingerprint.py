"""Recordings that are the same but for gain, codec, a little noise or a shift: found by landmarks, told by correlation.

A clip's landmarks are pairs of peaks of its spectrogram, each a number made of two frequencies and the time between
them. Clips that share landmarks at one and the same lag are candidates (`candidates`); whether the sound is the same is
then decided by the correlation of the waveforms at the best lag near it (`similarity`).

Shapes: T samples, F frames, N clips, L landmarks, M candidates.
Source: Wang 2003, "An industrial-strength audio search algorithm", for the landmarks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

SAMPLING_RATE = 16_000
WINDOW = 2048
TAPER = np.hanning(WINDOW).astype(np.float32)
NUM_BINS = 512
"""Frequencies that landmarks tell apart: each is the louder one of two bins of the spectrum, 16 Hz together."""
FRAMES_AT_A_TIME = 32
"""As many as stay in a core's cache."""
HOP = 512
"""Samples from one frame to the next: 32 ms."""
PEAK_REACH = (3, 6)
"""A peak is the largest value within so many frames and bins on either side."""
PEAKS_PER_SECOND = 30
FAN_OUT = 8
"""Later peaks that each peak is paired with."""
MAX_FRAMES_BETWEEN = 63
MAX_BUCKET_STEPS = 16
"""Each landmark meets at most so many others of the same number; in large data sets fewer, by `MAX_MEETINGS`."""
MAX_MEETINGS = 32_000_000
MIN_VOTES, MIN_VOTE_SHARE = 4, 0.015
"""Landmarks that candidates share at one lag, in all and of those of the clip that has fewer."""
MAX_PARTNERS = 5
"""Candidates a clip is compared with: those with most votes."""
MIN_SIMILARITY = 0.85
"""From here on two clips are one recording; codecs and noise at 30 dB leave more, songs of the same notes have less."""
FIRST_LOOK = 0.35
"""Correlation at the best lag below which it is not computed anew for what overlaps at that lag."""
MAX_COMPARED_SECONDS = 5.0
"""Waveforms are compared over the middle of what overlaps, no more than this."""


@dataclass(frozen=True)
class Candidates:
    """Pairs of clips that may be the same recording.

    Attributes:
        pairs: Indices of the clips, (M, 2), the smaller first.
        lags: Samples by which the second one is ahead: its sample t sounds like the first one's t + lag, (M,).
        votes: Landmarks they share at that lag, (M,).
    """

    pairs: np.ndarray
    lags: np.ndarray
    votes: np.ndarray


def landmarks(waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks of a clip (T,): their numbers (L,) uint32, and the frame that each begins at (L,) int32."""
    times, bins = _peaks(_spectrogram(waveform))
    partner = np.arange(len(times))[:, None] + np.arange(1, FAN_OUT + 1)
    first, second = np.nonzero(partner < len(times))[0], partner[partner < len(times)]
    between = times[second] - times[first]
    near = between <= MAX_FRAMES_BETWEEN
    first, second, between = first[near], second[near], between[near]
    numbers = (bins[first] << 15 | bins[second] << 6 | between).astype(np.uint32)
    return numbers, times[first].astype(np.int32)


def _spectrogram(waveform: np.ndarray) -> np.ndarray:
    """Power (F, NUM_BINS) of windows that begin half a window before the sound."""
    num_frames = 1 + len(waveform) // HOP
    padded = np.zeros((num_frames - 1) * HOP + WINDOW, dtype=np.float32)
    padded[WINDOW // 2 : WINDOW // 2 + len(waveform)] = waveform[: len(padded) - WINDOW // 2]
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    loudest = np.empty((num_frames, NUM_BINS), dtype=np.float32)
    for first in range(0, num_frames, FRAMES_AT_A_TIME):
        block = slice(first, first + FRAMES_AT_A_TIME)
        spectrum = fft.rfft(frames[block] * TAPER)[:, : 2 * NUM_BINS]
        power = spectrum.real**2 + spectrum.imag**2
        np.maximum(power[:, ::2], power[:, 1::2], out=loudest[block])
    return loudest


def _peaks(power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frame and bin of the strongest peaks of each second, ordered by frame."""
    highest = _running_maximum(_running_maximum(power, PEAK_REACH[0]).T, PEAK_REACH[1]).T
    times, bins = np.nonzero((power == highest) & (power > 1e-6 * power.max()))
    seconds = times * HOP // SAMPLING_RATE
    order = np.lexsort((-power[times, bins], seconds))
    starts = np.searchsorted(seconds[order], seconds[order])
    kept = np.sort(order[np.arange(len(order)) - starts < PEAKS_PER_SECOND])
    return times[kept], bins[kept]


def _running_maximum(values: np.ndarray, reach: int) -> np.ndarray:
    """The largest of so many rows on either side of each, for values of at least 0.

    By doubling, a few times as fast as scipy's filter.
    """
    size, width = 2 * reach + 1, 1
    values = np.pad(values, ((reach, reach), (0, 0)))
    while 2 * width <= size:
        values, width = np.maximum(values[:-width], values[width:]), 2 * width
    return np.maximum(values[: width - size], values[size - width :]) if width < size else values


def candidates(found: Sequence[tuple[np.ndarray, np.ndarray]]) -> Candidates:
    """The pairs of clips whose landmarks (N of them, as `landmarks` gives them) agree at one lag."""
    clips = np.repeat(np.arange(len(found)), [len(numbers) for numbers, _ in found])
    numbers = np.concatenate([numbers for numbers, _ in found] or [np.zeros(0, np.uint32)])
    times = np.concatenate([times for _, times in found] or [np.zeros(0, np.int32)]).astype(np.int64)
    order = np.argsort(numbers, kind="stable")
    clips, numbers, times = clips[order], numbers[order], times[order]
    steps = min(MAX_BUCKET_STEPS, 1 + MAX_MEETINGS // max(1, len(numbers)))
    span = int(times.max(initial=0)) + 1
    meetings = [np.zeros(0, dtype=np.int64)]
    for step in range(1, steps + 1):
        same = np.flatnonzero((numbers[step:] == numbers[:-step]) & (clips[step:] != clips[:-step]))
        first, second = clips[same], clips[same + step]  # in order, as the sort is stable
        lag = times[same] - times[same + step] + span
        meetings.append((first * len(found) + second) * (2 * span) + lag)
    keys, votes = np.unique(np.concatenate(meetings), return_counts=True)
    # A lag between two frames divides its votes among both.
    joined = votes + np.where(np.append(np.diff(keys) == 1, False), np.append(votes[1:], 0), 0)
    keys, votes = keys[joined >= MIN_VOTES], joined[joined >= MIN_VOTES]
    pair, lags = keys // (2 * span), keys % (2 * span) - span
    best = np.lexsort((-votes, pair))
    best = best[np.append(True, np.diff(pair[best]) > 0)] if len(best) else best
    pairs = np.stack([pair[best] // len(found), pair[best] % len(found)], axis=1)
    counts = np.array([len(of_clip) for of_clip, _ in found], dtype=np.int64)
    enough = votes[best] >= MIN_VOTE_SHARE * counts[pairs].min(axis=1)
    return _strongest(Candidates(pairs[enough], lags[best][enough] * HOP, votes[best][enough]))


def _strongest(all_of_them: Candidates) -> Candidates:
    """Those among the `MAX_PARTNERS` of most votes for either of their clips."""
    pairs, votes = all_of_them.pairs, all_of_them.votes
    kept = np.zeros(len(pairs), dtype=bool)
    for column in (0, 1):
        order = np.lexsort((-votes, pairs[:, column]))
        clip = pairs[order, column]
        kept[order[np.arange(len(order)) - np.searchsorted(clip, clip) < MAX_PARTNERS]] = True
    return Candidates(pairs[kept], all_of_them.lags[kept], votes[kept])


def similarity(first: np.ndarray, second: np.ndarray, lag: int) -> tuple[float, int]:
    """How far two clips (T,) are the same sound, from 0 to 1, and by how many samples the second one is ahead.

    It is the correlation of their waveforms over what overlaps of them at the best lag near `lag`, once frequencies
    louder than the mean of all have been lowered to it, so that a hum that both have does not make them alike.
    """
    one, other = _overlap(first, second, lag)
    if len(one) < WINDOW:
        return 0.0, lag
    length = fft.next_fast_len(2 * len(one), real=True)
    product, scale = _product(one, other, length)
    correlation = np.abs(fft.irfft(product, length)) * length / 2
    best = int(np.argmax(correlation))
    value = float(correlation[best]) / scale
    if value < FIRST_LOOK:
        return value, lag
    lag += best - length if best > length // 2 else best
    one, other = _overlap(first, second, lag)
    if len(one) < WINDOW:
        return 0.0, lag
    product, scale = _product(one, other, fft.next_fast_len(len(one), real=True))
    return float(abs(product.real.sum())) / scale, lag


def _product(one: np.ndarray, other: np.ndarray, length: int) -> tuple[np.ndarray, float]:
    """The cross spectrum of two flattened sounds, and the root of the product of their energies."""
    one, other = _flattened(fft.rfft(one, length)), _flattened(fft.rfft(other, length))
    energy = np.vdot(one, one).real * np.vdot(other, other).real
    return one * other.conj(), max(float(np.sqrt(energy)), 1e-30)


def _overlap(first: np.ndarray, second: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """The middle of what both clips have when the second one is ahead by `lag`."""
    size = int(MAX_COMPARED_SECONDS * SAMPLING_RATE)
    begin, end = max(0, lag), min(len(first), len(second) + lag)
    if end - begin > size:
        begin += (end - begin - size) // 2
        end = begin + size
    end = max(begin, end)
    return first[begin:end], second[begin - lag : end - lag]


def _flattened(spectrum: np.ndarray) -> np.ndarray:
    """A spectrum none of whose bands, 80 Hz wide, is louder than the mean of all."""
    power = spectrum.real**2 + spectrum.imag**2
    smooth = ndimage.uniform_filter1d(power, 1 + len(power) // 100, mode="nearest")
    return spectrum / np.sqrt(np.maximum(smooth, power.mean()) + 1e-30)
