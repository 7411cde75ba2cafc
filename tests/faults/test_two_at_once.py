"""Two runs of one study, and an app that goes away while its job works."""

import os
import re
import signal
import subprocess
import sys
import time

import psutil

from ifguide.runtime import jobs
from ifguide.study.freshness import stage_states
from ifguide.study.reading import Study
from tests import warm
from tests.faults.comparing import contents
from tests.faults.conftest import NAME, limited, run_command

APP = """
import os, sys
from pathlib import Path
from ifguide.runtime.jobs import enqueue_job
enqueue_job(sys.argv[1], ["run", sys.argv[1], "--until", "factors"], Path(sys.argv[2]))
print("started", flush=True)
sys.stdin.read()
"""


def test_a_second_run_is_told_who_works_there_and_since_when(undisturbed, tmp_path):
    Study.create(NAME, undisturbed.config, tmp_path)
    first = warm.Popen(**limited(tmp_path, "run", NAME, "--until", "queries", stop_at=4))
    while psutil.Process(first.pid).status() != psutil.STATUS_STOPPED:
        assert first.poll() is None
        time.sleep(0.02)  # until it stands still in the middle of the corpus
    time.sleep(1.1)
    for command in (["run", NAME], ["verify", NAME], ["suppress", NAME]):
        second = run_command(tmp_path, *command)
        assert second.code == 2
        said = re.fullmatch(
            rf"error: study '{NAME}' is in use by process {first.pid} on \S+, since (\d+\.\d) s; follow it with"
            rf" `ifguide status {NAME}`, "
            rf"or stop it with `ifguide cancel {NAME}`",
            second.error,
        )
        assert said and float(said[1]) >= 1.0
    assert run_command(tmp_path, "status", NAME).code == 0
    first.send_signal(signal.SIGCONT)
    assert first.wait(timeout=120) == 0
    done = contents(Study.open(NAME, tmp_path))
    assert {name: done[name] for name in done} == {
        name: value for name, value in contents(undisturbed).items() if name in done
    }
    assert {"corpus/manifest.json", "queries/manifest.json"} <= done.keys()


def test_a_job_outlives_the_server_that_started_it(undisturbed, tmp_path):
    """The app's process and all of its group are killed, as when a terminal closes or a server restarts; the job works
    on."""
    Study.create(NAME, undisturbed.config, tmp_path)
    app = subprocess.Popen(
        [sys.executable, "-c", APP, NAME, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert app.stdout.readline() == "started\n"
    os.killpg(app.pid, signal.SIGHUP)
    os.killpg(app.pid, signal.SIGKILL)
    app.wait()
    app.stdin.close()
    app.stdout.close()
    job = jobs.latest_job(tmp_path / NAME)  # what a restarted server sees
    assert job.status().running
    end = time.monotonic() + 120
    while job.status().running and time.monotonic() < end:
        time.sleep(0.1)
    assert job.status().state == "done", job.log()
    study = Study.open(NAME, tmp_path)
    assert stage_states(study)["factors"].state == "fresh"
    assert contents(study)["factors/manifest.json"] == contents(undisturbed)["factors/manifest.json"]
