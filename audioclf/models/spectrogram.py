"""Encoders of spectrograms, which transformers' own feature extractors make: w2v-BERT, AST and Whisper's encoder.

w2v-BERT takes clips of any length. AST and Whisper take a window of one length, filled up with silence: a clip alone
and in a batch are the same to them, and what lies beyond the window they do not hear.

Shapes: B batch, T samples, F frames, M mel bins, D hidden, P patches.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    ASTFeatureExtractor,
    PretrainedConfig,
    SeamlessM4TFeatureExtractor,
    WhisperFeatureExtractor,
)

from ..config import Frontend
from .waveform import encode_features, layer_outputs

FRAME_SAMPLES, HOP_SAMPLES = 400, 160
"""Of the mel frames of w2v-BERT's and AST's feature extractors."""


def prepare_w2v_bert(
    waveform: np.ndarray, extractor: SeamlessM4TFeatureExtractor, config: PretrainedConfig
) -> np.ndarray:
    """Normalised mel frames (F, stride * M) of a waveform (T,); a short one is extended with zeros to one frame."""
    long_enough = _extended(waveform, min_samples_w2v_bert(config, extractor))
    inputs = extractor(long_enough, sampling_rate=extractor.sampling_rate, return_tensors="np")
    # A last frame that only padding completes is masked out in transformers.
    return inputs["input_features"][0, inputs["attention_mask"][0] == 1].astype(np.float32)


def min_samples_w2v_bert(_config: PretrainedConfig, extractor: SeamlessM4TFeatureExtractor) -> int:
    """Samples of one frame, which is so many mel frames."""
    return FRAME_SAMPLES + (extractor.stride - 1) * HOP_SAMPLES


def encode_w2v_bert(
    encoder: nn.Module, input_values: Tensor, attention_mask: Tensor | None, frontend: Frontend = "auto"
) -> tuple[list[Tensor], Tensor]:
    """Frames and mask, as `models.backbone.encode` gives them, of mel frames (B, F, stride * M)."""
    return encode_features(encoder, input_values, None if attention_mask is None else attention_mask.sum(dim=1))


def num_frames_w2v_bert(
    num_samples: Tensor, config: PretrainedConfig, extractor: SeamlessM4TFeatureExtractor
) -> Tensor:
    """Frames (B,) of clips of so many samples (B,)."""
    mel_frames = torch.div(num_samples - FRAME_SAMPLES, HOP_SAMPLES, rounding_mode="floor") + 1
    return torch.div(mel_frames, extractor.stride, rounding_mode="floor")


def prepare_ast(waveform: np.ndarray, extractor: ASTFeatureExtractor, config: PretrainedConfig) -> np.ndarray:
    """Normalised mel spectrogram (max_length, M) of a waveform (T,), which is cut or filled up to that."""
    inputs = extractor(_extended(waveform, FRAME_SAMPLES), sampling_rate=extractor.sampling_rate)
    return np.asarray(inputs["input_values"][0], dtype=np.float32)


def encode_ast(
    encoder: nn.Module, input_values: Tensor, attention_mask: Tensor | None, frontend: Frontend = "auto"
) -> tuple[list[Tensor], Tensor]:
    """Frames and mask of spectrograms (B, max_length, M): two summary tokens, then the patches (B, 2 + P, D)."""
    frames = layer_outputs(encoder.embeddings, encoder.layers, lambda: encoder(input_values).last_hidden_state)
    return frames, _all_own(frames)


def num_frames_ast(num_samples: Tensor, config: PretrainedConfig, extractor: ASTFeatureExtractor) -> Tensor:
    """Tokens (B,), the same for every clip."""
    rows = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
    columns = (config.max_length - config.patch_size) // config.time_stride + 1
    return torch.full_like(num_samples, rows * columns + 2)


def max_seconds_ast(extractor: ASTFeatureExtractor) -> float:
    """What it hears of a clip: 10.255 s of AST on AudioSet, as 1,024 frames of 25 ms begin every 10 ms."""
    return (FRAME_SAMPLES + (extractor.max_length - 1) * HOP_SAMPLES) / extractor.sampling_rate


def prepare_whisper(waveform: np.ndarray, extractor: WhisperFeatureExtractor, config: PretrainedConfig) -> np.ndarray:
    """Log-mel spectrogram (M, 3000) of a waveform (T,), which is cut or filled up to 30 s."""
    return extractor(waveform, sampling_rate=extractor.sampling_rate, return_tensors="np")["input_features"][0]


def encode_whisper(
    encoder: nn.Module, input_values: Tensor, attention_mask: Tensor | None, frontend: Frontend = "auto"
) -> tuple[list[Tensor], Tensor]:
    """Frames and mask of spectrograms (B, M, 3000): 1,500 frames a clip, the silence among them.

    The last layer's come after the final norm, as in transformers' `hidden_states`.
    """
    entered: dict[int, Tensor] = {}

    def keep(index: int) -> Any:
        def hook(_module: nn.Module, args: tuple) -> None:
            entered[index] = args[0]

        return hook

    # There is no module whose output enters the first layer.
    modules = [*encoder.layers, encoder.layer_norm]
    handles = [module.register_forward_pre_hook(keep(index)) for index, module in enumerate(modules)]
    try:
        frames = [encoder(input_values).last_hidden_state]
    finally:
        for handle in handles:
            handle.remove()
    following = entered[len(encoder.layers)]
    for index in reversed(range(len(encoder.layers))):
        following = entered.get(index, following)  # a layer that LayerDrop skipped passes its input on
        frames.insert(0, following)
    return frames, _all_own(frames)


def num_frames_whisper(num_samples: Tensor, config: PretrainedConfig, extractor: WhisperFeatureExtractor) -> Tensor:
    """Frames (B,), the same for every clip."""
    return torch.full_like(num_samples, config.max_source_positions)


def max_seconds_whisper(extractor: WhisperFeatureExtractor) -> float:
    """What it hears of a clip: 30 s."""
    return float(extractor.chunk_length)


def _extended(waveform: np.ndarray, num_samples: int) -> np.ndarray:
    return np.pad(waveform, (0, max(0, num_samples - len(waveform))))


def _all_own(frames: list[Tensor]) -> Any:
    return torch.ones(frames[0].shape[:2], dtype=torch.bool, device=frames[0].device)
