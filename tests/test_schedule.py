"""Learning rates step by step against transformers' own schedulers."""

from typing import get_args

import pytest
import torch
from transformers import (
    TrainingArguments,
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from audioclf.config import LrSchedule
from audioclf.schedule import learning_rate_factor, num_warmup_steps

NUM_STEPS = (1, 2, 3, 7, 10, 50, 333)
WARMUPS = (0, 1, 2, 5, 33, 333)


def transformers_rates(schedule: str, num_steps: int, warmup_steps: int) -> list[float]:
    """The rates a Trainer would use for its updates, peak 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    if schedule == "linear":
        scheduler = get_linear_schedule_with_warmup(optimizer, warmup_steps, num_steps)
    elif schedule == "cosine":
        scheduler = get_cosine_schedule_with_warmup(optimizer, warmup_steps, num_steps)
    else:
        scheduler = get_constant_schedule_with_warmup(optimizer, warmup_steps)
    rates = []
    for _ in range(num_steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("schedule", get_args(LrSchedule))
@pytest.mark.parametrize("num_steps", NUM_STEPS)
def test_every_step_equals_transformers(schedule, num_steps):
    for warmup_steps in (warmup for warmup in WARMUPS if warmup <= num_steps):
        rates = [learning_rate_factor(step, num_steps, warmup_steps, schedule) for step in range(num_steps)]
        assert rates == pytest.approx(transformers_rates(schedule, num_steps, warmup_steps), abs=1e-12)
        assert all(0 <= rate <= 1 for rate in rates)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_ends_at_zero_and_stays(schedule):
    for step in (100, 101, 1000):
        assert learning_rate_factor(step, 100, 10, schedule) == pytest.approx(0, abs=1e-12)


def test_constant_stays():
    assert [learning_rate_factor(step, 100, 10, "constant") for step in (10, 99, 100, 5000)] == [1.0] * 4


def test_peak_is_reached_right_after_the_warmup():
    for schedule in get_args(LrSchedule):
        assert learning_rate_factor(0, 100, 10, schedule) == 0
        assert learning_rate_factor(9, 100, 10, schedule) == pytest.approx(0.9)
        assert learning_rate_factor(10, 100, 10, schedule) == 1


@pytest.mark.parametrize("ratio", [0.0, 0.03, 0.1, 0.3, 0.5, 0.99])
def test_warmup_steps_equal_transformers(tmp_path, ratio):
    arguments = TrainingArguments(str(tmp_path), use_cpu=True)
    # Newer releases take a share of the steps in warmup_steps.
    setattr(
        arguments, "warmup_ratio" if getattr(arguments, "warmup_ratio", None) is not None else "warmup_steps", ratio
    )
    for num_steps in (1, 2, 9, 10, 11, 99, 100, 1125, 100_000):
        assert num_warmup_steps(num_steps, ratio) == arguments.get_warmup_steps(num_steps)
        assert num_warmup_steps(num_steps, 1.0) == num_steps
