"""From waveforms to a batch: what the encoder takes for each clip, padded, with a mask. Shapes: B batch, T entries."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PretrainedConfig, SequenceFeatureExtractor

from .models.backbone import backbone_of


@dataclass(frozen=True)
class Collator:
    """Collates `{"waveform", "label", "index"}` items as the checkpoint's feature extractor would.

    Attributes:
        prepare: What the encoder takes for one waveform: samples (T,) or a spectrogram (T, ...).
        padding_value: What fills the right of shorter clips.
    """

    prepare: Callable[[np.ndarray], np.ndarray]
    padding_value: float

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Batch: `input_values` (B, T, ...) float32, `attention_mask` (B, T), `index` (B,), `labels` as in `Clips`."""
        inputs = [self.prepare(item["waveform"]) for item in items]
        lengths = torch.tensor([len(clip) for clip in inputs])
        input_values = np.full((len(items), int(lengths.max()), *inputs[0].shape[1:]), self.padding_value, np.float32)
        for row, clip in enumerate(inputs):
            input_values[row, : len(clip)] = clip
        return {
            "input_values": torch.from_numpy(input_values),
            "attention_mask": (torch.arange(input_values.shape[1]) < lengths[:, None]).long(),
            "labels": torch.from_numpy(np.stack([item["label"] for item in items])),
            "index": torch.tensor([item["index"] for item in items]),
        }


def make_collator(config: PretrainedConfig, extractor: SequenceFeatureExtractor) -> Collator:
    """The collator for an encoder and its feature extractor."""
    prepare = partial(backbone_of(config).prepare, extractor=extractor, config=config)
    return Collator(prepare, extractor.padding_value)
