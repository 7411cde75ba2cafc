"""`ifguide report`: everything a study found, as one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from ifguide.cli.options import StudyName


def add_commands(app: typer.Typer) -> None:
    """Add `report` to the command line."""

    @app.command()
    def report(
        name: StudyName,
        out: Annotated[
            Path | None, typer.Option(metavar="FILE", help="Where to write it [NAME-report.html in this folder].")
        ] = None,
        selection: Annotated[
            str, typer.Option("--selection", metavar="S", help="Whose words, documents and examples it shows.")
        ] = "default",
    ) -> None:
        """Write what a study found into one HTML file that opens offline.

        Offensive text is blurred in it until the reader asks for it.
        """
        from ifguide.study.reading import Study
        from ifguide.ui.report.write import write_report

        path = write_report(Study.open(name), out or Path(f"{name}-report.html"), selection=selection)
        print(f"wrote {path} ({path.stat().st_size:,} bytes)")
