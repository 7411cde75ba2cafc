"""Unfinished work of a study: one folder for each stage, kept when a run stops and used when it continues."""

import re
import shutil
from pathlib import Path

from ifguide.storage.artifacts import hash_json

WORK = ".work"
"""Folder of a study for unfinished work."""


def open_work(root: Path, stage: str, key: dict) -> Path:
    """A folder for unfinished work of a stage that outlives a killed run.

    `key` is everything that the work depends on; work that was begun with another key is deleted.
    """
    folder = root / WORK / f"{stage}-{hash_json(key)[:16]}"
    for old in _work_of(root, stage):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def close_work(root: Path, stage: str) -> None:
    """Remove the unfinished work of a stage that is now finished, and the weights that it kept on disk."""
    for folder in (*_work_of(root, stage), offload_folder(root)):
        shutil.rmtree(folder, ignore_errors=True)


def work_folders(root: Path) -> dict[str, Path]:
    """Folders of unfinished work by stage, such as `suppress-default`."""
    found = ((path, *path.name.rpartition("-")) for path in (root / WORK).glob("*-*"))
    return {stage: path for path, stage, _, mark in found if re.fullmatch("[0-9a-f]{16}", mark)}


def _work_of(root: Path, stage: str) -> list[Path]:
    """Folders of unfinished work of a stage; those of `suppress-a-b` are not those of `suppress-a`."""
    found = (root / WORK).glob(f"{stage}-*")
    return [path for path in found if re.fullmatch("[0-9a-f]{16}", path.name.removeprefix(f"{stage}-"))]


def offload_folder(root: Path) -> Path:
    """Where a running stage keeps the weights that do not fit into memory."""
    return root / WORK / "offload"
