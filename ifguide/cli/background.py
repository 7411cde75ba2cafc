"""Background jobs, which `--background` starts and `ifguide cancel` stops, and the last words of a run."""

import contextlib

from ifguide.cli.options import StudyName
from ifguide.cli.running import open_study, speaks
from ifguide.errors import InputError, StudyNotFound


def start_in_background(name: str, arguments: list[str], *, skip_when_fresh: bool = False) -> None:
    """Start `ifguide` as a background job, unless the study has a running one.

    Args:
        name: of the study.
        arguments: the command and its options.
        skip_when_fresh: start nothing when every stage of the study is up to date.
    """
    from ifguide.runtime.jobs import active_job, start_job
    from ifguide.study.folder import cache_dir
    from ifguide.study.freshness import stage_states

    cache = cache_dir()
    if active := active_job(cache / name):
        print(f"study {name} is already being built by job {active.id}")
        return
    if skip_when_fresh:
        with contextlib.suppress(StudyNotFound):
            if all(state.state == "fresh" for state in stage_states(open_study(name)).values()):
                print(f"study {name} is up to date")
                return
    job = start_job(name, arguments, cache)
    print(f"building study {name} in the background; follow it with `ifguide status {name}` or in {job.log_path}")


def cancel(name: StudyName) -> None:
    """Stop a study's background job."""
    from ifguide.config.names import check_name
    from ifguide.runtime.jobs import active_job, cancel_job
    from ifguide.study.folder import cache_dir

    job = active_job(cache_dir() / check_name(name))
    if job is None:
        raise InputError(f"study {name!r} has no running job; stop a run in another terminal there, with Ctrl+C")
    print(f"job {job.id} is {cancel_job(job).state}; continue with `ifguide run {name}`")


def print_headline(name: str) -> None:
    """Print a study's state, from the one process of several that prints."""
    if speaks():
        from ifguide.cli.status import format_status, study_status

        print(format_status(study_status(open_study(name))))
