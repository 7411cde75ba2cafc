"""`ifguide suppress` and `ifguide evaluate`: train without a selection, and measure what came of it."""

from typing import Annotated

import typer

from ifguide.cli.background import print_headline
from ifguide.cli.options import SelectionName, StatusFile, StudyName
from ifguide.cli.running import follow_run, speaks


def add_commands(app: typer.Typer) -> None:
    """Add `suppress` and `evaluate` to the command line."""

    @app.command()
    def suppress(name: StudyName, selection: SelectionName = "default", status_file: StatusFile = None) -> None:
        """Train the model anew with the penalty on a selection's tokens."""
        from ifguide.study.reading import Study

        study = Study.open(name)
        with follow_run(status_file) as progress:
            from ifguide.study.pipeline import suppress as suppress_tokens

            suppress_tokens(study, selection, progress=progress)
        if speaks():
            print(f"trained without {selection}; measure it with `ifguide evaluate {name} --model {selection}`")

    @app.command()
    def evaluate(
        name: StudyName,
        model: Annotated[
            str, typer.Option(metavar="VARIANT", help="`base`, or the selection it was trained without.")
        ] = "default",
        status_file: StatusFile = None,
    ) -> None:
        """Complete the prompts with a model, score the completions, and measure perplexity on held-out text."""
        from ifguide.config.names import DEFAULT
        from ifguide.study.reading import Study

        study = Study.open(name)
        variant = DEFAULT if model == "suppressed" else model
        with follow_run(status_file) as progress:
            from ifguide.study.pipeline import evaluate as evaluate_model

            evaluate_model(study, variant, progress=progress)
        print_headline(name)
