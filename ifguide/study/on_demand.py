"""Results computed on demand: JSON files in the study's folder, named by a digest of all they are made from.

When a model, a corpus or a setting changes, its results get another name, so one of an earlier state is never shown.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ifguide.errors import StaleError
from ifguide.storage import artifacts
from ifguide.study.lineage import Unit

if TYPE_CHECKING:
    from ifguide.study.reading import Study


def digests(study: "Study", units: Iterable[Unit], remedy: str = "") -> list[str]:
    """What a result has to name of the artefacts it is made from.

    Raises:
        StaleError: one is missing; build it with the command `remedy`, or with a run.
    """
    found = []
    for unit in units:
        manifest = artifacts.read_manifest(study.folder(unit))
        if manifest is None:
            command = remedy or f"ifguide run {study.name}"
            raise StaleError(f"study {study.name!r} has no {unit} yet; build it with `{command}`")
        found.append(artifacts.digest_of(manifest))
    return found


def result_path(study: "Study", folder: str, made_of: list, name: str = "") -> Path:
    """Where a result is or will be.

    Args:
        folder: inside the study's.
        made_of: all that the result depends on, as plain values: the version of its form, its settings, `digests`.
        name: for people, in front of the digest.
    """
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
