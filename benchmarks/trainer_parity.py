"""`audioclf.train` and `transformers.Trainer`, number by number: the same weights, clips, batches and recipe.

Usage: python benchmarks/trainer_parity.py [--json FILE]

Prints in Markdown (a) a whole run step by step, (b) the gradient of n accumulated micro-batches against that of one big
batch, (c) whether a run repeats itself bit for bit. All is small, random and made here; fp32 on the CPU. Trainer runs
as it comes; with `model_accepts_loss_kwargs = False`, so that it divides each micro-batch's mean by their number; and
with a `compute_loss_func` that divides each clip's loss by the number of clips.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

import audioclf
from audioclf.sampling import LengthBucketSampler

RATE, SEED = 16_000, 7
BURSTS = {"fast": 21.0, "medium": 13.0, "slow": 8.0}  # classes: bursts of noise a second
AS_IT_COMES, DIVIDED, LOSS_FUNC = WAYS = ("as it comes", "model_accepts_loss_kwargs=False", "compute_loss_func")
COLUMNS = ("loss", "learning_rate", "grad_norm")
OURS = {"logging_steps": 1, "precision": "fp32", "device": "cpu", "seed": SEED, "progress": False, "overwrite": True}
THEIRS = {"logging_steps": 1, "use_cpu": True, "seed": SEED, "warmup_steps": 0.1, "dataloader_pin_memory": False}
THEIRS |= {"eval_strategy": "epoch", "save_strategy": "no", "report_to": "none", "disable_tqdm": True}
THEIR_NAMES = {"num_epochs": "num_train_epochs", "num_workers": "dataloader_num_workers"}
THEIR_NAMES |= {"batch_size": "per_device_train_batch_size"}
Outcome = tuple[list[dict], dict[str, Tensor]]  # rows of the history, and the final weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="file for the figures in full")
    file = parser.parse_args().json
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        figures = {part.__name__: part(Path(folder) / part.__name__) for part in (parity, accumulation, repeatability)}
    print(f"\n{time.monotonic() - began:.0f} s, torch {torch.__version__}, transformers {transformers.__version__}")
    if file:
        Path(file).write_text(json.dumps(figures, indent=2) + "\n")


def parity(folder: Path) -> dict[str, Any]:
    """(a) Two epochs of 62 micro-batches in windows of 3: the last window has 2, the last micro-batch one clip."""
    write_data(folder, 123, (0.5, 0.5))
    figures = {}
    for rate, way in itertools.product((5e-5, 1e-3), WAYS):
        options = {"batch_size": 2, "gradient_accumulation_steps": 3, "learning_rate": rate, "num_epochs": 2}
        if way == WAYS[0]:
            ours, weights = run_ours(folder, **options)
        theirs, their_weights = run_trainer(folder, way, **options)
        pairs, evaluations = (
            list(zip((row for row in ours if a in row), (row for row in theirs if b in row), strict=True))
            for a, b in (("grad_norm", "grad_norm"), ("accuracy", "eval_accuracy"))
        )
        largest = {name: max(abs(a[name] - b[name]) for a, b in pairs) for name in COLUMNS}
        for name in ("loss", "accuracy"):
            largest[f"valid {name}"] = max(abs(a[name] - b[f"eval_{name}"]) for a, b in evaluations)
        largest["final weights"] = largest_difference(weights, their_weights)
        rows = [[a["step"], *(side[name] for name in COLUMNS for side in (a, b))] for a, b in pairs]
        figures[f"{rate:g}, {way}"] = {"rows": rows, "largest": largest}
    shown = figures[f"5e-05, {LOSS_FUNC}"]["rows"]
    print(f"(a) Every third of {len(shown)} steps, learning rate 5e-5, Trainer with {LOSS_FUNC}\n")
    header = [f"{name}, {side}" for name in COLUMNS for side in ("ours", "Trainer")]
    table(["step", *header], [[row[0], *(f"{value:.7g}" for value in row[1:])] for row in shown[::3]])
    print("\nLargest differences between ours and Trainer over all steps and both evaluations\n")
    lines = [[key, *(f"{value:.1e}" for value in entry["largest"].values())] for key, entry in figures.items()]
    table(["rate, Trainer's way", *largest], lines)
    return figures


def accumulation(folder: Path) -> list[dict[str, Any]]:
    """(b) The gradient of one step before clipping: n micro-batches of 4 clips against all the clips at once."""
    sides = {"audioclf": run_ours, **{f"Trainer, {way}": partial(run_trainer, way=way) for way in WAYS}}
    figures = []
    for seconds, last, n in itertools.product(((0.5, 0.5), (0.2, 0.8)), (4, 1), (2, 4, 8)):
        place, num_clips = folder / f"{seconds[0]} {last} {n}", 4 * (n - 1) + last
        write_data(place, num_clips, seconds)
        lengths = "equal" if seconds[0] == seconds[1] else f"{seconds[0]} to {seconds[1]} s"
        figures.append({"lengths": lengths, "n": n, "clips in the last": last})
        for name, run in sides.items():
            one_step = partial(run, place, num_epochs=1, max_grad_norm=1e9)  # no clipping
            big = first_gradient(partial(one_step, batch_size=num_clips))
            accumulated = first_gradient(partial(one_step, batch_size=4, gradient_accumulation_steps=n))
            figures[-1][name] = ((accumulated - big).norm() / big.norm()).item()
    print("\n(b) Relative error of the accumulated gradient, norm(g - g_big) / norm(g_big), before clipping\n")
    lines = [[f"{value:.1e}" if isinstance(value, float) else value for value in row.values()] for row in figures]
    table(list(figures[0]), lines)
    return figures


def first_gradient(run: Callable[[], Any]) -> Tensor:
    """The whole gradient (P,) that the first optimizer step of a run finds; its order is the optimizer's own."""
    found = []

    def keep(optimizer: torch.optim.Optimizer, _args: tuple, _options: dict) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        found.append(torch.cat([p.grad.double().flatten() for p in parameters if p.grad is not None]))

    with register_optimizer_step_pre_hook(keep):
        run()
    return found[0]


def repeatability(folder: Path) -> dict[str, Any]:
    """(c) Runs with dropout and random crops, twice each; Trainer in its own random order."""
    write_data(folder, 48, (0.6, 1.0), dropout=0.1)
    figures = {}
    for name, run in (("audioclf", run_ours), ("Trainer", partial(run_trainer, way=AS_IT_COMES))):
        again = partial(run, folder, num_epochs=2, batch_size=4, learning_rate=1e-3, random_crop=True, max_seconds=0.5)
        none, none_again, two, two_again = (again(num_workers=workers)[1] for workers in (0, 0, 2, 2))
        figures[name] = [largest_difference(*both) for both in ((none, none_again), (two, two_again), (none, two))]
    print("\n(c) Largest difference of the final weights between two runs\n")
    lines = [[n, *(f"{value:.1e}" if value else "bit-identical" for value in row)] for n, row in figures.items()]
    table(["", "twice with 0 workers", "twice with 2 workers", "with 0 and with 2 workers"], lines)
    return figures


def run_ours(folder: Path, **options: Any) -> Outcome:
    """A run of `audioclf.train`."""
    places = {"model": str(folder / "start"), "output_dir": folder / "ours", "cache_dir": str(folder / "cache")}
    result = audioclf.train(folder / "data", **places, **OURS, **options)
    return result.history, load_file(result.output_dir / "last" / "model.safetensors")


def run_trainer(folder: Path, way: str, random_crop: bool = False, max_seconds: float = 30, **options: Any) -> Outcome:
    """The same of Trainer: on audioclf's batches, or, with random crops, in its own order."""
    splits = audioclf.load_dataset(folder / "data")
    train = Waveforms(splits.train, splits.label2id, int(max_seconds * RATE) if random_crop else None)
    options = {THEIR_NAMES.get(name, name): value for name, value in options.items()}
    trainer = GivenOrderTrainer(
        model=transformers.HubertForSequenceClassification.from_pretrained(folder / "start"),
        args=transformers.TrainingArguments(str(folder / "theirs"), **THEIRS, **options),
        data_collator=partial(collate, transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder / "start")),
        train_dataset=train,
        eval_dataset=Waveforms(splits.valid, splits.label2id),
        compute_metrics=lambda result: {"accuracy": float(np.mean(result.predictions.argmax(-1) == result.label_ids))},
        compute_loss_func=mean_over_the_clips if way == LOSS_FUNC else None,
    )
    lengths, batch_size = list(map(len, train.waveforms)), options["per_device_train_batch_size"]
    trainer.batches = None if random_crop else GivenBatches(lengths, batch_size, SEED)
    if way == DIVIDED:
        trainer.model_accepts_loss_kwargs = False
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return trainer.state.log_history, trainer.model.state_dict()


def mean_over_the_clips(outputs: Any, labels: Tensor, num_items_in_batch: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch


class Waveforms(torch.utils.data.Dataset):
    """Clips for Trainer; with `crop` samples each access cuts so many out at random, as people often write it."""

    def __init__(self, clips: Any, label2id: dict[str, int], crop: int | None = None) -> None:
        self.crop = crop
        self.waveforms = [soundfile.read(clip.audio, dtype="float32")[0] for clip in clips]
        self.labels = [label2id[clip.label] for clip in clips]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        waveform = self.waveforms[index]
        start = np.random.randint(len(waveform) - self.crop + 1) if self.crop else 0  # noqa: NPY002
        return waveform[start:][: self.crop], self.labels[index]


def collate(extractor: Any, items: list[tuple[np.ndarray, int]]) -> dict[str, Tensor]:
    waveforms, labels = zip(*items, strict=True)
    batch = extractor(list(waveforms), sampling_rate=RATE, padding=True, return_tensors="pt")
    return {**batch, "labels": torch.tensor(labels)}


class GivenBatches(LengthBucketSampler):
    """audioclf's batches as a `batch_sampler` for Trainer, which counts epochs from 0."""

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of audioclf's epoch, counted from 1."""
        super().set_epoch(epoch + 1)

    def __iter__(self) -> Iterator[list[int]]:
        return ([index for index, _ in batch] for batch in super().__iter__())


class GivenOrderTrainer(transformers.Trainer):
    """Trainer on given batches, where it has been given any."""

    batches: GivenBatches | None = None

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """The loader of the batches given, prepared as Trainer does it."""
        if self.batches is None:
            return super().get_train_dataloader()
        options = {"batch_sampler": self.batches, "collate_fn": self.data_collator}
        return self.accelerator.prepare(torch.utils.data.DataLoader(self.train_dataset, **options))


def write_data(folder: Path, num_clips: int, seconds: tuple[float, float], dropout: float = 0.0) -> None:
    """Clips of bursts of noise, of lengths within `seconds`, and a small random classifier of them to start from."""
    rng, labels = np.random.default_rng(SEED), sorted(BURSTS)
    for part, count in (("train", num_clips), ("valid", 22)):
        for number in range(count):
            label = labels[number % len(labels)]
            clock = np.arange(int(rng.uniform(*seconds) * RATE)) / RATE
            envelope = np.exp(-10 * ((BURSTS[label] * rng.uniform(0.9, 1.1) * clock + rng.uniform()) % 1))
            path = folder / "data" / part / label / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, rng.uniform(0.05, 0.15) * envelope * rng.standard_normal(len(clock)), RATE)
    config = transformers.HubertConfig(  # DistilHuBERT's shape, small
        **{"conv_dim": (32,) * 7, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
        **{"intermediate_size": 128, "num_conv_pos_embeddings": 32, "num_conv_pos_embedding_groups": 4},
        **{"classifier_proj_size": 32, "feat_proj_layer_norm": False, "apply_spec_augment": False, "layerdrop": 0.0},
        **{"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}},
        **{f"{kind}_dropout": dropout for kind in ("hidden", "attention", "activation", "feat_proj")},
    )
    torch.manual_seed(SEED)
    transformers.HubertForSequenceClassification(config).save_pretrained(folder / "start")
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder / "start")


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def table(header: list[str], rows: list[list]) -> None:
    for cells in (header, ["---"] * len(header), *rows):
        print("| " + " | ".join(str(cell) for cell in cells) + " |")


if __name__ == "__main__":
    main()
