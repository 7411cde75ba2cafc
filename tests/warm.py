"""Python processes that need not import anything first.

Importing torch, transformers and Streamlit takes a process of its own some six seconds. A test process therefore forks
one process as soon as it has collected the tests, which have imported all of that and computed nothing; and whoever
needs a Python process, a test or a process that a test started, asks it for a fork of itself. `Popen` and `run` take
what those of `subprocess` take. A command of another program, and every command where nothing can be forked, is
started by `subprocess`.

A fork has the modules of the tests in memory. What tests which modules a command imports, or what is read of the
environment when a module is imported, needs a new interpreter.
"""

import atexit
import contextlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from subprocess import DEVNULL, PIPE, STDOUT

_PLACE = "IFGUIDE_TEST_FORKS"
"""The variable that holds the address of the process that forks; processes that are started inherit it."""
_MOST = 1 << 20
_OPTIONS = {"stdin", "stdout", "stderr", "cwd", "env", "start_new_session"}


def Popen(args, **options) -> "subprocess.Popen | Fork":
    """`subprocess.Popen`, by a fork where that can be."""
    forked = _PLACE in os.environ and args[0] == sys.executable and args[1] in ("-c", "-m", "-u")
    return (Fork if forked else subprocess.Popen)(args, **options)


class Fork:
    """`subprocess.Popen` of a Python command, as far as tests use it."""

    def __init__(self, args, *, text: bool = False, **options):
        assert options.keys() <= _OPTIONS, options
        command = [str(word) for word in args]
        given = [options.get(name) for name in ("stdin", "stdout", "stderr")]
        ours, theirs = zip(*map(_open_stream, range(3), given), strict=True)
        request = {
            "arguments": command[1:],
            "cwd": str(options.get("cwd") or os.getcwd()),
            "environment": {name: str(value) for name, value in (options.get("env") or os.environ).items()},
            "session": bool(options.get("start_new_session")),
        }
        self.args, self.returncode = command, None
        self._told = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._told.connect(os.environ[_PLACE])
        errors = theirs[1] if given[2] == STDOUT else theirs[2]
        socket.send_fds(self._told, [json.dumps(request).encode()], [theirs[0], theirs[1], errors])
        self.pid = json.loads(self._told.recv(_MOST))
        for end in theirs:
            os.close(end)
        mode = "" if text else "b"
        self.stdin, self.stdout, self.stderr = (
            end if end is None else os.fdopen(end, ("r" if number else "w") + mode, 1 if text else -1)
            for number, end in enumerate(ours)
        )

    def poll(self) -> int | None:
        """Its exit code, minus a signal's number; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            with selectors.DefaultSelector() as ready:
                ready.register(self._told, selectors.EVENT_READ)
                if not ready.select(timeout):
                    raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = os.waitstatus_to_exitcode(json.loads(self._told.recv(_MOST)))
            self._told.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile, as `subprocess` allows
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream:
                stream.close()
        self.wait()


def _open_stream(number: int, given) -> tuple[int | None, int]:
    """(our end of a pipe or None, the process's end) of standard input, output or errors."""
    if given == PIPE:
        read, write = os.pipe()
        return (read, write) if number else (write, read)
    if given == DEVNULL:
        return None, os.open(os.devnull, os.O_RDWR)
    if given is None or given == STDOUT:
        return None, os.dup(number)
    return None, os.dup(given if isinstance(given, int) else given.fileno())


def run(args, *, timeout: float = 280, check: bool = False, **options) -> subprocess.CompletedProcess:
    """`subprocess.run(args, capture_output=True, text=True)` of a Python command; it is killed at the timeout."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = Popen(args, stdin=DEVNULL, stdout=out, stderr=errors, **options)
        try:
            process.wait(timeout)
        finally:
            process.kill()
        texts = [_read(stream) for stream in (out, errors)]
    done = subprocess.CompletedProcess(args, process.returncode, *texts)
    if check:
        done.check_returncode()
    return done


def _read(stream) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")


def serve() -> None:
    """Fork the process that forks others; it ends with the process that calls this. Other systems than Linux have
    libraries that bear no fork."""
    if sys.platform != "linux":
        return
    folder = tempfile.mkdtemp(prefix="forks-")
    os.environ[_PLACE] = os.path.join(folder, "socket")
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door.bind(os.environ[_PLACE])
    door.listen(64)
    alive, held = os.pipe()
    if os.fork() == 0:
        os.close(held)
        try:
            _serve(door, alive)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(os.environ[_PLACE])
                os.rmdir(folder)
            os._exit(0)
    os.close(alive)
    door.close()


def _serve(door: socket.socket, alive: int) -> None:
    """Answer requests until the other end of `alive` is closed: the new process's id, and later how it ended."""
    ended, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    waiting: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as ready:
        for place in (door, alive, ended):
            ready.register(place, selectors.EVENT_READ)
        while True:
            places = [key.fileobj for key, _ in ready.select()]
            if alive in places:
                return
            if ended in places:
                os.read(ended, 4096)
            if door in places:
                caller, _ = door.accept()
                message, streams, _, _ = socket.recv_fds(caller, _MOST, 3)
                child = os.fork()
                if child == 0:
                    for end in (door, caller, ready, *waiting.values()):
                        end.close()
                    for end in (alive, ended, told):
                        os.close(end)
                    _become(json.loads(message), streams)
                for stream in streams:
                    os.close(stream)
                caller.send(json.dumps(child).encode())
                waiting[child] = caller
            while waiting:
                child, status = os.waitpid(-1, os.WNOHANG)
                if not child:
                    break
                with waiting.pop(child) as caller, contextlib.suppress(OSError):  # nobody may listen any more
                    caller.send(json.dumps(status).encode())


def _become(request: dict, streams: list[int]) -> None:
    """Be the Python command in this process, and end it as the interpreter would."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if request["session"]:
            os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", 1, closefd=False)  # noqa: SIM115
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["cwd"])
        atexit._clear()
        warnings.resetwarnings()
        for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)
        code = _execute(request["arguments"])
        threading._shutdown()  # thread pools end only when they are told to
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _execute(arguments: list[str]) -> int:
    """Run `-c code` or `-m module`, after `-u` perhaps, with the rest as its arguments; gives the exit code."""
    option, what, *rest = arguments if arguments[0] != "-u" else arguments[1:]
    try:
        if option == "-c":
            sys.argv = ["-c", *rest]
            main = type(sys)("__main__")
            sys.modules["__main__"] = main
            exec(compile(what, "<string>", "exec"), main.__dict__)
        else:
            assert option == "-m", arguments
            sys.argv = [what, *rest]
            runpy.run_module(what, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
