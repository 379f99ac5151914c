"""Checkpoints as Hugging Face folders: config.json, model.safetensors, preprocessor_config.json, audioclf.json."""

import copy
import json
import warnings
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import save_file
from torch import Tensor
from transformers import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING, PretrainedConfig, SequenceFeatureExtractor

from .checkpoint import write_file
from .distributed import on_first
from .errors import CheckpointError
from .models.backbone import backbone_of
from .models.classifier import AudioClassifier
from .models.hf import AudioclfForAudioClassification
from .models.loading import AudioclfConfig
from .models.lora import plain_state

METADATA_FILE = "audioclf.json"


def save_pretrained(
    classifier: AudioClassifier, extractor: SequenceFeatureExtractor, folder: Path, metadata: dict[str, Any]
) -> None:
    """Writes the files that `audioclf.load` opens, and `transformers.pipeline` too.

    With head `mean` it is what transformers' own class would save; with another, `audioclf.register()` is needed
    first there.

    Args:
        folder: An empty folder.
        metadata: What goes into audioclf.json.
    """
    config, state = _transformers_form(classifier)
    config.save_pretrained(folder)
    state = {key: value.contiguous() for key, value in state.items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    extractor.save_pretrained(folder)
    (folder / METADATA_FILE).write_text(to_json(metadata), encoding="utf-8")


def read_metadata(checkpoint: str) -> dict[str, Any]:
    """The audioclf.json of a checkpoint, a folder or a hub id; empty for one that is not ours."""
    path = Path(checkpoint) / METADATA_FILE
    if not Path(checkpoint).is_dir():
        try:
            path = Path(hf_hub_download(checkpoint, METADATA_FILE))
        except LocalEntryNotFoundError:
            warnings.warn(
                f"{checkpoint!r}: without the hub it cannot be told whether it has an {METADATA_FILE}, which would say "
                "how long its clips were and which thresholds it has; transformers' view of it is used.",
                stacklevel=2,
            )
            return {}
        except EntryNotFoundError:
            return {}
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def keep_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a file of results, whole or not at all. For all processes of a job.

    Raises:
        CheckpointError: when it cannot be written.
    """
    try:
        on_first(write_file, path, to_json(content))
    except OSError as error:
        raise CheckpointError(
            f"{str(path)!r} cannot be written ({error.strerror or error}): free some space and go on with resume=True."
        ) from error


def to_json(content: dict[str, Any]) -> str:
    """Readable JSON of a file; half a character, as file names may hold, is escaped."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _transformers_form(classifier: AudioClassifier) -> tuple[PretrainedConfig, dict[str, Tensor]]:
    """Config and tensors under the names of the class that opens them in transformers; none is copied without need."""
    if classifier.head_name == "mean":
        # Looked up, not built: building a model draws random numbers, which would change the run that saves it.
        known = MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING[type(classifier.config)]
        config, architecture = copy.deepcopy(classifier.config), known.__name__
        backbone, head = f"{backbone_of(config).encoder_name or known.base_model_prefix}.", ""
    else:
        architecture = AudioclfForAudioClassification.__name__
        config = AudioclfConfig(
            encoder=classifier.config.to_dict(),
            head=classifier.head_name,
            id2label=classifier.config.id2label,
            label2id=classifier.config.label2id,
            problem_type=classifier.config.problem_type,
        )
        backbone, head = "backbone.", "head."
    config.architectures = [architecture]
    state = {backbone + key: value for key, value in plain_state(classifier.backbone).items()}
    return config, state | {head + key: value for key, value in classifier.head.state_dict().items()}
