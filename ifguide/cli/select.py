"""`ifguide select`: choose tokens and save the choice."""

import dataclasses
from enum import StrEnum
from typing import Annotated

import typer

from ifguide.cli.options import StatusFile, StudyName
from ifguide.cli.running import follow_run


class Attribution(StrEnum):
    """Kinds of token scores."""

    own_loss = "own_loss"
    position = "position"


def add_commands(app: typer.Typer) -> None:
    """Add `select` to the command line."""

    @app.command()
    def select(
        name: StudyName,
        quantile: Annotated[
            float | None, typer.Option(min=0.0, max=1.0, help="Tokens with scores above this quantile are hits.")
        ] = None,
        window: Annotated[int | None, typer.Option(min=0, help="Tokens taken on each side of a hit.")] = None,
        max_tokens: Annotated[int | None, typer.Option(min=0, help="Budget in tokens; 0: none.")] = None,
        attribution: Annotated[Attribution | None, typer.Option(help="Which scores to select by.")] = None,
        selection: Annotated[
            str | None, typer.Option("--name", metavar="S", help="What to call it [made from the settings].")
        ] = None,
        status_file: StatusFile = None,
    ) -> None:
        """Choose tokens by threshold, window and budget (Algorithm 1) and save the choice.

        What is not given here is taken from study.toml.
        """
        from ifguide.study.reading import Study
        from ifguide.study.select import save_selection

        study = Study.open(name)
        given: dict = {
            "quantile": quantile,
            "window": window,
            "max_tokens": max_tokens,
            "attribution": attribution and attribution.value,
        }
        settings = {key: value for key, value in given.items() if value is not None}
        with follow_run(status_file):
            wanted = dataclasses.replace(study.config.selection, **settings)
            derived = f"{wanted.attribution}-q{wanted.quantile:g}-w{wanted.window}-m{wanted.max_tokens}"
            made = save_selection(study, selection or derived, settings)
        found = made.settings
        share = found["n_selected"] / max(found["n_valid"], 1)
        print(
            f"selection {made.name}: {found['n_selected']:,} tokens ({share:.2%}) in {found['n_documents_hit']:,}"
            f" documents, threshold {found['threshold']:.4g}; train without them with `ifguide suppress {name}"
            f" --selection {made.name}`"
        )
