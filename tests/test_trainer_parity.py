"""`audioclf.train` against `transformers.Trainer`: the same weights, clips, batches and recipe, number by number.

Trainer's window is one big batch only with `compute_loss_func`, its own hook for that, or, when its micro-batches are
of one size, without `model_accepts_loss_kwargs`. Clips are of one length: padding, which the two treat differently,
plays no part.
"""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import TONES, tiny_config, write_tone
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForAudioClassification,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    Wav2Vec2FeatureExtractor,
)

import audioclf
from audioclf.sampling import LengthBucketSampler

RATE, SECONDS, EPOCHS, SEED, TOLERANCE = 16_000, 0.15, 2, 3, 1e-5
LABELS = sorted(TONES)
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
pytestmark = pytest.mark.usefixtures("fft_for_few_frames")


@pytest.mark.parametrize(
    ("clips", "batch_size", "accumulation", "rate", "shape", "loss"),
    [
        pytest.param(80, 4, 1, 5e-5, {}, "as it comes", id="course recipe"),
        pytest.param(46, 2, 3, 5e-5, {}, "over the micro-batches", id="short window"),
        pytest.param(75, 2, 3, 1e-3, {}, "over the clips", id="short window and short micro-batch"),
        pytest.param(47, 4, 3, 1e-3, LAYER_NORM, "over the clips", id="layer norm"),
    ],
)
def test_same_numbers(tmp_path, clips, batch_size, accumulation, rate, shape, loss):
    data = tmp_path / "data"
    write_clips(data, clips)
    save_start(tmp_path / "start", shape)
    ours = audioclf.train(
        data,
        model=str(tmp_path / "start"),
        output_dir=tmp_path / "ours",
        cache_dir=str(tmp_path / "cache"),
        num_epochs=EPOCHS,
        batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        learning_rate=rate,
        logging_steps=1,
        precision="fp32",
        device="cpu",
        seed=SEED,
        progress=False,
    )
    theirs = run_trainer(tmp_path, batch_size, accumulation, rate, loss)

    steps = [row for row in ours.history if row["event"] == "step"]
    their_steps = [row for row in theirs.state.log_history if "grad_norm" in row]
    num_steps = EPOCHS * -(-clips // (batch_size * accumulation))
    assert [row["step"] for row in steps] == [row["step"] for row in their_steps] == list(range(1, num_steps + 1))
    for name in ("loss", "learning_rate", "grad_norm"):
        np.testing.assert_allclose([row[name] for row in steps], [row[name] for row in their_steps], atol=TOLERANCE)
    np.testing.assert_allclose(
        [row["learning_rate"] for row in steps], [row["learning_rate"] for row in their_steps], rtol=1e-12
    )

    epochs = [row for row in ours.history if row["event"] == "epoch"]
    their_epochs = [row for row in theirs.state.log_history if "eval_loss" in row]
    assert [row["accuracy"] for row in epochs] == [row["eval_accuracy"] for row in their_epochs]
    losses = [row["eval_loss"] for row in their_epochs]
    np.testing.assert_allclose([row["loss"] for row in epochs], losses, atol=TOLERANCE)

    start = load_file(tmp_path / "start" / "model.safetensors")
    final, their_final = load_file(ours.output_dir / "last" / "model.safetensors"), theirs.model.state_dict()
    assert final.keys() == their_final.keys() == start.keys()
    moved = max((final[name] - start[name]).abs().max().item() for name in final)
    assert moved > 20 * TOLERANCE  # what is compared has been trained
    for name, value in their_final.items():
        torch.testing.assert_close(final[name], value, atol=TOLERANCE, rtol=0)


def write_clips(folder: Path, clips: int) -> None:
    """So many noisy tones to train on and 22 to validate, all 16 kHz and of one length."""
    rng = np.random.default_rng(SEED)
    for part, count in (("train", clips), ("valid", 22)):
        for number in range(count):
            label = LABELS[number % len(LABELS)]
            write_tone(folder / part / label / f"{number}.wav", TONES[label], SECONDS, rng, RATE)


def save_start(folder: Path, shape: dict) -> None:
    """A classification checkpoint with these labels, so that both sides begin with the same head too."""
    torch.manual_seed(SEED)
    config = tiny_config(**shape)
    config.id2label = dict(enumerate(LABELS))
    config.label2id = {label: index for index, label in enumerate(LABELS)}
    AutoModelForAudioClassification.from_config(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)


class GivenBatches(LengthBucketSampler):
    """audioclf's batches as a `batch_sampler` for Trainer, which counts epochs from 0."""

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch + 1)

    def __iter__(self):
        return ([index for index, _ in batch] for batch in super().__iter__())


class GivenOrderTrainer(Trainer):
    """Trainer on audioclf's batches."""

    def get_train_dataloader(self) -> DataLoader:
        lengths = [int(SECONDS * RATE)] * len(self.train_dataset)
        batches = GivenBatches(lengths, self.args.per_device_train_batch_size, SEED)
        loader = DataLoader(self.train_dataset, batch_sampler=batches, collate_fn=self.data_collator)
        return self.accelerator.prepare(loader)


def mean_over_the_clips(outputs, labels, num_items_in_batch=None):
    """The loss that makes Trainer's window one big batch, by its documented hook."""
    return torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch


def run_trainer(folder: Path, batch_size: int, accumulation: int, rate: float, loss: str) -> Trainer:
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder / "start")
    splits = audioclf.load_dataset(folder / "data")

    def collate(clips: list) -> dict[str, torch.Tensor]:
        waveforms = [soundfile.read(clip.audio, dtype="float32")[0] for clip in clips]
        batch = extractor(waveforms, sampling_rate=RATE, padding=True, return_tensors="pt")
        return {**batch, "labels": torch.tensor([splits.label2id[clip.label] for clip in clips])}

    trainer = GivenOrderTrainer(
        model=AutoModelForAudioClassification.from_pretrained(folder / "start"),
        args=TrainingArguments(
            output_dir=str(folder / "theirs"),
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=batch_size,
            per_device_eval_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            learning_rate=rate,
            lr_scheduler_type="linear",
            warmup_steps=0.1,
            weight_decay=0.0,
            max_grad_norm=1.0,
            logging_steps=1,
            eval_strategy="epoch",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            log_level="error",
            use_cpu=True,
            seed=SEED,
        ),
        data_collator=collate,
        train_dataset=list(splits.train),
        eval_dataset=list(splits.valid),
        compute_metrics=lambda result: {"accuracy": float(np.mean(result.predictions.argmax(-1) == result.label_ids))},
        compute_loss_func=mean_over_the_clips if loss == "over the clips" else None,
    )
    if loss == "over the micro-batches":
        trainer.model_accepts_loss_kwargs = False
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer
