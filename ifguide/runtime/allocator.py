"""Keeps freed memory for the next step, and returns it between stages. No torch.

A training step frees some hundred MB and asks for them again at once. The GNU C library returns free memory at the top
of the heap to the system each time, which then clears every page again. It never
returns free memory below a block in use unasked: some 2 GB after SmolLM2-135M was trained.
"""

import ctypes
import gc
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
    if (set_option := _find("mallopt")) is None:
        return False
    return all([set_option(M_MMAP_THRESHOLD, FROM_THE_SYSTEM), set_option(M_TRIM_THRESHOLD, KEPT)])


def return_freed_memory() -> None:
    """Give all free memory back to the system, so that a stage does not carry the memory of the one before it. Takes a
    quarter of a second once torch is loaded."""
    gc.collect()  # a Trainer is in a circle with its parts
    if trim := _find("malloc_trim"):
        trim(0)


def _find(name: str):
    """A function of the GNU C library; None elsewhere (musl has none of these)."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
