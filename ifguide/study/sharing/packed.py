"""A study as one file to show to others: what the pages read, without weights, tokenizers and factors.

The file is a zip of the study's folder. It opens read-only (`ifguide app FILE`) as a study of the cache: the artefacts
are what was recorded, whether or not the inputs are still there. It names no folder of the machine it was made on.
"""

import errno
import json
import lzma
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from ifguide import __version__
from ifguide.config.io import config_to_dict, read_config
from ifguide.config.names import check_name
from ifguide.errors import ConfigError, InputError, system_reason
from ifguide.storage import artifacts
from ifguide.storage.lock import LOCK, RECORD
from ifguide.study.reading import Study

SUFFIXES = (".json", ".jsonl", ".npy", ".parquet", ".arrow", ".toml")
LEFT_OUT = ("factors", "direction", "tokenizer", "jobs", "plans")
"""Folders of which only manifests are kept."""
PRIVATE = "stage.json"
"""A speaker's notes, see `ifguide.ui.stage.deck`."""
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "special_tokens_map.json", "added_tokens.json")
"""Files of a tokenizer beside a model's weights."""
OPENED = "IFGUIDE_STUDY"
"""Environment variable of the app: the study it was opened with."""
MOST_BYTES = 2**31
"""Unpacked, a file is refused when it is larger."""
_BAD_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)
_DAMAGED = (*_BAD_ZIP, RuntimeError, KeyError, ValueError, TypeError, ConfigError)
"""What Python raises for a file that is no zip, cut, changed, encrypted, or nested deeper than it can read."""
_OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE)


def pack_study(study: Study, path: Path) -> Path:
    """Write the file; it appears whole or not at all.

    Raises:
        InputError: the study has no selection yet, or the file cannot be written there.
    """
    if not study.selection_names():
        raise InputError(f"pack: {study.name!r} has no selection yet; build it with `ifguide run {study.name}`")
    record = {
        "recorded": f"{datetime.now(UTC):%Y-%m-%d}",
        "command": f"ifguide run {study.name}",
        "version": __version__,
        "name": study.name,
    }
    places = local_places(study)
    try:
        with (
            artifacts.replacing(path) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file,
        ):
            file.writestr(RECORD, json.dumps(record, indent=1))
            for source in sorted(study.root.rglob("*")):
                inside = source.relative_to(study.root)
                if _is_kept(inside) and source.is_file():
                    content = source.read_bytes()
                    if source.suffix in (".json", ".toml"):
                        content = hide_places(content, places)
                    file.writestr(inside.as_posix(), content)
    except OSError as error:
        raise InputError(
            f"pack: {path} cannot be written ({system_reason(error) or error}); choose another place with --out"
        ) from error
    return path


def _is_kept(inside: Path) -> bool:
    hidden = any(part.startswith(".") or ".partial-" in part for part in inside.parts)
    if hidden or inside.name in (LOCK, RECORD, PRIVATE, *TOKENIZER):
        return False
    return inside.suffix in SUFFIXES and (inside.name == artifacts.MANIFEST or not set(LEFT_OUT) & set(inside.parts))


def local_places(study: Study) -> list[str]:
    """Absolute paths that the study's settings name, and its own folder's, the longest first."""

    def texts(value) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            for part in value.values() if isinstance(value, dict) else value:
                yield from texts(part)

    tables = [table for table in config_to_dict(study.config).values() if isinstance(table, dict)]
    named = {place for name in texts(tables) for place in (name, study.resolve(name))} | {str(study.root)}
    return sorted((name for name in named if Path(name).is_absolute() and Path(name).name), key=len, reverse=True)


def hide_places(content: bytes, places: list[str]) -> bytes:
    """JSON or TOML with each of these paths cut to its last part."""
    for place in places:
        content = content.replace(json.dumps(place)[1:-1].encode(), Path(place).name.encode())
    return content


def unpack_study(path: Path, cache: Path) -> str:
    """Unpack a file that `pack_study` wrote into a folder of studies, where it replaces one unpacked before.

    Returns:
        The study's name.

    Raises:
        InputError: it is no such file, holds what such a file never holds, or a study of its name is there.
        OSError: the disk is full, or it cannot be read or written.
    """
    try:
        with zipfile.ZipFile(path) as file:
            members = [member for member in file.infolist() if not member.is_dir()]
            names = [PurePosixPath(member.filename) for member in members]
            bad = [str(n) for n in names if n.is_absolute() or ".." in n.parts or n.suffix not in SUFFIXES]
            if bad or sum(member.file_size for member in members) > MOST_BYTES:
                raise InputError(f"{path.name} holds files that no packed study has ({bad[0] if bad else 'too large'})")
            root = cache / check_name(json.loads(file.read(RECORD))["name"])
            artifacts.remove_temporaries(cache)
            artifacts.remove_partials(root)
            if root.exists() and not (root / RECORD).is_file():
                raise InputError(f"a study {root.name!r} of your own is there; rename it, and then open {path.name}")
            folder = artifacts.temporary_place(root)
            try:
                file.extractall(folder)
                read_config(folder / "study.toml")
                while not artifacts.replace_folder(root, folder):
                    pass
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except (OSError, *_DAMAGED) as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            raise
        remedy = "get it again if it was cut short, or make one with `ifguide pack NAME`"
        raise InputError(f"{path.name} is no packed study, or it is damaged or encrypted; {remedy}") from error
    return root.name
