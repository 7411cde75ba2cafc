"""`ifguide suppress` and `ifguide evaluate`: train with a penalty on a selection, and measure a model."""

from typing import Annotated

import typer

from ifguide.cli.background import print_headline
from ifguide.cli.options import SelectionName, StatusFile, StudyName
from ifguide.cli.running import follow_run, open_study, speaks


def suppress(name: StudyName, selection: SelectionName = "default", status_file: StatusFile = None) -> None:
    """Train the model again with a penalty on a selection's tokens."""

    study = open_study(name)
    with follow_run(status_file) as progress:
        from ifguide.study.pipeline import suppress as suppress_tokens

        suppress_tokens(study, selection, progress=progress)
    if speaks():
        print(f"trained without {selection}; evaluate it with `ifguide evaluate {name} --model {selection}`")


def evaluate(
    name: StudyName,
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="base, or the selection that it was trained without.")
    ] = "default",
    status_file: StatusFile = None,
) -> None:
    """Measure a model's toxicity and perplexity.

    The model completes the prompts, the completions are scored, and perplexity is measured on held-out text.
    """
    from ifguide.config.names import DEFAULT

    study = open_study(name)
    variant = DEFAULT if model == "suppressed" else model
    with follow_run(status_file) as progress:
        from ifguide.study.pipeline import evaluate as evaluate_model

        evaluate_model(study, variant, progress=progress)
    print_headline(name)
