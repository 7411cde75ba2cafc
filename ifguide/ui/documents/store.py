"""Questions about documents, answered by DuckDB from the Parquet files of `ifguide.study.stages.document_table`.

What a reader types never becomes SQL: values are bound to `?`, and a condition is checked and written again by
`ifguide.ui.documents.condition`.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from ifguide.errors import ConfigError, StaleError, explain_system_error
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stages.document_table import (
    COLUMNS,
    CORPUS,
    Column,
    find_damage,
    read_notes,
    remove_table,
    table_path,
    write_tables,
)
from ifguide.ui.documents.condition import read_condition, refuse

ALIKE = 100
"""Documents most like one that a list keeps."""
NEAREST = Column("rank", "selection", None, "nearest", "Most alike first", rising=True)
"""How those can be sorted, too."""
_ORDERS_KEPT = 24
_MEMORY = 2**30
"""Bytes for questions, beside the table and a copy of it."""
CONDITION_SECONDS = 5.0
"""A reader's condition that takes longer is stopped."""


@dataclass(frozen=True, kw_only=True)
class DocumentFilter:
    """Which documents to list. Every field narrows the list; the defaults keep all."""

    sources: tuple[str, ...] = ()
    """Only these sources; empty: all."""
    only_selected: bool = False
    """Only documents with selected tokens."""
    lowest: float | None = None
    """Smallest sum of the scores above the threshold."""
    highest: float | None = None
    """Largest one."""
    shortest: int | None = None
    """Fewest tokens."""
    longest: int | None = None
    """Most tokens."""
    spans: str = ""
    """`with` or `without` human labels; empty: all."""
    collapse: bool = False
    """Of near-duplicates, only the best-ranked one."""
    only: tuple[int, ...] | None = None
    """Only these documents, by number; None: all."""
    without: tuple[int, ...] = ()
    """None of these."""
    like: tuple[int, ...] = ()
    """Of those that pass all else, only the `ALIKE` that come first in this order; empty: all."""
    where: str = ""
    """Only those for which this condition on columns is true; see `ifguide.ui.documents.condition`."""


def open_documents(
    study: Study, selection: str, *, most_tokens: int | None = None, write: bool = True
) -> "DocumentStore":
    """The documents of a study under a saved selection. Tables that are missing, out of date or damaged are written
    first, except the corpus's table when it has more than `most_tokens`, which takes minutes: it is removed. A
    StaleError then, if a table is damaged again after it was rewritten, or if there is something to `write` and no
    leave to."""
    parts = (CORPUS, Unit("documents", selection))
    command = f"`ifguide documents {study.name}`"
    try:
        if damage := _find_damage(study, parts):
            if not write:
                raise StaleError(f"the document list is {'; '.join(damage.values())}; write it with {command}")
            if CORPUS in damage and most_tokens is not None and study.corpus().n_tokens > most_tokens:
                remove_table(study, CORPUS)
                raise StaleError(f"{table_path(study)}: {damage[CORPUS]}; write it again with {command}")
            write_tables(study, [selection])
            damage = _find_damage(study, parts)
    except OSError as error:
        raise StaleError(f"{explain_system_error(error)}; then write the document list with {command}") from error
    for unit, why in damage.items():
        raise StaleError(
            f"{table_path(study, unit.name)} is damaged again after it was rewritten: {why}; check the disk, then write"
            f" it with {command}"
        )
    return DocumentStore(table_path(study), table_path(study, selection))


def _find_damage(study: Study, parts: tuple[Unit, ...]) -> dict[Unit, str]:
    return {unit: why for unit in parts if (why := find_damage(study, unit))}


class DocumentStore:
    """The documents of one study under one selection. Safe to use from several threads."""

    def __init__(self, table: Path, ranks: Path):
        """Read the tables of the corpus and of the selection into memory, about 200 bytes a document. A StaleError: one
        is damaged, or they do not match. A ConfigError: scores of the selection are missing."""
        try:
            self.notes = read_notes(table)
            """`tops`: kind -> the absolute score at which colours are full."""
            self.settings = read_notes(ranks)
            """Settings and counts of the selection."""
            self._connection = _read_tables(table, ranks)
        except (duckdb.Error, pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            why = " ".join(str(error).split())
            raise StaleError(
                f"{table} or {ranks.name} is damaged ({why}); write them again with `ifguide documents NAME`"
            ) from error
        self.kind = self.settings.get("attribution") or next(iter(self.notes["tops"]))
        """The kind of score that the list shows: the selection's."""
        self.columns = {row[0] for row in self._connection.execute("DESCRIBE documents").fetchall()}
        if f"{self.kind}_sum" not in self.columns:
            raise ConfigError(f"expected scores of the kind {self.kind!r} in {table}, found none")
        self.n_documents = self._connection.execute("SELECT count(*) FROM documents").fetchall()[0][0]
        there = {column.name: column.stored(self.kind) for column in COLUMNS if column.key and column.type}
        self.asked = {name: stored for name, stored in there.items() if stored in self.columns}
        """What a condition may ask for -> its name in the table."""
        self.asked |= {name: name for name in sorted(self.columns) if name.endswith(("_sum", "_max"))}
        names = ", ".join(f'"{stored}" AS "{name}"' for name, stored in self.asked.items())
        self._connection.execute(f"CREATE VIEW listed AS SELECT document, {names} FROM documents")
        self._orders = lru_cache(maxsize=_ORDERS_KEPT)(self._read_order)

    def sorts(self, criteria: DocumentFilter | None = None) -> dict[str, Column]:
        """What this study's list can be sorted by, by its name in the address; first what it is sorted by usually."""
        return {
            column.key: column
            for column in ((NEAREST,) if criteria and criteria.like else ()) + COLUMNS
            if column.key and (column.sql or column.stored(self.kind) in self.columns)
        }

    @cached_property
    def has_copies(self) -> bool:
        return bool(self._ask("SELECT 1 FROM documents WHERE group_size > 1 LIMIT 1"))

    def order(self, criteria: DocumentFilter, *, sort: str = "", descending: bool = False) -> np.ndarray:
        """Numbers of the documents that pass, in order, int32; ties go by rank. Recent answers are cached. A
        ConfigError for an unknown sort, an InputError for a condition that is none or takes too long."""
        sorts = self.sorts(criteria)
        if sort and sort not in sorts:
            raise ConfigError(f"expected one of {', '.join(sorts)} to sort by, got {sort!r}")
        return self._orders(criteria, sort or next(iter(sorts)), descending)

    def _read_order(self, criteria: DocumentFilter, sort: str, descending: bool) -> np.ndarray:
        where, values = self._conditions(criteria)
        column = self.sorts(criteria)[sort]
        by = column.sql.format(kind=self.kind) or f'"{column.stored(self.kind)}"'
        statement = f"SELECT document FROM documents {where} ORDER BY {by} {'DESC' if descending else 'ASC'}, rank"
        cursor = self._connection.cursor()
        limit = threading.Timer(CONDITION_SECONDS, cursor.interrupt)
        try:
            if criteria.where:
                limit.start()
            numbers = cursor.execute(statement, values).fetchnumpy()["document"]
        except duckdb.Error as error:
            if not criteria.where:
                raise
            slow = isinstance(error, duckdb.InterruptException)
            why = f"one that takes longer than {CONDITION_SECONDS:g} seconds" if slow else str(error)
            raise refuse(why, self.asked) from error
        finally:
            limit.cancel()
        if criteria.like:
            place = np.full(self.n_documents, self.n_documents)
            place[list(criteria.like)] = np.arange(len(criteria.like))
            alike = numbers[np.argsort(place[numbers])][:ALIKE]
            alike = alike[place[alike] < self.n_documents]
            numbers = numbers[np.isin(numbers, alike)] if sort != NEAREST.key else alike[:: -1 if descending else 1]
        return np.ascontiguousarray(numbers, dtype=np.int32)

    def _conditions(self, criteria: DocumentFilter) -> tuple[str, list]:
        given = {
            "source IN (SELECT unnest(?))": list(criteria.sources) or None,
            "hit_sum >= ?": criteria.lowest,
            "hit_sum <= ?": criteria.highest,
            "n_tokens >= ?": criteria.shortest,
            "n_tokens <= ?": criteria.longest,
            "document IN (SELECT unnest(?::INTEGER[]))": None if criteria.only is None else list(criteria.only),
            "document NOT IN (SELECT unnest(?::INTEGER[]))": list(criteria.without) or None,
        }
        given = {test: value for test, value in given.items() if value is not None}
        tests = list(given)
        if criteria.only_selected:
            tests.append("selected > 0")
        if criteria.spans and "span_tokens" in self.columns:
            tests.append("span_tokens > 0" if criteria.spans == "with" else "span_tokens = 0")
        if criteria.collapse:
            tests.append(
                "(group_size = 1 OR document IN (SELECT arg_min(document, rank) FROM documents WHERE group_size > 1"
                ' GROUP BY "group"))'
            )
        if criteria.where:
            tests.append(f"document IN ({read_condition(self._connection.cursor(), criteria.where, self.asked)})")
        return ("WHERE " + " AND ".join(tests)) if tests else "", list(given.values())

    def rows(self, documents: np.ndarray) -> list[dict]:
        """The lines of some documents, in the order given, as dicts by column; scores are of the selection's kind."""
        stored = {column.name: column.stored(self.kind) for column in COLUMNS}
        names = ", ".join(f'"{stored[name]}" AS "{name}"' for name in stored if stored[name] in self.columns)
        answer = self._connection.cursor().execute(
            f"SELECT document, {names} FROM documents WHERE document IN (SELECT unnest(?::INTEGER[]))",
            [[int(d) for d in documents]],
        )
        titles = [column[0] for column in answer.description]
        lines = {line[0]: dict(zip(titles, line, strict=True)) for line in answer.fetchall()}
        return [lines[int(d)] for d in documents]

    def described(self, documents: np.ndarray) -> list[dict]:
        """The lines of some documents with the columns that a condition may ask for."""
        return [{name: row[name] for name in self.asked if name in row} for row in self.rows(documents)]

    def find(self, document_id: str) -> int | None:
        rows = self._ask("SELECT document FROM documents WHERE id = ? LIMIT 1", document_id)
        return rows[0][0] if rows else None

    def numbers(self, ids: Iterable[str]) -> dict[str, int]:
        """Id -> number, of those documents that exist."""
        statement = "SELECT id, document FROM documents WHERE id IN (SELECT unnest(?::VARCHAR[]))"
        return dict(self._ask(statement, list(ids)))

    def ids(self, documents: np.ndarray, *, copies: bool) -> list[str]:
        """Ids of some documents, and of their near-duplicates if asked for; best rank first."""
        same = '"group" IN (SELECT "group" FROM documents WHERE document IN (SELECT unnest($1::INTEGER[])))'
        tests = ["document IN (SELECT unnest($1::INTEGER[]))", *[same] * copies]
        statement = f"SELECT id FROM documents WHERE {' OR '.join(tests)} ORDER BY rank"
        return [row[0] for row in self._ask(statement, documents.tolist())]

    def _ask(self, statement: str, *values) -> list[tuple]:
        return self._connection.cursor().execute(statement, list(values)).fetchall()


def _read_tables(table: Path, ranks: Path) -> duckdb.DuckDBPyConnection:
    """Both files as one table `documents` in memory, on a connection that can read no more files, nor take much more
    memory."""
    connection = duckdb.connect(config={"threads": 2, "enable_external_access": True})
    connection.execute(
        "CREATE TABLE documents AS SELECT * FROM read_parquet(?) POSITIONAL JOIN "
        "(SELECT document AS ranked, * EXCLUDE (document) FROM read_parquet(?))",
        [str(table), str(ranks)],
    )
    connection.execute("SET enable_external_access = false")
    [(n_unmatched,)] = connection.execute(
        "SELECT count(*) FROM documents WHERE ranked IS DISTINCT FROM document"
    ).fetchall()
    if n_unmatched:
        raise ValueError(f"{n_unmatched:,} documents are in only one of the two")
    connection.execute("ALTER TABLE documents DROP COLUMN ranked")
    [(used,)] = connection.execute("SELECT sum(memory_usage_bytes)::BIGINT FROM duckdb_memory()").fetchall()
    connection.execute(f"SET memory_limit = '{2 * used + _MEMORY}B'")
    connection.execute("SET lock_configuration = true")
    return connection
