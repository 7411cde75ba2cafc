"""Runs `ifguide` commands in children forked from one process that has imported everything, so that each costs only its
work.

Reads a JSON object a line, {"arguments": […], "limits": {…}}, and answers with one: {"code", "out", "err", "pid"}.
Limits: `file_bytes` (RLIMIT_FSIZE), `no_override` (root may not write what is write-protected either), `full_after`
(from this change of a file below `root` on, nothing more can be written), `full_at` (from the first change of a file
whose path holds this on), `stop_at` (the child stops itself there).
{"resume": pid} lets a stopped one go on and waits for its end.
"""

import contextlib
import ctypes
import errno
import json
import os
import resource
import signal
import sys
import tempfile

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


def run(arguments: list[str], limits: dict, out: int, err: int) -> int:
    """The command in this process; its exit code, or 1 after a traceback."""
    import traceback

    from ifguide.cli.main import main

    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.argv = ["ifguide", *arguments]
    try:
        apply(limits)
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def read(stream) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")


def main() -> None:
    import pandas  # noqa: F401
    import torch  # noqa: F401
    from transformers import AutoModelForCausalLM, Trainer  # noqa: F401

    import ifguide.selection.index
    import ifguide.study.stages.build
    import ifguide.study.stages.evaluating
    import ifguide.training.train  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        request = json.loads(line)
        if "resume" in request:
            os.kill(request["resume"], signal.SIGCONT)
            _, status = os.waitpid(request["resume"], 0)
            answers.write(json.dumps({"code": os.waitstatus_to_exitcode(status)}) + "\n")
            answers.flush()
            continue
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = os.fork()
            if child == 0:
                code = 1
                with contextlib.suppress(BaseException):
                    os.environ.update(request.get("environment", {}))
                    code = run(request["arguments"], request.get("limits", {}), out.fileno(), err.fileno())
                os._exit(code)
            _, status = os.waitpid(child, os.WUNTRACED)
            stopped = os.WIFSTOPPED(status)
            code = None if stopped else os.waitstatus_to_exitcode(status)
            answers.write(json.dumps({"code": code, "out": read(out), "err": read(err), "pid": child}) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
