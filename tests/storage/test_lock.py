"""One process works on a study at a time, and a dead one stops nobody."""

import json
import os
import signal
import subprocess
import sys

import pytest

from ifguide.errors import BusyError
from ifguide.storage.lock import study_lock

HOLD = """
import sys, time
from pathlib import Path
from ifguide.storage.lock import study_lock
with study_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_with_owner_and_age(tmp_path, holder):
    with pytest.raises(BusyError, match=rf"process {holder.pid} on \S+, since \d+\.\d s"), study_lock(tmp_path):
        pass


def test_a_killed_holder_stops_nobody(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert json.loads((tmp_path / "study.lock").read_text())["pid"] == holder.pid
    with study_lock(tmp_path):
        assert json.loads((tmp_path / "study.lock").read_text())["pid"] == os.getpid()


def test_the_lock_is_free_after_an_error_inside(tmp_path):
    with pytest.raises(ValueError, match="inside"), study_lock(tmp_path):
        raise ValueError("inside")
    with study_lock(tmp_path):
        pass


def test_the_same_process_cannot_hold_it_twice(tmp_path):
    with study_lock(tmp_path), pytest.raises(BusyError), study_lock(tmp_path):
        pass
