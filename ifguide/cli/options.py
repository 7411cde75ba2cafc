"""Arguments and options that several commands share."""

from typing import Annotated

from typer import Argument, Option

StudyName = Annotated[str, Argument(metavar="NAME", help="Name of the study, which is a folder in the cache.")]
SelectionName = Annotated[str, Option("--selection", metavar="SELECTION", help="Name of the selection.")]
Background = Annotated[bool, Option("--background", help="Start a background job and return at once.")]
AsJson = Annotated[bool, Option("--json", help="Print one JSON object.")]


def split_names(text: str) -> list[str]:
    """The names in an option such as `base,default`."""
    return [part.strip() for part in text.split(",") if part.strip()]
