"""Our checkpoints inside transformers: a config and a model class for heads that transformers does not have.

A checkpoint with head `mean` is a plain `HubertForSequenceClassification` (or its sister) and needs none of this.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForAudioClassification, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from ..errors import CheckpointError
from .backbone import encode
from .heads import HEADS
from .loading import AudioclfConfig, encoder_config, random_encoder

SINGLE_LABEL, MULTI_LABEL = "single_label_classification", "multi_label_classification"
"""What transformers calls the tasks, as a config's `problem_type`."""


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
        own = encoder_config(config)
        self.backbone = random_encoder(own)
        self.head = HEADS[config.head](own)
        self.post_init()

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        input_features: Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Logits (B, C) of what the feature extractor gives, and the mean cross entropy when labels are given.

        That is called `input_values` (B, T) or, by some extractors of spectrograms, `input_features`. Labels are ids
        (B,), or (B, C) of 0 and 1 in a multi-label task.
        """
        inputs = input_features if input_values is None else input_values
        logits, loss = self.head(*encode(self.backbone, inputs, attention_mask)), None
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
        >>> pipe = transformers.pipeline("audio-classification", model="runs/first/best")
    """
    AutoConfig.register("audioclf", AudioclfConfig, exist_ok=True)
    AutoModelForAudioClassification.register(AudioclfConfig, AudioclfForAudioClassification, exist_ok=True)
