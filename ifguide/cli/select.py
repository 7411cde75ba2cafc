"""`ifguide select`: choose tokens and save the selection."""

import dataclasses
from enum import StrEnum
from typing import Annotated

import typer

from ifguide.cli.options import StatusFile, StudyName
from ifguide.cli.running import follow_run, open_study
from ifguide.config.attributions import attributions
from ifguide.errors import ConfigError

Attribution = StrEnum("Attribution", {name: name for name in attributions()})  # type: ignore[misc]  # made at run time
"""Kinds of token scores."""


def select(
    name: StudyName,
    tokens: Annotated[int | None, typer.Option(min=1, help="Threshold: this many tokens score higher.")] = None,
    share: Annotated[
        float | None, typer.Option(min=0.0, max=100.0, help="Threshold: this % of all tokens scores higher.")
    ] = None,
    quantile: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Threshold: this quantile of all scores.")
    ] = None,
    window: Annotated[int | None, typer.Option(min=0, help="Tokens selected on each side of a hit.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=0, help="Token budget; 0: no budget.")] = None,
    attribution: Annotated[Attribution | None, typer.Option(help="Which scores to select by.")] = None,
    selection: Annotated[
        str | None, typer.Option("--name", metavar="SELECTION", help="Its name.", show_default="from the settings")
    ] = None,
    status_file: StatusFile = None,
) -> None:
    """Select tokens by threshold, window and budget (Algorithm 1).

    Give the threshold as one of --tokens, --share and --quantile. What is not given comes from study.toml.
    """
    from ifguide.selection.algorithm import quantile_of_share
    from ifguide.study.select import save_selection

    if len([way for way in (tokens, share, quantile) if way is not None]) > 1:
        raise ConfigError("expected one of --tokens, --share and --quantile, got several; leave out the others")
    study = open_study(name)
    given: dict = {
        "tokens_above": tokens,
        "quantile": quantile_of_share(share) if share is not None else quantile,
        "window": window,
        "max_tokens": max_tokens,
        "attribution": attribution and attribution.value,
    }
    settings = {key: value for key, value in given.items() if value is not None}
    with follow_run(status_file):
        wanted = {**dataclasses.asdict(study.config.selection), **settings}
        size = f"n{tokens}" if tokens else f"q{wanted['quantile']:g}"
        derived = f"{wanted['attribution']}-{size}-w{wanted['window']}-m{wanted['max_tokens']}"
        made = save_selection(study, selection or derived, settings)
    found = made.settings
    part = found["n_selected"] / max(found["n_valid"], 1)
    print(
        f"selection {made.name}: {found['n_selected']:,} tokens ({part:.2%}) in {found['n_documents_hit']:,}"
        f" documents, threshold {found['threshold']:.4g}; train without them with `ifguide suppress {name}"
        f" --selection {made.name}`"
    )
