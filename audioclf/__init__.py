"""audioclf: fine-tunes a pretrained audio encoder for any audio classification task, in plain PyTorch."""

import importlib
from typing import Any

__version__ = "0.1.0"

# Names are imported when first used: `import audioclf` and `audioclf --help` need not wait for torch.
_HOMES = {
    "AudioError": "errors",
    "AudioSource": "datasets.base",
    "AudioSplits": "datasets.base",
    "AudioclfError": "errors",
    "BackgroundNoise": "recordings",
    "CheckpointError": "errors",
    "Classifier": "inference",
    "ConfigError": "errors",
    "Comparison": "comparison",
    "CrossValidation": "foldstats",
    "DatasetError": "errors",
    "Difference": "comparison",
    "Example": "datasets.base",
    "Finding": "findings",
    "HubError": "errors",
    "FoldRun": "foldstats",
    "ImpulseResponses": "recordings",
    "Inspection": "inspection",
    "ResourceError": "errors",
    "Segment": "timeline",
    "Sometimes": "augment",
    "Timeline": "timeline",
    "TrainConfig": "config",
    "TrainResult": "result",
    "TrainingError": "errors",
    "Window": "timeline",
    "build_app": "app",
    "build_explorer": "explorer",
    "compare": "comparison",
    "cross_validate": "crossval",
    "evaluate": "scoring",
    "export_onnx": "onnx_export",
    "inspect": "inspecting",
    "is_first_process": "distributed",
    "load": "inference",
    "load_dataset": "datasets.load",
    "make_splits": "datasets.making",
    "push": "hub",
    "register": "models.hf",
    "report": "reporting",
    "to_datasets": "datasets.convert",
    "train": "training",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'audioclf' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
