"""Freed memory is kept by the process that asked for it, and by no other."""

import platform
import subprocess
import sys

import pytest

FREED = """
import resource, torch
from audioclf.allocator import keep_freed_memory

def page_faults():
    for _ in range(10):
        torch.ones(2**24)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(page_faults(), keep_freed_memory(), page_faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_large_blocks_are_not_mapped_anew():
    """64 MiB are 16,384 pages; once the heap has grown, a block that is kept takes no page faults."""
    run = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    before, answer, after = run.stdout.split()
    assert answer == "True"
    assert int(after) < 1000
    assert int(before) > 10 * int(after)


def test_other_systems_are_left_alone(monkeypatch):
    from audioclf import allocator

    monkeypatch.setattr(allocator.platform, "system", lambda: "Windows")
    assert allocator.keep_freed_memory() is False
