"""The same initial weights, data and recipe under `audioclf train` and under `transformers.Trainer`.

Usage: python benchmarks/compare_trainer.py DATA [--num-epochs 12] [--seed 0]

DATA is a folder or manifest with train, valid and test parts. Both sides start from one saved random model in
DistilHuBERT's shape, choose the best epoch by validation accuracy and score it once on test. audioclf runs as its own
command, decoding included; Trainer is given waveforms that are already decoded, and only its training and evaluation
are timed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import (
    HubertConfig,
    HubertForSequenceClassification,
    Trainer,
    TrainingArguments,
    Wav2Vec2FeatureExtractor,
    set_seed,
)

from audioclf import load_dataset
from audioclf.audio import load

LEARNING_RATE, BATCH_SIZE, WARMUP_RATIO = 1e-3, 32, 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--num-epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--order", default="audioclf,trainer", help="which side runs first")
    options = parser.parse_args()
    splits = load_dataset(options.data)
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start"
        save_start(start, splits, options.seed)
        sides = {"audioclf": run_audioclf, "trainer": run_trainer}
        rows = {name: sides[name](options, splits, start, Path(folder)) for name in options.order.split(",")}
    print(json.dumps({"threads": torch.get_num_threads(), "torch": torch.__version__, **rows}, indent=2))


def save_start(folder: Path, splits, seed: int) -> None:
    """A small random DistilHuBERT with its head and feature extractor."""
    torch.manual_seed(seed)
    config = HubertConfig(
        conv_dim=(64,) * 7,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=4,
        classifier_proj_size=64,
        apply_spec_augment=False,
        feat_proj_layer_norm=False,
        final_dropout=0.0,
        layerdrop=0.0,
        id2label=splits.id2label,
        label2id=splits.label2id,
    )
    HubertForSequenceClassification(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)


def run_audioclf(options, splits, start: Path, folder: Path) -> dict:
    """The command line, as a user runs it, with a cold cache."""
    command = [sys.executable, "-m", "audioclf", "train", options.data, "--model", str(start)]
    command += ["--output-dir", str(folder / "ours"), "--cache-dir", str(folder / "cache"), "--precision", "fp32"]
    command += ["--num-epochs", options.num_epochs, "--batch-size", BATCH_SIZE, "--learning-rate", LEARNING_RATE]
    command += ["--warmup-ratio", WARMUP_RATIO, "--seed", options.seed]
    began = time.perf_counter()
    subprocess.run([str(word) for word in command], check=True, stdout=sys.stderr)
    seconds = time.perf_counter() - began
    rows = [json.loads(line) for line in (folder / "ours" / "history.jsonl").read_text().splitlines()]
    return {
        "seconds_in_all": round(seconds, 1),
        "seconds_training": round(rows[-1]["time"]["seconds"], 1),
        "valid_accuracy": rows[-1]["best_metrics"]["accuracy"],
        "test_accuracy": rows[-1]["test_metrics"]["accuracy"],
    }


def run_trainer(options, splits, start: Path, folder: Path) -> dict:
    """`transformers.Trainer` with its own collation by the feature extractor, batches in random order."""
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(start)
    parts = {
        name: [
            {
                "input_values": extractor(load(clip.audio, 16_000), sampling_rate=16_000).input_values[0],
                "labels": splits.label2id[clip.label],
            }
            for clip in clips
        ]
        for name, clips in splits.parts.items()
    }
    set_seed(options.seed)
    model = HubertForSequenceClassification.from_pretrained(start)
    arguments = TrainingArguments(
        output_dir=str(folder / "theirs"),
        num_train_epochs=options.num_epochs,
        per_device_train_batch_size=BATCH_SIZE,
        per_device_eval_batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        warmup_steps=WARMUP_RATIO,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        logging_steps=5,
        report_to="none",
        seed=options.seed,
        use_cpu=True,
    )

    def collate(items: list[dict]) -> dict:
        batch = extractor.pad([{"input_values": item["input_values"]} for item in items], return_tensors="pt")
        return {**batch, "labels": torch.tensor([item["labels"] for item in items])}

    trainer = Trainer(
        model=model,
        args=arguments,
        data_collator=collate,
        train_dataset=parts["train"],
        eval_dataset=parts["valid"],
        compute_metrics=lambda result: {"accuracy": float(np.mean(result.predictions.argmax(-1) == result.label_ids))},
    )
    began = time.perf_counter()
    trainer.train()
    valid = trainer.evaluate()["eval_accuracy"]
    test = trainer.evaluate(parts["test"])["eval_accuracy"]
    return {
        "seconds_training": round(time.perf_counter() - began, 1),
        "valid_accuracy": valid,
        "test_accuracy": test,
    }


if __name__ == "__main__":
    main()
