"""Rows from files and data sets: JSON lines, CSV, TSV, Parquet, plain text, saved `datasets` folders and hub ids.

Everything streams. Each row knows its place, so that an error can name the file and the line.
"""

import csv
import glob
import io
import json
import os
import reprlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

from ifguide.data import hub
from ifguide.errors import InputError

PACKED = {".gz": ("gzip", "gzip -d"), ".zst": ("zstd", "zstd -d --long=31")}
"""Compressions by file name ending, and what unpacks them."""

_PARQUET_ROWS = 1024
_BUFFER = 1 << 20
"""Bytes read at once. Without it a row group's column is read whole."""
_BOM = b"\xef\xbb\xbf"
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Row:
    """One row of an input."""

    values: dict
    """Column name to value."""
    where: str
    """Its place, for people: `posts.jsonl, line 12`."""
    number: int
    """The row's number in its file, from 1; where a row is a line, the number of the line; 0: it is the whole file."""
    stem: str
    """The file's name without its endings, or the data set's name; different for each file that is read."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How files are read; `read_rows` explains each."""

    text_field: str = "text"
    text_unit: str = "line"
    columns: tuple[str, ...] = ()
    quoted: bool = True


def read_rows(
    path: str, *, text_field: str = "text", text_unit: str = "line", columns: Iterable[str] = (), quoted: bool = True
) -> Iterator[Row]:
    """Stream the rows of an input.

    Args:
        path: a file, a glob, a folder of files, a folder made by `datasets.save_to_disk` (`folder#split` when it holds
            several), or a hub id `org/name[:config][@revision]#split`. `folder#split` of any other folder goes through
            `datasets.load_dataset`, as a hub id does.
        text_field: the column name given to plain text.
        text_unit: for .txt files, `line` (a row a line) or `file` (a row a file).
        columns: read only these columns, of which `meta.text` is a nested one, where the format allows it; an absent
            column is no error here.
        quoted: quotation marks around a field of a .csv or .tsv are not part of its text; False: they are, and empty
            fields at a row's end may be missing.

    Raises:
        InputError: no such input, an unknown format, or a row that cannot be read; names the file and the line.
    """
    options = Options(text_field=text_field, text_unit=text_unit, columns=tuple(columns), quoted=quoted)
    if data_set := find_data_set(path):
        data, stem = hub.load(*data_set)
        for number, values in enumerate(hub.iterate(data, path, options.columns), start=1):
            yield Row(values, f"{path}, row {number}", number, stem)
        return
    files = list_files(path)
    for file, stem in zip(files, _unique_stems(files), strict=True):
        yield from FORMATS[_ending(file)](file, stem, options)


def first_rows(path: str, n: int = 5, most: int = 300) -> list[dict[str, str]]:
    """The first rows for people: values as text of at most `most` characters, nested ones as columns `meta.text`.
    Errors as `read_rows`; an InputError, too, without any row."""
    rows = [{name: str(value)[:most] for name, value in _flat(row.values)} for row in islice(read_rows(path), n)]
    if not rows:
        raise InputError(f"{path} holds no row; name another file")
    return rows


def _flat(values: dict, lead: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{lead}{name}.")
        else:
            yield f"{lead}{name}", "" if value is None else value


def read_texts(path: str, field: str = "text", *, limit: int = 0) -> list[str]:
    """The first `limit` texts (0: all) of one column, without blank ones; of a nested `{"text": ...}`, its text. An
    InputError: as `read_rows`; also a row without the column, or no text at all."""
    texts = []
    for row in read_rows(path, text_field=field, columns=[field]):
        text = check_text(text_of(take_field(row, field)), row.where, field)
        if text.strip():
            texts.append(text)
            if len(texts) == limit:
                break
    if not texts:
        raise InputError(f"{path} holds no text in the column {field!r}; name another file or another column")
    return texts


def text_of(value):
    """The text of a nested `{"text": ...}`; any other value as it is."""
    return value["text"] if isinstance(value, dict) and "text" in value else value


def take_field(row: Row, field: str):
    """The value of a column, or of `meta.text` inside `meta` where no column is named so; an InputError when the row
    has none."""
    if has_field(row, field):
        return _find(row.values, field)
    inner = {name: value for name, value in row.values.items() if isinstance(value, dict)}
    columns = ", ".join(map(repr, [*row.values, *(f"{name}.{key}" for name in inner for key in inner[name])])) or "none"
    raise InputError(f"{row.where}: expected a column {field!r}, found {columns}; name the right column or add it")


def has_field(row: Row, field: str) -> bool:
    """Whether `take_field` finds a value."""
    return _find(row.values, field) is not _ABSENT


def _find(values, field: str):
    if not isinstance(values, dict) or field in values:
        return values[field] if isinstance(values, dict) else _ABSENT
    name, _, rest = field.partition(".")
    return _find(values.get(name), rest) if rest else _ABSENT


def check_text(value, where: str, field: str) -> str:
    """Text that can be tokenised and stored; an InputError for anything but a string, and for a string with a NUL
    character or half of a surrogate pair."""
    if not isinstance(value, str):
        remedy = "turn it into a string or leave the row out"
        raise InputError(f"{where}: expected text in {field!r}, got {reprlib.repr(value)}; {remedy}")
    if (place := value.find("\0")) >= 0:
        raise InputError(f"{where}: {field!r} has a NUL character at position {place}; remove it from the text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"half of a surrogate pair ({value[error.start]!r}) at position {error.start}"
        raise InputError(f"{where}: {field!r} has {half}; write the character whole or remove it") from error
    return value


def list_files(path: str) -> list[Path]:
    """The files of a path, sorted by name: itself, a glob's matches, or all readable files below a folder. No file, or
    one of an unknown format, is an InputError."""
    place = Path(path).expanduser()
    endings = f"{', '.join(FORMATS)} (with {' or '.join(PACKED)} too)"
    if place.is_dir():
        files = [file for file in place.rglob("*") if file.is_file() and _ending(file)]
        files = [file for file in files if "/." not in f"/{file.relative_to(place).as_posix()}"]
    else:
        matches = [place] if place.exists() else map(Path, glob.glob(str(place), recursive=True))
        files = [file for file in matches if file.is_file()]
    if not files:
        raise InputError(f"no file to read at {path}; expected one of {endings}, a folder of them, or org/name#split")
    for file in files:
        if not _ending(file):
            raise InputError(f"{file}: unknown format {file.suffix!r}; expected one of {endings}")
    return sorted(files)


def count_rows(path: str, *, text_unit: str = "line") -> int:
    """How many rows `read_rows` will give: exact for JSON lines, text and Parquet; an upper bound for CSV (a quoted
    field may span lines) and with blank lines, which are skipped; 0 when only reading would tell."""
    if find_data_set(path):
        return 0
    total = 0
    for file in list_files(path):
        ending = _ending(file)
        if file.suffix.lower() in PACKED:
            return 0
        if ending == ".parquet":
            total += _open_parquet(file).metadata.num_rows
        elif ending == ".txt" and text_unit == "file":
            total += 1
        else:
            with file.open("rb") as stream:
                total += max(sum(1 for _ in stream) - (ending in (".csv", ".tsv")), 0)
    return total


def _json_rows(file: Path, stem: str, options: Options) -> Iterator[Row]:
    for number, line in _lines(file):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        if number == 1 and line.lstrip().startswith("["):
            remedy = f"convert it with: jq -c '.[]' {file.name}"
            raise InputError(f"{where}: expected one JSON object a line, got an array; {remedy}")
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            got = f"{reprlib.repr(line.strip())} ({error})"
            raise InputError(f"{where}: expected one JSON object, got {got}; fix or remove the line") from error
        if not isinstance(values, dict):
            example = 'such as {"text": "..."}'
            got = reprlib.repr(values)
            raise InputError(f"{where}: expected a JSON object {example}, got {got}; fix or remove the line")
        yield Row(values, where, number, stem)


def _table_rows(file: Path, stem: str, options: Options, *, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # the default is 131,072 characters, less than a long document
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if options.quoted else csv.QUOTE_NONE
    records = csv.reader((line for _, line in _lines(file)), delimiter=delimiter, quoting=quoting, strict=True)
    header, number, where = None, 0, f"{file}, line 1"
    try:
        for record in records:
            if header is None:
                header = record
                if len(set(header)) < len(header):
                    raise InputError(f"{where}: two columns share a name: {', '.join(header)}; rename one")
            elif record or len(header) == 1:  # a blank line is an empty value of a single column, and else skipped
                record = record or [""]
                record += [""] * (0 if options.quoted else len(header) - len(record))
                if len(record) != len(header):
                    wrong = f"expected {len(header)} fields ({', '.join(header)}), got {len(record)}"
                    raise InputError(f"{where}: {wrong}; quote fields that hold the separator")
                number += 1
                yield Row(dict(zip(header, record, strict=True)), where, number, stem)
            where = f"{file}, line {records.line_num + 1}"
    except csv.Error as error:
        remedy = 'quote fields with " and double every " inside them'
        raise InputError(f"{where}: not a readable record ({error}); {remedy}") from error
    if header is None:
        raise InputError(f"{file} is empty; expected a first line with the names of the columns")


def _text_rows(file: Path, stem: str, options: Options) -> Iterator[Row]:
    field = options.text_field
    if options.text_unit == "file":
        yield Row({field: "".join(line for _, line in _lines(file))}, str(file), 0, stem)
        return
    for number, line in _lines(file):
        yield Row({field: line.removesuffix("\n").removesuffix("\r")}, f"{file}, line {number}", number, stem)


def _parquet_rows(file: Path, stem: str, options: Options) -> Iterator[Row]:
    import pyarrow as pa

    table = _open_parquet(file)
    number = 0
    try:
        paths = [f"{table.schema.column(number).path}." for number in range(len(table.schema))]  # `meta.text.`
        columns = [name for name in options.columns if any(path.startswith(f"{name}.") for path in paths)]
        # where none of them is there, all columns are read, so that the error about the missing one can list them
        for batch in table.iter_batches(batch_size=_PARQUET_ROWS, columns=columns or None):
            for values in batch.to_pylist():
                number += 1
                yield Row(values, f"{file}, row {number}", number, stem)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{file}, after row {number}: cannot be read ({error}); write the file again") from error


def _open_parquet(file: Path):
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file, buffer_size=_BUFFER)
        _ = table.schema_arrow.names  # a damaged name is not UTF-8
        return table
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{file} is not a readable Parquet file ({error}); write the file again") from error


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines with their ends, split at \\n alone, decoded strictly as UTF-8; a byte order mark is dropped."""
    number = 0
    try:
        with _open(file) as stream:
            for number, raw in enumerate(stream, start=1):
                if number == 1:
                    raw = raw.removeprefix(_BOM)
                if (place := raw.find(b"\0")) >= 0:
                    remedy = "remove it, or save the file as UTF-8 if it is UTF-16"
                    raise InputError(f"{file}, line {number}: NUL byte at byte {place}; {remedy}")
                try:
                    yield number, raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    wrong = f"not UTF-8 (byte 0x{raw[error.start]:02x} at byte {error.start})"
                    remedy = "convert it with: iconv -f LATIN1 -t UTF-8 (or its true encoding)"
                    raise InputError(f"{file}, line {number}: {wrong}; {remedy}") from error
    except OSError as error:
        remedy = "check the file and its permissions"
        if (ending := file.suffix.lower()) in PACKED:
            unpack = f"{PACKED[ending][1]} {file.name}"
            remedy = f"if it is packed, unpack it with: {unpack}; if not, name it without {ending}"
            if "Truncated" in str(error):
                remedy = "its end is missing, so copy or download it again"
        raise InputError(f"{file}: cannot be read after line {number} ({error}); {remedy}") from error


def _open(file: Path):
    """The bytes of a file, unpacked by its ending."""
    if (ending := file.suffix.lower()) not in PACKED:
        return file.open("rb")
    import pyarrow as pa

    return io.BufferedReader(pa.input_stream(str(file), compression=PACKED[ending][0], buffer_size=_BUFFER), _BUFFER)


FORMATS: dict[str, Callable[[Path, str, Options], Iterator[Row]]] = {
    ".jsonl": _json_rows,
    ".json": _json_rows,
    ".ndjson": _json_rows,
    ".csv": partial(_table_rows, delimiter=","),
    ".tsv": partial(_table_rows, delimiter="\t"),
    ".parquet": _parquet_rows,
    ".txt": _text_rows,
}
"""What reads a file, by the ending of its name. All but Parquet may also end in one of `PACKED`."""


def _ending(file: Path) -> str:
    """The ending that `FORMATS` knows a file by; empty for a file that cannot be read."""
    name = file.name.lower()
    ending = Path(_unpacked(name)).suffix
    return ending if ending in FORMATS and (ending != ".parquet" or name.endswith(ending)) else ""


def _unpacked(name: str) -> str:
    """A file's name without the ending of its compression."""
    return name.removesuffix(".gz").removesuffix(".zst")


def _unique_stems(files: list[Path]) -> list[str]:
    """File names without endings; with their folders, or whole, where the names alone are not unique."""
    root = os.path.commonpath([file.parent for file in files])
    longer = [file.relative_to(root).as_posix() for file in files]
    for names in ([file.name for file in files], longer):
        stems = [_unpacked(name).rsplit(".", 1)[0] for name in names]
        if len(set(stems)) == len(stems):
            return stems
    return longer


def find_data_set(path: str) -> tuple[str, str] | None:
    """The name and the split of a data set, which the library `datasets` reads; None for files."""
    place = Path(path).expanduser()
    if place.exists():  # a # in a real name is no split
        return (path, "") if hub.is_saved(path) else None
    base, _, split = path.rpartition("#")
    if (base and split) or not glob.glob(str(place), recursive=True):
        return (base, split) if base else (path, "")
    return None
