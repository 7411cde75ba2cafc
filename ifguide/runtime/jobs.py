"""Background jobs: detached processes, each with a folder, followed through a status file; and the queue of those that
wait.

A job is `python -m ifguide …` in its own session, so it survives the app. Its folder `jobs/<id>/` inside the study
holds `process.json` (its process, written by the starter), `status.json` (its progress, written by the job) and
`log.txt` (its output).

One job of a study runs at a time; the others wait in `jobs/queue.json`, first come first. A job that ends starts the
next one. After a job that was killed, whoever looks does: the app, `ifguide status`, or the next `enqueue_job`.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from ifguide.config.names import check_name
from ifguide.errors import StaleError
from ifguide.runtime.progress import FileSink, Snapshot
from ifguide.storage.artifacts import read_json, write_json
from ifguide.storage.lock import check_writable

JOBS = "jobs"
QUEUE = "queue.json"
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
    """Seconds from the machine's start to that process's; a later process with the same number has other ones."""
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


def enqueue_job(study_name: str, arguments: Sequence[str], cache: Path) -> Job | None:
    """Start `python -m ifguide <arguments>` as a background job of a study, or put it at the end of the study's queue
    while another job runs. Returns at once: the started job, or None if it waits. A command that waits already is not
    queued twice; paths in it must be absolute. The study's folder in `cache` is created if it is missing. A ConfigError
    if the study's name is unsafe, an InputError if it is recorded.
    """
    root, command = cache.resolve() / check_name(study_name), tuple(arguments)
    check_writable(root)
    with _change_queue(root) as waiting:
        if command not in waiting:
            waiting.append(command)
        started = _start_next(root, waiting)
        return None if command in waiting else started


def waiting_jobs(study_root: Path) -> list[tuple[str, ...]]:
    """The commands in the study's queue, the next one first."""
    try:
        return [tuple(command) for command in read_json(study_root / JOBS / QUEUE)]
    except StaleError:
        return []


def start_waiting(study_root: Path, *, ended: str = "") -> Job | None:
    """Start the next job of a study's queue if none runs; `ended` is the id of a job that is about to end."""
    if not waiting_jobs(study_root):
        return None
    with _change_queue(study_root) as waiting:
        return _start_next(study_root, waiting, ended)


def move_waiting(study_root: Path, command: tuple[str, ...], place: int) -> None:
    """Move a command to a place of the queue, counted from 0; nothing if it has started meanwhile."""
    with _change_queue(study_root) as waiting:
        if command in waiting:
            waiting.remove(command)
            waiting.insert(place, command)


def drop_waiting(study_root: Path, command: tuple[str, ...] | None = None) -> None:
    """Take a command out of the queue, or all of them; nothing if it has started meanwhile."""
    with _change_queue(study_root) as waiting:
        waiting[:] = [other for other in waiting if command not in (None, other)]


def pass_on() -> None:
    """In the process of a job that is about to end: start the next one of its study."""
    folder = Path(os.environ[STATUS_FILE]).resolve().parent
    start_waiting(folder.parent.parent, ended=folder.name)


@contextlib.contextmanager
def _change_queue(root: Path) -> Iterator[list[tuple[str, ...]]]:
    """The queue, to be changed in place by one process at a time; it is written when the block ends without error."""
    (root / JOBS).mkdir(parents=True, exist_ok=True)
    with (root / JOBS / "queue.lock").open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        waiting, before = waiting_jobs(root), waiting_jobs(root)
        yield waiting
        if waiting != before:
            write_json(root / JOBS / QUEUE, waiting)


def _start_next(root: Path, waiting: list[tuple[str, ...]], ended: str = "") -> Job | None:
    """Start the first command of the queue and take it out, unless another job than `ended` runs."""
    running = active_job(root)
    if not waiting or (running and running.id != ended):
        return None
    arguments, folder, now = waiting.pop(0), root / JOBS / _next_id(root), time.time()
    folder.mkdir()
    job = Job(folder=folder)
    identity = {"job": job.id, "study": root.name, "command": arguments, "pid": 0, "started": now}
    write_json(job.status_path, {**identity, "state": "running", "message": "starting", "updated": now})
    command = [sys.executable, "-m", "ifguide", *arguments]
    added = {"IFGUIDE_CACHE": str(root.parent), STATUS_FILE: str(job.status_path), "PYTHONUNBUFFERED": "1"}
    with job.log_path.open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | added, start_new_session=True
        )
    write_json(folder / "process.json", {"pid": process.pid, "process_started": _start_time(process.pid) or 0.0})
    return job


def _next_id(root: Path) -> str:
    """The time as an id; if the clock was set back, one just after the latest job's, so that later jobs sort last."""
    now = datetime.now(UTC)
    with contextlib.suppress(ValueError, OSError):
        last = max(path.name for path in (root / JOBS).iterdir() if path.is_dir())
        now = max(now, datetime.strptime(last, _ID).replace(tzinfo=UTC) + timedelta(microseconds=1))
    return now.strftime(_ID)


def job_sinks(arguments: list[str]) -> list[FileSink]:
    """The sink that keeps the status file of the job that this process is, called with `arguments`; none if no job."""
    if not (path := os.environ.get(STATUS_FILE)):
        return []
    folder, pid = Path(path).resolve().parent, os.getpid()
    folder.mkdir(parents=True, exist_ok=True)
    identity = {"job": folder.name, "study": folder.parent.parent.name, "command": arguments, "pid": pid}
    times = {"process_started": _start_time(pid), "started": psutil.Process().create_time()}
    return [FileSink(Path(path), {**identity, **times})]


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
            return job if job.status().running else None  # only the latest can be running
    return None


def cancel_job(job: Job, *, grace_seconds: float = 10.0) -> JobStatus:
    """Terminate a job and all its processes; after `grace_seconds` kill them. The next one in line starts. Returns the
    new status. A job that has already ended is left alone.
    """
    status = job.status()
    if not status.running or not status.pid:
        return status
    try:
        leader = psutil.Process(status.pid)
        group = [leader, *leader.children(recursive=True)]
        if os.getpgid(status.pid) == status.pid:
            os.killpg(status.pid, signal.SIGTERM)
        else:  # not started by `enqueue_job`: end only the process itself
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
    start_waiting(job.folder.parent.parent)
    return job.status()


def _parse(values: dict) -> JobStatus:
    kept = {field.name: values[field.name] for field in fields(JobStatus) if field.name in values}
    return JobStatus(**(kept | {"command": tuple(kept.get("command", ()))}))


def _start_time(pid: int) -> float | None:
    """Seconds from the machine's start to a process's, or None when it is gone or a zombie. Setting the clock changes
    both times of psutil, but not this difference."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time() - psutil.boot_time()
    except psutil.NoSuchProcess:
        return None


def _read_end(path: Path, max_bytes: int) -> str:
    with contextlib.suppress(OSError), path.open("rb") as stream:
        stream.seek(max(stream.seek(0, os.SEEK_END) - max_bytes, 0))
        return stream.read().decode("utf-8", errors="replace")
    return ""
