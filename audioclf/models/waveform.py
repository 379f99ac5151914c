"""Encoders of waveforms: HuBERT, wav2vec2, WavLM, UniSpeech, data2vec-audio and the conformer.

A waveform CNN, a feature projection, and a transformer whose layers see a clip's own frames only.

Shapes: B batch, T samples, F frames, D hidden, K channels of the CNN, L layers.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, Wav2Vec2FeatureExtractor
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices

from ..config import Frontend
from .frontend import encode_waveform, min_samples, num_frames

VARIANCE_FLOOR = 1e-7


def prepare(waveform: np.ndarray, extractor: Wav2Vec2FeatureExtractor, config: PretrainedConfig) -> np.ndarray:
    """What the encoder takes for one waveform (T,): normalised if the checkpoint says so, and long enough for a frame.

    Zeros that extend a short clip count as its own.
    """
    if extractor.do_normalize:
        waveform = normalise(waveform)
    missing = min_samples(config) - len(waveform)
    return np.pad(waveform, (0, missing)) if missing > 0 else waveform


def normalise(waveform: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance (T,); silence stays zero.

    Source: `transformers.Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm`.
    """
    return (waveform - waveform.mean()) / np.sqrt(waveform.var() + VARIANCE_FLOOR)


def encode(
    encoder: nn.Module, input_values: Tensor, attention_mask: Tensor | None, frontend: Frontend = "auto"
) -> tuple[list[Tensor], Tensor]:
    """Frames and mask, as `models.backbone.encode` gives them, of waveforms (B, T)."""
    num_samples = None if attention_mask is None else attention_mask.sum(dim=1)
    features = encode_waveform(encoder.feature_extractor, input_values, num_samples, frontend)
    return encode_features(encoder, features, None if num_samples is None else num_frames(num_samples, encoder.config))


def encode_features(encoder: nn.Module, features: Tensor, lengths: Tensor | None) -> tuple[list[Tensor], Tensor]:
    """Runs what follows the waveform CNN, on its frames (B, F, K).

    Args:
        encoder: As transformers builds it.
        features: What `encode_waveform` gives.
        lengths: Each clip's own frames (B,), on any device; None when there are no others.

    Returns:
        Frames and mask as `encode` gives them.
    """
    mask = frame_mask(features, lengths)
    device_mask = mask.to(features.device, non_blocking=True)
    hidden = encoder.feature_projection(features)
    # HuBERT's projection returns its output, that of the other families a pair.
    hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    hidden = _spec_augment(encoder, hidden, mask)
    return _run(encoder.encoder, hidden, None if lengths is None else device_mask), device_mask


def frame_mask(frames: Tensor, lengths: Tensor | None) -> Tensor:
    """Mask (B, F) bool of each clip's own frames in (B, F, ...), on the device of the lengths (else on the CPU)."""
    if lengths is None:
        return torch.ones(frames.shape[:2], dtype=torch.bool)
    return torch.arange(frames.shape[1], device=lengths.device) < lengths[:, None]


def _spec_augment(encoder: nn.Module, hidden: Tensor, mask: Tensor) -> Tensor:
    """Transformers' SpecAugment on frames (B, F, D), with its draws.

    Its own `_mask_hidden_states` assigns through a mask, for which a GPU's queue must run empty.
    """
    config = encoder.config
    if not (encoder.training and getattr(config, "apply_spec_augment", True)):
        return hidden

    def drawn(axis: str, size: int, own: Tensor | None) -> Tensor:
        prob, length, least = (getattr(config, f"mask_{axis}_{name}") for name in ("prob", "length", "min_masks"))
        indices = _compute_mask_indices((len(hidden), size), prob, length, own, min_masks=least)
        return torch.from_numpy(indices).to(hidden.device, non_blocking=True)

    # What is shorter than a mask has none.
    if config.mask_time_prob > 0 and hidden.shape[1] >= config.mask_time_length:
        masked = drawn("time", hidden.shape[1], mask.long())
        hidden = torch.where(masked[..., None], encoder.masked_spec_embed.to(hidden.dtype), hidden)
    if config.mask_feature_prob > 0:
        hidden = hidden.masked_fill(drawn("feature", hidden.shape[2], None)[:, None], 0.0)
    return hidden


def _run(transformer: nn.Module, hidden: Tensor, mask: Tensor | None) -> list[Tensor]:
    """Every layer's frames, of clips whose own frames are those of the mask (B, F)."""
    # The transformer's own dropout is the last thing before its first layer.
    with contextlib.ExitStack() as stack:
        if mask is not None:
            stack.enter_context(_padding_kept_out(transformer, mask))
        return layer_outputs(
            transformer.dropout,
            transformer.layers,
            lambda: transformer(hidden, attention_mask=mask).last_hidden_state,
        )


def layer_outputs(entry: nn.Module, layers: Sequence[nn.Module], run: Callable[[], Tensor]) -> list[Tensor]:
    """All frames (B, F, D) of a transformer; hooks collect them, so that every family keeps its own forward.

    Args:
        entry: The module whose output enters the first layer.
        layers: The layers.
        run: Runs it all and gives the last output.

    Returns:
        What enters the first layer, what leaves each one, and the last output where it is another.
    """
    outputs: dict[int, Tensor] = {}

    def keep(index: int) -> Any:
        def hook(_module: nn.Module, _args: tuple, output: Any) -> None:
            outputs[index] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [module.register_forward_hook(keep(i)) for i, module in enumerate([entry, *layers])]
    try:
        last = run()
    finally:
        for handle in handles:
            handle.remove()
    frames = [outputs[0]]
    for index in range(1, len(layers) + 1):
        frames.append(outputs.get(index, frames[-1]))  # a layer that LayerDrop skipped passes its input on
    return frames if last is frames[-1] else [*frames, last]


@contextlib.contextmanager
def _padding_kept_out(transformer: nn.Module, mask: Tensor) -> Iterator[None]:
    """Inside, convolutions that follow others see zeros beyond a clip's own frames, as for the clip alone.

    Transformers masks what enters the encoder, but not what data2vec's second positional convolution and the
    convolutions within a conformer's layers read: the frames beside a clip's last one would reach it.
    """
    positional = getattr(getattr(transformer, "pos_conv_embed", None), "layers", ())
    within = [layer.conv_module.depthwise_conv for layer in transformer.layers if hasattr(layer, "conv_module")]
    within = [convolution for convolution in within if convolution.padding != (0,)]  # w2v-BERT's look back only

    def masked(_module: nn.Module, args: tuple) -> tuple:
        return (args[0].masked_fill(~mask[:, None], 0.0),)  # (B, D, F)

    handles = [module.register_forward_pre_hook(masked) for module in (*positional, *within)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
