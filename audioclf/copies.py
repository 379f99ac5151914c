"""Sets of clips that are one recording, exactly or but for gain, codec, a shift or a little noise."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .fingerprint import MIN_SIMILARITY, candidates, similarity

Landmarks = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Copies:
    """A set of clips that are one recording.

    Attributes:
        clips: Their indices, in order.
        is_exact: Whether all of them have the very same samples, once decoded.
        similarity: Of each clip to the one of the set it is most like, from 0 to 1.
        lags: Samples by which each clip is ahead of that one; 0 for exact copies.
    """

    clips: tuple[int, ...]
    is_exact: bool
    similarity: tuple[float, ...]
    lags: tuple[int, ...]


def find_copies(
    digests: Sequence[bytes],
    landmarks: Sequence[Landmarks],
    waveform: Callable[[int], np.ndarray],
    num_threads: int,
) -> list[Copies]:
    """The sets of copies among clips.

    Args:
        digests: A hash of each clip's samples; empty for one that is to be left out, such as silence.
        landmarks: Of each clip, as `fingerprint.landmarks` gives them.
        waveform: The samples (T,) of the clip with that index, at `fingerprint.SAMPLING_RATE`.
        num_threads: Pairs that are compared at a time.
    """
    same: dict[bytes, list[int]] = defaultdict(list)
    for index, digest in enumerate(digests):
        if digest:
            same[digest].append(index)
    # One clip of each set of exact copies stands for all.
    representatives = [clips[0] for clips in same.values()]
    found = candidates([landmarks[index] for index in representatives])
    pairs = np.array(representatives, dtype=np.int64)[found.pairs]

    def compare(row: int) -> tuple[float, int]:
        first, second = pairs[row]
        return similarity(waveform(first), waveform(second), int(found.lags[row]))

    with ThreadPoolExecutor(num_threads) as pool:
        compared = list(pool.map(compare, range(len(pairs))))
    links = [
        (int(first), int(second), value, lag)
        for (first, second), (value, lag) in zip(pairs, compared, strict=True)
        if value >= MIN_SIMILARITY
    ]
    exact = [(clips[0], other, 1.0, 0) for clips in same.values() for other in clips[1:]]
    return _joined([*exact, *links], len(digests), digests)


def _joined(links: list[tuple[int, int, float, int]], num_clips: int, digests: Sequence[bytes]) -> list[Copies]:
    """The sets that pairs (first, second, similarity, lag) make together."""
    best: dict[int, tuple[float, int]] = {}
    for first, second, value, lag in links:
        for clip, ahead in ((first, -lag), (second, lag)):
            best[clip] = max(best.get(clip, (0.0, 0)), (value, ahead), key=lambda entry: entry[0])
    rows, columns = [link[0] for link in links], [link[1] for link in links]
    graph = coo_array((np.ones(len(links)), (rows, columns)), shape=(num_clips, num_clips))
    _, component = connected_components(graph, directed=False)
    members: dict[int, list[int]] = defaultdict(list)
    for clip in sorted(best):
        members[int(component[clip])].append(clip)
    return [
        Copies(
            clips=tuple(clips),
            is_exact=len({digests[clip] for clip in clips}) == 1,
            similarity=tuple(best[clip][0] for clip in clips),
            lags=tuple(best[clip][1] for clip in clips),
        )
        for clips in members.values()
    ]
