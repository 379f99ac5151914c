"""Findings that need the sound: copies, files that cannot be read, silence, clipping, offsets, odd lengths."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .bad_audio import AUTO_BAD_SHARE
from .copies import Copies
from .findings import Finding, FoundClip
from .fingerprint import SAMPLING_RATE
from .levels import SILENCE_DB, Levels, Original

MOSTLY_SILENT = 0.9
"""Share of a clip that is silent, from which a word is said."""
CLIPPED = 1e-3
"""Share of samples at the top from which a clip counts as clipped."""
DC_OFFSET = 0.02
"""Mean of a clip from which a word is said, if it is also a tenth of the clip's level."""
MIN_SECONDS = 0.1
SHORT_SHARE = 0.05
"""Of the median length: a shorter clip was cut off, or is something else."""


@dataclass(frozen=True)
class InspectedClip:
    """What is known of a readable clip.

    Attributes:
        file: Its name: the path, with its segment where it is one.
        part: `train`, `valid` or `test`.
        label: Its class, or a tuple of them in multi-label data.
        seconds: Its length.
        levels: Of its samples, as training hears them.
        original: Of its file.
    """

    file: str
    part: str
    label: str | tuple[str, ...]
    seconds: float
    levels: Levels
    original: Original


def of_copies(copies: Sequence[Copies], clips: Sequence[InspectedClip]) -> list[Finding]:
    """Copies on both sides of a split, under different labels, and those that do less harm; each set is told once."""
    across, disagreeing, exact, near = [], [], [], []
    for one in copies:
        members = [clips[index] for index in one.clips]
        if len({clip.part for clip in members}) > 1:
            across.append(one)
        elif len({clip.label for clip in members}) > 1:
            disagreeing.append(one)
        else:
            (exact if one.is_exact else near).append(one)
    kinds = [
        ("copies-across-parts", "error", across, "stand on both sides of a split, so that scores will look better",
         "Delete the copies, or move each set to one part (give it a group, where the parts are still to be cut)."),
        ("copies-with-other-labels", "error", disagreeing, "have different labels", "Listen, and keep the right one."),
        ("exact-copies", "warning", exact, "are in one part", "Delete all but one of each set."),
        ("near-copies", "warning", near, "are in one part but for gain, codec, a shift or noise",
         "Delete all but one of each set, or give each set a group, so that no split divides it."),
    ]  # fmt: skip
    return [
        Finding(
            kind,
            severity,
            f"{len(sets)} set(s) of copies of one recording, {sum(len(one.clips) for one in sets)} clips, {what}.",
            fix,
            tuple(_members(sets, clips)),
        )
        for kind, severity, sets, what, fix in kinds
        if sets
    ]


def _members(sets: Sequence[Copies], clips: Sequence[InspectedClip]) -> Iterable[FoundClip]:
    for number, one in enumerate(sets):
        for index, similarity, lag in zip(one.clips, one.similarity, one.lags, strict=True):
            same = f"similarity {similarity:.3f}" + (f" at {lag / SAMPLING_RATE:+.2f} s" if lag else "")
            yield _found(clips[index], "the same samples" if similarity == 1 and not lag else same, number)


def of_unreadable(clips: Sequence[FoundClip], num_clips: int) -> list[Finding]:
    """Files that cannot be read; from the share on at which training stops it is an error."""
    if not clips:
        return []
    stops = len(clips) > AUTO_BAD_SHARE * num_clips
    return [
        Finding(
            "unreadable",
            "error" if stops else "warning",
            f"{len(clips)} of {num_clips} clips cannot be read.",
            "Repair or remove them" + (", or train with bad_audio='skip'." if stops else "; training sets them aside."),
            tuple(clips),
        )
    ]


def of_levels(clips: Sequence[InspectedClip]) -> list[Finding]:
    """Silence, clipping and offsets."""
    silent, mostly_silent, clipped, offset = [], [], [], []
    for clip in clips:
        heard, cut = clip.levels, clip.original.clipped_share
        if heard.silent_share == 1:
            silent.append(_found(clip, f"{heard.rms_db:.0f} dB"))
        elif heard.silent_share >= MOSTLY_SILENT:
            mostly_silent.append(_found(clip, f"{heard.silent_share:.0%} silent"))
        if cut is not None and cut >= CLIPPED:
            clipped.append(_found(clip, f"{cut:.1%} of its samples"))
        if abs(heard.dc_offset) >= max(DC_OFFSET, 0.1 * 10 ** (heard.rms_db / 20)):
            offset.append(_found(clip, f"mean {heard.dc_offset:+.3f}"))
    kinds = [
        ("silent", "warning", silent, f"are silent (below {SILENCE_DB:.0f} dB of full scale) from start to end",
         "Remove them, unless silence is what their class is about."),
        ("mostly-silent", "note", mostly_silent, f"are silent for {MOSTLY_SILENT:.0%} of their time or more",
         "Cut the silence off."),
        ("clipped", "warning", clipped, "are clipped: their peaks are cut off",
         "Record or export them at a lower level; where that cannot be, see that it does not befall one class only."),
        ("dc-offset", "note", offset, "have a DC offset: their mean is not 0",
         "Filter it out (a high-pass at 20 Hz), or see that it does not befall one class only."),
    ]  # fmt: skip
    return [
        Finding(kind, severity, f"{len(found)} clip(s) {what}.", fix, tuple(found))
        for kind, severity, found, what, fix in kinds
        if found
    ]


def of_lengths(clips: Sequence[InspectedClip], max_seconds: float) -> list[Finding]:
    """Clips that are longer than training hears, or very short."""
    if not clips:
        return []
    least = max(MIN_SECONDS, SHORT_SHARE * float(np.median([clip.seconds for clip in clips])))
    short = tuple(_found(clip, f"{clip.seconds:.3f} s") for clip in clips if clip.seconds < least)
    long = [clip for clip in clips if clip.seconds > max_seconds]
    found = []
    if short:
        message = f"{len(short)} clip(s) are very short: less than {least:.2g} s."
        found.append(Finding("short", "warning", message, "Listen whether they were cut off, and remove them.", short))
    if long:
        lost = sum(clip.seconds - max_seconds for clip in long) / sum(clip.seconds for clip in clips)
        message = (
            f"{len(long)} clip(s) are longer than max_seconds={max_seconds:g}; what lies beyond, {lost:.1%} of all "
            "sound, is not heard."
        )
        fix = "Give chunk_seconds or random_crop=True to use all of it, or a larger max_seconds."
        found.append(Finding("long", "note", message, fix, tuple(_found(c, f"{c.seconds:.1f} s") for c in long)))
    return found


def _found(clip: InspectedClip, detail: str, set: int | None = None) -> FoundClip:
    return FoundClip(clip.file, clip.part, clip.label, set, detail)
