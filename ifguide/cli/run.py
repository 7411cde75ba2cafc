"""`ifguide run`: build what is missing or out of date."""

from typing import Annotated

import typer

from ifguide.cli.background import print_headline, start_in_background
from ifguide.cli.options import Background, StatusFile, StudyName
from ifguide.cli.running import follow_run, launched_together, open_study
from ifguide.errors import InputError


def run(
    name: StudyName,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")] = None,
    force: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Build this stage again, even if it is up to date.")
    ] = None,
    background: Background = False,
    status_file: StatusFile = None,
) -> None:
    """Build every stage of a study that is missing or out of date.

    The stages, in order: corpus, queries, model, factors, direction, scores, index, selection, documents, suppress,
    evaluate.
    """
    from ifguide.study.lineage import STAGES

    for stage in filter(None, (until, force)):
        if stage not in STAGES:
            raise InputError(f"expected a stage ({', '.join(STAGES)}), got {stage!r}")
    study = open_study(name)
    if background:
        if launched_together():
            raise InputError(
                "--background starts one process; start several with torchrun or accelerate launch without it"
            )
        extra = [*(["--until", until] if until else []), *(["--force", force] if force else [])]
        start_in_background(name, ["run", name, *extra])
        return
    with follow_run(status_file) as progress:
        from ifguide.study.pipeline import run_study

        run_study(study, until=until, force=force, progress=progress)
    print_headline(name)
