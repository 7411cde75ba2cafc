"""Every format gives the same rows, and every damaged input is named with its line."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from ifguide.data.readers import count_rows, list_files, read_rows, read_texts, take_field
from ifguide.errors import InputError
from tests.naming import naming
from tests.shared_data import shared_file

ROWS = [
    {"text": "first, with a comma", "n": "1"},
    {"text": 'second "quoted"\nover two lines', "n": "2"},
    {"text": "third 漢字 👨‍👩‍👧", "n": "3"},
]


def write_jsonl(path, rows=ROWS, opened=open):
    with opened(path, "wt", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def write_all_formats(folder):
    import pandas as pd

    frame = pd.DataFrame(ROWS)
    write_jsonl(folder / "rows.jsonl")
    write_jsonl(folder / "packed.jsonl.gz", opened=gzip.open)
    frame.to_csv(folder / "rows.csv", index=False)
    frame.to_csv(folder / "rows.tsv", index=False, sep="\t")
    frame.to_csv(folder / "packed.csv.gz", index=False)
    frame.to_parquet(folder / "rows.parquet")
    for name in ("rows.jsonl", "rows.csv"):
        (folder / f"{name}.zst").write_bytes(zstd((folder / name).read_bytes()))
    packed = ["packed.jsonl.gz", "packed.csv.gz", "rows.jsonl.zst", "rows.csv.zst"]
    return ["rows.jsonl", "rows.csv", "rows.tsv", "rows.parquet", *packed]


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def values(path, **options):
    return [row.values for row in read_rows(str(path), **options)]


def test_all_formats_give_the_same_rows(tmp_path):
    for name in write_all_formats(tmp_path):
        assert values(tmp_path / name) == ROWS, name
        assert read_texts(str(tmp_path / name)) == [row["text"] for row in ROWS]


def test_saved_data_sets_and_local_ones_give_the_same_rows(tmp_path):
    import datasets

    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(str(tmp_path / "two"))
    (tmp_path / "plain").mkdir()
    write_jsonl(tmp_path / "plain" / "train.jsonl")
    assert values(tmp_path / "one") == ROWS
    assert values(f"{tmp_path / 'two'}#train") == ROWS
    assert values(f"{tmp_path / 'two'}#test") == ROWS[:1]
    assert values(f"{tmp_path / 'plain'}#train") == ROWS  # through datasets.load_dataset, streamed
    assert values(f"{tmp_path / 'plain'}#train[:2]") == ROWS[:2]
    assert values(tmp_path / "one", columns=["text"]) == [{"text": row["text"]} for row in ROWS]
    with pytest.raises(InputError, match=r"holds the splits train, test; name one, such as .*two#train"):
        values(tmp_path / "two")
    with pytest.raises(InputError, match="leave out #train"):
        values(f"{tmp_path / 'one'}#train")
    with pytest.raises(InputError, match=r"plain#dev could not be loaded .* split"):
        values(f"{tmp_path / 'plain'}#dev")


def test_a_hub_id_is_taken_apart_and_handed_to_datasets(monkeypatch):
    import datasets

    asked = []

    def load(*names, **options):
        asked.append((*names, options))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    rows = list(read_rows("org/some-name:en.v1@refs/pr/3#train"))
    assert [row.values for row in rows] == ROWS
    assert rows[1].where == "org/some-name:en.v1@refs/pr/3#train, row 2"
    assert rows[1].stem == "some-name"
    assert asked == [("org/some-name", "en.v1", {"revision": "refs/pr/3", "split": "train", "streaming": True})]


def test_text_is_split_at_line_feeds_alone(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\ntwo\u2028still two\x0bstill\n\nfour".encode())
    rows = list(read_rows(str(tmp_path / "a.txt")))
    assert [row.values["text"] for row in rows] == ["one", "two\u2028still two\x0bstill", "", "four"]
    assert [row.number for row in rows] == [1, 2, 3, 4]
    assert rows[3].where == f"{tmp_path / 'a.txt'}, line 4"
    whole = list(read_rows(str(tmp_path / "a.txt"), text_unit="file"))
    assert [row.values["text"] for row in whole] == ["one\r\ntwo\u2028still two\x0bstill\n\nfour"]


def test_folders_and_globs_are_read_in_order_of_names(tmp_path):
    for name in ("b/x.txt", "a/x.txt", "a/y.txt", ".hidden/z.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "notes.md").write_text("left out")
    rows = list(read_rows(str(tmp_path)))
    assert [row.values["text"] for row in rows] == ["a/x.txt", "a/y.txt", "b/x.txt"]
    assert [row.stem for row in rows] == [
        "a/x",
        "a/y",
        "b/x",
    ]  # two files are called x, so their folders tell them apart
    assert [p.name for p in list_files(f"{tmp_path}/a/*.txt")] == ["x.txt", "y.txt"]
    assert [row.stem for row in read_rows(f"{tmp_path}/a/*.txt")] == ["x", "y"]


def test_a_record_longer_than_the_csv_default_is_read(tmp_path):
    (tmp_path / "long.csv").write_text("text\n" + "x" * 200_000 + "\n")
    assert len(values(tmp_path / "long.csv")[0]["text"]) == 200_000


def test_row_counts_are_known_beforehand(tmp_path):
    for name in write_all_formats(tmp_path):
        extra = 1 if name in ("rows.csv", "rows.tsv") else 0  # one field spans two lines
        assert count_rows(str(tmp_path / name)) == (0 if name.endswith((".gz", ".zst")) else len(ROWS) + extra), name
    (tmp_path / "a.txt").write_text("one\ntwo")
    assert count_rows(str(tmp_path / "a.txt")) == 2
    assert count_rows(str(tmp_path / "a.txt"), text_unit="file") == 1
    assert count_rows("org/name#train") == 0


DAMAGED = [
    ("a.jsonl", b'{"text": "ok"}\n{"text": \n', r"a\.jsonl, line 2: expected one JSON object, got '\{\"text\":'"),
    ("a.jsonl", b'{"text": "ok"}\n\n["no"]\n', r"line 3: expected a JSON object such as"),
    ("a.json", b'[{"text": "ok"}]', r"line 1: expected one JSON object a line, got an array; convert it with: jq"),
    ("a.jsonl", b"[" * 200_000, r"line 1: expected one JSON object"),
    (
        "a.jsonl",
        b'{"text": "ok"}\n{"text": "caf\xe9"}\n',
        r"line 2: not UTF-8 \(byte 0xe9 at byte 13\); convert it with: iconv",
    ),
    ("a.txt", b"fine\nnot\0fine\n", r"line 2: NUL byte at byte 3; remove it"),
    ("a.txt", "utf sixteen".encode("utf-16"), r"line 1: NUL byte at byte 3; .* UTF-8 if it is UTF-16"),
    ("a.csv", b"id,text\n1,a,b\n", r"line 2: expected 2 fields \(id, text\), got 3; quote fields"),
    ("a.csv", b'id,text\n1,ok\n2,"never closed\n', r"line 3: not a readable record .*unexpected end of data"),
    ("a.csv", b"text,text\n1,2\n", r"line 1: two columns share a name"),
    ("a.csv", b"", r"a\.csv is empty; expected a first line with the names"),
    ("a.jsonl.gz", b"not packed", r"a\.jsonl\.gz: cannot be read after line 0 .*; if not, name it without \.gz"),
    ("a.jsonl.zst", b"not packed", r"a\.jsonl\.zst: cannot be read after line 0 .*; if not, name it without \.zst"),
    (
        "a.jsonl.zst",
        zstd(b'{"text": "x"}\n' * 9999)[:-12],
        r"cannot be read after line \d+ .*; its end is missing, so copy or download it again",
    ),
    (
        "a.jsonl.gz",
        gzip.compress(b'{"text": "x"}\n' * 999, mtime=0)[:-12],
        r"a\.jsonl\.gz: cannot be read after line \d+",
    ),
    ("a.parquet", b"PAR1 not really", r"a\.parquet is not a readable Parquet file"),
    ("a.docx", b"x", r"a\.docx: unknown format '\.docx'; expected one of \.jsonl"),
]


def test_damaged_inputs_are_named(tmp_path):
    for name, content, message in DAMAGED:
        with naming(name, message):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(InputError, match=message):
                values(tmp_path / name)


def test_nested_columns_are_read_and_a_name_with_a_dot_wins(tmp_path):
    rows = [{"id": i, "meta": {"text": f"t{i}", "page": {"n": i}}, "a.b": f"dot {i}", "a": {"b": "no"}} for i in (0, 1)]
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    write_jsonl(tmp_path / "rows.jsonl", rows)
    (tmp_path / "local").mkdir()
    write_jsonl(tmp_path / "local" / "train.jsonl", rows)
    for path in (tmp_path / "rows.parquet", tmp_path / "rows.jsonl", f"{tmp_path / 'local'}#train"):
        found = list(read_rows(str(path), columns=["meta.text", "meta.page.n", "a.b"]))
        taken = [[take_field(row, field) for field in ("meta.text", "meta.page.n", "a.b")] for row in found]
        assert taken == [["t0", 0, "dot 0"], ["t1", 1, "dot 1"]], path
        with pytest.raises(InputError, match=r"expected a column 'meta\.body', found .*'meta\.text', 'meta\.page'"):
            take_field(found[0], "meta.body")
    only = next(read_rows(str(tmp_path / "rows.parquet"), columns=["meta.text", "meta.absent"]))
    assert only.values == {"meta": {"text": "t0"}}  # of a struct, only what is asked for


def test_a_streamed_data_set_is_read_no_further_than_asked(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"text": str(n)} for n in range(500)])
    (tmp_path / "b.jsonl").write_text("not json")
    rows = read_rows(f"{tmp_path}#train", columns=["text"])
    assert [next(rows).values["text"] for _ in range(3)] == ["0", "1", "2"]
    with pytest.raises(InputError, match="cannot be read after row 500"):
        list(rows)


def test_missing_inputs_say_what_a_path_may_be(tmp_path):
    with pytest.raises(InputError, match="expected a file, a folder, a glob, or a hub data set"):
        values(tmp_path / "absent.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no file to read at .*empty"):
        values(tmp_path / "empty")


def test_texts_of_a_nested_column_are_found_and_others_refused(tmp_path):
    path = write_jsonl(
        tmp_path / "a.jsonl", [{"prompt": {"text": "nested"}}, {"prompt": " "}, {"prompt": "plain"}, {"prompt": 3}]
    )
    assert read_texts(str(path), "prompt", limit=2) == ["nested", "plain"]
    with pytest.raises(InputError, match="line 4: expected text in 'prompt', got 3"):
        read_texts(str(path), "prompt")
    with pytest.raises(InputError, match="line 1: expected a column 'text', found 'prompt'"):
        read_texts(str(path), "text")
    write_jsonl(path, [{"text": ""}])
    with pytest.raises(InputError, match="holds no text in the column 'text'"):
        read_texts(str(path))


@pytest.mark.parametrize(
    ("name", "field", "n_rows"),
    [
        ("toxic_spans_trial.csv", "text", 690),
        ("paradetox.tsv", "toxic", None),
        ("boolq_passages.jsonl", "text", 12_271),
    ],
)
def test_real_files_are_read_whole(name, field, n_rows):
    path = str(shared_file(name))
    rows = list(read_rows(path))
    assert n_rows in (None, len(rows))
    assert len(rows) <= count_rows(path)
    assert all(row.values[field].strip() for row in rows)
