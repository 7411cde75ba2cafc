"""Detached jobs: their status, their end, and what is left when they end badly."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from ifguide.errors import ConfigError, StaleError
from ifguide.runtime import jobs

# Stands in for `python -m ifguide COMMAND…` and does what the first word after `ifguide` says.
FAKE = f"""#!{sys.executable}
import signal, subprocess, sys, time
from ifguide.runtime.jobs import job_sinks, pass_on
from ifguide.runtime.progress import Progress

sys.executable = sys.argv[0]
assert sys.argv[1:3] == ["-m", "ifguide"], sys.argv
arguments = sys.argv[3:]
behaviour = arguments[0]
if behaviour == "crash-early":
    sys.exit("no such command")
progress = Progress(job_sinks(arguments))
progress.begin_stage("model", 0, 1)
if behaviour == "finish":
    progress.close("done")
    pass_on()
elif behaviour == "crash":
    print("first line")
    print("out of memory")
    sys.exit(1)
elif behaviour == "work":
    child = subprocess.Popen(["sleep", "60"])
    progress.message(str(child.pid))
    time.sleep(60)
elif behaviour == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    progress.message("deaf")
    time.sleep(60)
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts a fake job; whatever still runs afterwards is ended."""
    fake = tmp_path / "fake-python"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    monkeypatch.setattr(jobs.sys, "executable", str(fake))
    cache = tmp_path / "cache"

    def start_one(*arguments):
        return jobs.enqueue_job("study", list(arguments), cache)

    yield start_one
    jobs.drop_waiting(cache / "study")
    for job in jobs.list_jobs(cache / "study"):
        with contextlib.suppress(StaleError):
            jobs.cancel_job(job, grace_seconds=0)


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def test_a_job_tells_who_it_is_and_ends_done(start):
    job = start("finish", "--until", "model")
    status = wait_for(lambda: job.status() if job.status().state == "done" else None)
    assert (status.job, status.study, status.command) == (job.id, "study", ("finish", "--until", "model"))
    assert (status.stage, status.pid > 0, status.error) == ("model", True, "")


def test_a_job_runs_in_a_session_of_its_own(start):
    job = start("work")
    status = wait_for(lambda: job.status() if job.status().message.isdigit() else None)
    assert os.getsid(status.pid) == status.pid != os.getsid(0)


def test_a_job_that_died_reads_dead_with_the_last_line_of_its_log(start):
    job = start("crash")
    status = wait_for(lambda: job.status() if not job.status().running else None)
    assert (status.state, status.error, status.stage) == ("dead", "out of memory", "model")
    assert "first line" in job.log()


def test_a_job_that_dies_before_its_first_word_reads_dead(start):
    job = start("crash-early")
    status = wait_for(lambda: job.status() if not job.status().running else None)
    assert (status.state, status.error) == ("dead", "no such command")


def test_another_process_with_the_same_number_is_not_the_job(start):
    job = start("work")
    wait_for(lambda: job.status().message.isdigit())
    values = json.loads(job.status_path.read_text())
    jobs.cancel_job(job, grace_seconds=0)
    other = subprocess.Popen(["sleep", "60"])
    try:
        values |= {"state": "running", "pid": other.pid, "process_started": jobs._start_time(other.pid)}
        job.status_path.write_text(json.dumps(values))
        assert job.status().state == "running"
        job.status_path.write_text(json.dumps(values | {"process_started": values["process_started"] - 3600}))
        assert job.status().state == "dead"
        assert jobs.cancel_job(job, grace_seconds=0).state == "dead"
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_job_still_runs_after_the_clock_was_set(start, monkeypatch):
    job = start("work")
    wait_for(lambda: job.status().message.isdigit())
    create_time, boot_time = psutil.Process.create_time, psutil.boot_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: create_time(self) + 3600)
    monkeypatch.setattr(psutil, "boot_time", lambda: boot_time() + 3600)
    assert job.status().state == "running"
    jobs.cancel_job(job, grace_seconds=0)


def test_cancelling_ends_the_job_and_its_children(start):
    job = start("work")
    status = wait_for(lambda: job.status() if job.status().message.isdigit() else None)
    assert jobs.cancel_job(job).state == "cancelled"
    for pid in (status.pid, int(status.message)):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert jobs.cancel_job(job).state == "cancelled"


def test_a_job_that_does_not_listen_is_killed_after_the_grace(start):
    job = start("stubborn")
    wait_for(lambda: job.status().message == "deaf")
    assert jobs.cancel_job(job, grace_seconds=0.3).state == "cancelled"
    assert jobs.active_job(job.folder.parent.parent) is None


def waiting(root) -> list[str]:
    return [" ".join(command) for command in jobs.waiting_jobs(root)]


def test_jobs_wait_in_line_one_runs_at_a_time_and_each_starts_the_next(start, tmp_path):
    root = tmp_path / "cache" / "study"
    assert jobs.latest_job(root) is None and waiting(root) == []
    first = start("work")
    assert jobs.active_job(root) == first
    assert [start("finish", word) for word in ("one", "two", "three")] == [None] * 3
    assert start("finish", "two") is None  # it waits already
    assert waiting(root) == ["finish one", "finish two", "finish three"]
    jobs.move_waiting(root, ("finish", "three"), 0)
    jobs.drop_waiting(root, ("finish", "one"))
    assert waiting(root) == ["finish three", "finish two"]
    assert jobs.start_waiting(root) is None
    jobs.cancel_job(first, grace_seconds=1)  # starts the next one
    wait_for(lambda: len(jobs.list_jobs(root)) == 3 and not jobs.active_job(root))
    done = [job.status() for job in jobs.list_jobs(root)]
    assert [(one.command[-1], one.state) for one in done] == [("two", "done"), ("three", "done"), ("work", "cancelled")]
    assert waiting(root) == [] and jobs.latest_job(root).id == done[0].job


def test_what_waits_behind_a_killed_job_is_started_by_whoever_looks(start, tmp_path):
    root = tmp_path / "cache" / "study"
    first = start("work")
    status = wait_for(lambda: first.status() if first.status().message.isdigit() else None)
    assert start("finish") is None
    os.killpg(status.pid, signal.SIGKILL)
    wait_for(lambda: first.status().state == "dead")
    assert waiting(root) == ["finish"]
    second = jobs.start_waiting(root)
    wait_for(lambda: second.status().state == "done")
    assert waiting(root) == [] and jobs.start_waiting(root) is None


def test_jobs_queued_by_many_at_once_are_all_kept(start, tmp_path):
    first, root = start("work"), tmp_path / "cache" / "study"
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: start("finish", str(number)), range(64)))
    assert sorted(waiting(root)) == sorted(f"finish {number}" for number in range(64))
    assert jobs.active_job(root) == first and len(jobs.list_jobs(root)) == 1


def test_a_job_cannot_leave_the_cache(tmp_path):
    with pytest.raises(ConfigError):
        jobs.enqueue_job("../elsewhere", ["run"], tmp_path / "cache")
    assert not (tmp_path / "elsewhere").exists()


def test_a_damaged_status_file_is_an_error_and_hides_no_other_job(start, tmp_path):
    job = start("work")
    broken = tmp_path / "cache" / "study" / "jobs" / "99990101-000000-000000" / "status.json"
    broken.parent.mkdir()
    broken.write_text("{")
    with pytest.raises(StaleError, match="damaged"):
        jobs.Job(folder=broken.parent).status()
    assert jobs.active_job(tmp_path / "cache" / "study") == job
