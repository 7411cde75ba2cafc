"""However a command ends, its status file says how."""

import json
import signal
import subprocess
import sys
import time

import pytest

from ifguide.cli.running import follow_run
from ifguide.errors import InputError
from ifguide.runtime import jobs
from tests import warm

WORK = """
import signal, time
from ifguide.cli.running import follow_run
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is born with it ignored
with follow_run() as progress:
    progress.begin_stage("model", 0, 1)
    try:
        print("working", flush=True)
        time.sleep(60)
    finally:
        print("cleaned up", flush=True)
"""


def read(path):
    return json.loads(path.read_text())


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The status file of the job that this process is."""
    monkeypatch.setenv("IFGUIDE_STATUS_FILE", str(tmp_path / "status.json"))
    return tmp_path / "status.json"


def test_a_run_that_ends_well_is_done(path):
    with follow_run("corpus"):
        assert read(path)["stage"] == "corpus"
    assert read(path)["state"] == "done"


def test_an_error_is_recorded_and_raised(path):
    for error, said in ((InputError("no file"), "no file"), (ZeroDivisionError("by 0"), "ZeroDivisionError: by 0")):
        with pytest.raises(type(error)), follow_run():
            raise error
        assert (read(path)["state"], read(path)["error"]) == ("failed", said)


def test_a_stopped_run_cleans_up_and_is_cancelled(path):
    for number in (signal.SIGTERM, signal.SIGINT):
        command = [sys.executable, "-c", WORK]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "working\n"
            process.send_signal(number)
            rest, said = process.communicate(timeout=20)
        assert rest == "cleaned up\n" and said.startswith("stopped") and "same command" in said, number
        assert process.returncode != 0, number
        assert read(path)["state"] == "cancelled", number


def test_each_job_starts_the_next_even_one_that_fails_before_it_works(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "subprocess", warm)
    (tmp_path / "rows.csv").write_text("text\nkind\n")
    row, root = ["rows", str(tmp_path / "rows.csv")], tmp_path / "study"
    commands = [row, ["status", "nothing"], ["no-such-command"], [*row, "--json"]]
    for command in commands:
        jobs.enqueue_job("study", command, tmp_path)
    end = time.monotonic() + 60
    while (jobs.waiting_jobs(root) or jobs.active_job(root)) and time.monotonic() < end:  # neither starts anything
        time.sleep(0.02)
    done = [job.status() for job in reversed(jobs.list_jobs(root))]
    assert [list(one.command) for one in done] == commands
    assert [one.state for one in done] == ["done", "dead", "dead", "done"]
    assert "expected a study" in done[1].error or "no study" in done[1].error


def test_the_signal_handler_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with follow_run():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
