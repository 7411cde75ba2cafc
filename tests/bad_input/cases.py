"""The corpus of bad inputs: made here, case by case, and nowhere stored."""

import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

ROLES = ("corpus", "toxic", "safe", "prompts", "heldout", "lambada")
"""Files that a user gives, by the setting that names them."""
COLUMNS = {
    "corpus": "text",
    "toxic": "completion",
    "safe": "completion",
    "prompts": "prompt",
    "heldout": "text",
    "lambada": "text",
}
"""The column of each whose text counts."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One bad file in an otherwise good set."""

    role: str
    """Which file it is."""
    name: str
    """Its name, whose ending says its format."""
    content: bytes
    """All of it."""
    about: str
    """What is wrong, for the test's name."""
    settings: tuple[str, ...] = field(default=())
    """Further `--set` assignments."""

    def __str__(self) -> str:
        return f"{self.role}-{self.name.rpartition('.')[2]}-{self.about}"


def good_row(role: str) -> dict:
    """A row in order."""
    if role in ("toxic", "safe"):
        return {"prompt": "You are", "completion": " kind"}
    return {COLUMNS[role]: "The dog was at home."}


def json_line(row: dict) -> str:
    return json.dumps(row) + "\n"


def json_cases(role: str) -> Iterator[Case]:
    column, good = COLUMNS[role], good_row(role)
    line = json_line(good)
    rest = {key: value for key, value in good.items() if key != column}
    broken = {
        "latin-1": line.encode() + json.dumps(good | {column: "café"}, ensure_ascii=False).encode("latin-1") + b"\n",
        "utf-16": line.encode("utf-16"),
        "nul-byte": line.encode() + b'{"a": "\0"}\n',
        "not-json": line.encode() + b"text without quotes\n",
        "half-a-line": (line + line[: len(line) // 2]).encode(),
        "an-array": f"[{line.strip()}]\n".encode(),
        "a-number": line.encode() + b"5\n",
        "a-string": line.encode() + b'"text"\n',
        "null": line.encode() + b"null\n",
        "nested-too-deep": line.encode() + b"[" * 100_000 + b"\n",
        "field-missing": (line + json_line({"other": "x", **rest})).encode(),
        "field-null": (line + json_line(good | {column: None})).encode(),
        "field-number": (line + json_line(good | {column: 7})).encode(),
        "field-list": (line + json_line(good | {column: ["a", "b"]})).encode(),
        "field-true": (line + json_line(good | {column: True})).encode(),
        "field-nan": (line + f'{json.dumps(good)[:-1]}, "{column}": NaN}}\n').encode(),
        "field-infinity": (line + f'{json.dumps(good)[:-1]}, "{column}": -Infinity}}\n').encode(),
        "surrogate": (line + json_line(good | {column: "x\ud800y"})).encode(),
        "nul-escape": (line + json_line(good | {column: "x\0y"})).encode(),
        "empty-file": b"",
        "blank-lines": b"\n\n  \n",
    }
    for about, content in broken.items():
        yield Case(role=role, name="bad.jsonl", content=content, about=about)
    packed = {"gz": gzip.compress((line * 500).encode(), mtime=0), "zst": zstd((line * 500).encode())}
    for ending, whole in packed.items():
        for about, content in {
            "not-packed": line.encode(),
            "cut-short": whole[: len(whole) // 2],
            "end-missing": whole[:-5],
            "flipped": whole[:20] + b"\xff" * 8 + whole[28:],
        }.items():
            yield Case(role=role, name=f"bad.jsonl.{ending}", content=content, about=about)


def table_cases(role: str) -> Iterator[Case]:
    good = good_row(role)
    for ending, sign in (("csv", ","), ("tsv", "\t")):
        head, row = sign.join([*good, "more"]), sign.join([*(f'"{v}"' for v in good.values()), "1"])
        whole = f"{head}\n{row}\n"
        broken = {
            "latin-1": (whole + row.replace("o", "é")).encode("latin-1"),
            "utf-16": whole.encode("utf-16"),
            "nul-byte": whole.encode() + b"\0\n",
            "field-too-many": (whole + row + f"{sign}2\n").encode(),
            "field-too-few": (whole + "only one\n").encode(),
            "quote-not-closed": (whole + '"open\n').encode(),
            "text-after-a-quote": (whole + f'"a"b{sign}"c"{sign}1\n').encode(),
            "column-twice": (sign.join(["more", *good, "more"]) + "\n").encode(),
            "column-missing": f"wrong{sign}names\na{sign}b\n".encode(),
            "head-only": (head + "\n").encode(),
            "empty-file": b"",
        }
        for about, content in broken.items():
            yield Case(role=role, name=f"bad.{ending}", content=content, about=about)


def text_cases(role: str) -> Iterator[Case]:
    broken = {
        "latin-1": "A line.\ncafé two words\n".encode("latin-1"),
        "utf-16": "A line of text.\n".encode("utf-16"),
        "utf-32": "A line of text.\n".encode("utf-32"),
        "nul-byte": b"A line of text.\nwith \0 inside it\n",
        "not-text": bytes(range(128, 256)),
        "empty-file": b"",
        "blank-lines": b"\n \n\t\n",
    }
    for about, content in broken.items():
        yield Case(role=role, name="bad.txt", content=content, about=about)


def zstd(content: bytes) -> bytes:
    import pyarrow as pa

    return pa.compress(content, codec="zstd", asbytes=True)


def parquet(columns: dict) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet as pq

    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


def parquet_cases(role: str) -> Iterator[Case]:
    column, good = COLUMNS[role], good_row(role)
    columns = {key: [value] * 40 for key, value in good.items()}
    whole = parquet(columns)
    broken = {
        "not-parquet": b"PAR1 and nothing of it PAR1",
        "half-written": whole[: len(whole) // 2],
        "no-footer": whole[:-8],
        "flipped": whole[:-20] + b"\xff" * 12 + whole[-8:],
        "column-missing": parquet({"other": ["x"]}),
        "column-of-numbers": parquet({**columns, column: list(range(40))}),
        "column-of-nan": parquet({**columns, column: [float("nan")] * 40}),
        "column-of-nulls": parquet({**columns, column: [None] * 40}),
        "column-of-bytes": parquet({**columns, column: [b"\xff"] * 40}),
        "no-rows": parquet({key: [] for key in good}),
        "name-not-utf-8": parquet({**columns, "zzzzzz": [1] * 40}).replace(b"zzzzzz", b"zz\xff\xfezz"),
        "empty-file": b"",
    }
    for about, content in broken.items():
        yield Case(role=role, name="bad.parquet", content=content, about=about)


def other_cases() -> Iterator[Case]:
    for role in ROLES:
        yield Case(role=role, name="bad.docx", content=b"PK\3\4", about="unknown-format")
        yield Case(role=role, name="bad", content=b"text", about="no-ending")


def corpus_cases() -> Iterator[Case]:
    ids, spans = ("corpus.id_field=id",), ("corpus.spans_field=spans",)
    first = {"id": "a", "text": "The dog was at home.", "source": "s", "spans": [[0, 3]]}

    def case(about: str, changes: dict, settings: tuple[str, ...], without: str = "") -> Case:
        second = {key: value for key, value in (first | {"id": "b"} | changes).items() if key != without}
        content = (json_line(first) + json_line(second)).encode()
        return Case(role="corpus", name="bad.jsonl", content=content, about=about, settings=settings)

    yield case("id-twice", {"id": "a"}, ids)
    yield case("id-missing", {}, ids, without="id")
    for about, value in {
        "empty": "",
        "null": None,
        "number": 1.5,
        "true": True,
        "list": ["b"],
        "object": {"b": 1},
        "nul": "b\0",
        "surrogate": "\ud800",
    }.items():
        yield case(f"id-{about}", {"id": value}, ids)
    for about, value in {"number": 1.5, "list": ["s"], "nul": "s\0"}.items():
        yield case(f"source-{about}", {"source": value}, ("corpus.source_field=source",))
    yield case("source-missing", {}, ("corpus.source_field=source",), without="source")
    yield case("spans-missing", {}, spans, without="spans")
    bad_spans = {
        "outside": [[0, 999]],
        "backwards": [[5, 2]],
        "empty": [[3, 3]],
        "negative": [[-1, 2]],
        "fractions": [[0.5, 2.5]],
        "words": ["dog"],
        "text": "not spans",
        "half-a-list": "[[0, 3]",
        "true": [[True, 3]],
        "three": [[0, 1, 2]],
        "object": {"start": 0, "end": 3},
        "object-without-end": [{"start": 0}],
        "number": 5,
        "code": "__import__('os').getcwd()",
        "huge": [10**30],
        "nan": [float("nan")],
        "null-inside": [None],
        "index-outside": [20],
    }
    for about, value in bad_spans.items():
        yield case(f"spans-{about}", {"spans": value}, spans)
    yield Case(
        role="corpus",
        name="bad.jsonl",
        content=json_line({"text": " "}).encode() + json_line(first).encode(),
        about="empty-document-refused",
        settings=("corpus.skip_empty=false",),
    )
    yield Case(
        role="corpus",
        name="bad.jsonl",
        content=json_line({"text": "\u200b \n"}).replace("\\u200b ", " ").encode(),
        about="nothing-but-blanks",
    )
    yield Case(
        role="corpus", name="bad.jsonl", content=b'{"text": "' + b"x" * 1_000_000 + b"\n", about="megabyte-not-closed"
    )
    yield Case(role="corpus", name="bad.txt", content=b"x" * 1_000_000 + b"\xff\n", about="megabyte-not-utf-8")


def query_cases() -> Iterator[Case]:
    def scored(prompt, completion, key: str = "continuation") -> dict:
        return {"prompt": prompt, key: completion}

    good = {"text": "You are", "toxicity": 0.9}
    rows = {
        "prompt-empty": {"prompt": "", "completion": " kind"},
        "prompt-blank": {"prompt": " \n", "completion": " kind"},
        "completion-empty": {"prompt": "You are", "completion": ""},
        "completion-missing": {"prompt": "You are"},
        "no-column": {"body": "You are kind"},
        "forms-mixed": {"prompt": good, "completion": " kind"},
        "toxicity-missing": scored(good, {"text": " x"}),
        "toxicity-text": scored(good, {"text": " x", "toxicity": "high"}),
        "toxicity-above-1": scored(good, {"text": " x", "toxicity": 1.5}),
        "toxicity-negative": scored(good, {"text": " x", "toxicity": -0.1}),
        "toxicity-infinite": scored(good, {"text": " x", "toxicity": float("inf")}),
        "toxicity-true": scored(good, {"text": " x", "toxicity": True}),
        "text-missing": scored(good, {"toxicity": 0.9}),
        "text-null": scored(good, {"text": None, "toxicity": 0.9}),
        "completion-longer-than-the-model": {"prompt": "You are", "completion": " fox" * 60},
        "completion-inside-a-word": {"prompt": "a fo", "completion": "ol"},
    }
    for role in ("toxic", "safe"):
        for about, row in rows.items():
            for place, lines in (("first", [row]), ("late", [*[good_row(role)] * 12, row])):
                if about.startswith("text-null") and role == "safe":
                    continue  # its prompt's score leaves the row out before its text is looked at
                content = "".join(json_line(r) for r in lines).encode()
                yield Case(role=role, name="bad.jsonl", content=content, about=f"{about}-{place}")
        one_word = "".join(json_line({"text": word}) for word in ("one", "two")).encode()
        yield Case(role=role, name="bad.jsonl", content=one_word, about="texts-of-one-word")
    none = json_line(scored({"text": "a", "toxicity": 0.4}, {"text": " b", "toxicity": 0.4})).encode()
    yield Case(role="toxic", name="bad.jsonl", content=none, about="nothing-toxic-enough")
    yield Case(role="safe", name="bad.jsonl", content=none, about="nothing-safe-enough")
    unscored = json_line(scored({"text": "a", "toxicity": None}, {"text": " b", "toxicity": float("nan")})).encode()
    yield Case(role="toxic", name="bad.jsonl", content=unscored, about="nothing-scored")


def benchmark_cases() -> Iterator[Case]:
    bold = {
        "number": {"group": {"person": [5]}},
        "null": {"group": {"person": [None]}},
        "no-text": {"group": {"person": []}},
        "blank": {"group": {"person": [" "]}},
        "no-group": {},
        "nul": {"group": {"person": ["a\0b"]}},
        "surrogate": {"group": {"person": ["\ud800"]}},
    }
    for role in ("prompts", "heldout"):
        for about, value in bold.items():
            yield Case(role=role, name="bad.json", content=json.dumps(value).encode(), about=f"bold-{about}")
        yield Case(role=role, name="bad.json", content=b'{"group": {"person": ["text"]', about="bold-half")
        yield Case(
            role=role,
            name="bad.json",
            content=json.dumps({"g": {"p": ["café"]}}, ensure_ascii=False).encode("latin-1"),
            about="bold-latin-1",
        )
        deep = b'{"g": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
        yield Case(role=role, name="bad.json", content=deep, about="bold-too-deep")
    attaq = {
        "input-number": {"input": 5, "label": "harm"},
        "label-missing": {"input": "a b"},
        "label-list": {"input": "a b", "label": ["x"]},
        "input-null": {"input": None, "label": "x"},
    }
    for about, row in attaq.items():
        yield Case(role="prompts", name="bad.jsonl", content=json_line(row).encode(), about=f"attaq-{about}")
    group = ("evaluate.group_field=kind",)
    yield Case(
        role="prompts",
        name="bad.jsonl",
        content=json_line({"prompt": "a"}).encode(),
        about="group-missing",
        settings=group,
    )
    for about, value in {"list": ["x"], "object": {"x": 1}, "nul": "x\0"}.items():
        yield Case(
            role="prompts",
            name="bad.jsonl",
            content=json_line({"prompt": "a", "kind": value}).encode(),
            about=f"group-{about}",
            settings=group,
        )
    yield Case(role="lambada", name="bad.jsonl", content=json_line({"text": "word"}).encode(), about="one-word")
    yield Case(role="lambada", name="bad.txt", content=b"two words\nword\n", about="one-word-late")


def all_cases() -> list[Case]:
    found = [*other_cases(), *corpus_cases(), *query_cases(), *benchmark_cases()]
    for role in ROLES:
        for make in (json_cases, table_cases, text_cases, parquet_cases):
            found += make(role)
    return found
