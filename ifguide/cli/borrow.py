"""`ifguide borrow`: use the selection of another study, made with another model and tokenizer."""

from typing import Annotated

import typer

from ifguide.cli.options import StatusFile
from ifguide.cli.running import follow_run


def add_commands(app: typer.Typer) -> None:
    """Add it to the program."""

    @app.command()
    def borrow(
        name: Annotated[str, typer.Argument(metavar="NAME", help="The study that gets the selection.")],
        source: Annotated[str, typer.Option("--from", metavar="STUDY", help="The study that has it.")],
        selection: Annotated[
            str, typer.Option("--selection", metavar="S", help="Which of its selections.")
        ] = "default",
        new: Annotated[str | None, typer.Option("--name", metavar="T", help="What to call it here [STUDY-S].")] = None,
        status_file: StatusFile = None,
    ) -> None:
        """Carry a selection over from a study of the same corpus with another model: a small one scores, a larger one
        is trained.

        It travels by characters, so the tokenizers may differ. Only the corpus and the model of this study have to be
        built.
        """
        from ifguide.config.schema import BorrowedConfig
        from ifguide.study.pipeline import borrow as borrow_selection
        from ifguide.study.reading import Study

        study = Study.open(name)
        called = new or f"{source}-{selection}"
        with follow_run(status_file) as progress:
            borrow_selection(study, called, BorrowedConfig(study=source, selection=selection), progress=progress)
        found = Study.open(name).selection(called).settings
        print(
            f"selection {called}: {found['n_selected']:,} tokens in {found['n_documents_hit']:,} documents; "
            f"train without them with `ifguide suppress {name} --selection {called}`"
        )
