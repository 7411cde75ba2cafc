"""Studies as folders of the cache: copied, renamed and removed as a whole, and the one that is still being made.

Nobody may be working on a study meanwhile, and nothing outside the cache is ever touched.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ifguide.config.names import check_name
from ifguide.errors import BusyError, ConfigError, StudyNotFound
from ifguide.runtime.jobs import JOBS, active_job, cancel_job
from ifguide.storage.artifacts import replacing
from ifguide.storage.lock import LOCK, check_writable, read_record, study_lock
from ifguide.study.folder import cache_dir

INPUTS = "inputs"
"""Folder of a study with the user's files that belong to it alone."""
DRAFTS = ".new-study-"
"""How the folders of studies in the making begin."""


def free_place(name: str, cache: Path | None = None) -> Path:
    """The folder of a new study.

    Raises:
        ConfigError: the name is unsafe or taken.
    """
    root = cache_dir(cache) / check_name(name)
    if os.path.lexists(root):
        raise ConfigError(f"{name!r} exists already in {root.parent}; choose another name")
    return root


def duplicate_study(name: str, new: str, cache: Path | None = None) -> Path:
    """A new study with the settings and inputs of another, without its results. Errors as `free_place` and `_find`."""
    root, made = _find(name, cache), free_place(new, cache)
    check_writable(root)  # a packed study has no inputs
    with replacing(made) as temporary:
        temporary.mkdir()
        shutil.copy2(root / "study.toml", temporary)
        if (root / INPUTS).is_dir():
            shutil.copytree(root / INPUTS, temporary / INPUTS, symlinks=True)
    return made


def rename_study(name: str, new: str, cache: Path | None = None) -> Path:
    """Give a study another name; a study that borrows from it still asks for the old one. Errors as `free_place` and
    `delete_study`."""
    made = free_place(new, cache)
    with _at_rest(name, cache) as root:
        return root.rename(made)


def delete_study(name: str, cache: Path | None = None) -> None:
    """Remove a study and everything computed from it, whether or not its settings can be read.

    Raises:
        StudyNotFound: there is none of that name, or it is a link to somewhere else.
        BusyError: somebody is working on it.
    """
    with _at_rest(name, cache) as root:
        gone = root.rename(root.with_name(f".{name}.{os.getpid()}.tmp"))  # never half a study under its name
    shutil.rmtree(gone)


def _find(name: str, cache: Path | None) -> Path:
    root = cache_dir(cache) / check_name(name)
    if root.is_symlink() or not (root / "study.toml").is_file():
        raise StudyNotFound(f"expected a study {name!r} in {root.parent}, got {'a link' * root.is_symlink() or 'none'}")
    return root


@contextlib.contextmanager
def _at_rest(name: str, cache: Path | None) -> Iterator[Path]:
    root = _find(name, cache)
    if job := active_job(root):
        raise BusyError(f"study {name!r} has a running job, {job.id}; stop it with `ifguide cancel {name}`")
    with contextlib.nullcontext() if read_record(root) else study_lock(root):  # nobody works on a packed study
        yield root


def measure(root: Path) -> tuple[int, float]:
    """Bytes of a study's files, and Unix time of the last change of one."""
    size, changed = 0, 0.0
    for folder, _, files in os.walk(root):
        for name in files:
            with contextlib.suppress(OSError):  # a running study removes files meanwhile
                found = os.lstat(os.path.join(folder, name))
                size, changed = size + found.st_size, max(changed, found.st_mtime * (name != LOCK))
    return size, changed


class Draft:
    """A study in the making: a cache of its own inside the cache with one study in it, which `finish` moves to its
    place. The folder is locked as long as this object exists, and the next draft removes what is not locked."""

    NAME = "draft"

    def __init__(self, cache: Path | None = None):
        place = cache_dir(cache)
        place.mkdir(parents=True, exist_ok=True)
        for old in place.glob(f"{DRAFTS}*"):
            with contextlib.suppress(BusyError), study_lock(old):
                _remove(old)
        self.folder = Path(tempfile.mkdtemp(prefix=DRAFTS, dir=place))
        self._lock = contextlib.ExitStack()
        self._lock.enter_context(study_lock(self.folder))
        self.root = self.folder / self.NAME
        self.root.mkdir()

    def finish(self, name: str) -> Path:
        """Move the study to its place. Errors as `free_place`."""
        made = free_place(name, self.folder.parent)
        shutil.rmtree(self.root / JOBS, ignore_errors=True)
        return self.root.rename(made)

    def discard(self) -> None:
        """End the draft; what is still there is removed."""
        self._lock.close()
        _remove(self.folder)


def _remove(draft: Path) -> None:
    if job := active_job(draft / Draft.NAME):
        cancel_job(job)
    shutil.rmtree(draft)
