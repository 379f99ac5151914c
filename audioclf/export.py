"""Checkpoints as Hugging Face folders: config.json, model.safetensors, preprocessor_config.json, audioclf.json."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForAudioClassification, PretrainedConfig, Wav2Vec2FeatureExtractor

from .models.classifier import AudioClassifier
from .models.hf import AudioclfConfig, AudioclfForAudioClassification

METADATA_FILE = "audioclf.json"


def save_pretrained(
    classifier: AudioClassifier, extractor: Wav2Vec2FeatureExtractor, folder: str | Path, metadata: dict[str, Any]
) -> None:
    """Writes a folder that `audioclf.load` opens, and `transformers.pipeline` too.

    With head `mean` it is what transformers' own class would save; with another, `audioclf.register()` is needed
    first there. The folder is written beside and then put in place of an older one.

    Args:
        metadata: What goes into audioclf.json.
    """
    folder = Path(folder)
    partial, old = folder.with_name(f".{folder.name}.partial"), folder.with_name(f".{folder.name}.old")
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir()
    config, state = _transformers_form(classifier)
    config.save_pretrained(partial)
    state = {key: value.contiguous() for key, value in state.items()}
    save_file(state, partial / "model.safetensors", metadata={"format": "pt"})
    extractor.save_pretrained(partial)
    write_json(partial / METADATA_FILE, metadata)
    if folder.exists():
        os.replace(folder, old)
    os.replace(partial, folder)
    shutil.rmtree(old, ignore_errors=True)


def read_metadata(checkpoint: str) -> dict[str, Any]:
    """The audioclf.json of a checkpoint, a folder or a hub id; empty for one that is not ours."""
    path = Path(checkpoint) / METADATA_FILE
    if not Path(checkpoint).is_dir():
        try:
            path = Path(hf_hub_download(checkpoint, METADATA_FILE))
        except EntryNotFoundError:
            return {}
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes readable JSON in UTF-8."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _transformers_form(classifier: AudioClassifier) -> tuple[PretrainedConfig, dict[str, Tensor]]:
    """Config and tensors under the names of the class that opens them in transformers; nothing is copied."""
    if classifier.head_name == "mean":
        with torch.device("meta"):
            known = AutoModelForAudioClassification.from_config(classifier.config)
        config, architecture = known.config, type(known).__name__
        backbone, head = f"{known.base_model_prefix}.", ""
    else:
        architecture = AudioclfForAudioClassification.__name__
        config = AudioclfConfig(
            encoder=classifier.config.to_dict(),
            head=classifier.head_name,
            id2label=classifier.config.id2label,
            label2id=classifier.config.label2id,
        )
        backbone, head = "backbone.", "head."
    config.architectures = [architecture]
    state = {backbone + key: value for key, value in classifier.backbone.state_dict().items()}
    return config, state | {head + key: value for key, value in classifier.head.state_dict().items()}
