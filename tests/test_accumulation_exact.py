"""n micro-batches give the update of one big batch: the real loop against plain torch in fp64, over generated cases."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_config, waveform_collator
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from transformers import get_linear_schedule_with_warmup

from audioclf.config import TrainConfig
from audioclf.interrupt import Interrupt
from audioclf.loaders import make_loader, prefetch
from audioclf.models.classifier import build_classifier
from audioclf.models.frontend import min_samples
from audioclf.models.losses import build_loss
from audioclf.optimizer import build_optimizer
from audioclf.run import Run
from audioclf.sampling import LengthBucketSampler, Share
from audioclf.training import _epoch

LABELS = ["a", "b", "c"]
CPU = torch.device("cpu")
CONFIG = tiny_config(
    conv_dim=(4, 4),
    conv_kernel=(10, 3),
    conv_stride=(5, 2),
    hidden_size=8,
    num_hidden_layers=1,
    intermediate_size=8,
    num_conv_pos_embeddings=4,
    classifier_proj_size=4,
    initializer_range=0.3,
)


class Clips:
    """Clips of different lengths in memory, which note what the loop asked for; `soft` ones have shares of classes."""

    def __init__(self, num_clips: int, rng: np.random.Generator, soft: bool = False) -> None:
        self.lengths = rng.integers(min_samples(CONFIG), 200, num_clips)
        self.waveforms = [rng.standard_normal(length).astype(np.float32) for length in self.lengths]
        self.labels = rng.integers(len(LABELS), size=num_clips)
        if soft:
            self.labels = rng.dirichlet([0.5] * len(LABELS), num_clips)
        self.names = [str(index) for index in range(num_clips)]
        self.seen = []

    def __len__(self) -> int:
        return len(self.waveforms)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        self.seen.append(key)
        index, _ = key
        return {"waveform": self.waveforms[index], "label": self.labels[index], "index": index}


class Recorder:
    """Stands where the run's reporter would: keeps the steps."""

    def __init__(self) -> None:
        self.steps = []

    def step(self, **row) -> None:
        self.steps.append(row)

    def advance(self) -> None: ...


def collate(items: list[dict]) -> dict:
    batch = waveform_collator(do_normalize=False, config=CONFIG)(items)
    return {**batch, "input_values": batch["input_values"].double()}


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_classifier(CONFIG, "mean", LABELS).double()


def ours(clips: Clips, config: TrainConfig, weights: torch.Tensor) -> tuple[list[dict], torch.nn.Module]:
    trained, recorder = model(), Recorder()
    options = {"seed": 0, "num_workers": 0, "pin_memory": False, "balanced": config.balanced_sampling}
    options["share"] = Share(window=config.gradient_accumulation_steps)
    loader = make_loader(clips, collate, batch_size=config.batch_size, **options)
    run = Run(
        config=config,
        device=CPU,
        precision="fp32",
        model=trained,
        loss=build_loss("auto", CONFIG),
        train_loss=build_loss("auto", CONFIG),
        metric="accuracy",
        class_weights=weights,
        optimizer=build_optimizer(trained, config, CPU),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        loaders={"train": loader},
        num_steps=config.num_epochs * loader.batch_sampler.num_windows(1),
        reporter=recorder,
        output_dir=Path("nothing is saved"),
        extractor=None,
        metadata={},
        notes=(),
    )
    for _ in range(config.num_epochs):
        _epoch(run, prefetch(loader), Interrupt())
        run.state.next_epoch()
    assert run.state.step == run.num_steps
    return recorder.steps, trained


def one_big_batch(clips: Clips, config: TrainConfig, weights: torch.Tensor) -> tuple[list[dict], torch.nn.Module]:
    """The same order of clips, each step one padded batch; torch's own weighted mean, transformers' schedule."""
    trained = model()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=config.learning_rate, weight_decay=0.0)
    classes = clips.labels if config.balanced_sampling else None
    sampler = LengthBucketSampler(clips.lengths, config.batch_size, seed=0, classes=classes)
    size = config.batch_size * config.gradient_accumulation_steps
    num_steps = config.num_epochs * -(-len(clips) // size)
    schedule = get_linear_schedule_with_warmup(optimizer, int(np.ceil(0.1 * num_steps)), num_steps)
    steps = []
    for epoch in range(1, config.num_epochs + 1):
        sampler.set_epoch(epoch)
        order = [index for batch in sampler for index, _ in batch]
        for members in (order[i : i + size] for i in range(0, len(order), size)):
            waveforms = [torch.from_numpy(clips.waveforms[index]).double() for index in members]
            lengths = torch.tensor([len(waveform) for waveform in waveforms])
            values = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
            mask = (torch.arange(values.shape[1]) < lengths[:, None]).long()
            labels = torch.from_numpy(clips.labels[members])
            losses = torch.nn.functional.cross_entropy(trained(values, mask), labels, reduction="none")
            of_clips = labels @ weights if labels.ndim == 2 else weights[labels]
            loss = (of_clips * losses).sum() / of_clips.sum()
            loss.backward()
            grad_norm = torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0).item()
            rate = schedule.get_last_lr()[-1]
            steps.append({"loss": loss.item(), "grad_norm": grad_norm, "learning_rate": rate})
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return steps, trained


def check(accumulation, num_clips, batch_size, weighted, soft, num_epochs, data_seed, balanced=False):
    """Trains by both and compares all; the last micro-batch and the last window may be short."""
    rng = np.random.default_rng(data_seed)
    clips = Clips(num_clips, rng, soft)
    weights = torch.from_numpy(rng.uniform(0.1, 10.0, 3)) if weighted else torch.ones(3, dtype=torch.float64)
    config = TrainConfig(
        batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        num_epochs=num_epochs,
        learning_rate=1e-2,
        logging_steps=1,
        balanced_sampling=balanced,
    )
    steps, trained = ours(clips, config, weights)
    expected_steps, expected = one_big_batch(clips, config, weights)
    if not config.balanced_sampling:
        assert sorted(clips.seen) == [(i, epoch) for i in range(len(clips)) for epoch in range(1, num_epochs + 1)]
    assert [row["step"] for row in steps] == list(range(1, len(expected_steps) + 1))
    for row, reference in zip(steps, expected_steps, strict=True):
        for name, value in reference.items():
            assert abs(row[name] - value) <= 1e-6 * max(1.0, abs(value)), (name, row["step"])
    for (name, value), reference in zip(trained.state_dict().items(), expected.state_dict().values(), strict=True):
        assert (value - reference).abs().max() <= 1e-6, name


generated = given(
    accumulation=st.integers(1, 16),
    num_clips=st.integers(1, 80),
    batch_size=st.integers(1, 4),
    weighted=st.booleans(),
    soft=st.booleans(),
    num_epochs=st.integers(1, 2),
    data_seed=st.integers(0, 2**31),
)


@seed(0)
@settings(max_examples=10, deadline=None, database=None)
@generated
def test_any_accumulation_equals_one_big_batch(**case):
    check(**case)


def test_any_accumulation_equals_one_big_batch_with_balanced_sampling():
    for accumulation, num_clips, batch_size in ((1, 23, 4), (3, 23, 4), (5, 14, 1), (16, 30, 2)):
        case = {"weighted": True, "soft": False, "num_epochs": 2, "data_seed": num_clips, "balanced": True}
        check(accumulation, num_clips, batch_size, **case)


@pytest.mark.slow
@seed(1)
@settings(max_examples=200, deadline=None, database=None)
@generated
def test_200_accumulations_equal_one_big_batch(**case):
    check(**case)
