"""Results computed on demand: JSON files in the study's folder, named by a digest of all they are made from.

When a model, a corpus or a setting changes, its results get another name, so one of an earlier state is never shown.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from ifguide.errors import StaleError
from ifguide.storage import artifacts

if TYPE_CHECKING:
    from ifguide.study.reading import Study


def result_path(study: "Study", folder: str, made_of: list, name: str = "") -> Path:
    """Where a result is or will be, in a folder of the study; `name` is for people, in front of the digest. `made_of`
    is all that the result depends on, as plain values: the version of its form, its settings, the artefacts'
    digests."""
    return study.root / folder / f"{name}{'-' if name else ''}{artifacts.hash_json(made_of)[:20]}.json"


def read_result(path: Path) -> dict | None:
    """A result, or None where it was not computed yet or is damaged: either way it has to be computed."""
    try:
        return artifacts.read_json(path)
    except StaleError:
        return None


def keep_result(path: Path, result: dict) -> dict:
    """Write a result, whole or not at all, and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    artifacts.write_json(path, result)
    return result
