"""Keeps freed memory for the next step. No torch.

A training step frees some hundred MB and asks for them again at once. The GNU C library returns free memory at the top
of the heap to the system each time, which then clears every page again (`python -m benchmarks.training_speed`).
"""

import ctypes
import sys

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
"""The numbers of `mallopt(3)`."""
KEPT = 1 << 30
"""Bytes at the top of the heap that are not returned."""
FROM_THE_SYSTEM = 1 << 25
"""Larger blocks come from the system one by one and are returned at once: kept ones could fragment the heap."""


def keep_freed_memory() -> bool:
    """Let this process keep up to `KEPT` freed bytes. Changes no result. False without the GNU C library."""
    if not sys.platform.startswith("linux"):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if set_option is None:
        return False
    return all([set_option(M_MMAP_THRESHOLD, FROM_THE_SYSTEM), set_option(M_TRIM_THRESHOLD, KEPT)])
