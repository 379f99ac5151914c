"""What `inspect` returns, and its text for people: tables, small histograms, findings with their first clips."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .findings import SEVERITIES, Finding, FoundClip, shorten
from .soundness import InspectedClip

BAR_WIDTH = 40
NUM_CLIPS = 6
"""Clips shown of a finding; JSON has all of them."""
MAX_CLASSES = 40
"""Classes shown, those with most and those with fewest clips; JSON has all of them."""


@dataclass(frozen=True)
class Inspection:
    """What `inspect` tells of a data set; `str()` of it is the text that the command prints.

    Attributes:
        name: The data set's name.
        findings: What may be wrong, the most severe first.
        parts: Of each part its `clips` that are readable and their `hours`.
        classes: Of each class, in the order of ids, in each part its `clips` and their `hours`.
        durations: Clips by their length: `(from, clips)`, from the first to the last bar that is not empty, in seconds.
        sampling_rates: Clips by the rate of their files, in Hz.
        notes: What the loader of the data says of it.
        clips: The readable clips, one by one.
    """

    name: str
    findings: tuple[Finding, ...]
    parts: dict[str, dict[str, float]]
    classes: dict[str, dict[str, dict[str, float]]]
    durations: tuple[tuple[float, int], ...]
    sampling_rates: dict[int, int]
    notes: tuple[str, ...]
    clips: tuple[InspectedClip, ...]

    def __str__(self) -> str:
        return _text(self)

    def to_dict(self) -> dict[str, Any]:
        """All but the table of single clips, in types that JSON has; findings have all of their clips."""
        fields = {name: value for name, value in vars(self).items() if name not in ("clips", "findings")}
        return fields | {"findings": [asdict(finding) for finding in self.findings]}


def _text(found: Inspection) -> str:
    """The whole of it."""
    lines = [_title(found), "", *_class_lines(found), "", "Length of clips:", *_duration_lines(found)]
    if found.sampling_rates:
        bars = [(f"{rate:,} Hz", clips) for rate, clips in found.sampling_rates.items()]
        lines += ["", "Sampling rate of files:", *_bar_lines(bars)]
    if found.notes:
        lines += ["", *(f"note: {note}" for note in found.notes)]
    counts = [(sum(f.severity == severity for f in found.findings), severity) for severity in SEVERITIES]
    told = ", ".join(f"{count} {severity}{'s' * (count != 1)}" for count, severity in counts if count)
    lines += ["", f"Findings: {told}" if told else "Findings: none."]
    for finding in found.findings:
        lines += ["", *_finding_lines(finding)]
    return "\n".join(lines)


def _title(found: Inspection) -> str:
    parts = [f"{part} {int(amount['clips']):,} clips, {amount['hours']:.2f} h" for part, amount in found.parts.items()]
    return f"{found.name}: {len(found.classes)} classes; {'; '.join(parts)}."


def _class_lines(found: Inspection) -> list[str]:
    """Clips of each class in each part, and its hours in all of them."""
    labels = list(found.classes)
    if len(labels) > MAX_CLASSES:
        totals = {label: sum(amount["clips"] for amount in found.classes[label].values()) for label in labels}
        ranked = sorted(labels, key=lambda label: -totals[label])
        labels = [*ranked[: MAX_CLASSES // 2], *ranked[-MAX_CLASSES // 2 :]]
    width = max(8, *(len(shorten(label)) for label in labels))
    lines = [f"{'class':<{width}}" + "".join(f"  {part:>8}" for part in found.parts) + f"  {'hours':>8}"]
    for number, label in enumerate(labels):
        if len(labels) < len(found.classes) and number == MAX_CLASSES // 2:
            lines.append(f"... {len(found.classes) - len(labels)} more ...")
        amounts = found.classes[label].values()
        cells = "".join(f"  {amount['clips']:>8,}" for amount in amounts)
        lines.append(f"{shorten(label):<{width}}{cells}  {sum(amount['hours'] for amount in amounts):>8.2f}")
    return lines


def _duration_lines(found: Inspection) -> list[str]:
    seconds = sorted(clip.seconds for clip in found.clips)
    if not seconds:
        return ["  no clip can be read"]
    middle = seconds[len(seconds) // 2]
    bars = [(f"from {begin:g} s", clips) for begin, clips in found.durations]
    return [f"  {seconds[0]:.2f} to {seconds[-1]:.2f} s, median {middle:.2f} s", *_bar_lines(bars)]


def _bar_lines(bars: Sequence[tuple[str, int]]) -> list[str]:
    most, width = max(clips for _, clips in bars), max(len(name) for name, _ in bars)
    return [f"  {name:>{width}}  {'#' * -(-clips * BAR_WIDTH // most):<{BAR_WIDTH}}  {clips:,}" for name, clips in bars]


def _finding_lines(finding: Finding) -> list[str]:
    lines = [f"{finding.severity}: {finding.message} [{finding.kind}]", f"  {finding.fix}"]
    shown = finding.clips[:NUM_CLIPS]
    before = None
    for clip in shown:
        mark = "-" if clip.set is None or clip.set != before else " "
        before = clip.set
        lines.append(f"  {mark} {_clip_line(clip)}")
    if len(finding.clips) > len(shown):
        lines.append(f"    ... and {len(finding.clips) - len(shown):,} more")
    return lines


def _clip_line(clip: FoundClip) -> str:
    label = clip.label if isinstance(clip.label, str) else ", ".join(clip.label)
    return f"{clip.file} ({clip.part}, {shorten(label)})" + (f": {clip.detail}" if clip.detail else "")
