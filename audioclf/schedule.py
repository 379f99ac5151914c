"""The learning-rate schedule, as a pure function of the step."""

import math


def num_warmup_steps(num_steps: int, warmup_ratio: float) -> int:
    """Steps spent warming up: the ratio of all steps, rounded up.

    Source: `transformers.TrainingArguments.get_warmup_steps`.
    """
    return math.ceil(num_steps * warmup_ratio)


def learning_rate_factor(step: int, num_steps: int, warmup_steps: int, schedule: str = "linear") -> float:
    """Factor in [0, 1] on the peak learning rate for the update number `step`, counted from 0.

    It rises linearly from 0 over `warmup_steps` (the very first update therefore has rate 0 when there is a
    warm-up, as in transformers), then follows the schedule: `linear` and `cosine` fall to 0 at `num_steps`,
    `constant` stays at 1.

    Source: `transformers.optimization.get_{linear,cosine,constant}_schedule_with_warmup`.
    """
    if step < warmup_steps:
        return step / warmup_steps
    if schedule == "constant":
        return 1.0
    progress = min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps))
    if schedule == "linear":
        return 1.0 - progress
    return 0.5 * (1.0 + math.cos(math.pi * progress))
