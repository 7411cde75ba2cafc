"""The app's end of the models' process: started by a request, again after a crash, ended with the app."""

import sys

import psutil
import pytest

from ifguide.errors import ProcessError
from ifguide.serving.client import ModelWorker
from tests import warm
from tests.tiny_study import write_two_models

ECHO = """
import json, sys, os
n = 0
for line in sys.stdin:
    message = json.loads(line)
    if message.get("ask", {}).get("prompt") == "crash":
        sys.exit("RuntimeError: no luck")
    if message.get("ask", {}).get("prompt") == "killed":
        os.kill(os.getpid(), 9)
    n += 1
    print(json.dumps({"id": n, "heard": message, "waits": os.environ["OMP_WAIT_POLICY"]}), flush=True)
"""


@pytest.fixture
def echo():
    worker = ModelWorker((sys.executable, "-c", ECHO))
    yield worker
    worker.close()


def test_a_crash_is_said_in_one_line_and_the_next_request_starts_it_again(echo):
    id = echo.ask(prompt="a")
    assert echo.read(id)["heard"] == {"id": 1, "cancel": False}
    with pytest.raises(ProcessError, match=r"crashed \(RuntimeError: no luck\); run again to start it again$"):
        echo.ask(prompt="crash")
    again = echo.ask(prompt="b")
    assert echo.read(again, cancel=True)["heard"] == {"id": 1, "cancel": True}
    with pytest.raises(ProcessError, match="was started again; run this again"):
        echo.read(id)
    with pytest.raises(ProcessError, match="killed, perhaps because the memory ran out"):
        echo.ask(prompt="killed")


@pytest.mark.parametrize("own", ["", "ACTIVE"])
def test_its_threads_do_not_spin_unless_the_environment_says_so(echo, monkeypatch, own):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if own:
        monkeypatch.setenv("OMP_WAIT_POLICY", own)
    assert echo.read(echo.ask(prompt="a"))["waits"] == (own or "PASSIVE")


def test_it_is_started_by_a_request_only(echo):
    with pytest.raises(ProcessError):
        echo.read("1.1")
    assert echo._process is None


@pytest.mark.slow
def test_the_real_process_completes_survives_a_kill_and_ends_with_the_app(tmp_path):
    study = write_two_models(tmp_path)
    code = f"""
import os, signal, time
from ifguide.serving import client
from tests import warm
client.subprocess = warm
from ifguide.errors import ProcessError
from ifguide.serving.client import ModelWorker
worker = ModelWorker()
def complete():
    id = worker.ask(study={str(study.root)!r}, models=["base", "default"], prompt="You are", settings={{"seed": 5}})
    while (found := worker.read(id))["state"] not in ("done", "failed"):
        time.sleep(0.05)
    return found
first = complete()
assert first["state"] == "done" and len(first["cells"]) == 2, first
os.kill(worker._process.pid, signal.SIGKILL)
try:
    worker.read(f"{{worker._process.pid}}.1")
    raise AssertionError("it noticed nothing")
except ProcessError as error:
    print(error)
assert complete() == first
print("worker", worker._process.pid)
"""
    done = warm.run([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
    assert "crashed (it was killed" in done.stdout
    pid = int(done.stdout.split()[-1])
    _, alive = psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=60)
    assert not alive
