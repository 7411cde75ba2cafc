"""How several commands end: by printing the state of the study, or by starting a background job instead."""

import contextlib

from ifguide.cli.running import speaks


def start_in_background(name: str, arguments: list[str], *, skip_when_fresh: bool = False) -> None:
    """Start `ifguide` as a background job, unless the study has a running one.

    Args:
        name: of the study.
        arguments: the command and its options.
        skip_when_fresh: start nothing when every stage of the study is up to date.
    """
    from ifguide.errors import StudyNotFound
    from ifguide.runtime.jobs import active_job, start_job
    from ifguide.study.folder import cache_dir
    from ifguide.study.freshness import stage_states
    from ifguide.study.reading import Study

    cache = cache_dir()
    if active := active_job(cache / name):
        print(f"study {name} is already being built by job {active.id}")
        return
    if skip_when_fresh:
        with contextlib.suppress(StudyNotFound):
            if all(state.state == "fresh" for state in stage_states(Study.open(name)).values()):
                print(f"study {name} is up to date")
                return
    job = start_job(name, arguments, cache)
    print(f"building study {name} in the background; follow it with `ifguide status {name}` or in {job.log_path}")


def print_headline(name: str) -> None:
    """Print a study's state, from the one process of several that prints."""
    if speaks():
        from ifguide.cli.status import format_status, study_status
        from ifguide.study.reading import Study

        print(format_status(study_status(Study.open(name))))
