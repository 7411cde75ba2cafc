"""A study that is being made in the app: a cache of its own inside the cache, whose one study moves out when it is
complete. Uploads become files of it, under safe names, if they are what their names say."""

import contextlib
import re
import shutil
import tempfile
from pathlib import Path
from typing import IO

from ifguide.data.readers import first_rows, list_files
from ifguide.errors import BusyError, InputError
from ifguide.runtime.jobs import JOBS, active_job, cancel_job, drop_waiting
from ifguide.storage.artifacts import replacing
from ifguide.storage.lock import study_lock
from ifguide.study.folder import cache_dir
from ifguide.study.shelf import INPUTS, free_place

PREFIX = ".new-study-"
"""How the folders of drafts begin."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class Draft:
    """The folder is locked as long as this object exists; the next draft removes what is not locked."""

    NAME = "draft"

    def __init__(self, cache: Path | None = None):
        place = cache_dir(cache)
        place.mkdir(parents=True, exist_ok=True)
        for old in place.glob(f"{PREFIX}*"):
            with contextlib.suppress(BusyError), study_lock(old):
                _remove(old)
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        self.root = self.folder / self.NAME
        self.root.mkdir()
        self._lock = contextlib.ExitStack()
        self._lock.enter_context(study_lock(self.folder))

    def keep(self, option: str, name: str, stream: IO[bytes]) -> str:
        """Stream an upload to disk, in place of an earlier one for the same option; returns its path in the study.

        Raises:
            InputError: an ending that no reader knows, or first rows of another format; all is as it was.
        """
        safe = _UNSAFE.sub("-", name.replace("\\", "/").rpartition("/")[2])[-100:].lstrip(".-") or "file"
        folder = self.root / INPUTS / option
        folder.parent.mkdir(exist_ok=True)
        with replacing(folder) as temporary:
            temporary.mkdir()
            with (temporary / safe).open("xb") as file:
                shutil.copyfileobj(stream, file, 1 << 20)
            try:
                first_rows(str(*list_files(str(temporary / safe))))
            except InputError as error:
                raise InputError(str(error).replace(f"{temporary}/", "")) from error
            shutil.rmtree(folder, ignore_errors=True)
        (self.root / "study.toml").unlink(missing_ok=True)  # what was checked may have been another file of this name
        return f"{INPUTS}/{option}/{safe}"

    def finish(self, name: str) -> Path:
        """Move the study to its place. Errors as `free_place`."""
        made = free_place(name, self.folder.parent)
        shutil.rmtree(self.root / JOBS, ignore_errors=True)
        return self.root.rename(made)

    def discard(self) -> None:
        """Remove what is still there."""
        self._lock.close()
        _remove(self.folder)


def _remove(draft: Path) -> None:
    if job := active_job(draft / Draft.NAME):
        drop_waiting(draft / Draft.NAME)
        cancel_job(job)
    shutil.rmtree(draft)
