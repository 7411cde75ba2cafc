"""The stage `documents`: what the document list shows, one row per document, as Parquet.

One artefact describes the corpus (`documents/_corpus`), one each selection (`documents/SELECTION`), so that a new
selection costs little. A run builds those of its own selections. The app and `ifguide documents` build what is missing
or damaged, even while a run is training; a lock of the folder's own keeps the writers apart.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from ifguide.errors import StaleError
from ifguide.storage import artifacts
from ifguide.study.document_columns import Report, make_table
from ifguide.study.freshness import find_change, inputs_of, settings_of
from ifguide.study.lineage import STAGE_FOLDERS, Unit

if TYPE_CHECKING:
    from ifguide.study.reading import Study

CORPUS = Unit("documents")
"""The artefact that describes the corpus."""
_LOCK = ".lock"
_ROW_GROUP = 65_536


def table_path(study: "Study", selection: str = "") -> Path:
    """Where the table of the corpus, or of a selection, is or will be."""
    return study.folder(Unit("documents", selection)) / "table.parquet"


def write_table(study: "Study", unit: Unit, folder: Path, report: Report | None = None) -> None:
    """Write the table of one artefact of the stage into a folder."""
    table, notes = make_table(study, unit.name, report)
    table = table.replace_schema_metadata({b"ifguide": json.dumps(notes).encode()})
    pq.write_table(table, folder / table_path(study).name, compression="lz4", row_group_size=_ROW_GROUP)


def read_notes(path: Path) -> dict:
    """What is noted of a table beside its rows: see `document_columns.make_table`."""
    return json.loads(pq.read_schema(path).metadata[b"ifguide"])


def write_tables(study: "Study", selections: list[str] | None = None, report: Report | None = None) -> list[Unit]:
    """Write the tables that are missing, out of date or damaged, and remove those of selections that are gone.

    Args:
        study: with scores.
        selections: which selections' tables; None: all saved ones that belong to the corpus as it is now.
        report: called with (documents done, documents in all).

    Returns:
        What was written.

    Raises:
        StaleError: the scores, or a selection that was asked for, belong to another corpus.
    """
    if not _fits(study, Unit("scores")):
        raise StaleError(
            f"the scores are of another corpus; compute them again with `ifguide run {study.name} --until scores`"
        )
    saved = study.selection_names()
    names = [name for name in saved if _fits(study, Unit("selection", name))] if selections is None else selections
    for name in names:
        if not _fits(study, Unit("selection", name)):
            raise StaleError(
                f"selection {name!r} is of another corpus; save it again with `ifguide select {study.name} --name"
                f" {name} ...`"
            )
    written = []
    with writing_alone(study):
        for unit in (CORPUS, *(Unit("documents", name) for name in names)):
            if not find_damage(study, unit):
                continue
            place, inputs, settings = study.folder(unit), inputs_of(study, unit), settings_of(study, unit)
            with artifacts.building(place, stage=unit.stage, inputs=inputs, config=settings) as folder:
                write_table(study, unit, folder, report)
            written.append(unit)
        for name in set(study.names_of("documents")) - set(saved):
            shutil.rmtree(study.folder(Unit("documents", name)))
    return written


def _fits(study: "Study", unit: Unit) -> bool:
    """Whether an artefact belongs to the corpus as it is now."""
    made_of = study.manifest(unit)["inputs"].get("corpus")
    return made_of in (None, artifacts.digest_of(study.manifest(Unit("corpus"))))


def find_damage(study: "Study", unit: Unit) -> str:
    """Why a table has to be written, or an empty string. Reads the whole file once."""
    if why := find_change(study, unit):
        return why
    manifest = artifacts.read_manifest(study.folder(unit))
    return "not built yet" if manifest is None else artifacts.check_hashes(study.folder(unit), manifest)


def remove_table(study: "Study", unit: Unit) -> None:
    """Remove a damaged table."""
    with writing_alone(study):
        shutil.rmtree(study.folder(unit), ignore_errors=True)


@contextlib.contextmanager
def writing_alone(study: "Study") -> Iterator[None]:
    """Hold the folder of the tables; another writer waits, in this process or another one. What an earlier version
    kept in the folder is removed."""
    folder = study.root / STAGE_FOLDERS["documents"]
    folder.mkdir(exist_ok=True)
    handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for path in folder.iterdir():
            if path.is_file() and path.name != _LOCK:
                path.unlink(missing_ok=True)
        yield
    finally:
        os.close(handle)
