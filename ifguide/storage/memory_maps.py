"""Arrays that need not be in memory: on disk while they are filled in, their pages fetched before they are read and
released after."""

import mmap
import tempfile
from pathlib import Path

import numpy as np

ON_DISK = 1 << 26
"""Bytes of the smallest array that `zeros` lays on disk."""


def zeros(length: int, dtype, folder: Path) -> np.ndarray:
    """A new array (length,) of zeros; a large one is a memory map of an unnamed file in `folder`, which is gone with
    the array."""
    n_bytes = length * np.dtype(dtype).itemsize
    if n_bytes < ON_DISK:
        return np.zeros(length, dtype=dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(n_bytes)
        return np.memmap(file, dtype=dtype, mode="r+", shape=(length,))


def release_pages(array: np.ndarray, start: int = 0, stop: int | None = None) -> None:
    """Release the pages of values [start, stop) of a memory-mapped array, so that a scan does not fill the memory.

    They stay in the system's cache and come back when they are read again. Other arrays are left unchanged.
    """
    _advise(array, start, len(array) if stop is None else stop, mmap.MADV_DONTNEED)


def fetch_pages(array: np.ndarray, start: int, stop: int) -> None:
    """Ask the system to read values [start, stop) of a memory-mapped array soon, without waiting for them."""
    _advise(array, start, stop, mmap.MADV_WILLNEED)


def _advise(array: np.ndarray, start: int, stop: int, advice: int) -> None:
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap) or not len(array):
        return
    begin = array.ctypes.data - np.frombuffer(base, np.uint8).ctypes.data
    first, end = begin + start * array.itemsize, begin + stop * array.itemsize
    first -= first % mmap.PAGESIZE
    if end > first:
        base.madvise(advice, first, end - first)
