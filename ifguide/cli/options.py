"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

StudyName = Annotated[str, typer.Argument(metavar="NAME", help="The study's name; its folder lies in the cache.")]
StatusFile = Annotated[Path | None, typer.Option("--status-file", hidden=True)]
"""Where a job of the app reports to."""
SelectionName = Annotated[str, typer.Option("--selection", metavar="S", help="A selection's name.")]
