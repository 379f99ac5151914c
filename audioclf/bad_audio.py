"""What to do about clips that cannot be read, and how to tell of them."""

from collections.abc import Sequence

from .errors import AudioError

AUTO_BAD_SHARE = 0.01
"""Share of unreadable clips that `bad_audio="auto"` sets aside; above it a run stops."""
NUM_NAMED = 10
"""Clips, or other files, named one by one in a message; the rest are counted."""


def judge(reasons: Sequence[str], num_clips: int, bad_audio: str) -> None:
    """Raises when more clips of a data set cannot be read than `bad_audio` lets pass.

    Args:
        reasons: Why each of these cannot be used.
        num_clips: All clips.
        bad_audio: As `TrainConfig.bad_audio`.

    Raises:
        AudioError: saying so, and the reasons.
    """
    if len(reasons) > _allowed(num_clips, bad_audio):
        raise AudioError(
            f"{len(reasons)} of {num_clips} clips ({len(reasons) / num_clips:.1%}) cannot be used. "
            f"Repair or remove them, or go on without them by bad_audio='skip':\n{listing(reasons)}"
        )


def judge_so_far(reasons: Sequence[str], num_unreadable: int, num_read: int, bad_audio: str) -> None:
    """Raises when more clips of a stream than that cannot be read.

    Args:
        reasons: Why clips just read, for the first time, cannot be used.
        num_unreadable, num_read: Of all so far, these among them.
        bad_audio: As `TrainConfig.bad_audio`; `auto` lets the first few pass, of whose share nothing is known yet.

    Raises:
        AudioError: saying so, and the reasons.
    """
    at_least = NUM_NAMED if bad_audio == "auto" else 0
    if reasons and num_unreadable > max(at_least, _allowed(num_read, bad_audio)):
        raise AudioError(
            f"{num_unreadable} of {num_read} clips so far cannot be used. Repair or remove them, or go on without them "
            f"by bad_audio='skip':\n{listing(reasons)}"
        )


def _allowed(num_clips: int, bad_audio: str) -> float:
    return {"skip": num_clips, "auto": AUTO_BAD_SHARE * num_clips, "error": 0}[bad_audio]


def listing(reasons: Sequence[str]) -> str:
    """The first of them, a line each, and how many more there are."""
    lines = [f"  {reason}" for reason in reasons[:NUM_NAMED]]
    if len(reasons) > NUM_NAMED:
        lines.append(f"  ... and {len(reasons) - NUM_NAMED} more.")
    return "\n".join(lines)
