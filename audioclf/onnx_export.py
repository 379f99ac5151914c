"""A checkpoint as one ONNX file, from raw waveforms to scores, for programs that have no torch.

What `collate` does is in the graph too: a clip is normalised over its own samples and its padding is masked, so that
its scores depend on it alone, as everywhere here.

Shapes: B batch, T samples, F frames, D hidden, C classes.
"""

import io
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .checkpoint import located, write_file
from .errors import CheckpointError, ConfigError
from .evaluation import probabilities
from .inference import Classifier, load
from .models.backbone import BACKBONES, backbone_of
from .models.classifier import AudioClassifier, load_classifier
from .models.loading import load_feature_extractor
from .models.waveform import VARIANCE_FLOOR

OPSET = 18
"""Of ONNX's own operators, the only ones in the graph; onnxruntime knows them since 1.14."""
TOLERANCE = 1e-4
"""By how much a score of onnxruntime may differ from PyTorch's."""
MAX_BYTES = 2**31 - 2**20
"""What a protobuf can hold, less a MiB for all that is not weights."""


class Scores(nn.Module):
    """What the file computes: scores (B, C) of raw waveforms (B, T) and their lengths (B,).

    Args:
        model: An encoder of waveforms with its head.
        do_normalize: Whether the encoder takes waveforms of zero mean and unit variance.
        min_samples: Of the shortest clip that gives a frame.
    """

    def __init__(self, model: AudioClassifier, do_normalize: bool, min_samples: int) -> None:
        super().__init__()
        self.model = model
        self.do_normalize = do_normalize
        self.min_samples = min_samples

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Of each clip its first `lengths` samples are heard; what lies beyond them is not."""
        own = torch.arange(waveforms.shape[1]) < lengths[:, None]
        values = waveforms.masked_fill(~own, 0.0)
        if self.do_normalize:
            count = lengths[:, None].to(values.dtype)
            centred = (values - values.sum(dim=1, keepdim=True) / count).masked_fill(~own, 0.0)
            values = centred / (centred.square().sum(dim=1, keepdim=True) / count + VARIANCE_FLOOR).sqrt()
        # Enough for one frame whatever T is. Zeros that extend a short clip count as its own, as in training.
        values = nn.functional.pad(values, (0, self.min_samples - 1))
        mask = torch.arange(values.shape[1]) < lengths.clamp(min=self.min_samples)[:, None]
        return probabilities(self.model(values, mask.long()), self.model.multi_label)


def export_onnx(checkpoint: str | Path, path: str | Path, *, head: Callable | None = None) -> float:
    """Writes a checkpoint as an ONNX file, after onnxruntime has given PyTorch's scores with it.

    Its inputs are `waveforms` (B, T) float32 at the checkpoint's sampling rate, padded at the right, and `lengths`
    (B,) int64; its output is `scores` (B, C). docs/export.md tells what else it holds.

    Args:
        checkpoint: A folder or a hub id, with an encoder of waveforms.
        path: The file; one that is there is replaced, once the new one is whole.
        head: The callable that builds the head, for a checkpoint trained with one of the user's own.

    Returns:
        The largest difference of a score between onnxruntime and PyTorch, on clips of 1 sample to 3 s of noise, each
        alone and all in one batch.

    Raises:
        CheckpointError: when the checkpoint cannot be loaded or exported, or the file not be written.
        ConfigError: when its encoder takes spectrograms, or the packages are missing.

    Example:
        >>> audioclf.export_onnx("runs/first", "model.onnx")
        2.1e-07
    """
    _require_packages()
    checkpoint = located(checkpoint)
    classifier = load(checkpoint, device="cpu", head=head)
    family = classifier.model.config.model_type
    if not BACKBONES[family].has_cnn:
        known = ", ".join(name for name, backbone in BACKBONES.items() if backbone.has_cnn)
        raise ConfigError(
            f"{checkpoint!r} has an encoder of spectrograms ({family}), which are made outside it by code that "
            f"an ONNX file cannot hold: only encoders of waveforms can be exported ({known})."
        )
    num_bytes = sum(tensor.nbytes for tensor in classifier.model.state_dict().values())
    if num_bytes > MAX_BYTES:
        raise CheckpointError(
            f"{checkpoint!r} has {num_bytes / 2**30:.1f} GiB of weights, but an ONNX file holds 2 GiB at most: "
            "export a smaller encoder."
        )
    try:
        content = _with_metadata(_graph(checkpoint, head), classifier)
        difference = _largest_difference(content, classifier)
    except Exception as error:  # onnxruntime's have no base of their own, and a user's head may raise any
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(f"{checkpoint!r} cannot be exported to ONNX ({reason}).") from error
    if not difference <= TOLERANCE:  # NaN is not
        raise CheckpointError(
            f"{checkpoint!r} cannot be exported to ONNX: scores of onnxruntime differ from PyTorch's by "
            f"{difference:.2g}; a head of your own must do with tensors whatever depends on a batch's size or length."
        )
    try:
        write_file(Path(path).expanduser(), content)
    except OSError as error:
        raise CheckpointError(f"{str(path)!r} cannot be written ({error.strerror or error}).") from error
    return difference


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"An ONNX file needs the package {error.name}: pip install 'audioclf[onnx]'.") from None


def _graph(checkpoint: str, head: Callable | None) -> bytes:
    """The graph, traced from a model that computes in transformers' own forms.

    By torch's exporter that traces: it takes a second, where the one by torch.export spends up to a minute on the
    lengths of the CNN's layers as formulas, for a file that is no better (docs/log.md).
    """
    model = load_classifier(checkpoint, head).eval()
    model.frontend = "reference"
    model.backbone.set_attn_implementation("eager")
    for module in model.backbone.modules():
        if type(module).__name__ == "Wav2Vec2ConformerRelPositionalEmbedding":
            module.forward = MethodType(_relative_positions, module)
    extractor = load_feature_extractor(checkpoint)
    least = backbone_of(model.config).min_samples(model.config, extractor)
    # Two clips, one of them padded: what is special about one clip, or about none padded, would stay in the graph.
    example = (torch.zeros(2, 20 * least), torch.tensor([20 * least, 15 * least]))
    file = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is the older one, and what `_largest_difference` tries
        torch.onnx.export(
            Scores(model, extractor.do_normalize, least).eval(),
            example,
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=["waveforms", "lengths"],
            output_names=["scores"],
            dynamic_axes={"waveforms": {0: "batch", 1: "samples"}, "lengths": {0: "batch"}, "scores": {0: "batch"}},
        )
    return file.getvalue()


def _relative_positions(self: nn.Module, hidden: Tensor) -> Tensor:
    """The conformer's embeddings (1, 2 F - 1, D) of distances F - 1 to 1 - F, from its frames (B, F, D).

    Its own forward cuts them from a table, which would be a constant in the graph and bound the length of a clip.
    """
    num_frames = hidden.shape[1]
    distances = num_frames - 1 - torch.arange(2 * num_frames - 1)
    rates = torch.exp(torch.arange(0, self.d_model, 2) * (-math.log(10_000.0) / self.d_model))
    angles = distances[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None].to(hidden.dtype)


def _with_metadata(content: bytes, classifier: Classifier) -> bytes:
    """The file with what its user must know besides, each entry as JSON; what there is none of is left out."""
    import onnx

    thresholds = None if classifier.thresholds is None else classifier.thresholds.tolist()
    known: dict[str, Any] = {
        "labels": classifier.labels,
        "sampling_rate": classifier.sampling_rate,
        "multi_label": classifier.model.multi_label,
        "thresholds": thresholds,
        "max_seconds": classifier.max_seconds,
        "chunk_seconds": classifier.chunk_seconds,
        "opset": OPSET,
    }
    model = onnx.load_from_string(content)
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in known.items() if value is not None})
    return model.SerializeToString()


def _largest_difference(content: bytes, classifier: Classifier) -> float:
    """Between the scores of onnxruntime and of PyTorch, for clips alone and in one batch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it would write to stderr what it also raises
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    rng, least = np.random.default_rng(0), classifier.min_samples
    lengths = [1, least - 1, least, 2 * least, *(int(s * classifier.sampling_rate) for s in (0.3, 1.1, 3.0))]
    clips = [(0.1 + 0.3 * rng.standard_normal(length)).astype(np.float32) for length in lengths]
    batch = np.zeros((len(clips), max(lengths)), np.float32)
    largest = 0.0
    wanted = []
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
        inputs = classifier.collator([{"waveform": clip, "label": 0, "index": 0}])
        with torch.inference_mode():
            logits = classifier.model(inputs["input_values"], inputs["attention_mask"])
        wanted.append(probabilities(logits, classifier.model.multi_label)[0].numpy())
        (scores,) = session.run(None, {"waveforms": clip[None], "lengths": np.array([len(clip)])})
        largest = np.maximum(largest, np.abs(scores[0] - wanted[-1]).max())
    (scores,) = session.run(None, {"waveforms": batch, "lengths": np.array(lengths)})
    return float(np.maximum(largest, np.abs(scores - wanted).max()))
