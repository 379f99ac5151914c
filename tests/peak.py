"""Peak memory of this very process, for the scripts that the tests start."""

import re
from pathlib import Path


def peak_mib() -> float:
    """As Linux tells it; `getrusage` tells the peak of the process that started this one where that was higher."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
