"""`ifguide report`: everything a study found, as one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from ifguide.cli.options import SelectionName, StudyName
from ifguide.cli.running import open_study


def report(
    name: StudyName,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write it.", show_default="NAME-report.html")
    ] = None,
    selection: SelectionName = "default",
) -> None:
    """Write a study's results to one HTML file that opens offline.

    Offensive text is blurred until the reader asks for it.
    """
    from ifguide.ui.report.write import write_report

    path = write_report(open_study(name), out or Path(f"{name}-report.html"), selection=selection)
    print(f"wrote {path} ({path.stat().st_size:,} bytes)")
