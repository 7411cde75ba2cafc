"""`ifguide export`: what other programs read."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ifguide.cli.options import SelectionName, StudyName
from ifguide.cli.running import follow_run


class Table(StrEnum):
    """What can be exported."""

    tokens = "tokens"
    documents = "documents"
    mask = "mask"
    spans = "spans"


def add_commands(app: typer.Typer) -> None:
    """Add `export` to the command line."""

    @app.command()
    def export(
        name: StudyName,
        what: Annotated[
            Table,
            typer.Option(
                help="A row a token, a row a document, only which tokens are selected, or the selected characters."
            ),
        ],
        out: Annotated[
            Path, typer.Option(metavar="FILE", help="A .parquet, .jsonl or .csv file, or a new .dataset folder.")
        ],
        selection: SelectionName = "default",
    ) -> None:
        """Write scores, ranks or the mask of a study to a file for other programs.

        In CSV, a text that begins with = + - @ ' or a tab gets one ' in front, so that no spreadsheet takes it for a
        formula.
        """
        from ifguide.study.analysis.export import export_study
        from ifguide.study.reading import Study

        study = Study.open(name)
        with follow_run() as progress:
            rows = export_study(
                study, what.value, out, selection=selection, report=lambda d, n: progress.report(d, n, "documents")
            )
        print(f"wrote {rows:,} rows to {out}")
