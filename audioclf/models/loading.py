"""Loading encoders and their feature extractors, from the hub or a folder, or a shape for random weights."""

import contextlib
import copy
import hashlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    PretrainedConfig,
    SequenceFeatureExtractor,
    Wav2Vec2FeatureExtractor,
)
from transformers.utils import logging

from ..checks import nearest
from ..errors import CheckpointError, ConfigError
from .backbone import BACKBONES, backbone_of

NAMES = {
    "distilhubert": "ntu-spml/distilhubert",
    "hubert-base": "facebook/hubert-base-ls960",
    "hubert-large": "facebook/hubert-large-ll60k",
    "wav2vec2-base": "facebook/wav2vec2-base",
    "wav2vec2-large": "facebook/wav2vec2-large",
    "xls-r-300m": "facebook/wav2vec2-xls-r-300m",
    "wavlm-base": "microsoft/wavlm-base",
    "wavlm-base-plus": "microsoft/wavlm-base-plus",
    "wavlm-large": "microsoft/wavlm-large",
    "unispeech-sat-base": "microsoft/unispeech-sat-base",
    "unispeech-sat-base-plus": "microsoft/unispeech-sat-base-plus",
    "unispeech-sat-large": "microsoft/unispeech-sat-large",
    "data2vec-audio-base": "facebook/data2vec-audio-base",
    "data2vec-audio-large": "facebook/data2vec-audio-large",
    "wav2vec2-conformer-large": "facebook/wav2vec2-conformer-rel-pos-large",
    "w2v-bert-2.0": "facebook/w2v-bert-2.0",
    "ast": "MIT/ast-finetuned-audioset-10-10-0.4593",
    "whisper-tiny": "openai/whisper-tiny",
    "whisper-base": "openai/whisper-base",
    "whisper-small": "openai/whisper-small",
    "whisper-medium": "openai/whisper-medium",
}
"""Encoders that go by a short name, and their ids on the hub."""


DROPOUTS = (
    *("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "conformer_conv_dropout"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout"),
)
"""What the families call the rates of the dropouts within an encoder; no family has all."""


class AudioclfConfig(PretrainedConfig):
    """Config of an encoder (its own config, as a dict) with one of audioclf's heads (its name)."""

    model_type = "audioclf"

    def __init__(self, encoder: dict[str, Any] | None = None, head: str = "attention", **options: Any) -> None:
        self.encoder = encoder or {}
        self.head = head
        super().__init__(**options)


def encoder_config(config: PretrainedConfig) -> PretrainedConfig:
    """The encoder's own config, knowing the labels, of a checkpoint's."""
    if not isinstance(config, AudioclfConfig):
        return config
    own = AutoConfig.for_model(**config.encoder)
    own.id2label, own.label2id, own.problem_type = config.id2label, config.label2id, config.problem_type
    return own


def resolve(model: Any) -> Any:
    """The hub id that a short name of `NAMES` stands for; a folder of that name goes first, all else is itself."""
    if isinstance(model, str) and not Path(model).exists():
        return NAMES.get(model, model)
    return model


def load_config(model: Any) -> PretrainedConfig:
    """The transformers config of a hub id, a folder, a config.json, or a config object, checked to be one we can run.

    Raises:
        CheckpointError: when it cannot be found or read.
        ConfigError: when it is of another family of models.
    """
    if isinstance(model, str):
        AutoConfig.register(AudioclfConfig.model_type, AudioclfConfig, exist_ok=True)
        config = _fetch(AutoConfig, model, model)
    elif isinstance(model, PretrainedConfig):
        config = copy.deepcopy(model)  # building a model writes into it
    else:
        raise ConfigError(f"model={model!r} is no hub id, folder, config.json or transformers config.")
    family = encoder_config(config).model_type
    if family not in BACKBONES:
        raise ConfigError(
            f"model={str(model)[:200]!r} is a {family!r} model; audioclf trains encoders of the kinds "
            f"{', '.join(BACKBONES)}."
        )
    if getattr(config, "add_adapter", False) or getattr(config, "use_intermediate_ffn_before_adapter", False):
        raise ConfigError(
            f"model={str(model)[:200]!r} ends in an adapter (add_adapter), which classification cannot use."
        )
    if getattr(config, "conv_pos_batch_norm", False):
        raise ConfigError(
            f"model={str(model)[:200]!r} has a BatchNorm in its positional convolution, which lets the clips of a "
            "batch change each other's scores; audioclf does not train such encoders."
        )
    return config


def set_dropout(config: PretrainedConfig, rate: float | None) -> None:
    """Changes the rates in a checkpoint's config, before a model is built from it; None leaves them.

    Raises:
        ConfigError: when encoders of this family have no such thing.
    """
    if rate is None:
        return
    own = encoder_config(config)
    known = [name for name in DROPOUTS if hasattr(own, name)]
    if not known:
        raise ConfigError(f"dropout={rate:g}: a model of the kind {own.model_type!r} has none: leave it out.")
    for name in known:
        if isinstance(config, AudioclfConfig):
            config.encoder[name] = rate
        else:
            setattr(config, name, rate)


def load_pretrained(auto_class: Any, model: str, config: PretrainedConfig) -> nn.Module:
    """Weights of a hub id or folder in fp32, never running code that came with them.

    Raises:
        CheckpointError: when they cannot be found or do not fit.
    """
    return _fetch(auto_class, model, model, config=config, dtype=torch.float32)


def load_encoder(model: str, config: PretrainedConfig) -> nn.Module:
    """The encoder of a hub id or folder, whatever head lies there with it.

    Raises:
        CheckpointError: when its weights cannot be found or do not fit.
    """
    name = backbone_of(config).encoder_name
    if name is None:
        return load_pretrained(AutoModel, model, config)
    return getattr(load_pretrained(AutoModelForAudioClassification, model, config), name)


def random_encoder(config: PretrainedConfig) -> nn.Module:
    """An encoder with random weights from the global torch generator, in fp32."""
    name = backbone_of(config).encoder_name
    if name is None:
        return AutoModel.from_config(config, dtype=torch.float32)
    return getattr(AutoModelForAudioClassification.from_config(config, dtype=torch.float32), name)


def has_weights(model: Any) -> bool:
    """Whether `model` names pretrained weights (and not merely a shape for random ones)."""
    return isinstance(model, str) and not model.endswith(".json")


def load_feature_extractor(model: Any) -> SequenceFeatureExtractor:
    """The checkpoint's feature extractor, or its family's usual one (16 kHz, normalised) when it has none.

    Raises:
        CheckpointError: when it cannot be read, or is not one for this encoder.
    """
    config = encoder_config(load_config(model))
    extractor = usual = backbone_of(config).extractor(config)
    if has_weights(model):
        try:
            extractor = AutoFeatureExtractor.from_pretrained(model, trust_remote_code=False)
        except (OSError, ValueError) as error:
            if (Path(model) / "preprocessor_config.json").is_file():
                reason = str(error).strip().split("\n")[0]
                raise CheckpointError(f"{model!r}: its preprocessor_config.json cannot be used ({reason}).") from error
    if not isinstance(extractor, type(usual)):
        raise CheckpointError(
            f"{model!r}: its feature extractor is {type(extractor).__name__}, but its encoder, {config.model_type}, "
            f"needs {type(usual).__name__}."
        )
    if isinstance(extractor, Wav2Vec2FeatureExtractor):
        extractor.return_attention_mask = True
    return extractor


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
        close = nearest(model, list(NAMES))
        if close != "." and "/" not in model:
            raise CheckpointError(f"model={model!r}: there is no such model or local folder{close}") from error
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


def weights_digest(model: nn.Module) -> str:
    """A text that changes when a weight of a model does, or the name of one."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:24]
