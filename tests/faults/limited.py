"""An `ifguide` command under limits: `python -m tests.faults.limited LIMITS ARGUMENT…`.

LIMITS is a JSON object: `file_bytes` (RLIMIT_FSIZE), `no_override` (root may not write what is write-protected either),
`full_after` (from this change of a file below `root` on, nothing more can be written), `full_at` (from the first change
of a file whose path holds this on), `stop_at` (the process stops itself there).
"""

import ctypes
import errno
import json
import os
import resource
import signal
import sys

from ifguide.cli.main import main

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def watch_changes(root: str, act) -> None:
    """Call act(number, place) before each file below `root` is opened to be written, and before each folder is made."""
    count = 0

    def hear(event: str, arguments: tuple) -> None:
        nonlocal count
        writes = event == "os.mkdir" or (event == "open" and (arguments[2] or 0) & WRITING)
        if writes and str(arguments[0]).startswith(root):
            count += 1
            act(count, str(arguments[0]))

    sys.addaudithook(hear)


def fill_disk(after: int = 0, at: str = ""):
    full = False

    def act(number: int, place: str) -> None:
        nonlocal full
        full = full or (number > after and at in place)
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place)

    return act


def stop_once(at: int):
    def act(number: int, place: str) -> None:
        if number == at:
            os.kill(os.getpid(), signal.SIGSTOP)

    return act


def apply(limits: dict) -> None:
    if "file_bytes" in limits:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file_bytes"], resource.RLIM_INFINITY))
    if limits.get("no_override"):
        drop_override()
    if "full_after" in limits:
        watch_changes(limits["root"], fill_disk(limits["full_after"]))
    if "full_at" in limits:
        watch_changes(limits["root"], fill_disk(at=limits["full_at"]))
    if "stop_at" in limits:
        watch_changes(limits["root"], stop_once(limits["stop_at"]))


def drop_override() -> None:
    """Give up, in this process, root's right to pass over permissions: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    if libc.capget(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    for place in (0, 1):  # effective, permitted
        data[place] &= ~0b110
    if libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    apply(json.loads(sys.argv[1]))
    sys.argv = ["ifguide", *sys.argv[2:]]
    main()
