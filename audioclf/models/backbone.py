"""The pretrained encoder: what each family of them needs to be run, so that padding never reaches a clip's own frames.

Shapes: B batch, T samples, F frames, D hidden, L layers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn
from transformers import (
    ASTFeatureExtractor,
    PretrainedConfig,
    SeamlessM4TFeatureExtractor,
    SequenceFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from ..config import Frontend
from . import frontend, spectrogram, waveform
from .heads import MeanHead, SummaryHead

Frames = tuple[list[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """How encoders of one family are run.

    Attributes:
        extractor: Builds the feature extractor of a config, for a checkpoint that comes without; it is also of the
            class that a checkpoint's must have.
        prepare: What the encoder takes for one clip, from its waveform (T,), the feature extractor and the config. The
            first axis is that along which a batch is padded.
        encode: See `encode`.
        num_frames: Frames (B,) of clips of so many samples (B,), with the config and the feature extractor.
        min_samples: Samples of the shortest clip that gives a frame; a shorter one is extended with zeros.
        has_final_norm: Whether the frames end with the output of a norm after the last layer.
        has_cnn: Whether it begins with the waveform CNN, `feature_extractor`, which `freeze` knows.
        max_seconds: What it hears of a clip; None when it hears all.
        head: Transformers' own classification head, called `mean`.
        encoder_name: Where transformers' classifier keeps the encoder; None where its `base_model_prefix` says it.
    """

    extractor: Callable[[PretrainedConfig], SequenceFeatureExtractor]
    prepare: Callable[[np.ndarray, Any, PretrainedConfig], np.ndarray]
    encode: Callable[[nn.Module, Tensor, Tensor | None, Frontend], Frames]
    num_frames: Callable[[Tensor, PretrainedConfig, Any], Tensor]
    min_samples: Callable[[PretrainedConfig, Any], int]
    has_final_norm: Callable[[PretrainedConfig], bool]
    has_cnn: bool = False
    max_seconds: Callable[[Any], float] | None = None
    head: Callable[[PretrainedConfig], nn.Module] = MeanHead
    encoder_name: str | None = None


WAVEFORM = Backbone(
    extractor=lambda _config: Wav2Vec2FeatureExtractor(),  # the course's: 16 kHz, normalised
    prepare=waveform.prepare,
    encode=waveform.encode,
    num_frames=lambda num_samples, config, _extractor: frontend.num_frames(num_samples, config),
    min_samples=lambda config, _extractor: frontend.min_samples(config),
    has_final_norm=lambda config: getattr(config, "do_stable_layer_norm", config.model_type == "wav2vec2-conformer"),
    has_cnn=True,
)
W2V_BERT = Backbone(
    extractor=lambda config: SeamlessM4TFeatureExtractor(
        feature_size=config.feature_projection_input_dim // 2, num_mel_bins=config.feature_projection_input_dim // 2
    ),
    prepare=spectrogram.prepare_w2v_bert,
    encode=spectrogram.encode_w2v_bert,
    num_frames=spectrogram.num_frames_w2v_bert,
    min_samples=spectrogram.min_samples_w2v_bert,
    has_final_norm=lambda _config: False,
)
AST = Backbone(
    extractor=lambda config: ASTFeatureExtractor(num_mel_bins=config.num_mel_bins, max_length=config.max_length),
    prepare=spectrogram.prepare_ast,
    encode=spectrogram.encode_ast,
    num_frames=spectrogram.num_frames_ast,
    min_samples=lambda _config, _extractor: spectrogram.FRAME_SAMPLES,
    has_final_norm=lambda _config: True,
    max_seconds=spectrogram.max_seconds_ast,
    head=SummaryHead,
)
WHISPER = Backbone(
    extractor=lambda config: WhisperFeatureExtractor(
        feature_size=config.num_mel_bins, chunk_length=config.max_source_positions // 50
    ),
    prepare=spectrogram.prepare_whisper,
    encode=spectrogram.encode_whisper,
    num_frames=spectrogram.num_frames_whisper,
    min_samples=lambda _config, _extractor: 1,
    has_final_norm=lambda _config: False,  # it takes the place of the last layer's output
    max_seconds=spectrogram.max_seconds_whisper,
    encoder_name="encoder",
)
BACKBONES: dict[str, Backbone] = {
    **dict.fromkeys(("hubert", "wav2vec2", "wavlm", "unispeech", "unispeech-sat", "data2vec-audio"), WAVEFORM),
    "wav2vec2-conformer": WAVEFORM,
    "wav2vec2-bert": W2V_BERT,
    "audio-spectrogram-transformer": AST,
    "whisper": WHISPER,
}
"""By transformers' `model_type`."""


def backbone_of(config: PretrainedConfig) -> Backbone:
    """The family that a config is of."""
    return BACKBONES[config.model_type]


def encode(
    encoder: nn.Module, input_values: Tensor, attention_mask: Tensor | None, frontend: Frontend = "auto"
) -> Frames:
    """Runs an encoder, each clip as if it were alone.

    Args:
        encoder: As transformers builds it.
        input_values: What `Backbone.prepare` gives for each clip, padded: waveforms (B, T), or spectrograms.
        attention_mask: 1 on a clip's own entries, 0 on the padding at its right (B, T); None when there is none. It
            may stay on the CPU: then nothing waits for the device to tell a clip's length.
        frontend: Form of the waveform CNN, as in `frontend.encode_waveform`; of no concern to other families.

    Returns:
        Frames (B, F, D): transformers' `hidden_states` (what enters the first layer, then what leaves each of the
        L layers), followed by the output of the final norm where the encoder has one, so that the last entry is
        always `last_hidden_state`. And the mask (B, F) bool of a clip's own frames.
    """
    return backbone_of(encoder.config).encode(encoder, input_values, attention_mask, frontend)


def num_outputs(config: PretrainedConfig) -> int:
    """Entries of the frames that `encode` returns."""
    return config.num_hidden_layers + 1 + backbone_of(config).has_final_norm(config)


def lengths_heard(
    config: PretrainedConfig,
    extractor: SequenceFeatureExtractor,
    max_seconds: float | None,
    chunk_seconds: float | None,
) -> dict[str, float | None]:
    """`max_seconds` of a clip and `chunk_seconds` of its pieces, no more than the encoder hears at a time.

    Args:
        config, extractor: The encoder's.
        max_seconds: What is wanted of a clip; None for all.
        chunk_seconds: What is wanted of a piece; None for whole clips.
    """
    heard = backbone_of(config).max_seconds
    limit = float("inf") if heard is None else heard(extractor)
    if chunk_seconds is not None:
        return {"max_seconds": max_seconds, "chunk_seconds": min(chunk_seconds, limit)}
    seconds = min(float("inf") if max_seconds is None else max_seconds, limit)
    return {"max_seconds": None if seconds == float("inf") else seconds, "chunk_seconds": None}
