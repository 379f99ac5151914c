"""Features on disk: what a frozen encoder computes is computed once a clip, not once an epoch.

With `freeze="feature_encoder"` they are the frames of the waveform CNN, with `freeze="backbone"` the frames of all
layers. They belong to the whole clip: a crop of them is not what the encoder gives for the cropped clip, whose
GroupNorm sees other samples.

Shapes: B batch, F frames, W values of a frame.
"""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import cache
from .clips import Clips
from .collate import Collator
from .config import default_cache_dir
from .models.classifier import AudioClassifier
from .models.frontend import num_frames
from .runtime import DTYPES, autocast

STORED_AS = {"fp32": np.float32, "fp16": np.float16, "bf16": np.int16}
"""NumPy's type on disk for each precision; it has no bf16, so the bits are kept as they are."""
MAX_DISK_SHARE = 0.5
"""Share of the free disk that features may take when nobody asked for them."""


@dataclass(frozen=True)
class FeatureClips:
    """Features of one part's clips; a map-style dataset with the keys of `Clips`.

    Attributes:
        clips: The clips they are of, whose names, labels and order they share.
        store: Where the features lie, of all parts.
        first: Index in the store of this part's first clip.
        num_frames: Frames of each clip, (N,).
        dtype: Their type as a tensor.
    """

    clips: Clips
    store: cache.ArrayStore
    first: int
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

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        index, _ = key
        values = torch.from_numpy(np.array(self.store.array(self.first + index))).view(self.dtype)
        features = values.view(int(self.num_frames[index]), -1)
        return {"features": features, "label": self.clips.labels[index], "index": index}


def collate_features(items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Batch of `features` (B, F, W), zero beyond `num_frames` (B,), with `labels` (B,) and `index` (B,) int64."""
    features = [item["features"] for item in items]
    return {
        "features": nn.utils.rnn.pad_sequence(features, batch_first=True),
        "num_frames": torch.tensor([len(clip) for clip in features]),
        "labels": torch.tensor([item["label"] for item in items]),
        "index": torch.tensor([item["index"] for item in items]),
    }


def fit_on_disk(model: AudioClassifier, parts: dict[str, Clips], precision: str, cache_dir: str | None) -> bool:
    """Whether the features take less than half of the free disk."""
    folder = Path(cache_dir or default_cache_dir()).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    frames = sum(int(_num_frames(model, clips).sum()) for clips in parts.values())
    needed = frames * model.feature_size * DTYPES[precision].itemsize
    return needed <= MAX_DISK_SHARE * shutil.disk_usage(folder).free


def cache_features(
    model: AudioClassifier,
    parts: dict[str, Clips],
    collator: Collator,
    *,
    precision: str,
    device: torch.device,
    cache_dir: str | None,
    progress: bool,
) -> dict[str, FeatureClips]:
    """Computes the features of every clip, once and for all later runs with the same frozen weights.

    Args:
        model: A classifier on its device, part of whose encoder is frozen.
        parts: The decoded clips, not cropped at random.
        collator: Normalises a clip as in training.
        precision: Arithmetic, and the type the features are kept in.
        device: Where the model is.
        cache_dir: Folder of the cache; ~/.cache/audioclf when not given.
        progress: Show a progress bar.

    Raises:
        AudioclfError: when the disk is full or the folder cannot be written.
    """
    clips = [(part, index) for part in parts.values() for index in range(len(part))]

    def compute(position: int) -> np.ndarray:
        part, index = clips[position]
        batch = collator([part[index, 0]])
        with torch.inference_mode(), autocast(device, precision):
            features = model.features(batch["input_values"].to(device))[0]
        features = features.to(DTYPES[precision]).cpu()
        return (features.view(torch.int16) if precision == "bf16" else features).numpy()

    model.eval()
    store = cache.build(
        [f"{part.store.folder.name} {part.positions[index]} {part.lengths[index]}" for part, index in clips],
        compute,
        recipe=f"v1 {model.frozen} {_hash(model.frozen_part)} {precision} {device.type} {model.frontend} {collator}",
        cache_dir=cache_dir or default_cache_dir(),
        kind="features",
        dtype=STORED_AS[precision],
        num_threads=1,  # the model uses all cores by itself
        progress=progress,
    )
    made, first = {}, 0
    for name, part in parts.items():
        made[name] = FeatureClips(part, store, first, _num_frames(model, part), DTYPES[precision])
        first += len(part)
    return made


def _num_frames(model: AudioClassifier, clips: Clips) -> np.ndarray:
    samples = torch.from_numpy(np.asarray(clips.lengths))
    return num_frames(samples, model.config).clamp(min=1).numpy()  # a shorter clip is extended to one frame


def _hash(module: nn.Module) -> str:
    """Changes when any weight does."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:24]
