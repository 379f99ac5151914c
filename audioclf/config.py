"""`TrainConfig`: every option of a training run, documented and checked at the door."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from .checks import check_choice, check_int, check_number, nearest
from .errors import ConfigError
from .recipes import options_of

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Device = Literal["auto", "cuda", "mps", "cpu"]
LrSchedule = Literal["linear", "cosine", "constant"]
Frontend = Literal["auto", "fast", "reference"]
Freeze = Literal["none", "feature_encoder", "backbone"]
Augmentations = Literal[
    "none", "light", "strong", "gain", "polarity", "shift", "speed", "noise", "coloured_noise", "reverb", "lowpass",
    "highpass", "phone", "codec", "time_mask", "frequency_mask", "mixup",
]  # fmt: skip
BadAudio = Literal["auto", "skip", "error"]
Nonfinite = Literal["error", "skip"]
HEADS = ("mean", "attention", "mix", "multihead", "mlp")
"""Names of the heads; what they are: `audioclf.models.heads`."""
Metric = Literal[
    "auto", "accuracy", "uar", "macro_f1", "top5_accuracy", "auroc", "eer", "map", "map_micro", "lwlrap", "micro_f1",
    "loss",
]  # fmt: skip
ClassWeights = Literal["balanced"] | dict[str, float] | None


def default_cache_dir() -> Path:
    """Where decoded audio and fetched archives are kept when `cache_dir` is not given."""
    return Path.home() / ".cache" / "audioclf"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Options of `audioclf.train`; the defaults are the course recipe.

    The effective batch, the clips behind one optimizer step, is `batch_size * gradient_accumulation_steps`,
    times the processes of a job.

    Raises:
        ConfigError: for a value that is out of range, or an option that would have no effect.
    """

    output_dir: str = "audioclf_output"
    """Folder for checkpoints, history and TensorBoard; refused when not empty, without `resume` or `overwrite`."""

    resume: bool = False
    """Go on, bit by bit as if never interrupted, from the last checkpoint in `output_dir`; without one, start."""

    overwrite: bool = False
    """Delete what an earlier run left in `output_dir`."""

    model: Any = "ntu-spml/distilhubert"
    """Encoder: a short name (hubert-base), a hub id, a folder, or a config.json (or config object): random weights."""

    head: Any = "mean"
    """`mean`, `attention`, `mix`, `multihead`, `mlp`, or (in Python) a callable that builds one from a config."""

    loss: Any = "auto"
    """Cross entropy (`auto`), or (in Python) a callable that builds a loss of one value a clip from the config."""

    class_weights: ClassWeights = None
    """Weight of each class (multi-label: of clips with it) in the loss: `balanced`, the same say; or one a label."""

    balanced_sampling: bool = False
    """Draw each class equally often: an epoch has as many clips as ever, those of rare classes several times."""

    num_epochs: int = 10
    """Passes over the training clips."""

    steps_per_epoch: int | None = None
    """Read train as a stream, decoded as it comes, and call so many steps an epoch; if not given, it is a pass."""

    batch_size: int = 8
    """Clips in one forward pass (the micro-batch) of one device."""

    eval_batch_size: int | None = None
    """Clips in one forward pass of evaluation; `batch_size` when not given."""

    max_batch_seconds: float | None = None
    """Seconds of audio in one forward pass, with padding; batches of long clips then hold fewer than `batch_size`."""

    learning_rate: float = 5e-5
    """Peak learning rate of AdamW."""

    head_learning_rate: float | None = None
    """Peak learning rate of the head; `learning_rate` when not given."""

    warmup_ratio: float = 0.1
    """Share of all steps over which the learning rate rises from 0, in [0, 1]."""

    lr_schedule: LrSchedule = "linear"
    """Course of the learning rate after the warm-up."""

    weight_decay: float = 0.0
    """AdamW's decoupled weight decay; biases and norm weights are never decayed."""

    gradient_accumulation_steps: int = 1
    """Micro-batches behind one optimizer step; the result equals that of one big batch."""

    max_grad_norm: float = 1.0
    """Gradients are scaled down to at most this L2 norm."""

    precision: Precision = "auto"
    """Arithmetic of the forward pass; auto: fp16 on CUDA, bf16 on a CPU with fast bf16, else fp32."""

    device: Device = "auto"
    """Where to compute; auto takes CUDA, then Apple's MPS, then the CPU."""

    frontend: Frontend = "auto"
    """Form of the convolutions, with equal results: transformers' own (reference), fast, or the faster one (auto)."""

    freeze: Freeze = "none"
    """Part of the encoder that is not trained: nothing, its waveform CNN, or all of it."""

    lora_rank: int | None = None
    """Train additions of this rank to the encoder's layers, not its weights (LoRA, extra `lora`); merged in `best`."""

    dropout: float | None = None
    """Rate of every dropout within the encoder, in [0, 1); those of its config when not given."""

    cache_features: bool | None = None
    """Compute what a frozen encoder gives once a clip and keep it on disk; when not given: wherever it can be done."""

    max_seconds: float = 30.0
    """Longer clips are cut to this many seconds: their start, or a random crop with `random_crop`."""

    chunk_seconds: float | None = None
    """Train on pieces of this length, and score a clip by the mean of their probabilities; whole if not given."""

    random_crop: bool = False
    """Train on random crops of clips longer than `max_seconds` (or pieces, `chunk_seconds`), drawn anew each epoch."""

    augment: str | tuple[str, ...] = "none"
    """Changes drawn anew for each clip and epoch: light, strong, or names and callables (docs/augmentation.md)."""

    valid_fraction: float = 0.1
    """Share of the training clips held out for validation when the data has no valid part."""

    metric_for_best: Metric = "auto"
    """Validation metric that chooses the best checkpoint; auto: the usual one of the data, else accuracy or map."""

    calibrate: bool = False
    """Divide the best checkpoint's logits by the temperature that validation asks for, in the head's weights."""

    patience: int | None = None
    """Stop after this many epochs in a row without a better validation metric."""

    seed: int = 42
    """Seed of the new head, dropout, order, crops and the validation cut."""

    deterministic: bool = False
    """Allow only algorithms that give the same bits every time: needed on CUDA (slower), while a CPU does so anyway."""

    num_workers: int = 0
    """Processes that prepare batches; decoded audio is memory-mapped, so 0 is usually as fast."""

    logging_steps: int = 5
    """Optimizer steps between two rows of the history."""

    save_steps: int | None = None
    """Optimizer steps between two checkpoints from which to resume; besides, there is one after every epoch."""

    save_total_limit: int = 2
    """Checkpoints of each kind that are kept while a run lasts: the latest, and those before it in case of damage."""

    max_memory_gb: float | None = None
    """Memory a run may use, in GB (10^9 bytes): of the GPU's, or of the process on Linux; all there is if not given."""

    bad_audio: BadAudio = "auto"
    """Unreadable clips: set aside and named (skip), stop (error), or skip up to 1 % of them and stop above (auto)."""

    nonfinite: Nonfinite = "error"
    """A loss or gradient that is NaN or infinite: stop and name the clips (error), or leave out the step (skip)."""

    report: bool = True
    """Write report.html, with the worst mistakes to listen to, and a model card for the best checkpoint at the end."""

    push_to_hub: str | None = None
    """Repository (user/name) of the Hugging Face hub that the best checkpoint and its card go to at the end."""

    hub_private: bool = False
    """Let only its owner see the repository that `push_to_hub` makes."""

    cache_dir: str | None = None
    """Folder for decoded audio, features and fetched archives; ~/.cache/audioclf when not given."""

    max_cache_gb: float | None = None
    """Decoded audio of the data kept on disk, in GB; clips beyond it are decoded each time; no limit if not given."""

    progress: bool = True
    """Show progress and results on the terminal."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        object.__setattr__(self, "augment", _checked_augment(self.augment))
        for name in ("output_dir", "cache_dir", "model"):
            if isinstance(getattr(self, name), Path):
                object.__setattr__(self, name, str(getattr(self, name)))
        self._check_values()
        self._check_combinations()

    def _check_values(self) -> None:
        """Each option by itself."""
        for name in (
            *("resume", "overwrite", "random_crop", "deterministic", "progress"),
            *("balanced_sampling", "calibrate", "report", "hub_private"),
        ):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name}={getattr(self, name)!r} must be True or False.")
        for name, value in (("output_dir", self.output_dir), ("cache_dir", self.cache_dir or "")):
            if not isinstance(value, str):
                raise ConfigError(f"{name}={value!r} must be the path of a folder.")
        if not isinstance(self.model, str) and not hasattr(self.model, "model_type"):
            raise ConfigError(f"model={self.model!r} is no hub id, folder, config.json or transformers config.")
        if self.cache_features not in (None, True, False):
            raise ConfigError(f"cache_features={self.cache_features!r} must be True or False, or left out.")
        for name in ("num_epochs", "batch_size", "gradient_accumulation_steps", "logging_steps", "save_total_limit"):
            check_int(name, getattr(self, name), minimum=1)
        for name in ("steps_per_epoch", "eval_batch_size", "patience", "save_steps", "lora_rank"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), minimum=1)
        check_int("num_workers", self.num_workers, minimum=0)
        check_int("seed", self.seed, minimum=0, maximum=2**32 - 1)
        for name in ("learning_rate", "max_grad_norm", "max_seconds"):
            check_number(name, getattr(self, name), above=0)
        for name in ("head_learning_rate", "max_batch_seconds", "chunk_seconds", "max_memory_gb"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), above=0)
        if self.max_cache_gb is not None:
            check_number("max_cache_gb", self.max_cache_gb, minimum=0)
        if self.dropout is not None:
            check_number("dropout", self.dropout, minimum=0, below=1)
        check_number("weight_decay", self.weight_decay, minimum=0)
        check_number("warmup_ratio", self.warmup_ratio, minimum=0, maximum=1)
        check_number("valid_fraction", self.valid_fraction, above=0, below=1)
        _check_named_or_callable("head", self.head, HEADS)
        _check_named_or_callable("loss", self.loss, ("auto",))
        _check_class_weights(self.class_weights)
        if not self.output_dir:
            raise ConfigError("output_dir is empty: name a folder for the results.")

    def _check_combinations(self) -> None:
        """Options that would have no effect, or undo each other."""
        if self.cache_features and self.freeze == "none":
            raise ConfigError(
                "cache_features=True keeps what a frozen encoder gives, but with freeze='none' all of it is trained: "
                "set freeze='feature_encoder' or 'backbone', or leave cache_features out."
            )
        for name, plain in (("random_crop", False), ("augment", "none")):
            if self.cache_features and getattr(self, name) != plain:
                raise ConfigError(
                    f"cache_features=True keeps one array a clip, but {name} changes the clip in every epoch: choose "
                    "one of them."
                )
        if self.steps_per_epoch is not None:
            self._check_streamed()
        if self.chunk_seconds is not None and self.chunk_seconds >= self.max_seconds:
            raise ConfigError(
                f"chunk_seconds={self.chunk_seconds:g} cuts no clip, as none is longer than max_seconds="
                f"{self.max_seconds:g}: give shorter pieces, a larger max_seconds, or leave it out."
            )
        for name in ("dropout", "lora_rank"):
            if getattr(self, name) is not None and self.freeze == "backbone":
                raise ConfigError(
                    f"{name}={getattr(self, name)} is about training the encoder, all of which freeze='backbone' "
                    "freezes: leave one of the two out."
                )
        if self.balanced_sampling and self.class_weights == "balanced":
            raise ConfigError(
                "class_weights='balanced' and balanced_sampling=True both make up for rare classes, and would do so "
                "twice: choose one of them."
            )
        if self.hub_private and self.push_to_hub is None:
            raise ConfigError("hub_private is about the repository that push_to_hub names: give that too, or neither.")
        if self.resume and self.overwrite:
            raise ConfigError("resume=True goes on with the run that overwrite=True would delete: choose one of them.")

    def _check_streamed(self) -> None:
        """What needs all clips at hand, which a stream does not have."""
        steps = (self.augment,) if isinstance(self.augment, str) else self.augment
        for name, is_set, instead in (
            ("chunk_seconds", self.chunk_seconds is not None, "max_seconds with random_crop=True, for a piece of each"),
            ("balanced_sampling", self.balanced_sampling, "class_weights"),
            ("cache_features", self.cache_features is True, "freeze alone"),
            ("mixup in augment", "mixup" in steps, "other augmentation"),
        ):
            if is_set:
                raise ConfigError(
                    f"{name} needs all training clips at hand, and steps_per_epoch reads them as they come: leave one "
                    f"of the two out (and take {instead})."
                )

    @classmethod
    def from_overrides(cls, config: "TrainConfig | None", overrides: dict[str, Any]) -> "TrainConfig":
        """`config` (or the defaults) with some options replaced, those of a `recipe` first.

        Raises:
            ConfigError: for an unknown option, with the nearest known name.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for name in overrides:
            if name not in (*names, "recipe"):
                raise ConfigError(f"There is no option {name!r}{nearest(name, names)}")
        changes = {**options_of(overrides.get("recipe", "course")), **overrides}
        changes.pop("recipe", None)
        return dataclasses.replace(config or cls(), **changes)

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form; a callable or a config object is given by its name."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


_CHOICES: dict[str, tuple[str, ...]] = {
    "lr_schedule": get_args(LrSchedule),
    "precision": get_args(Precision),
    "device": get_args(Device),
    "frontend": get_args(Frontend),
    "freeze": get_args(Freeze),
    "metric_for_best": get_args(Metric),
    "bad_audio": get_args(BadAudio),
    "nonfinite": get_args(Nonfinite),
}


def _check_named_or_callable(name: str, value: str | Callable, choices: tuple[str, ...]) -> None:
    if not callable(value):
        check_choice(name, value, choices)


def _check_class_weights(value: Any) -> None:
    """Labels are compared with those of the data once it is loaded."""
    if value is None or isinstance(value, dict):
        for label, weight in (value or {}).items():
            check_number(f"class_weights[{label!r}]", weight, above=0)
    else:
        check_choice("class_weights", value, ("balanced",))


def _checked_augment(value: Any) -> Any:
    """One name as a string, whether in a list or not; else a tuple of names and callables."""
    steps = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    for step in steps:
        if not callable(step):
            check_choice("augment", step, get_args(Augmentations))
        if steps.count(step) > 1:
            raise ConfigError(f"augment has {step!r} twice: leave it in one place.")
    if not steps or ("none" in steps and len(steps) > 1):
        raise ConfigError(f"augment={value!r} must be 'none' alone, or name what is to change.")
    return steps[0] if len(steps) == 1 and isinstance(steps[0], str) else steps


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float, bool, dict)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.repr]
        return f"{type(value).__qualname__}({', '.join(f'{name}={_plain(getattr(value, name))!r}' for name in fields)})"
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
