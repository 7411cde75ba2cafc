"""Studies as folders of the cache: copied, renamed and removed as a whole. Nothing outside the cache is touched."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ifguide.config.io import read_config
from ifguide.config.names import check_name
from ifguide.errors import BusyError, ConfigError, StudyNotFound
from ifguide.runtime.jobs import active_job, waiting_jobs
from ifguide.storage.artifacts import replacing, temporary_place
from ifguide.storage.lock import LOCK, check_writable, read_record, study_lock
from ifguide.study.folder import cache_dir, list_studies

INPUTS = "inputs"
"""Folder of a study with the user's files that belong to it alone."""


def free_place(name: str, cache: Path | None = None) -> Path:
    """The folder of a new study; a ConfigError when the name is unsafe or taken."""
    root = cache_dir(cache) / check_name(name)
    if os.path.lexists(root):
        raise ConfigError(f"{name!r} exists already in {root.parent}; choose another name")
    return root


def duplicate_study(name: str, new: str, cache: Path | None = None) -> Path:
    """A new study with the settings and inputs of another, without its results."""
    root, made = _find(name, cache), free_place(new, cache)
    check_writable(root)  # a packed study has no inputs
    with replacing(made) as temporary:
        temporary.mkdir()
        shutil.copy2(root / "study.toml", temporary)
        if (root / INPUTS).is_dir():
            shutil.copytree(root / INPUTS, temporary / INPUTS, symlinks=True)
    return made


def rename_study(name: str, new: str, cache: Path | None = None) -> Path:
    """Give a study another name. A ConfigError: others borrow from it by the name it has."""
    made = free_place(new, cache)
    with _at_rest(name, cache) as root:
        if others := [other for other in list_studies(root.parent) if name in _lenders(root.parent / other)]:
            remedy = "remove their [borrowed] tables of it first, and `ifguide borrow` again afterwards"
            raise ConfigError(f"{', '.join(others)} borrow from {name!r}; {remedy}")
        return root.rename(made)


def _lenders(root: Path) -> list[str]:
    with contextlib.suppress(ConfigError):
        return [lent.study for lent in read_config(root / "study.toml").borrowed.values()]
    return []


def delete_study(name: str, cache: Path | None = None) -> None:
    """Remove a study and everything computed from it, whether or not its settings can be read.

    Raises:
        StudyNotFound: there is none of that name, or it is a link to somewhere else.
        BusyError: somebody is working on it.
    """
    with _at_rest(name, cache) as root:
        gone = root.rename(temporary_place(root))  # never half a study under its name
    shutil.rmtree(gone)


def _find(name: str, cache: Path | None) -> Path:
    root = cache_dir(cache) / check_name(name)
    if root.is_symlink() or not (root / "study.toml").is_file():
        raise StudyNotFound(f"expected a study {name!r} in {root.parent}, got {'a link' * root.is_symlink() or 'none'}")
    return root


@contextlib.contextmanager
def _at_rest(name: str, cache: Path | None) -> Iterator[Path]:
    root = _find(name, cache)
    if active_job(root) or waiting_jobs(root):
        raise BusyError(f"study {name!r} has running or waiting jobs; stop them with `ifguide cancel {name} --all`")
    with contextlib.nullcontext() if read_record(root) else study_lock(root):  # nobody works on a packed study
        yield root


def measure(root: Path) -> tuple[int, float]:
    """Bytes of a study's files, and Unix time of the last change of one."""
    size, changed = 0, 0.0
    for folder, _, files in os.walk(root):
        for name in files:
            with contextlib.suppress(OSError):  # a running study removes files meanwhile
                stat = os.lstat(os.path.join(folder, name))
                size, changed = size + stat.st_size, max(changed, stat.st_mtime * (name != LOCK))
    return size, changed
