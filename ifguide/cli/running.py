"""A running command: its progress and its end go to the terminal and to the job's status file.

If several processes share the command, the first one prints for all.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

from ifguide.errors import ProcessError, describe_error
from ifguide.runtime.distributed import current, join_processes, launched_together

if TYPE_CHECKING:
    from ifguide.runtime.progress import Progress
    from ifguide.study.reading import Study


@contextlib.contextmanager
def follow_run(stage: str = "") -> Iterator["Progress"]:
    """Yield the `Progress` of one command: shown in the terminal and, for a job, kept in its status file.

    The status file always records the end: `done`, `failed` with the error, or `cancelled`. SIGTERM unwinds the block
    as Ctrl+C does, so that half-built folders are removed. A command of one stage names it.
    """
    from ifguide.cli.terminal import TerminalSink
    from ifguide.runtime.jobs import job_sinks
    from ifguide.runtime.progress import Progress

    progress = Progress([TerminalSink(), *job_sinks(sys.argv[1:])] if speaks() else [])
    try:
        with _stop_on_sigterm(), join_processes():
            try:
                if stage:
                    progress.begin_stage(stage, 0, 1)
                yield progress
            except (KeyboardInterrupt, SystemExit):
                if failed := current().failure():  # the launcher ends all processes if one of them fails
                    raise ProcessError(failed) from None
                raise
    except (KeyboardInterrupt, SystemExit):
        progress.message("stopped; run the same command again to continue from what is kept")
        progress.close("cancelled")
        raise
    except BaseException as error:
        progress.close("failed", describe_error(error))
        raise
    progress.close("done")


def open_study(name: str) -> "Study":
    """The study of this name in the cache; a StudyNotFound without it, a ConfigError if its study.toml is wrong."""
    from ifguide.study.reading import Study

    return Study.open(name)


def serve_app(options: list[str], opened: str = "") -> NoReturn:
    """Serve the app in this process, so that stopping it stops the server. `options` are those of `streamlit run`,
    `opened` is a study's name."""
    from ifguide.study.folder import cache_dir
    from ifguide.study.sharing.packed import OPENED
    from ifguide.ui import server
    from ifguide.ui.shipped import app_folder

    os.environ.update({"IFGUIDE_CACHE": str(cache_dir())} | ({OPENED: opened} if opened else {}))
    os.chdir(app_folder())
    server.main(options)


def speaks() -> bool:
    """Whether this process prints and keeps the status, as the first of those that a launcher started does."""
    return not launched_together() or int(os.environ.get("RANK") or 0) == 0


@contextlib.contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the block, so that half-built folders are removed."""

    def stop(*_) -> None:
        raise SystemExit(143)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
