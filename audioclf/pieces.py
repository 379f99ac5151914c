"""Pieces of clips: where they begin, and what their scores say of the clip. Shapes: P pieces, N clips, C classes."""

import numpy as np


def piece_starts(num_samples: int, size: int) -> np.ndarray:
    """First samples (P,) of a clip's pieces: as few as cover it, evenly spread, the last one ending where it does.

    Args:
        num_samples: Of the clip.
        size: Samples of a piece.

    Example:
        >>> piece_starts(40, 15)
        array([ 0, 12, 25])
    """
    count = max(1, -(-num_samples // size))
    return np.linspace(0, max(0, num_samples - size), count).astype(np.int64)


def pool(logits: np.ndarray, firsts: np.ndarray, multi_label: bool) -> np.ndarray:
    """Logits (N, C) float64 of clips, whose probabilities are the means of those of their pieces.

    Args:
        logits: Of the pieces, (P, C).
        firsts: Row of each clip's first piece, (N,), ascending; its others follow.
        multi_label: Whether each class has a probability of its own (sigmoid), or they share one (softmax).
    """
    logits = np.asarray(logits, dtype=np.float64)
    counts = np.diff([*firsts, len(logits)])[:, None]

    def log_mean(log_probabilities: np.ndarray) -> np.ndarray:
        return np.logaddexp.reduceat(log_probabilities, firsts, axis=0) - np.log(counts)

    # In logarithms throughout, as a probability of 1 - 1e-20 is 1 in double precision.
    if multi_label:
        return log_mean(-np.logaddexp(0, -logits)) - log_mean(-np.logaddexp(0, logits))
    return log_mean(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
