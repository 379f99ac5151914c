"""Features on disk: what a frozen encoder computes is computed once a clip, not once an epoch.

With `freeze="feature_encoder"` they are the frames of the waveform CNN, with `freeze="backbone"` the frames of all
layers. They belong to the whole clip: a crop of them is not what the encoder gives for the cropped clip, whose
GroupNorm sees other samples.

Shapes: B batch, F frames, W values of a frame.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import SequenceFeatureExtractor

from . import cache
from .bad_audio import listing
from .clips import Clips
from .collate import Collator, make_collator
from .config import default_cache_dir
from .errors import AudioclfError, AudioError
from .models.backbone import backbone_of
from .models.classifier import AudioClassifier
from .models.loading import weights_digest
from .runtime import DTYPES, autocast, unchanged_random_state

STORED_AS = {"fp32": np.float32, "fp16": np.float16, "bf16": np.int16}
"""NumPy's type on disk for each precision; it has no bf16, so the bits are kept as they are."""
OTHER_OPTIONS = ("id2label", "label2id", "_name_or_path", "architectures", "transformers_version")
"""Of an encoder's config, what its output does not depend on, besides the rates of dropout."""
MAX_DISK_SHARE = 0.5
"""Share of the free disk that features may take when nobody asked for them."""


@dataclass(frozen=True)
class FeatureClips:
    """Features of one part's clips; a map-style dataset with the keys of `Clips`.

    Attributes:
        clips: The clips they are of, whose names, labels and order they share.
        store: Where the features lie, of all parts.
        positions: Index in the store of each clip.
        num_frames: Frames of each clip, (N,).
        dtype: Their type as a tensor.
    """

    clips: Clips
    store: cache.ArrayStore
    positions: tuple[int, ...]
    num_frames: np.ndarray
    dtype: torch.dtype

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def lengths(self) -> np.ndarray:
        """Samples of each clip, (N,), so that batches are those of the clips themselves."""
        return self.clips.lengths

    @property
    def names(self) -> tuple[str, ...]:
        """What to call each clip in a message."""
        return self.clips.names

    @property
    def labels(self) -> np.ndarray:
        """The clips' labels, as they keep them."""
        return self.clips.labels

    @property
    def whole(self) -> Clips:
        """The whole clips, when these are of pieces, or else the clips."""
        return self.clips.whole

    @property
    def firsts(self) -> np.ndarray | None:
        """Row of each whole clip's first piece, if they are of pieces."""
        return self.clips.firsts

    @property
    def groups(self) -> np.ndarray:
        """Number of each clip's group, (N,)."""
        return self.clips.groups

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        index, _ = key
        values = torch.from_numpy(np.array(self.store.array(self.positions[index]))).view(self.dtype)
        features = values.view(int(self.num_frames[index]), -1)
        return {"features": features, "label": self.labels[index], "index": index}


def collate_features(items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Batch of `features` (B, F, W), zero beyond `num_frames` (B,), with `labels` as in `Clips`, `index` (B,) int64."""
    features = [item["features"] for item in items]
    return {
        "features": nn.utils.rnn.pad_sequence(features, batch_first=True),
        "num_frames": torch.tensor([len(clip) for clip in features]),
        "labels": torch.from_numpy(np.stack([item["label"] for item in items])),
        "index": torch.tensor([item["index"] for item in items]),
    }


def cache_features(
    model: AudioClassifier,
    parts: dict[str, Clips],
    extractor: SequenceFeatureExtractor,
    *,
    precision: str,
    device: torch.device,
    cache_dir: str | None,
    progress: bool,
    at_any_size: bool,
) -> dict[str, FeatureClips] | None:
    """Computes the features of every clip, once and for all later runs with the same frozen encoder.

    Args:
        model: A classifier on its device, part of whose encoder is frozen.
        parts: The decoded clips, not cropped at random.
        extractor: What makes the encoder's inputs of a clip.
        precision: Arithmetic, and the type the features are kept in.
        device: Where the model is.
        cache_dir: Folder of the cache; ~/.cache/audioclf when not given.
        progress: Show a progress bar.
        at_any_size: Whether they may fill more than half of the free disk.

    Returns:
        The features of each part; None when they may not.

    Raises:
        AudioclfError: when the disk is full, the folder cannot be written or a decoded clip cannot be read.
    """
    # In the order of their waveforms, so that another split of the same clips finds the same store.
    rows = {_place(part, index): (part, index) for part in parts.values() for index in range(len(part))}
    clips = sorted(rows.items())
    compute = partial(_features_of, model, make_collator(model.config, extractor), clips, device, precision)
    how = f"{precision} {device.type} {model.frontend} {extractor.to_json_string()}"
    where = {
        "identities": [part.identity(i) for _, (part, i) in clips],
        "recipe": f"v2 {model.frozen} {_hash(model)} {how}",
        "cache_dir": cache_dir or default_cache_dir(),
        "kind": "features",
    }
    num_frames = {name: _num_frames(model, extractor, part) for name, part in parts.items()}
    num_values = sum(int(frames.sum()) for frames in num_frames.values()) * model.feature_size
    if not at_any_size and not _fit(num_values * DTYPES[precision].itemsize, cache.store_folder(**where)):
        return None
    model.eval()
    store = cache.build(
        **where,
        compute=compute,
        names=[part.names[index] for _, (part, index) in clips],
        dtype=STORED_AS[precision],
        num_threads=1,  # the model uses all cores by itself
        progress=progress,
    )
    if store.errors:
        raise AudioError(f"Clips that could be read can be no longer:\n{listing(list(store.errors.values()))}")
    number = {place: row for row, (place, _) in enumerate(clips)}
    return {
        name: FeatureClips(
            part,
            store,
            tuple(number[_place(part, index)] for index in range(len(part))),
            num_frames[name],
            DTYPES[precision],
        )
        for name, part in parts.items()
    }


def _features_of(
    model: AudioClassifier,
    collator: Collator,
    clips: Sequence[tuple[Any, tuple[Clips, int]]],
    device: torch.device,
    precision: str,
    position: int,
) -> np.ndarray:
    """What the frozen encoder gives for one of the clips, (frames, values), as it is stored."""
    _, (part, index) = clips[position]
    try:
        batch = collator([part[index, 0]])
    except OSError as error:
        raise AudioclfError(
            f"{part.names[index]}: its decoded audio in {str(part.store.folder)!r} cannot be read ({error}); run "
            "again to have it decoded anew."
        ) from error
    with torch.inference_mode(), unchanged_random_state(), autocast(device, precision):
        features = model.features(batch["input_values"].to(device))[0]
    features = features.to(DTYPES[precision]).cpu()
    return (features.view(torch.int16) if precision == "bf16" else features).numpy()


def _place(clips: Clips, index: int) -> tuple[int, int]:
    """Where a row's waveform begins: its index in the store, and the sample."""
    return clips.positions[index], int(clips.starts[index])


def _fit(num_bytes: int, folder: Path) -> bool:
    """Whether what a store still lacks of so many bytes takes less than half of the free disk."""
    cache_dir, values = folder.parent.parent, folder / "values.bin"
    cache_dir.mkdir(parents=True, exist_ok=True)
    held = values.stat().st_size if values.exists() else 0
    return num_bytes - held <= MAX_DISK_SHARE * shutil.disk_usage(cache_dir).free


def _num_frames(model: AudioClassifier, extractor: SequenceFeatureExtractor, clips: Clips) -> np.ndarray:
    samples = torch.from_numpy(np.asarray(clips.lengths))
    frames = backbone_of(model.config).num_frames(samples, model.config, extractor)
    return frames.clamp(min=1).numpy()  # a shorter clip is extended to one frame


def _hash(model: AudioClassifier) -> str:
    """Changes when anything does that the frozen part's output depends on: a weight, or how the weights are used."""
    options = model.config.to_dict().items()
    config = {name: value for name, value in options if name not in OTHER_OPTIONS and "drop" not in name}
    options = json.dumps(config, sort_keys=True, default=str)
    return hashlib.sha256(f"{options}{weights_digest(model.frozen_part)}".encode()).hexdigest()[:24]
