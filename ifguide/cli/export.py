"""`ifguide export`: files for other programs."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ifguide.cli.options import SelectionName, StudyName
from ifguide.cli.running import follow_run, open_study


class Table(StrEnum):
    """What can be exported."""

    tokens = "tokens"
    documents = "documents"
    mask = "mask"
    spans = "spans"


def export(
    name: StudyName,
    what: Annotated[
        Table,
        typer.Option(help="A row for each token or document, the selected tokens alone, or the selected characters."),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="A .parquet, .jsonl or .csv file, or a new .dataset folder.")
    ],
    selection: SelectionName = "default",
) -> None:
    """Export scores, ranks or selected tokens for other programs.

    In CSV, text that begins with = + - @ ' or a tab gets a leading ', so that no spreadsheet reads it as a formula.
    """
    from ifguide.study.analysis.export import export_study

    study = open_study(name)
    with follow_run() as progress:
        report = lambda d, n: progress.report(d, n, "documents")  # noqa: E731
        rows = export_study(study, what.value, out, selection=selection, report=report)
    print(f"wrote {rows:,} rows to {out}")
