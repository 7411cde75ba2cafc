"""`ifguide compare`: train and measure other methods beside ours."""

from typing import Annotated

import typer

from ifguide.cli.options import StatusFile, StudyName
from ifguide.cli.running import follow_run
from ifguide.config.names import BASE, DEFAULT
from ifguide.errors import InputError
from ifguide.study.variants import METHODS, OTHERS, PREFERENCE, possible_models
from ifguide.training.preference import has_trl


def add_commands(app: typer.Typer) -> None:
    """Add them to the program."""

    @app.command()
    def compare(
        name: StudyName,
        others: Annotated[
            str,
            typer.Option(
                "--with",
                metavar="A,B,...",
                help=f"Which: {', '.join(OTHERS)}; a table [variants.NAME] of study.toml; a saved selection; or `all`.",
            ),
        ] = "random,oracle",
        status_file: StatusFile = None,
    ) -> None:
        """Train models without what other methods select, or in other ways, measure them, and print all side by side.

        Base and default model come along. What is up to date is not trained again.
        """
        from ifguide.study.analysis.comparison import comparison_table
        from ifguide.study.pipeline import compare as compare_models
        from ifguide.study.reading import Study

        study = Study.open(name)
        wanted = choose(study, others)
        with follow_run(status_file) as progress:
            compare_models(study, wanted, progress=progress)
        print(comparison_table(study, [BASE, DEFAULT, *wanted]))


def choose(study, others: str) -> list[str]:
    """The models that `--with` names, each once, base and default left out.

    Raises:
        InputError: a name that means nothing here.
    """
    possible = possible_models(study.config, study.has_spans)
    wanted = [part.strip() for part in others.split(",") if part.strip()]
    if "all" in wanted:
        there = possible if has_trl() else [name for name in possible if name != PREFERENCE]
        wanted = [*there, *(name for name in wanted if name != "all")]
    known = {*possible, *METHODS, *study.selection_names(), BASE, DEFAULT}
    for name in wanted:
        if name == "oracle" and not study.has_spans:
            raise InputError("--with oracle needs known spans, and this corpus has none; leave it out")
        if name not in known:
            raise InputError(
                f"--with: expected some of {', '.join(sorted(known - {BASE, DEFAULT}))} or all, got {name!r}"
            )
    return [name for name in dict.fromkeys(wanted) if name not in (BASE, DEFAULT)]
