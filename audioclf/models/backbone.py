"""The pretrained encoder: loading it, and running it so that padding never reaches a clip's own frames.

Shapes: B batch, T samples, F frames, D hidden, L layers.
"""

import contextlib
import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, PretrainedConfig, Wav2Vec2FeatureExtractor
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices
from transformers.utils import logging

from ..config import Frontend
from ..errors import CheckpointError, ConfigError
from .frontend import encode_waveform, num_frames

MODEL_TYPES = ("hubert", "wav2vec2", "wavlm", "unispeech", "unispeech-sat")
"""Families with HuBERT's parts: a waveform CNN, a feature projection and a transformer encoder."""


def encode(
    backbone: nn.Module, input_values: Tensor, attention_mask: Tensor | None, frontend: Frontend = "auto"
) -> tuple[list[Tensor], Tensor]:
    """Runs the encoder, each clip as if it were alone.

    Args:
        backbone: The encoder as transformers builds it.
        input_values: Normalised waveforms (B, T).
        attention_mask: 1 on a clip's own samples, 0 on the padding at its right (B, T); None when there is none. It
            may stay on the CPU: then nothing waits for the device to tell a clip's length.
        frontend: Form of the waveform CNN, as in `encode_waveform`.

    Returns:
        Frames (B, F, D): transformers' `hidden_states` (what enters the first layer, then what leaves each of the
        L layers), followed by the output of the final norm where the encoder has one, so that the last entry is
        always `last_hidden_state`. And the mask (B, F) bool of a clip's own frames.
    """
    num_samples = None if attention_mask is None else attention_mask.sum(dim=1)
    features = encode_waveform(backbone.feature_extractor, input_values, num_samples, frontend)
    return encode_features(
        backbone, features, None if num_samples is None else num_frames(num_samples, backbone.config)
    )


def encode_features(backbone: nn.Module, features: Tensor, lengths: Tensor | None) -> tuple[list[Tensor], Tensor]:
    """Runs what follows the waveform CNN, on its frames (B, F, K).

    Args:
        backbone: The encoder as transformers builds it.
        features: What `encode_waveform` gives.
        lengths: Each clip's own frames (B,), on any device; None when there are no others.

    Returns:
        Frames and mask as `encode` gives them.
    """
    mask = frame_mask(features, lengths)
    device_mask = mask.to(features.device, non_blocking=True)
    hidden = backbone.feature_projection(features)
    # HuBERT's projection returns its output, that of the other families a pair.
    hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    hidden = _spec_augment(backbone, hidden, mask)
    return _run_encoder(backbone.encoder, hidden, None if lengths is None else device_mask), device_mask


def _spec_augment(backbone: nn.Module, hidden: Tensor, mask: Tensor) -> Tensor:
    """Transformers' SpecAugment on frames (B, F, D), with its draws.

    Its own `_mask_hidden_states` assigns through a mask, for which a GPU's queue must run empty.
    """
    config = backbone.config
    if not (backbone.training and getattr(config, "apply_spec_augment", True)):
        return hidden

    def drawn(axis: str, size: int, own: Tensor | None) -> Tensor:
        prob, length, least = (getattr(config, f"mask_{axis}_{name}") for name in ("prob", "length", "min_masks"))
        indices = _compute_mask_indices((len(hidden), size), prob, length, own, min_masks=least)
        return torch.from_numpy(indices).to(hidden.device, non_blocking=True)

    # What is shorter than a mask has none.
    if config.mask_time_prob > 0 and hidden.shape[1] >= config.mask_time_length:
        masked = drawn("time", hidden.shape[1], mask.long())
        hidden = torch.where(masked[..., None], backbone.masked_spec_embed.to(hidden.dtype), hidden)
    if config.mask_feature_prob > 0:
        hidden = hidden.masked_fill(drawn("feature", hidden.shape[2], None)[:, None], 0.0)
    return hidden


def frame_mask(frames: Tensor, lengths: Tensor | None) -> Tensor:
    """Mask (B, F) bool of each clip's own frames in (B, F, ...), on the device of the lengths (else on the CPU)."""
    if lengths is None:
        return torch.ones(frames.shape[:2], dtype=torch.bool)
    return torch.arange(frames.shape[1], device=lengths.device) < lengths[:, None]


def _run_encoder(encoder: nn.Module, hidden: Tensor, mask: Tensor | None) -> list[Tensor]:
    """Frames as `encode` returns them; hooks collect them, so that every family keeps its own forward."""
    outputs: dict[int, Tensor] = {}

    def keep(index: int) -> Any:
        def hook(_module: nn.Module, _args: tuple, output: Any) -> None:
            outputs[index] = output[0] if isinstance(output, tuple) else output

        return hook

    # The encoder's own dropout is the last thing before its first layer.
    handles = [encoder.dropout.register_forward_hook(keep(0))]
    handles += [layer.register_forward_hook(keep(i)) for i, layer in enumerate(encoder.layers, start=1)]
    try:
        last = encoder(hidden, attention_mask=mask).last_hidden_state
    finally:
        for handle in handles:
            handle.remove()
    frames = [outputs[0]]
    for index in range(1, len(encoder.layers) + 1):
        frames.append(outputs.get(index, frames[-1]))  # a layer that LayerDrop skipped passes its input on
    return frames if last is frames[-1] else [*frames, last]


def num_outputs(backbone: nn.Module) -> int:
    """Entries of the frames that `encode` returns."""
    # A stable-layer-norm encoder ends in a norm of its own.
    return len(backbone.encoder.layers) + 1 + backbone.config.do_stable_layer_norm


def load_config(model: Any) -> PretrainedConfig:
    """The transformers config of a hub id, a folder, a config.json, or a config object, checked to be one we can run.

    Raises:
        CheckpointError: when it cannot be found or read.
        ConfigError: when it is of another family of models.
    """
    if isinstance(model, str):
        config = _fetch(AutoConfig, _config_file(model) or model, model)
    elif isinstance(model, PretrainedConfig):
        config = copy.deepcopy(model)  # building a model writes into it
    else:
        raise ConfigError(f"model={model!r} is no hub id, folder, config.json or transformers config.")
    encoder_type = (
        getattr(config, "encoder", {}).get("model_type") if config.model_type == "audioclf" else config.model_type
    )
    if encoder_type not in MODEL_TYPES:
        raise ConfigError(
            f"model={str(model)[:200]!r} is a {encoder_type!r} model; audioclf trains encoders of the kinds "
            f"{', '.join(MODEL_TYPES)}."
        )
    if getattr(config, "add_adapter", False):
        raise ConfigError(
            f"model={str(model)[:200]!r} ends in an adapter (add_adapter), which classification cannot use."
        )
    if getattr(config, "conv_pos_batch_norm", False):
        raise ConfigError(
            f"model={str(model)[:200]!r} has a BatchNorm in its positional convolution, which lets the clips of a "
            "batch change each other's scores; audioclf does not train such encoders."
        )
    return config


def load_pretrained(auto_class: Any, model: str, config: PretrainedConfig) -> nn.Module:
    """Weights of a hub id or folder in fp32, never running code that came with them.

    Raises:
        CheckpointError: when they cannot be found or do not fit.
    """
    return _fetch(auto_class, model, model, config=config, dtype=torch.float32)


def random_backbone(config: PretrainedConfig) -> nn.Module:
    """An encoder with random weights from the global torch generator, in fp32."""
    return AutoModel.from_config(config, dtype=torch.float32)


def has_weights(model: Any) -> bool:
    """Whether `model` names pretrained weights (and not merely a shape for random ones)."""
    return isinstance(model, str) and _config_file(model) is None


def load_feature_extractor(model: Any) -> Wav2Vec2FeatureExtractor:
    """The checkpoint's feature extractor; the course's (16 kHz, normalised) when it has none."""
    if has_weights(model):
        try:
            extractor = AutoFeatureExtractor.from_pretrained(model, trust_remote_code=False)
        except (OSError, ValueError) as error:
            if (Path(model) / "preprocessor_config.json").is_file():
                reason = str(error).strip().split("\n")[0]
                raise CheckpointError(f"{model!r}: its preprocessor_config.json cannot be used ({reason}).") from error
            extractor = Wav2Vec2FeatureExtractor()
    else:
        extractor = Wav2Vec2FeatureExtractor()
    if not isinstance(extractor, Wav2Vec2FeatureExtractor):
        raise CheckpointError(f"{model!r}: its feature extractor is {type(extractor).__name__}, not one for waveforms.")
    extractor.return_attention_mask = True
    return extractor


def _config_file(model: str) -> str | None:
    return model if model.endswith(".json") else None


def _fetch(auto_class: Any, source: str, model: str, **options: Any) -> Any:
    """`from_pretrained` with its many failures told in one sentence."""
    local = Path(model).exists()
    if not local and (model.startswith((".", "/", "~")) or model.endswith(".json") or "\\" in model):
        raise CheckpointError(f"model={model!r}: no such folder or file.")
    try:
        with _quiet():
            return auto_class.from_pretrained(source, trust_remote_code=False, **options)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"model={model!r}: its weights are a pickle that holds more than tensors, which could run any code, so it "
            "is not read: save the model as safetensors where you trust it."
        ) from error
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        if local:
            raise CheckpointError(f"model={model!r}: cannot be loaded ({reason}).") from error
        raise CheckpointError(
            f"model={model!r}: there is no such local folder, and the hub gave nothing "
            f"({type(error).__name__}: {reason}). Without a network give a local folder as the model, or try "
            "`python examples/gtzan.py --demo`, which needs no download."
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences transformers' own bars and its report of the head that is new, which is as it should be."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
