"""Pages of memory-mapped arrays: fetched before they are read, released after."""

import mmap

import numpy as np


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
