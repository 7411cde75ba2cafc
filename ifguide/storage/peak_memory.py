"""The most memory that this process held since the last reset, on the host and on its GPU."""

import shutil
import sys
from contextlib import suppress
from pathlib import Path

import psutil

CONTAINER = Path("/sys/fs/cgroup")
"""Where Linux keeps the limits of a container."""


def reset_peak() -> None:
    """Start measuring again where the system can (Linux); elsewhere the peak counts from the process's start."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def read_peak() -> dict[str, int]:
    """Bytes: `host`, where the system tells, and `device` with a GPU."""
    peak = {}
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        peak["host"] = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        peak["device"] = torch.cuda.max_memory_allocated()
    return peak


def free_memory(folder: Path) -> dict[str, int]:
    """Bytes that can be had now: `host`, `device` with a GPU, and `disk` in the file system of `folder`."""
    free = {"host": psutil.virtual_memory().available}
    with suppress(OSError, ValueError):  # a container's limit; there is none where the file says `max`
        limit, used = (int((CONTAINER / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        free["host"] = min(free["host"], limit - used)
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        free["device"] = torch.cuda.mem_get_info()[0]
    with suppress(OSError):
        free["disk"] = shutil.disk_usage(folder).free
    return free
