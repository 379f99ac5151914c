"""The processes that torchrun starts, as one job: who is who, and what they tell each other.

Tensors on GPUs go by NCCL, all else by gloo, which notices when a process dies. What all processes must call at the
same place says so. In a process that is alone none of it does anything.
"""

import atexit
import contextlib
import datetime
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .errors import ResourceError

T = TypeVar("T")
TIMEOUT = datetime.timedelta(days=1)
"""How long one waits for another, which may be decoding a large data set; a dead one is noticed at once."""
BUCKET_VALUES = 8_000_000
"""Gradients summed in one message: enough for the network, and few enough to be on the way while more are packed."""


_inside = False
"""Whether `joined` is entered: outside it each process is on its own, whatever started it."""


def rank() -> int:
    """The number of this process in the job, from 0."""
    return dist.get_rank() if _inside else 0


def num_ranks() -> int:
    """Processes in the job."""
    return dist.get_world_size() if _inside else 1


def is_first_process() -> bool:
    """Whether this is the process that writes and reports: rank 0 of those that torchrun started, or the only one."""
    return (dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))) == 0


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Inside, what torchrun started is one job, each process with a GPU of its own where that is the device.

    A process group that the caller has made already is used as it is.

    Raises:
        ResourceError: when another process ends before its time.
    """
    global _inside
    launched = dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))
    if _inside or launched == 1:
        yield
        return
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        _make_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)  # not earlier: a process cannot join twice
    _inside = True
    try:
        yield
    except (RuntimeError, dist.DistError) as error:
        if not _is_of_a_lost_process(error):
            raise
        raise ResourceError(
            f"Process {rank()} of {num_ranks()}: another process of the job has ended; its own message says why. Go on "
            f"from the last checkpoint by resume=True ({str(error).splitlines()[0]})."
        ) from error
    finally:
        _inside = False


def _make_group(backend: str) -> None:
    """The process group of torchrun's processes.

    torchrun may start them again on the same store, where the addresses of those that died still stand: what the new
    ones write goes under the number of restarts, which processes of one machine agree on.
    """
    store, own_rank, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
        store = dist.PrefixStore(f"audioclf/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    dist.init_process_group(backend, store=store, rank=own_rank, world_size=size, timeout=TIMEOUT)


def barrier() -> None:
    """Waits until all processes are here."""
    if num_ranks() > 1:
        dist.barrier()


@contextlib.contextmanager
def one_a_machine_first() -> Iterator[None]:
    """Inside, one process of each machine is first, so that the others find its files. For all processes."""
    waits = num_ranks() > 1 and int(os.environ.get("LOCAL_RANK", rank())) > 0
    if waits:
        barrier()
    yield
    if not waits:
        barrier()


def on_first(function: Callable[..., T], *arguments: Any) -> T:
    """What the first process gets from a call that only it makes, or the error that it gets. For all processes."""
    if num_ranks() == 1:
        return function(*arguments)
    outcome: list[Any] = [None, None]
    if is_first_process():
        try:
            outcome[0] = function(*arguments)
        except Exception as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0, device=torch.device("cpu"))
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def gathered(value: T) -> list[T]:
    """The value of each process, by rank. For all processes."""
    if num_ranks() == 1:
        return [value]
    values: list[Any] = [None] * num_ranks()
    dist.all_gather_object(values, value)
    return values


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, in place of each one's own. For all processes."""
    if num_ranks() > 1:
        dist.all_reduce(values)
    return values


def largest(values: Sequence[int]) -> list[int]:
    """The largest over all processes, number by number. For all processes."""
    if num_ranks() == 1:
        return list(values)
    found = torch.tensor(values)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.tolist()


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Adds up the gradients of all processes, in every one of them. For all processes.

    One that has none of a parameter, as its clips did not need it or it had no clips, adds nothing.
    """
    if num_ranks() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    needed = largest([parameter.grad is not None for parameter in trained])
    pending = []
    for bucket in _buckets([parameter for parameter, is_needed in zip(trained, needed, strict=True) if is_needed]):
        flat = torch.cat([torch.zeros_like(p).view(-1) if p.grad is None else p.grad.reshape(-1) for p in bucket])
        pending.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
    for bucket, flat, work in pending:
        work.wait()
        for parameter, summed_grad in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            parameter.grad = summed_grad.view_as(parameter)


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        if bucket and (
            sum(p.numel() for p in bucket) + parameter.numel() > BUCKET_VALUES or parameter.dtype != bucket[0].dtype
        ):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


def _is_of_a_lost_process(error: BaseException) -> bool:
    marks = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "Gloo", "gloo")
    return any(mark in str(error) for mark in marks)
