"""95 % intervals: Wilson's for shares of independent clips, the bootstrap over groups for everything else.

Shapes: N clips, R resamples.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

NUM_RESAMPLES = (100, 1000)
"""Fewest and most resamples: as many as the budget of values allows."""
BUDGET = 1e8
"""Values of all resamples together, (R, N) and for some metrics (R, N, C): a few seconds."""
BLOCK = 2e7
"""Values of a block of resamples, which bounds the memory."""
SEED = 0

Statistics = Callable[[np.ndarray], dict[str, np.ndarray]]
"""From weights of the clips (R, N) to the values (R,) of each metric; one that is not defined is NaN."""


def wilson_interval(successes: float, trials: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The Wilson score interval of a proportion; (0, 1) when there were no trials.

    Args:
        z: Normal quantile of the coverage, by default that of 95 %.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    if trials == 0:
        return 0.0, 1.0
    p = successes / trials
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def share_interval(hits: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Interval of the share of hits among clips (N,) bool.

    Clips that are groups of their own are independent, and Wilson's interval is theirs; others are resampled group by
    group.
    """
    if len(np.unique(groups)) == len(hits):
        return wilson_interval(int(hits.sum()), len(hits))
    _, low, high = bootstrap(lambda weights: {"share": weights @ hits / weights.sum(axis=1)}, groups)["share"]
    return low, high


def bootstrap(statistics: Statistics, groups: np.ndarray, width: int = 1) -> dict[str, tuple[float, float, float]]:
    """Metrics and their intervals, from resampling whole groups with a fixed seed.

    An interval is that of the resamples' percentiles, moved by their bias: metrics of a ranking rise when clips stand
    in it twice. Where no resample differs, as when everything is right, it is Wilson's, a group being one trial.

    Args:
        statistics: The metrics as functions of the clips' weights.
        groups: Group of each clip (N,), any integers.
        width: Values that the metrics compute a clip.

    Returns:
        Value, low and high of each metric; NaN where it is not defined.

    Source: Efron (1979), "Bootstrap methods: another look at the jackknife"; whole groups as in Davison & Hinkley
    (1997), section 3.8.
    """
    members = np.unique(groups, return_inverse=True)[1].reshape(-1)
    values = {name: float(column[0]) for name, column in statistics(np.ones((1, len(groups)))).items()}
    blocks = [statistics(weights) for weights in _weights(members, width)]
    return {
        name: (value, *_interval(value, np.concatenate([block[name] for block in blocks]), int(members.max()) + 1))
        for name, value in values.items()
    }


def _weights(members: np.ndarray, width: int) -> Iterator[np.ndarray]:
    """How often each clip, of the groups (N,), stands in each resample, (R, N) float64, block after block."""
    num_groups, size = int(members.max()) + 1, len(members) * width
    left = int(np.clip(BUDGET / size, *NUM_RESAMPLES))
    rng = np.random.default_rng(SEED)
    while left > 0:
        count = min(left, max(1, int(BLOCK / size)))
        drawn = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=count)
        yield drawn[:, members].astype(np.float64)
        left -= count


def _interval(value: float, resampled: np.ndarray, num_groups: int) -> tuple[float, float]:
    resampled = resampled[~np.isnan(resampled)]
    if math.isnan(value) or not len(resampled):
        return math.nan, math.nan
    if np.ptp(resampled) < 1e-12:
        return wilson_interval(value * num_groups, num_groups)
    low, high = np.quantile(resampled, (0.025, 0.975)) - (resampled.mean() - value)
    return max(0.0, min(float(low), value)), min(1.0, max(float(high), value))
