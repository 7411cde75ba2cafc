"""Keeps freed memory for the next step. No torch.

A training step frees some hundred MB and asks for them again at once. The GNU C library gives what is free at the top
of the heap back to the system each time, which then hands out every page anew, cleared (`python -m
benchmarks.training_speed`).
"""

import ctypes
import sys

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
"""The numbers of `mallopt(3)`."""
KEPT = 1 << 30
"""Bytes at the top of the heap that are not given back."""
FROM_THE_SYSTEM = 1 << 25
"""Larger blocks come from the system one by one and go back to it at once: kept ones could split the heap."""


def keep_freed_memory() -> bool:
    """Let this process keep up to `KEPT` bytes of what it frees. Changes no result. Says whether it could: only with
    the GNU C library."""
    if not sys.platform.startswith("linux"):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if set_option is None:
        return False
    return all([set_option(M_MMAP_THRESHOLD, FROM_THE_SYSTEM), set_option(M_TRIM_THRESHOLD, KEPT)])
