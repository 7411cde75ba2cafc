"""`ifguide cancel`: stop a background job."""

from ifguide.cli.options import StudyName
from ifguide.errors import InputError


def cancel(name: StudyName) -> None:
    """Stop a study's background job."""
    from ifguide.config.names import check_name
    from ifguide.runtime.jobs import active_job, cancel_job
    from ifguide.study.folder import cache_dir

    job = active_job(cache_dir() / check_name(name))
    if job is None:
        raise InputError(f"study {name!r} has no running job; stop a run in another terminal there, with Ctrl+C")
    print(f"job {job.id} is {cancel_job(job).state}; continue with `ifguide run {name}`")
