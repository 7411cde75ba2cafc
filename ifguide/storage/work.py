"""Unfinished work of a study: one folder for each stage, kept when a run stops and used when it continues."""

import shutil
from pathlib import Path

from ifguide.storage.artifacts import hash_json

WORK = ".work"
"""Folder of a study for unfinished work."""
_MARK = "-" + 16 * "[0-9a-f]"
"""How the name of a folder of work ends, as a pattern."""


def open_work(root: Path, stage: str, key: dict) -> Path:
    """A folder for unfinished work of a stage that outlives a killed run. `key` is everything that the work depends on;
    work that was begun with another key is deleted."""
    folder = root / WORK / f"{stage}-{hash_json(key)[:16]}"
    for old in (root / WORK).glob(stage + _MARK):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def close_work(root: Path, stage: str) -> None:
    """Remove the unfinished work of a stage that is now finished, and the weights that it kept on disk."""
    for folder in (*(root / WORK).glob(stage + _MARK), offload_folder(root)):
        shutil.rmtree(folder, ignore_errors=True)


def work_folders(root: Path) -> dict[str, Path]:
    """Folders of unfinished work by stage, such as `suppress-default`."""
    return {path.name.rpartition("-")[0]: path for path in (root / WORK).glob("*" + _MARK)}


def offload_folder(root: Path) -> Path:
    """Where a running stage keeps the weights that do not fit into memory."""
    return root / WORK / "offload"
