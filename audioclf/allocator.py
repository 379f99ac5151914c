"""What allocates memory and gives it back: the C library, which by default does so too soon, and Python's collector."""

import contextlib
import ctypes
import gc
import platform
from collections.abc import Iterator

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h


def keep_freed_memory() -> bool:
    """Lets glibc keep large freed blocks for the next use; returns whether it could (Linux with glibc).

    Each tensor above 128 KiB is otherwise a fresh mapping, whose pages the kernel clears at first touch; on a CPU that
    can take as long as the arithmetic. It changes the whole process, so the commands call it and the library does not.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    largest = 2**31 - 1
    # Older versions refuse more than half of their largest heap, 32 MiB.
    mapped = libc.mallopt(M_MMAP_THRESHOLD, largest) or libc.mallopt(M_MMAP_THRESHOLD, 2**25)
    return bool(mapped and libc.mallopt(M_TRIM_THRESHOLD, largest))


def trim() -> None:
    """Lets glibc hand freed memory back to the system now."""
    if platform.system() == "Linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Lets Python's collector of cycles rest: while millions of objects are made it would look at all of them anew."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
