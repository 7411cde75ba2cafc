"""Arguments and options that several commands share, and how a command answers."""

import functools
import inspect
import json
import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from typer import Argument, Option

from ifguide.errors import InputError

StudyName = Annotated[str, Argument(metavar="NAME", help="Name of the study, which is a folder in the cache.")]
SelectionName = Annotated[str, Option("--selection", metavar="SELECTION", help="Name of the selection.")]
Background = Annotated[bool, Option("--background", help="Start a background job and return at once.")]
AsJson = Annotated[bool, Option("--json", help="Print one JSON object; docs/scripts.md has its keys.")]


class Answer(NamedTuple):
    """The result of a command."""

    values: dict[str, Any]
    """What `--json` prints."""
    text: str
    """What people read without it."""
    error: Exception | None = None
    """Raised after printing."""


def answers(command: Callable[..., Answer], speaks: Callable[[], bool]) -> Callable[..., None]:
    """A command that prints its answer, with an option `--json`; `speaks` says whether this process prints."""

    @functools.wraps(command)
    def printed(*args, as_json: bool = False, **options) -> None:
        values, text, error = command(*args, **options)
        if speaks():
            print(json.dumps(strict(values), indent=1, ensure_ascii=False) if as_json else text)
        if error:
            raise error

    signature, flag = inspect.signature(command), inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY)
    flag = flag.replace(default=False, annotation=AsJson)
    vars(printed)["__signature__"] = signature.replace(parameters=[*signature.parameters.values(), flag])
    printed.__annotations__ = {**command.__annotations__, "as_json": AsJson}
    return printed


def strict(value: Any) -> Any:
    """The same value for JSON, which has no infinity and no NaN: null in their place."""
    if isinstance(value, dict):
        return {key: strict(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [strict(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def split_names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def read_share(text: str | None, option: str) -> float | None:
    """`1%` or `0.01` as a share; an InputError: it is neither, or not between 0 and 1."""
    if text is None:
        return None
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise InputError(f"{option}: expected a share such as 1% or 0.01, got {text!r}")
    return share
