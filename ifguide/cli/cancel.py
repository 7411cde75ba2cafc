"""`ifguide cancel`: stop a job."""

import typer

from ifguide.cli.options import StudyName
from ifguide.errors import InputError


def add_commands(app: typer.Typer) -> None:
    """Add `cancel` to the command line."""

    @app.command()
    def cancel(name: StudyName) -> None:
        """Stop the job that works on a study in the background."""
        from ifguide.config.names import check_name
        from ifguide.runtime.jobs import active_job, cancel_job
        from ifguide.study.folder import cache_dir

        job = active_job(cache_dir() / check_name(name))
        if job is None:
            raise InputError(
                f"study {name!r} has no running job; a run in another terminal is stopped there with Ctrl+C"
            )
        print(f"job {job.id} is {cancel_job(job).state}; go on later with `ifguide run {name}`")
