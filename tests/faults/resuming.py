"""A: resuming after every single step, in every kind of run; and what `transformers.Trainer` does with the same cut."""

import itertools
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch

import audioclf

from .harness import everything, options


class CutAfter:
    """Builds the usual loss; Ctrl-C comes while the n-th micro-batch from now is computed."""

    def __init__(self) -> None:
        self.at = self.count = 0

    def cut(self, at: int) -> None:
        """Sets n; 0 for never."""
        self.at, self.count = at, 0

    def __call__(self, config: Any) -> Any:
        """The loss function."""

        def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            if torch.is_grad_enabled():
                self.count += 1
                if self.count == self.at:
                    signal.raise_signal(signal.SIGINT)
            return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

        return loss


cut_after = CutAfter()


def resume_after_every_step(workspace: Path, data: Path, quick: bool) -> dict[str, Any]:
    """Cuts a run after its first step, and each resumed run after one more, until nothing is left."""
    grid = list(itertools.product((0, 2), (1, 3), ("fp32", "bf16", "fp16"), (True, False)))
    if quick:
        grid = [(0, 1, "fp16", True)]
    resumed = 0
    for number, (workers, accumulation, precision, chance) in enumerate(grid):
        more: dict[str, Any] = {"num_workers": workers, "gradient_accumulation_steps": accumulation}
        more |= {"precision": precision, "loss": cut_after, "num_epochs": 4 if accumulation == 1 else 11}
        if quick:
            more["num_epochs"] = 1
        if not chance:
            more |= {"random_crop": False, "augment": "none"}
        cut_after.cut(0)
        uncut = audioclf.train(data, **options(workspace, f"uncut {number}", **more))
        cut = options(workspace, f"cut {number}", **more, resume=True)
        before = resumed
        while True:
            cut_after.cut(1)
            # Every other time by another number of workers, which must not matter.
            cut["num_workers"] = workers if resumed % 2 else 2 - workers if not quick else 0
            try:
                result = audioclf.train(data, **cut)
                break
            except KeyboardInterrupt:
                resumed += 1
        assert resumed - before >= sum(row["event"] == "step" for row in uncut.history), "not cut after every step"
        if everything(result.output_dir) != everything(uncut.output_dir):
            raise AssertionError(f"differs: {more}")
    return {"configurations": len(grid), "resumed": resumed, "bit-identical ends": len(grid)}


def trainer_with_the_same_cut(workspace: Path, data: Path, noise: bool) -> float:
    """Largest difference of the final weights between Trainer uncut and Trainer resumed in the middle of an epoch."""
    import transformers
    from conftest import tiny_config

    splits = audioclf.load_dataset(data)
    waveforms = [audioclf.audio.load(example.audio, 16_000)[:3200] for example in splits.train]
    labels = [splits.label2id[example.label] for example in splits.train]

    class Clips(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(labels)

        def __getitem__(self, index: int) -> dict[str, Any]:
            values = waveforms[index]
            if noise:  # as augmentations usually draw: from the global stream
                values = values + 0.1 * np.random.standard_normal(len(values)).astype(np.float32)  # noqa: NPY002
            return {"input_values": torch.from_numpy(values), "labels": labels[index]}

    def trained(folder: Path, cut: bool) -> dict[str, torch.Tensor]:
        config = tiny_config(num_labels=3)

        def trainer() -> transformers.Trainer:
            transformers.set_seed(0)
            arguments = transformers.TrainingArguments(
                output_dir=str(folder),
                num_train_epochs=2,
                per_device_train_batch_size=4,
                learning_rate=5e-3,
                save_steps=3,
                report_to=[],
                use_cpu=True,
                disable_tqdm=True,
                logging_strategy="no",
                dataloader_num_workers=2,
            )
            model = transformers.AutoModelForAudioClassification.from_config(config)
            return transformers.Trainer(model=model, args=arguments, train_dataset=Clips())

        first = trainer()
        if cut:
            first.add_callback(_StopAfter(5))
            first.train()
            again = trainer()
            again.train(resume_from_checkpoint=str(folder / "checkpoint-3"))
            return again.model.state_dict()
        first.train()
        return first.model.state_dict()

    class _StopAfter(transformers.TrainerCallback):
        def __init__(self, step: int) -> None:
            self.step = step

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = state.global_step >= self.step

    uncut = trained(workspace / f"trainer {noise}", cut=False)
    resumed = trained(workspace / f"trainer cut {noise}", cut=True)
    return max((uncut[name] - value).abs().max().item() for name, value in resumed.items())
