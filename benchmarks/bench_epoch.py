"""From files to a trained model: `audioclf.train` and the audio course's script, ported to today's libraries.

Usage: python benchmarks/bench_epoch.py [--clips 24] [--seconds 5] [--freeze feature_encoder] [--json FILE]

The course's script trains everything in fp32: `datasets.map` decodes, resamples and normalises, then `Trainer` runs
with an evaluation each epoch. Ours reads the same wav files of 22,050 Hz with a cold cache and, by default, a frozen
waveform CNN. DistilHuBERT's shape with random weights, batches of 8. "first epoch" is everything from the call to the
end of the first epoch; "later epoch" the second one, its evaluation included. Each side runs once, in a new process.
"""

import argparse
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import transformers
from measure import parser, write

import audioclf
from audioclf.allocator import keep_freed_memory

RATE, FILE_RATE, NUM_EPOCHS, BATCH_SIZE = 16_000, 22_050, 2, 8


def main() -> None:
    made = parser(__doc__, rounds=1, device=True)
    made.add_argument("--clips", type=int, default=24, help="training clips; a quarter as many validate")
    made.add_argument("--seconds", type=float, default=5)
    made.add_argument("--freeze", choices=["none", "feature_encoder", "backbone"], default="feature_encoder")
    made.add_argument("--precision", default="auto", help="ours")
    made.add_argument("--fp16", action="store_true", help="the course's script in fp16, which needs CUDA")
    made.add_argument("--keep-memory", action="store_true", help="the allocator's settings of our commands, both sides")
    options = made.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder) / "data", options.clips, options.seconds)
        save_model(Path(folder) / "start")
        for side in (course, ours):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                rows[side.__name__] = pool.submit(side, Path(folder), options).result()
    ratios = {
        f"{name}, times as fast": round(rows["course"][name] / rows["ours"][name], 1)
        for name in ("first epoch", "later epoch")
    }
    write(options, {**rows, **ratios})


def ours(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """`audioclf.train` on the folder of clips."""
    if options.keep_memory:
        keep_freed_memory()
    began = time.perf_counter()
    result = audioclf.train(
        folder / "data",
        model=str(folder / "start"),
        output_dir=folder / "ours",
        cache_dir=str(folder / "cache"),
        num_epochs=NUM_EPOCHS,
        batch_size=BATCH_SIZE,
        freeze=options.freeze,
        precision=options.precision,
        device=options.device,
        progress=False,
    )
    whole = time.perf_counter() - began
    first, second = (row["time"]["seconds"] for row in result.history if row["event"] == "epoch")
    return seconds_of(whole - (result.history[-1]["time"]["seconds"] - first), second - first)


def course(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """The course's preparation and Trainer."""
    import datasets
    import torchaudio

    if options.keep_memory:
        keep_freed_memory()
    began = time.perf_counter()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder / "start", do_normalize=True)
    labels = sorted(path.name for path in (folder / "data" / "train").iterdir())

    def prepare(batch: dict[str, list]) -> dict[str, Any]:
        waveforms = []
        for path in batch["file"]:
            values, rate = soundfile.read(path, dtype="float32")
            waveforms.append(torchaudio.functional.resample(torch.from_numpy(values), rate, RATE).numpy())
        return extractor(
            waveforms, sampling_rate=RATE, max_length=30 * RATE, truncation=True, return_attention_mask=True
        )

    parts = {}
    for split in ("train", "valid"):
        files = sorted((folder / "data" / split).rglob("*.wav"))
        rows = {"file": [str(file) for file in files], "label": [labels.index(file.parent.name) for file in files]}
        data = datasets.Dataset.from_dict(rows)
        parts[split] = data.map(prepare, remove_columns="file", batched=True, batch_size=100)
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "theirs"),
        eval_strategy="epoch",
        save_strategy="epoch",
        learning_rate=5e-5,
        per_device_train_batch_size=BATCH_SIZE,
        per_device_eval_batch_size=BATCH_SIZE,
        num_train_epochs=NUM_EPOCHS,
        warmup_steps=0.1,
        logging_steps=5,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        report_to="none",
        disable_tqdm=True,
        use_cpu=options.device == "cpu",
        fp16=options.fp16,
    )
    ends: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_save(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    trainer = transformers.Trainer(
        model=transformers.AutoModelForAudioClassification.from_pretrained(folder / "start"),
        args=arguments,
        train_dataset=parts["train"],
        eval_dataset=parts["valid"],
        processing_class=extractor,
        compute_metrics=lambda result: {"accuracy": float(np.mean(result.predictions.argmax(-1) == result.label_ids))},
        callbacks=[Clock()],
    )
    trainer.train()
    return seconds_of(ends[0] - began, ends[1] - ends[0])


def seconds_of(first: float, later: float) -> dict[str, float]:
    """A row of figures."""
    return {"first epoch": round(first, 2), "later epoch": round(later, 2)}


def save_model(folder: Path) -> None:
    """A classifier of full size with random weights, its feature extractor beside it."""
    torch.manual_seed(0)
    config = transformers.HubertConfig(num_hidden_layers=2, feat_proj_layer_norm=False, num_labels=2)
    transformers.HubertForSequenceClassification(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)


def write_corpus(root: Path, num_clips: int, seconds: float) -> None:
    """Noise of one length in two classes, white and smoothed."""
    rng = np.random.default_rng(0)
    for split, count in (("train", num_clips), ("valid", max(2, num_clips // 4))):
        for number in range(count):
            path = root / split / "ab"[number % 2] / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = rng.standard_normal(int(seconds * FILE_RATE))
            soundfile.write(
                path, 0.1 * (np.convolve(noise, np.ones(8) / 3, "same") if number % 2 else noise), FILE_RATE
            )


if __name__ == "__main__":
    main()
