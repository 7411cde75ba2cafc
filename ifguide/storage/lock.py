"""One writer a study: a lock that the operating system releases when its holder ends, in any way."""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from ifguide.errors import BusyError, InputError
from ifguide.storage.durations import format_seconds

LOCK = "study.lock"
RECORD = "packed.json"
"""In the folder of a study that was packed: when and how it was made. Such a study is only read."""


def read_record(root: Path) -> dict | None:
    """When and how a packed study was made; None for any other."""
    try:
        return json.loads((root / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def check_writable(root: Path) -> None:
    """Refuse to change a packed study, as an InputError."""
    if (root / RECORD).is_file():
        raise InputError(f"{root.name!r} is a recorded study and read-only; make one of your own with `ifguide new`")


@contextlib.contextmanager
def study_lock(root: Path) -> Iterator[None]:
    """Hold the study at `root` for the length of the block. A BusyError if another process holds it names that process
    and since when.

    The file `study.lock` names the holder (pid, host, time). Only the system's lock on it counts, so a file left by a
    killed process stops nobody.
    """
    check_writable(root)
    handle = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(_describe_holder(root)) from error
        _write(handle, {"pid": os.getpid(), "host": socket.gethostname(), "started": time.time()})
        try:
            yield
        finally:
            _write(handle, {})
    finally:
        os.close(handle)


def _write(handle: int, holder: dict) -> None:
    text = json.dumps(holder).encode()
    os.pwrite(handle, text, 0)
    os.ftruncate(handle, len(text))


def _describe_holder(root: Path) -> str:
    holder = "another process"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        owner = json.loads((root / LOCK).read_text(encoding="utf-8"))
        age = format_seconds(max(time.time() - owner["started"], 0))
        holder = f"process {owner['pid']} on {owner['host']}, since {age}"
    return (
        f"study {root.name!r} is in use by {holder}; "
        f"follow it with `ifguide status {root.name}`, or stop it with `ifguide cancel {root.name}`"
    )
