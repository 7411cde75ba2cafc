"""Unfinished work of a study: a folder a stage, kept when a run is stopped and used when it goes on."""

import re
import shutil
from pathlib import Path

from ifguide.storage.artifacts import hash_json

WORK = ".work"
"""Folder of a study for what is not finished."""


def open_work(root: Path, stage: str, key: dict) -> Path:
    """A folder for unfinished work that outlives a killed run; work begun with other inputs is thrown away.

    Args:
        root: the study's folder.
        stage: what is being built.
        key: everything the work depends on.
    """
    work = root / WORK
    folder = work / f"{stage}-{hash_json(key)[:16]}"
    for old in _work_of(root, stage):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def close_work(root: Path, stage: str) -> None:
    """Remove the unfinished work of a stage that is finished, and the weights that it kept on disk."""
    for folder in (*_work_of(root, stage), offload_folder(root)):
        shutil.rmtree(folder, ignore_errors=True)


def work_folders(root: Path) -> dict[str, Path]:
    """Folders of unfinished work by stage, such as `suppress-default`."""
    found = {}
    for path in (root / WORK).glob("*-*"):
        stage, _, mark = path.name.rpartition("-")
        if re.fullmatch("[0-9a-f]{16}", mark):
            found[stage] = path
    return found


def _work_of(root: Path, stage: str) -> list[Path]:
    """Folders of unfinished work of a stage; those of `suppress-a-b` are not those of `suppress-a`."""
    return [
        path for path in (root / WORK).glob(f"{stage}-*") if re.fullmatch("[0-9a-f]{16}", path.name[len(stage) + 1 :])
    ]


def offload_folder(root: Path) -> Path:
    """Where weights lie for which no memory is left while a stage runs."""
    return root / WORK / "offload"
