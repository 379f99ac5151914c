"""Where and how to compute: device, arithmetic, seeds, determinism."""

import contextlib
import os
import random
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from .checks import check_choice
from .config import Device, Precision
from .errors import ConfigError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BF16_ISAS = ("AMX", "BF16", "AVX10")
"""Marks of the instruction sets, in oneDNN's names, that multiply bf16 in hardware."""


def choose_device(device: str) -> torch.device:
    """The device of that name; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: when the device asked for is not here.
    """
    check_choice("device", device, get_args(Device))
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, here in available.items() if here))
    if not available[device]:
        raise ConfigError(f"device={device!r} is not available on this machine; use device='auto'.")
    return torch.device(device)


def choose_precision(precision: str, device: torch.device) -> str:
    """`fp32`, `bf16` or `fp16`; `auto` is fp16 on CUDA, bf16 on a CPU that multiplies bf16 in hardware, else fp32."""
    check_choice("precision", precision, get_args(Precision))
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "fp16"
    return "bf16" if device.type == "cpu" and _cpu_has_bf16() else "fp32"


@contextlib.contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """The forward pass's arithmetic."""
    with full_fp32(), torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32"):
        yield


@contextlib.contextmanager
def full_fp32() -> Iterator[None]:
    """Inside, CUDA computes fp32 as such; by default its convolutions round their inputs to TF32, of 10 bits."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = False
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def at_least_fp32(values: Tensor) -> Tensor:
    """Half precision as fp32, for sums and statistics that half precision would spoil; all else as it is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def product_dtype(values: Tensor) -> torch.dtype:
    """Type of a layer's output for these values: autocast's where it is on."""
    device = values.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else values.dtype


def seed_everything(seed: int, rank: int = 0) -> None:
    """Seeds Python, NumPy (SpecAugment draws from it) and torch on every device; each process of a job otherwise."""
    if rank:
        seed = int(np.random.SeedSequence([seed, rank]).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """Where the generators that `seed_everything` seeds stand, in plain types and tensors."""
    algorithm, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (algorithm, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Puts the generators where they stood; GPUs that are no longer there are left out."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    for index, generator in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(generator, index)


@contextlib.contextmanager
def unchanged_random_state() -> Iterator[None]:
    """What is drawn inside changes nothing outside: layers of older transformers draw in evaluation too."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)


@contextlib.contextmanager
def deterministic_algorithms(enabled: bool) -> Iterator[None]:
    """Inside, torch uses algorithms that give the same bits each time; its flags are restored on leaving.

    CUBLAS_WORKSPACE_CONFIG stays as it is set: cuBLAS reads it once a process.

    Raises:
        ConfigError: when something inside has no such algorithm.
    """
    if not enabled:
        yield
        return
    mode = torch.get_deterministic_debug_mode()
    benchmark = torch.backends.cudnn.benchmark
    # torch refuses products on CUDA without it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False  # it would choose between algorithms by the clock
    try:
        yield
    except RuntimeError as error:
        if "CUBLAS_WORKSPACE_CONFIG" in str(error):
            raise ConfigError(
                "deterministic=True cannot be kept: cuBLAS had already started otherwise. Set the environment variable "
                "CUBLAS_WORKSPACE_CONFIG=:4096:8 before Python starts, or train in a new process."
            ) from error
        if "does not have a deterministic implementation" not in str(error):
            raise
        raise ConfigError(
            f"deterministic=True cannot be kept: {str(error).split(', but')[0]}. Leave the option out, or do without "
            "that operation."
        ) from error
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.backends.cudnn.benchmark = benchmark


def _cpu_has_bf16() -> bool:
    """Whether bf16 products run in hardware: the CPU has it, and oneDNN has not been held below it."""
    held = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    if held.upper() not in ("", "DEFAULT", "ALL") and not any(mark in held.upper() for mark in BF16_ISAS):
        return False
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
