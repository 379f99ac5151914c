"""What a batch's padding does to a clip's scores: audioclf beside transformers, on the very same weights.

Usage: python benchmarks/padding_invariance.py [--checkpoint FOLDER] [--compositions 200] [--json FILE]

Without --checkpoint it first trains the demonstration (examples/gtzan.py --demo). Clips are the demonstration's
validation clips, cut at random. A clip's scores in a batch are compared with what the same side gives for the clip
alone, and with transformers' own model on the clip alone in fp64, which shows how much of a difference is rounding.
Printed as Markdown: logits and gradients in random batches, the logits also at DistilHuBERT's full size with random
weights. The picture padding.svg is the change against the padded length.
"""

import argparse
import copy
import json
import runpy
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import transformers
from matplotlib import pyplot as plt
from torch import Tensor, nn

import audioclf
from audioclf.audio import load

RATE = 16_000
OURS, MASK, NO_MASK = SIDES = ("audioclf", "transformers, with mask", "transformers, no mask")
SHAPE = {"num_hidden_layers": 2, "feat_proj_layer_norm": False, "apply_spec_augment": False, "num_labels": 10}
FULL_SIZE = transformers.HubertConfig(**SHAPE)  # DistilHuBERT's


class Subject:
    """One checkpoint opened by both sides, in evaluation mode."""

    def __init__(self, checkpoint: str) -> None:
        self.ours = audioclf.load(checkpoint, device="cpu")
        self.theirs = transformers.AutoModelForAudioClassification.from_pretrained(checkpoint).eval()
        self.exact = copy.deepcopy(self.theirs).double()
        self.extractor = transformers.AutoFeatureExtractor.from_pretrained(checkpoint)

    def logits(self, side: str, waveforms: list[np.ndarray], samples: int) -> Tensor:
        """Logits (B, C) of waveforms padded to so many samples, each side with its own padding."""
        if side == OURS:
            batch = self.ours.collator([{"waveform": waveform, "label": 0, "index": 0} for waveform in waveforms])
            width = (0, samples - batch["input_values"].shape[1])
            values, mask = (nn.functional.pad(batch[key], width) for key in ("input_values", "attention_mask"))
            return self.ours.model(values, mask)
        padding = {"padding": "max_length", "max_length": samples, "return_attention_mask": side == MASK}
        return self.theirs(**self.extractor(waveforms, sampling_rate=RATE, return_tensors="pt", **padding)).logits

    def alone(self, side: str, waveforms: list[np.ndarray]) -> Tensor:
        """Logits (B, C) of one clip at a time, nothing padded."""
        return torch.cat([self.logits(side, [waveform], len(waveform)) for waveform in waveforms])

    def exact_alone(self, waveforms: list[np.ndarray]) -> Tensor:
        """The same (B, C) by transformers in fp64."""
        inputs = [self.extractor(waveform, sampling_rate=RATE, return_tensors="pt") for waveform in waveforms]
        return torch.cat([self.exact(clip["input_values"].double()).logits for clip in inputs])

    def gradient(self, side: str, logits: Tensor, labels: Tensor) -> Tensor:
        """Gradient (P,) of the mean cross entropy on all parameters, in the same order for either side."""
        model = self.ours.model if side == OURS else self.theirs
        encoder = model.backbone if side == OURS else model.base_model
        parameters = list(dict.fromkeys([*encoder.parameters(), *model.parameters()]))  # the encoder's, then the head's
        grads = torch.autograd.grad(nn.functional.cross_entropy(logits, labels), parameters, materialize_grads=True)
        return nn.utils.parameters_to_vector(grads)


def train_demo(folder: Path) -> str:
    """The checkpoint that `python examples/gtzan.py --demo` gives."""
    examples = Path(__file__).parents[1] / "examples"
    sys.path.insert(0, str(examples))  # as when one of them is run
    example = runpy.run_path(str(examples / "gtzan.py"))
    options = {**example["DEMO"], "output_dir": folder, "device": "cpu", "progress": False}
    return str(audioclf.train("demo", model=example["demo_encoder"](), **options).checkpoint_dir)


def compositions(clips: list[np.ndarray], count: int, most: int, shortest: float, pad_to: float) -> Iterator[tuple]:
    """Random batches of 2 to `most` clips: indices, cut waveforms, samples to pad to, and what this means in words."""
    rng = np.random.default_rng(0)
    for number in range(count):
        indices = rng.choice(len(clips), size=rng.integers(2, most, endpoint=True), replace=False)
        waveforms = []
        for clip in (clips[index] for index in indices):
            length = rng.integers(round(shortest * RATE), len(clip), endpoint=True)
            start = rng.integers(0, len(clip) - length, endpoint=True)
            waveforms.append(clip[start : start + length])
        samples = max(map(len, waveforms))
        longer = int(rng.integers(samples, pad_to * RATE, endpoint=True)) if number % 2 else samples
        yield indices, waveforms, longer, f"up to {pad_to} s" if number % 2 else "to the longest clip"


def top_changes(logits: Tensor, alone: Tensor) -> Tensor:
    """Change (B,) of the probability of the class that is on top when the clip is alone."""
    # In double precision: fp32 probabilities near 1 would round small changes away.
    batched, reference = logits.double().softmax(-1), alone.double().softmax(-1)
    return (batched - reference).abs().gather(1, reference.argmax(1, keepdim=True)).squeeze(1)


@torch.inference_mode()
def logit_rows(subject: Subject, batches: Iterator) -> list[dict]:
    """What batches do to their clips' logits and classes, by padding and side."""
    found: dict[tuple[str, str], list[Tensor]] = {}
    for _, waveforms, samples, padding in batches:
        exact = subject.exact_alone(waveforms)
        for side in SIDES:
            alone, logits = subject.alone(side, waveforms), subject.logits(side, waveforms, samples)
            figures = [(logits - alone).abs().amax(1), top_changes(logits, alone), logits.argmax(1) != alone.argmax(1)]
            figures += [(alone - exact).abs().amax(1), (logits - exact).abs().amax(1), exact.abs().amax(1)]
            found.setdefault((padding, side), []).append(torch.stack([figure.double() for figure in figures], dim=1))
    rows = []
    for (padding, side), parts in found.items():
        change, top_change, flipped, error_alone, error, scale = torch.cat(parts).T
        row = {"padded": padding, "side": side, "clips": len(change), "median largest logit": scale.median()}
        row |= {"largest change of a logit": change.max(), "median of the clips' largest": change.median()}
        row |= {"largest change of the top probability": top_change.max(), "share with another class": flipped.mean()}
        row |= {"largest distance to fp64 alone": error_alone.max(), "in the batch": error.max()}
        rows.append({key: value.item() if isinstance(value, Tensor) else value for key, value in row.items()})
    return rows


def gradient_rows(subject: Subject, clips: list[np.ndarray], labels: list[int]) -> list[dict]:
    """Relative error of a batch's gradient against the mean of its clips' own, without dropout."""
    errors: dict[str, list[float]] = {side: [] for side in SIDES}
    for indices, waveforms, samples, _ in compositions(clips, 10, 8, 0.025, 30):
        # With other classes than the demonstration's the labels mean nothing, which serves as well.
        targets = torch.tensor([labels[index] for index in indices]) % subject.theirs.config.num_labels
        alone = subject.gradient(NO_MASK, subject.alone(NO_MASK, waveforms), targets)
        for side in SIDES:
            batched = subject.gradient(side, subject.logits(side, waveforms, samples), targets)
            errors[side].append(((batched - alone).norm() / alone.norm()).item())
    names = ("side", "batches", "median relative error", "largest")
    return [dict(zip(names, (side, len(e), np.median(e), max(e)), strict=True)) for side, e in errors.items()]


@torch.inference_mode()
def draw_curves(subject: Subject, clips: list[np.ndarray], path: Path) -> list[dict]:
    """Change of 20 clips' top probability against the padded length: median and 10 to 90 % band by side."""
    rng, seconds = np.random.default_rng(1), np.geomspace(3, 30, 12)
    cut = [clips[i][: rng.integers(RATE, 3 * RATE)] for i in rng.choice(len(clips), size=20, replace=False)]
    alone = subject.exact_alone(cut)  # ours alone and padded are often equal to the last bit, which no log axis shows
    plt.rcParams["svg.hashsalt"] = "audioclf"  # the same figures give the same file
    (figure, axes), rows = plt.subplots(figsize=(7, 4.2), layout="constrained"), []
    # Okabe and Ito's colours, which colour-blind readers tell apart too.
    for side, colour, marker in zip(SIDES, ("#0072B2", "#D55E00", "#CC79A7"), "os^", strict=True):
        logits = [torch.cat([subject.logits(side, [clip], round(s * RATE)) for clip in cut]) for s in seconds]
        changes = np.stack([top_changes(some, alone).numpy() for some in logits])
        low, median, high = np.quantile(np.maximum(changes, 1e-10), (0.1, 0.5, 0.9), axis=1)
        axes.fill_between(seconds, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(seconds, median, color=colour, marker=marker, markersize=4, label=side)
        rows += [{"side": side, "padded to (s)": seconds[i], "median": median[i], "90 %": high[i]} for i in (0, 6, 11)]
    axes.set(xscale="log", yscale="log", ylim=(1e-9, 3), xlabel="length the clip is padded to (s)")
    axes.set(
        ylabel="distance of its top probability to fp64, alone",
        title="Zero padding and the score of a clip of 1 to 3 s",
    )
    axes.set_xticks((3, 5, 10, 20, 30), ("3", "5", "10", "20", "30"))
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3)
    axes.legend(title="median of 20 clips; band: 10 to 90 %", loc="center right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    return rows


def machine() -> str:
    """What the figures depend on."""
    words = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    flags = ", ".join(flag for flag in ("amx_tile", "avx512f", "avx2") if flag in words)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{versions}, {torch.get_num_threads()} thread(s), CPU flags: {flags or 'none known'}"


def show(title: str, rows: list[dict], began: float) -> dict:
    """Prints a Markdown table; returns it for the JSON file."""
    print(f"\n## {title}\n\n| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        print("|", " | ".join(f"{cell:.2g}" if isinstance(cell, float) else str(cell) for cell in row.values()), "|")
    print(f"\n({time.perf_counter() - began:.0f} s since the start)", flush=True)
    return {title: rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="a classification checkpoint in Hugging Face format")
    parser.add_argument("--compositions", type=int, default=200)
    parser.add_argument("--full-compositions", type=int, default=10)
    parser.add_argument("--output-dir", type=Path, default=Path("docs/images"))
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    transformers.logging.disable_progress_bar()
    began, report = time.perf_counter(), {"machine": machine()}
    print(report["machine"], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(options.checkpoint or train_demo(Path(folder) / "demo"))
        splits = audioclf.load_dataset("demo")
        clips = [load(clip.audio, RATE) for clip in splits.parts["valid"]]
        labels = [splits.label2id[clip.label] for clip in splits.parts["valid"]]
        batches = compositions(clips, options.compositions, 8, 0.025, 30)
        report |= show(f"Logits in {options.compositions} random batches", logit_rows(subject, batches), began)
        report |= show("Gradients in 10 random batches", gradient_rows(subject, clips, labels), began)
        report |= show("The picture", draw_curves(subject, clips, options.output_dir / "padding.svg"), began)
        longer = [np.concatenate(clips[i : i + 4])[: 10 * RATE] for i in range(0, len(clips) - 3, 4)]
        torch.manual_seed(0)
        transformers.HubertForSequenceClassification(FULL_SIZE).save_pretrained(folder)
        transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
        subject = Subject(folder)
        batches = compositions(longer, options.full_compositions, 3, 1, 10)
        report |= show("Logits at full size, random weights, 2 or 3 clips", logit_rows(subject, batches), began)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
