"""The app's client for the process that holds the models. No torch here."""

import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

from ifguide.errors import ProcessError

ANSWER_SECONDS = 60.0
"""The process answers at once even while it works; a longer wait means that it hangs."""
POLL_SECONDS = 0.2
WORKING = ("waiting", "loading", "running")
"""States of a request that has not ended."""


class ModelWorker:
    """Starts the process with the first request, and again after it crashed or ended for lack of requests. It serves
    all readers and studies, from any thread; its methods raise a ProcessError if the process crashed."""

    def __init__(self, command: tuple[str, ...] = (sys.executable, "-m", "ifguide.serving.worker")):
        self._command = command
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def ask(self, **request) -> str:
        """Queue a request with the fields of `ifguide.serving.worker.Request`; returns its id."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            assert self._process
            return f"{self._process.pid}.{self._send({'ask': request})['id']}"

    def read(self, id: str, *, cancel: bool = False) -> dict:
        """The state of a request, as in `ifguide.serving.worker.Worker.answer`; `cancel` ends it."""
        pid, _, number = id.partition(".")
        with self._lock:
            if self._process is None or str(self._process.pid) != pid:
                raise ProcessError("the models' process was started again; run this again")
            return self._send({"id": int(number), "cancel": cancel})

    def follow(self, **request) -> Iterator[dict]:
        """The states of a request until it has ended; it is cancelled if the caller asks for no more."""
        id = self.ask(**request)
        try:
            while (state := self.read(id))["state"] in WORKING:
                yield state
                time.sleep(POLL_SECONDS)
            yield state
        except GeneratorExit:
            self.read(id, cancel=True)
            raise

    def close(self) -> None:
        with self._lock:
            if self._process:
                self._process.kill()
                self._process.wait()

    def _start(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, read when the process has ended
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            # without waiting threads that spin, a job beside it does not slow it down tenfold
            env={"OMP_WAIT_POLICY": "PASSIVE"} | os.environ | {"HF_HUB_OFFLINE": "1"},
            start_new_session=True,  # the end of its input ends it, not a key pressed in the app's terminal
        )

    def _send(self, message: dict) -> dict:
        process = self._process
        assert process and process.stdin and process.stdout
        line = b""
        try:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
            if select.select([process.stdout], [], [], ANSWER_SECONDS)[0]:
                line = process.stdout.readline()
        except OSError:
            pass
        if line.endswith(b"\n"):
            return json.loads(line)
        process.kill()
        raise ProcessError(f"the models' process {self._ending(process.wait())}; run again to start it again")

    def _ending(self, code: int) -> str:
        if code == 0:
            return "ended because it had no requests"
        self._errors.seek(0)
        last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
        killed = "it was killed, perhaps because the memory ran out" if code == -9 else f"exit code {code}"
        return f"crashed ({last[0][:200] if last and code > 0 else killed})"
