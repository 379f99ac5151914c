"""When memory runs out: the same clips once more, fewer at a time."""

import contextlib
import gc
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from .allocator import trim
from .errors import ConfigError, ResourceError

T = TypeVar("T")
MARKS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "alloc_failed",
    "out_of_memory",
    "bad_alloc",
)
"""What RuntimeErrors say, in lower case, with which torch, cuBLAS, cuDNN and oneDNN tell that there is no memory."""
LEAST_HEADROOM_BYTES = 250_000_000
"""What a run needs at the very least beyond what the process has taken before it begins."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error).lower() for mark in MARKS)


def in_pieces(batch: dict[str, Tensor], max_clips: int | None) -> Iterator[dict[str, Tensor]]:
    """A collated batch in pieces of at most so many clips; nothing is copied."""
    num_clips = len(batch["labels"])
    size = max_clips or num_clips
    for first in range(0, num_clips, size):
        yield {key: value[first : first + size] for key, value in batch.items()}


def backing_off(attempt: Callable[[int | None], T], max_clips: int | None, num_clips: int) -> tuple[T, int | None]:
    """Calls `attempt` with the most clips it may compute at a time; again with half as many while memory runs out.

    Args:
        attempt: May be called several times, and begins anew each time.
        max_clips: The number to begin with; None for no limit.
        num_clips: Clips of the largest batch, which is what no limit comes to.

    Returns:
        What `attempt` gave, and the number it was given.

    Raises:
        Exception: that of `attempt`, when it does not say that memory ran out, or does for single clips.
    """
    while True:
        try:
            return attempt(max_clips), max_clips
        except Exception as error:
            limit = min(max_clips or num_clips, num_clips)
            if not is_out_of_memory(error) or limit == 1:
                raise
        # Only here, where the exception and what its traceback holds are gone, can memory be freed.
        max_clips = (limit + 1) // 2
        free()


@contextlib.contextmanager
def memory_errors_named(piece: dict[str, Any], names_of: Callable[[dict[str, Any]], Sequence[str]]) -> Iterator[None]:
    """Inside, where a piece of a batch is computed, a single clip for which memory does not do is told by its name.

    Raises:
        ResourceError: naming it.
    """
    try:
        yield
    except Exception as error:
        if len(piece["labels"]) > 1 or not is_out_of_memory(error):
            raise
        raise ResourceError(
            f"Memory does not do even for one clip, {names_of(piece)[0]}: cut long clips by max_seconds, "
            f"freeze a part of the encoder, or take a smaller model ({str(error).splitlines()[0]})."
        ) from error


def named_by(names: Sequence[str], batch: dict[str, Any]) -> list[str]:
    """The names of a batch's clips, whose places among all are its `index` (B,)."""
    return [names[place] for place in batch["index"].tolist()]


@contextlib.contextmanager
def out_of_memory_told() -> Iterator[None]:
    """Inside, memory that runs out where fewer clips at a time would not help is told in a sentence.

    Raises:
        ResourceError: when it happens.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ResourceError(
            f"Memory ran out beside the model's own work ({reason}): take a smaller batch_size or model or fewer "
            "num_workers, or free memory. resume=True goes on from the last checkpoint."
        ) from error


def free() -> None:
    """Gives memory that is no longer in use back to the system."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    trim()


@contextlib.contextmanager
def memory_limit(max_memory_gb: float | None, device: torch.device) -> Iterator[None]:
    """Inside, an allocation beyond so many GB fails: of the GPU's memory, or on Linux of what the process allocates.

    Raises:
        ConfigError: where there is no such limit to set, or the process has taken more already.
        ResourceError: when not even a thread can start below the limit.
    """
    if max_memory_gb is None:
        yield
    elif device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, max_memory_gb * 1e9 / total), device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
    elif sys.platform == "linux":
        with _process_limit(max_memory_gb):
            yield
    else:
        raise ConfigError(f"max_memory_gb is for CUDA and for Linux; leave it out on {sys.platform}.")


@contextlib.contextmanager
def _process_limit(max_memory_gb: float) -> Iterator[None]:
    import resource  # Windows has no such module

    status = Path("/proc/self/status").read_text(encoding="utf-8")
    taken = int(re.search(r"^VmData:\s*(\d+) kB", status, re.MULTILINE)[1]) * 1024
    if max_memory_gb * 1e9 < taken + LEAST_HEADROOM_BYTES:
        least = (taken + LEAST_HEADROOM_BYTES) / 1e9
        raise ConfigError(
            f"max_memory_gb={max_memory_gb:g} is too little: with its libraries loaded the process needs at least "
            f"{least:.1f}."
        )
    limit = resource.RLIMIT_DATA  # what is allocated, not what is mapped from files such as the cache
    soft, hard = resource.getrlimit(limit)
    allowed = int(max_memory_gb * 1e9)
    resource.setrlimit(limit, (allowed if hard == resource.RLIM_INFINITY else min(allowed, hard), hard))
    try:
        yield
    except RuntimeError as error:
        if "can't start new thread" not in str(error):
            raise
        raise ResourceError(
            f"max_memory_gb={max_memory_gb:g} leaves no memory to start a thread; give more, or a smaller num_workers."
        ) from error
    finally:
        resource.setrlimit(limit, (soft, hard))
