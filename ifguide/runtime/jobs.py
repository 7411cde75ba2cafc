"""Background jobs: detached processes, each with a folder, followed through a status file.

A job is `python -m ifguide …` in its own session, so it survives the app. Its folder `jobs/<id>/` inside the study
holds `process.json` (its process, written by the starter), `status.json` (its progress, written by the job) and
`log.txt` (its output).
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from ifguide.config.names import check_name
from ifguide.errors import BusyError, StaleError
from ifguide.runtime.progress import FileSink, Snapshot
from ifguide.storage.artifacts import read_json, write_json
from ifguide.storage.lock import check_writable

JOBS = "jobs"
STATUS_FILE = "IFGUIDE_STATUS_FILE"
"""The variable that tells a job's process where to keep its status."""
_ID = "%Y%m%d-%H%M%S-%f"
_SAME_PROCESS_SECONDS = 2.0  # start times are exact to a clock tick; those of a reused pid differ by far more
_START_SECONDS = 30.0  # longest time between the creation of a job's folder and its process


@dataclass(frozen=True, kw_only=True)
class JobStatus(Snapshot):
    """A job at one moment. Its `state` may also be `dead`: the process ended without a status, and `error` is the last
    line of its log."""

    job: str
    """The job's id, which is the name of its folder."""
    study: str
    """Name of its study."""
    command: tuple[str, ...] = ()
    """Arguments of `ifguide`."""
    pid: int = 0
    """Its process; 0 until it has one."""
    process_started: float = 0.0
    """Unix time when that process started; a later process with the same number has another."""
    started: float = 0.0
    """Unix time of the start."""
    updated: float = 0.0
    """Unix time of the last update."""

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.state == "running"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job's folder."""

    folder: Path

    @property
    def id(self) -> str:
        """The folder's name; later jobs sort after earlier ones."""
        return self.folder.name

    @property
    def status_path(self) -> Path:
        return self.folder / "status.json"

    @property
    def log_path(self) -> Path:
        return self.folder / "log.txt"

    def status(self) -> JobStatus:
        """Its progress, after a check that its process is alive; a StaleError if the status file is missing or damaged.

        A `running` job whose process is gone, or whose process number now belongs to another process, reads `dead`.
        """
        status = _parse(read_json(self.status_path))
        if not status.running:
            return status
        if not status.pid:
            with contextlib.suppress(StaleError):
                process = read_json(self.folder / "process.json")
                status = replace(status, pid=process["pid"], process_started=process["process_started"])
        if status.pid:
            started = _start_time(status.pid)
            alive = started is not None and abs(started - status.process_started) < _SAME_PROCESS_SECONDS
        else:
            alive = time.time() - status.started < _START_SECONDS
        if alive:
            return status
        again = _parse(read_json(self.status_path))  # it may have ended between the reading and the check
        if not again.running:
            return again
        last = _read_end(self.log_path, 4_000).strip().splitlines()
        return replace(status, state="dead", error=last[-1] if last else "it ended without a message")

    def log(self) -> str:
        """The end of its output."""
        return _read_end(self.log_path, 20_000)


def start_job(study_name: str, arguments: list[str], cache: Path) -> Job:
    """Start `python -m ifguide <arguments>`, such as `["run", "demo"]`, in its own session, and return at once.

    The study's folder in `cache` is created if it is missing. A BusyError if a job of this study is running, a
    ConfigError if its name is unsafe.
    """
    root = cache.resolve() / check_name(study_name)
    check_writable(root)
    if active := active_job(root):
        raise BusyError(
            f"study {study_name!r} has a running job, {active.id} ({' '.join(active.status().command)}); "
            f"wait for it, or stop it with `ifguide cancel {study_name}`"
        )
    folder = root / JOBS / _next_id(root)
    folder.mkdir(parents=True)
    job, now = Job(folder=folder), time.time()
    identity = {"job": job.id, "study": study_name, "command": arguments, "pid": 0, "started": now}
    write_json(job.status_path, {**identity, "state": "running", "message": "starting", "updated": now})
    command = [sys.executable, "-m", "ifguide", *arguments]
    added = {"IFGUIDE_CACHE": str(root.parent), STATUS_FILE: str(job.status_path), "PYTHONUNBUFFERED": "1"}
    with job.log_path.open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | added, start_new_session=True
        )
    write_json(folder / "process.json", {"pid": process.pid, "process_started": _start_time(process.pid) or now})
    return job


def _next_id(root: Path) -> str:
    """The time as an id; if the clock was set back, one just after the latest job's, so that later jobs sort last."""
    now = datetime.now(UTC)
    with contextlib.suppress(ValueError, OSError):
        last = max(path.name for path in (root / JOBS).iterdir())
        now = max(now, datetime.strptime(last, _ID).replace(tzinfo=UTC) + timedelta(microseconds=1))
    return now.strftime(_ID)


def job_sinks(arguments: list[str]) -> list[FileSink]:
    """The sink that keeps the status file of the job that this process is, called with `arguments`; none if no job."""
    if not (path := os.environ.get(STATUS_FILE)):
        return []
    folder, process = Path(path).resolve().parent, psutil.Process()
    folder.mkdir(parents=True, exist_ok=True)
    identity = {"job": folder.name, "study": folder.parent.parent.name, "command": arguments, "pid": process.pid}
    started = process.create_time()
    return [FileSink(Path(path), {**identity, "process_started": started, "started": started})]


def list_jobs(study_root: Path) -> list[Job]:
    """All jobs of a study, the latest first."""
    return [Job(folder=path.parent) for path in sorted((study_root / JOBS).glob("*/status.json"), reverse=True)]


def latest_job(study_root: Path) -> Job | None:
    """The job started last, or None."""
    return next(iter(list_jobs(study_root)), None)


def active_job(study_root: Path) -> Job | None:
    """The running job of the study in this folder, or None."""
    for job in list_jobs(study_root):
        with contextlib.suppress(StaleError):
            if job.status().running:
                return job
    return None


def cancel_job(job: Job, *, grace_seconds: float = 10.0) -> JobStatus:
    """Terminate a job and all its processes; after `grace_seconds` kill them. Returns the new status.

    A job that has already ended is left alone.
    """
    status = job.status()
    if not status.running or not status.pid:
        return status
    try:
        leader = psutil.Process(status.pid)
        group = [leader, *leader.children(recursive=True)]
        if os.getpgid(status.pid) == status.pid:
            os.killpg(status.pid, signal.SIGTERM)
        else:  # not started by start_job: end only the process itself
            leader.terminate()
        _, alive = psutil.wait_procs(group, timeout=grace_seconds)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=5)
    except (psutil.NoSuchProcess, ProcessLookupError):
        pass
    last = read_json(job.status_path)
    if last.get("state") == "running":
        write_json(job.status_path, {**last, "state": "cancelled", "seconds_left": None, "updated": time.time()})
    return job.status()


def _parse(values: dict) -> JobStatus:
    kept = {field.name: values[field.name] for field in fields(JobStatus) if field.name in values}
    return JobStatus(**(kept | {"command": tuple(kept.get("command", ()))}))


def _start_time(pid: int) -> float | None:
    """Unix time when a process started, or None when it is gone or a zombie."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def _read_end(path: Path, max_bytes: int) -> str:
    with contextlib.suppress(OSError), path.open("rb") as stream:
        stream.seek(max(stream.seek(0, os.SEEK_END) - max_bytes, 0))
        return stream.read().decode("utf-8", errors="replace")
    return ""
