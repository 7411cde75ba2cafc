"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

StudyName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the study, which is a folder in the cache.")]
SelectionName = Annotated[str, typer.Option("--selection", metavar="SELECTION", help="Name of the selection.")]
Background = Annotated[bool, typer.Option("--background", help="Start a background job and return at once.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
StatusFile = Annotated[Path | None, typer.Option("--status-file", hidden=True)]
"""Where a background job writes its status."""
