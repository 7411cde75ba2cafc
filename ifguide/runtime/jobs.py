"""Runs that go on without the app: detached processes with a folder each, followed through a status file.

A job is `python -m ifguide …` in a session of its own. Its folder `jobs/<id>/` inside the study holds `process.json`
(who it is, written by the starter), `status.json` (how far it is, written by the job) and `log.txt` (what it printed).
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

JOBS = "jobs"
_ID = "%Y%m%d-%H%M%S-%f"
_SAME_PROCESS_SECONDS = (
    2.0  # a process's start time is known to the clock tick; a reused pid is far more than this apart
)
_START_SECONDS = 30.0  # longest time between the making of a job's folder and its process


@dataclass(frozen=True, kw_only=True)
class JobStatus(Snapshot):
    """What is known of a job at one moment: how far it is, and which job it is.

    Its `state` may also be `dead`: it ended without a word; `error` then holds the last line of its log.
    """

    job: str
    """The job's id, which is the name of its folder."""
    study: str
    """Name of the study it works on."""
    command: tuple[str, ...] = ()
    """Arguments of `ifguide`, without the status file."""
    pid: int = 0
    """Its process; 0 until it has one."""
    process_started: float = 0.0
    """When the system says that process started; tells it from a later one with the same number."""
    started: float = 0.0
    """Unix time of the start."""
    updated: float = 0.0
    """Unix time of the last word."""

    @property
    def running(self) -> bool:
        """Whether it is still at work."""
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
        """Its status now; see `read_status`."""
        return read_status(self.status_path)

    def log(self, max_bytes: int = 20_000) -> str:
        """The end of what it printed."""
        return _read_end(self.log_path, max_bytes)


def start_job(study_name: str, arguments: list[str], cache: Path) -> Job:
    """Start `python -m ifguide <arguments>` on a study, in a session of its own, and return at once.

    Args:
        study_name: the study it works on; its folder is made if need be.
        arguments: command and options, such as `["run", "demo"]`.
        cache: the folder of all studies.

    Raises:
        BusyError: a job of this study is running.
        ConfigError: the name is unsafe.
    """
    root = Path(cache).resolve() / check_name(study_name)
    if active := active_job(root):
        raise BusyError(
            f"study {study_name!r} has a running job, {active.id} ({' '.join(active.status().command)}); "
            f"wait for it, or stop it with `ifguide cancel {study_name}`"
        )
    folder = root / JOBS / _next_id(root)
    folder.mkdir(parents=True)
    job = Job(folder=folder)
    now = time.time()
    identity = {"job": job.id, "study": study_name, "command": list(arguments), "pid": 0, "started": now}
    write_json(job.status_path, {**identity, "state": "running", "message": "starting", "updated": now})
    command = [sys.executable, "-m", "ifguide", *arguments, "--status-file", str(job.status_path)]
    environment = {**os.environ, "IFGUIDE_CACHE": str(root.parent), "PYTHONUNBUFFERED": "1"}
    with job.log_path.open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    started = _start_time(process.pid)
    write_json(folder / "process.json", {"pid": process.pid, "process_started": started or now})
    return job


def _next_id(root: Path) -> str:
    """The moment as an id; where the clock was set back, one just after the latest job's, so that later jobs sort
    last.
    """
    now = datetime.now(UTC)
    with contextlib.suppress(ValueError, OSError):
        last = max(path.name for path in (root / JOBS).iterdir())
        now = max(now, datetime.strptime(last, _ID).replace(tzinfo=UTC) + timedelta(microseconds=1))
    return now.strftime(_ID)


def status_sink(path: Path, arguments: list[str]) -> FileSink:
    """The sink through which a job's own process keeps its status file.

    Args:
        path: the status file, as given by `--status-file`.
        arguments: command and options of this process.
    """
    folder = path.resolve().parent
    process = psutil.Process()
    identity = {
        "job": folder.name,
        "study": folder.parent.parent.name,
        "command": list(arguments),
        "pid": process.pid,
        "process_started": process.create_time(),
        "started": process.create_time(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    return FileSink(path, identity)


def read_status(path: Path) -> JobStatus:
    """Read a status file and check that its process still lives.

    A job that says `running` whose process is gone, or whose number belongs to another process by now, reads `dead`.

    Raises:
        StaleError: the file is missing or damaged.
    """
    status = _parse(read_json(path))
    if not status.running:
        return status
    if not status.pid:
        status = _with_process(status, path.parent / "process.json")
    if not status.pid and time.time() - status.started < _START_SECONDS:
        return status
    if status.pid and _is_alive(status):
        return status
    again = _parse(read_json(path))  # it may have said its last word between the reading and the check
    if not again.running:
        return again
    last = _read_end(path.parent / "log.txt", 4_000).strip().splitlines()
    return replace(status, state="dead", error=last[-1] if last else "it ended without a message")


def list_jobs(study_root: Path) -> list[Job]:
    """All jobs of a study, the earliest first."""
    return [Job(folder=path.parent) for path in sorted((Path(study_root) / JOBS).glob("*/status.json"))]


def latest_job(study_root: Path) -> Job | None:
    """The job started last, or None."""
    jobs = list_jobs(study_root)
    return jobs[-1] if jobs else None


def active_job(study_root: Path) -> Job | None:
    """The job at work on the study at this folder, or None."""
    for job in reversed(list_jobs(study_root)):
        with contextlib.suppress(StaleError):
            if job.status().running:
                return job
    return None


def cancel_job(job: Job, *, grace_seconds: float = 10.0) -> JobStatus:
    """Ask a job and all its processes to end; after `grace_seconds` end them. Returns the status then.

    A job that has ended already is left as it is.
    """
    status = job.status()
    if not status.running or not status.pid:
        return status
    try:
        leader = psutil.Process(status.pid)
        group = [leader, *leader.children(recursive=True)]
        if os.getpgid(status.pid) == status.pid:
            os.killpg(status.pid, signal.SIGTERM)
        else:  # not started by start_job: only the process itself is ours to end
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
    known = {f.name for f in fields(JobStatus)}
    kept = {key: value for key, value in values.items() if key in known}
    return JobStatus(**(kept | {"command": tuple(kept.get("command", ()))}))


def _with_process(status: JobStatus, path: Path) -> JobStatus:
    try:
        process = read_json(path)
    except StaleError:
        return status
    return replace(status, pid=process["pid"], process_started=process["process_started"])


def _start_time(pid: int) -> float | None:
    """When a process started, or None when it is gone or only waits to be collected."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def _is_alive(status: JobStatus) -> bool:
    started = _start_time(status.pid)
    return started is not None and abs(started - status.process_started) < _SAME_PROCESS_SECONDS


def _read_end(path: Path, max_bytes: int) -> str:
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(size - max_bytes, 0))
            return stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
