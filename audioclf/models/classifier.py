"""`AudioClassifier`: an encoder and a head; building it and loading it.

Shapes: B batch, T samples, C classes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForAudioClassification, PretrainedConfig
from transformers.utils import cached_file

from ..config import Freeze, Frontend
from ..errors import CheckpointError, ConfigError
from . import backbone as backbones
from . import frontend_fast
from .attention import use_own_attention
from .backbone import backbone_of
from .dropout import use_gap_dropout
from .frontend import encode_waveform
from .heads import HEADS
from .hf import MULTI_LABEL, SINGLE_LABEL, register
from .loading import (
    AudioclfConfig,
    encoder_config,
    has_weights,
    load_config,
    load_encoder,
    load_pretrained,
    random_encoder,
    set_dropout,
)
from .positional import use_fast_positions
from .waveform import encode_features, frame_mask

HeadBuilder = Callable[[PretrainedConfig], nn.Module]


class AudioClassifier(nn.Module):
    """Logits (B, C) of normalised waveforms (B, T); each clip's depend on that clip alone.

    Args:
        backbone: The encoder; its `config` also holds `num_labels`, `id2label` and `label2id`.
        head: A module `(frames, mask) -> logits`, see `audioclf.models.heads`.
        head_name: One of `HEADS`, or the qualified name of the user's own builder.

    Attributes:
        frontend: Form of the convolutions: `auto`, `fast` or `reference`, which give equal results; see `place`.
        frozen: Part of the encoder that is not trained: `none`, `feature_encoder` or `backbone`; see `freeze`.
    """

    frontend: Frontend = "auto"
    frozen: Freeze = "none"

    def __init__(self, backbone: nn.Module, head: nn.Module, head_name: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.head_name = head_name

    @property
    def config(self) -> PretrainedConfig:
        """The encoder's config, which knows the labels."""
        return self.backbone.config

    @property
    def multi_label(self) -> bool:
        """Whether a clip may have several classes, or none."""
        return self.config.problem_type == MULTI_LABEL

    @property
    def labels(self) -> list[str]:
        """Class names by id."""
        return [self.config.id2label[index] for index in range(self.config.num_labels)]

    def forward(self, input_values: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Logits (B, C) of waveforms (B, T); `attention_mask` (B, T), on any device, may be None without padding."""
        return self.head(*backbones.encode(self.backbone, input_values, attention_mask, self.frontend))

    def train(self, mode: bool = True) -> "AudioClassifier":
        """As in torch, but a frozen encoder is a fixed function: no dropout, no SpecAugment.

        And a conformer's BatchNorms keep the statistics they were pretrained with: with those of a batch its clips
        would change each other's gradients.
        """
        super().train(mode)
        self.frozen_part.eval()
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()
        return self

    @property
    def frozen_part(self) -> nn.Module:
        """The module that `freeze` has frozen; an empty one when it is none."""
        if self.frozen == "feature_encoder":
            return self.backbone.feature_extractor
        return self.backbone if self.frozen == "backbone" else nn.Module()

    @property
    def feature_size(self) -> int:
        """Values of one frame of `features`."""
        if self.frozen == "feature_encoder":
            return self.config.conv_dim[-1]
        return self.config.hidden_size * backbones.num_outputs(self.config)

    def features(self, input_values: Tensor) -> Tensor:
        """What the frozen part gives (B, F, W) for unpadded waveforms (B, T): the CNN's frames, or all layers'."""
        if self.frozen == "feature_encoder":
            return encode_waveform(self.backbone.feature_extractor, input_values, None, self.frontend)
        frames, _ = backbones.encode(self.backbone, input_values, None, self.frontend)
        return torch.cat(frames, dim=-1)

    def from_features(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        """Logits (B, C) of features (B, F, W), of which a clip's own are the first `lengths` (B,), or all."""
        if self.frozen == "feature_encoder":
            return self.head(*encode_features(self.backbone, features, lengths))
        frames = features.split(self.config.hidden_size, dim=-1)
        mask = frame_mask(features, lengths).to(features.device, non_blocking=True)
        return self.head(list(frames), mask)


def build_classifier(
    model: Any,
    head: str | HeadBuilder,
    labels: Sequence[str],
    multi_label: bool = False,
    dropout: float | None = None,
) -> AudioClassifier:
    """An encoder with a head for `labels`, in fp32.

    The head is new, except when `model` is a classification checkpoint with this kind of head and these very labels
    in this order: then training goes on from its head too. Random numbers come from the global torch generator.

    Args:
        model: Hub id, folder, config.json or transformers config, as `TrainConfig.model`.
        head: One of `HEADS` or a callable `config -> nn.Module`.
        labels: Class names; their order gives the ids.
        multi_label: Whether a clip may have several of them, or none.
        dropout: Rate within the encoder, as in `TrainConfig`.

    Raises:
        CheckpointError: when the weights cannot be loaded.
        ConfigError: when the model or the head is not one we can use.
    """
    register()
    config = load_config(model)
    set_dropout(config, dropout)
    if has_weights(model) and _head_of(config) is not None:
        same_labels = [config.id2label.get(index) for index in range(config.num_labels)] == list(labels)
        same_task = (config.problem_type == MULTI_LABEL) == multi_label
        if same_labels and same_task and _head_of(config) == head_name(head):
            return load_classifier(model, head, config)
    if isinstance(config, AudioclfConfig):
        backbone = random_encoder(encoder_config(config))
        state = _own_weights(model).items()
        prefix = "backbone."
        backbone.load_state_dict({key.removeprefix(prefix): value for key, value in state if key.startswith(prefix)})
    elif has_weights(model):
        backbone = load_encoder(model, config)
    else:
        backbone = random_encoder(config)
    backbone.config.id2label = dict(enumerate(labels))
    backbone.config.label2id = {label: index for index, label in enumerate(labels)}
    backbone.config.problem_type = MULTI_LABEL if multi_label else SINGLE_LABEL
    return AudioClassifier(backbone, _new_head(head, backbone.config), head_name(head))


def load_classifier(
    model: str, head: str | HeadBuilder | None = None, config: PretrainedConfig | None = None
) -> AudioClassifier:
    """A classification checkpoint: one of ours, or one that transformers or its Trainer saved.

    Args:
        model: Folder or hub id.
        head: Builds the head, for a checkpoint that was trained with one of the user's own.
        config: The checkpoint's config, where it is to be another than the one that lies there.

    Raises:
        CheckpointError: when it cannot be loaded, is no classification checkpoint, or needs `head`.
    """
    register()
    config = load_config(model) if config is None else config
    name = _head_of(config)
    if config.problem_type == "regression":
        raise CheckpointError(f"{model!r} predicts a number (regression), no class: audioclf only has classifiers.")
    if name is None:
        raise CheckpointError(
            f"{model!r} is no classifier but {' '.join(config.architectures or ['an encoder'])}: "
            "train it first with audioclf.train(..., model=...)."
        )
    if callable(head) and name in (*HEADS, "mean"):
        raise ConfigError(f"{model!r} has the head {name!r}, which needs no callable to build it: leave head out.")
    if not isinstance(config, AudioclfConfig):
        loaded = load_pretrained(AutoModelForAudioClassification, model, config)
        family = backbone_of(config)
        new = family.head(loaded.config)
        state = loaded.state_dict()
        new.load_state_dict({key: state[key] for key in new.state_dict()})
        return AudioClassifier(getattr(loaded, family.encoder_name or loaded.base_model_prefix), new, "mean")
    if name not in HEADS and not callable(head):
        raise CheckpointError(
            f"{model!r} has a head of its author's own ({name}): give the callable that builds it as "
            "audioclf.load(..., head=...)."
        )
    own = encoder_config(config)
    classifier = AudioClassifier(random_encoder(own), _new_head(head if name not in HEADS else name, own), name)
    try:
        classifier.load_state_dict(_own_weights(model))
    except RuntimeError as error:
        raise CheckpointError(f"{model!r}: its weights do not fit the head ({error}).") from error
    return classifier


def head_name(head: str | HeadBuilder) -> str:
    """Name of a head as it stands in a checkpoint: a callable's is its module and qualified name."""
    if isinstance(head, str):
        return head
    return f"{head.__module__}.{getattr(head, '__qualname__', type(head).__qualname__)}"


def freeze(classifier: AudioClassifier, part: Freeze) -> None:
    """Excludes part of the encoder from training: `none`, `feature_encoder` (the waveform CNN) or `backbone`.

    Raises:
        ConfigError: when the encoder has no waveform CNN.
    """
    if part == "feature_encoder" and not backbone_of(classifier.config).has_cnn:
        raise ConfigError(
            "freeze='feature_encoder' freezes the waveform CNN, and a model of the kind "
            f"{classifier.config.model_type!r} has none: use freeze='backbone' or 'none'."
        )
    classifier.frozen = part
    classifier.frozen_part.requires_grad_(False).eval()


def place(classifier: AudioClassifier, device: torch.device, frontend: Frontend = "auto") -> AudioClassifier:
    """Moves a classifier to a device, to compute there in the forms that are fast and equal to transformers' own.

    Args:
        classifier: Anywhere.
        device: Where it is to compute.
        frontend: Form of the convolutions, as in `TrainConfig`.

    Raises:
        ConfigError: when the fast form is asked for and cannot compute this model.
    """
    has_cnn = backbone_of(classifier.config).has_cnn
    if frontend == "fast" and not (has_cnn and frontend_fast.applies(classifier.backbone.feature_extractor)):
        what = "its CNN has unusual kernels or activations" if has_cnn else "it has no waveform CNN"
        raise ConfigError(f"frontend='fast' cannot compute this model: {what}; use frontend='auto'.")
    classifier.frontend = frontend
    use_own_attention(classifier.backbone)
    if device.type == "cpu":
        use_gap_dropout(classifier.backbone)
    if frontend != "reference" and device.type in ("cpu", "cuda"):
        use_fast_positions(classifier.backbone)
    return classifier.to(device)


def _own_weights(model: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint with one of audioclf's heads."""
    try:
        return load_file(cached_file(model, "model.safetensors"))
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{model!r}: its weights cannot be read ({error}).") from error


def _head_of(config: PretrainedConfig) -> str | None:
    """The head a checkpoint holds, or None when it is only an encoder."""
    if isinstance(config, AudioclfConfig):
        return config.head
    classifiers = ("ForSequenceClassification", "ForAudioClassification")
    return "mean" if any(name.endswith(classifiers) for name in config.architectures or []) else None


def _new_head(head: str | HeadBuilder, config: PretrainedConfig) -> nn.Module:
    if callable(head):
        built = head(config)
        if not isinstance(built, nn.Module):
            raise ConfigError(f"The head builder {head_name(head)} gave {type(built).__name__}, not a torch.nn.Module.")
        return built
    built = backbone_of(config).head(config) if head == "mean" else HEADS[head](config)
    std = config.init_std if hasattr(config, "init_std") else config.initializer_range  # the former is Whisper's
    for module in built.modules():
        if isinstance(module, nn.Linear):  # as transformers initialises a new classification head
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)
    return built
