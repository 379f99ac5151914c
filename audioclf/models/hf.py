"""Our checkpoints inside transformers: a config and a model class for heads that transformers does not have.

A checkpoint with head `mean` is a plain `HubertForSequenceClassification` (or its sister) and needs none of this.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForAudioClassification, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from ..errors import CheckpointError
from .backbone import encode
from .heads import HEADS

SINGLE_LABEL, MULTI_LABEL = "single_label_classification", "multi_label_classification"
"""What transformers calls the tasks, as a config's `problem_type`."""


class AudioclfConfig(PretrainedConfig):
    """Config of an encoder (its own config, as a dict) with one of audioclf's heads (its name)."""

    model_type = "audioclf"

    def __init__(self, encoder: dict[str, Any] | None = None, head: str = "attention", **options: Any) -> None:
        self.encoder = encoder or {}
        self.head = head
        super().__init__(**options)

    def encoder_config(self) -> PretrainedConfig:
        """The encoder's config, knowing the labels."""
        config = AutoConfig.for_model(**self.encoder)
        config.id2label, config.label2id = self.id2label, self.label2id
        config.problem_type = self.problem_type
        return config


class AudioclfForAudioClassification(PreTrainedModel):
    """`AudioClassifier` with the interface that transformers' Auto classes and pipeline expect."""

    config_class = AudioclfConfig
    main_input_name = "input_values"
    input_modalities = "audio"
    _supports_sdpa = True

    def __init__(self, config: AudioclfConfig) -> None:
        super().__init__(config)
        if config.head not in HEADS:
            raise CheckpointError(
                f"This checkpoint has a head of its author's own ({config.head}): open it with "
                "audioclf.load(..., head=the callable that builds it)."
            )
        encoder_config = config.encoder_config()
        self.backbone = AutoModel.from_config(encoder_config)
        self.head = HEADS[config.head](encoder_config)
        self.post_init()

    def forward(
        self, input_values: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **_: Any
    ) -> SequenceClassifierOutput:
        """Logits (B, C) of normalised waveforms (B, T), and the mean cross entropy when labels are given.

        Labels are ids (B,), or (B, C) of 0 and 1 in a multi-label task.
        """
        logits, loss = self.head(*encode(self.backbone, input_values, attention_mask)), None
        if labels is not None and self.config.problem_type == MULTI_LABEL:
            loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
        elif labels is not None:
            loss = nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: the encoder and the head come with their weights."""


def register() -> None:
    """Lets transformers' Auto classes and `pipeline` open checkpoints with audioclf's own heads.

    Example:
        >>> import audioclf, transformers
        >>> audioclf.register()
        >>> pipe = transformers.pipeline("audio-classification", model="run/best")  # doctest: +SKIP
    """
    AutoConfig.register("audioclf", AudioclfConfig, exist_ok=True)
    AutoModelForAudioClassification.register(AudioclfConfig, AudioclfForAudioClassification, exist_ok=True)
