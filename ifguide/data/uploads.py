"""Files sent to the app: kept under a safe name, and only if they are what the name says."""

import re
import shutil
from pathlib import Path
from typing import IO

from ifguide.data.readers import first_rows, list_files
from ifguide.errors import InputError
from ifguide.storage.artifacts import replacing

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def keep_upload(folder: Path, name: str, stream: IO[bytes]) -> Path:
    """Stream a file to disk as the only one of a folder. Of its name, the last part is kept, with safe characters.

    Raises:
        InputError: an ending that no reader knows, or first rows of another format; the folder is as it was.
    """
    safe = _UNSAFE.sub("-", name.replace("\\", "/").rpartition("/")[2])[-100:].lstrip(".-") or "file"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder) as temporary:
        temporary.mkdir()
        with (temporary / safe).open("xb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
        try:
            first_rows(str(*list_files(str(temporary / safe))))
        except InputError as error:
            raise InputError(str(error).replace(f"{temporary}/", "")) from error
        shutil.rmtree(folder, ignore_errors=True)
    return folder / safe
