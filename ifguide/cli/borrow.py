"""`ifguide borrow`: use a selection of another study, made with another model and tokenizer."""

from typing import Annotated

import typer

from ifguide.cli.options import StatusFile, StudyName
from ifguide.cli.running import follow_run, open_study


def borrow(
    name: StudyName,
    source: Annotated[str, typer.Option("--from", metavar="STUDY", help="The study that has the selection.")],
    selection: Annotated[
        str, typer.Option("--selection", metavar="SELECTION", help="Name of the selection there.")
    ] = "default",
    new: Annotated[
        str | None, typer.Option("--name", metavar="SELECTION", help="Its name here.", show_default="STUDY-SELECTION")
    ] = None,
    status_file: StatusFile = None,
) -> None:
    """Copy a selection from another study of the same corpus.

    This lets a small model select for a large one. Selections are matched by characters, so the tokenizers may differ.
    Only this study's corpus and model must be built.
    """
    from ifguide.config.schema import BorrowedConfig
    from ifguide.study.pipeline import borrow as borrow_selection

    study = open_study(name)
    called = new or f"{source}-{selection}"
    with follow_run(status_file) as progress:
        borrow_selection(study, called, BorrowedConfig(study=source, selection=selection), progress=progress)
    found = open_study(name).selection(called).settings
    print(
        f"selection {called}: {found['n_selected']:,} tokens in {found['n_documents_hit']:,} documents; "
        f"train without them with `ifguide suppress {name} --selection {called}`"
    )
