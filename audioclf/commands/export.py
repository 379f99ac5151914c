"""`audioclf export`."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from ..checkpoint import best_of
from ..errors import ConfigError
from .options import Checkpoint


def export(
    checkpoint: Checkpoint, output: Annotated[Positional[str | None], tyro.conf.arg(metavar="[FILE]")] = None
) -> int:
    """Write a checkpoint as an ONNX file, from waveforms to scores, for programs without torch.

    Args:
        output: The file, which is replaced if it is there; model.onnx in the checkpoint's folder when not given.
    """
    if output is None and not best_of(checkpoint).is_dir():
        raise ConfigError(f"{checkpoint!r} is no folder that model.onnx could go into: name the file after it.")
    from ..onnx_export import OPSET, export_onnx

    path = best_of(checkpoint) / "model.onnx" if output is None else Path(output)
    difference = export_onnx(checkpoint, path)
    size = path.stat().st_size / 2**20
    print(f"{path}: {size:.1f} MiB, opset {OPSET}; onnxruntime's scores are within {difference:.1g} of PyTorch's")
    return 0
