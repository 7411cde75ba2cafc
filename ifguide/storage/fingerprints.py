"""Content hashes of the user's own files, remembered so that a check of freshness does not read the files again."""

import contextlib
import json
from pathlib import Path

from ifguide.errors import InputError
from ifguide.storage.artifacts import hash_file, hash_json, write_json


class Fingerprints:
    """Content hashes of input files and folders, remembered in the file `memory` by path, size and time of change.

    `fresh` ignores what is remembered, and remembers nothing beyond this object.
    """

    def __init__(self, memory: Path, *, fresh: bool = False):
        self._memory, self._fresh = memory, fresh
        self._remembered = {}
        if not fresh:
            with contextlib.suppress(OSError, ValueError, AttributeError):  # missing, damaged, or of another version
                stored = json.loads(memory.read_text(encoding="utf-8"))
                self._remembered = {
                    key: mark for key, mark in stored.items() if isinstance(mark, list) and len(mark) == 3
                }

    def of(self, path: Path, names: tuple[str, ...] = ()) -> str:
        """Hash of a file, or of a folder's files with their places in it (only those called `names`, when given).
        Hidden ones are left out. An InputError if nothing is there."""
        if not path.exists():
            raise InputError(f"{path} is not there any more; put it back or change study.toml")
        if path.is_file():
            return hash_json([[path.name, self._hash(path)]])
        files = {p.relative_to(path): p for p in path.rglob("*") if p.is_file() and (not names or p.name in names)}
        seen = sorted(place for place in files if not any(part.startswith(".") for part in place.parts))
        return hash_json([[place.as_posix(), self._hash(files[place])] for place in seen])

    def _hash(self, path: Path) -> str:
        stat, key = path.stat(), str(path.resolve())
        stamp = [stat.st_size, stat.st_mtime_ns]
        if (mark := self._remembered.get(key)) and mark[:2] == stamp:
            return mark[2]
        digest = hash_file(path)
        self._remembered[key] = [*stamp, digest]
        if not self._fresh:
            with contextlib.suppress(OSError):  # a read-only cache only costs the hash again
                write_json(self._memory, self._remembered)
        return digest
