"""Uploads: which names and contents are kept, and that what is refused leaves nothing behind."""

import gzip
import io

import pyarrow as pa
import pytest
from pyarrow import parquet

from ifguide.data.uploads import keep_upload
from ifguide.errors import InputError

LINES = b'{"text": "one"}\n{"text": "two"}\n'


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("posts.jsonl", "posts.jsonl"),
        ("../../etc/posts.jsonl", "posts.jsonl"),
        ("C:\\data\\my posts (1).jsonl", "my-posts-1-.jsonl"),
        (".hidden.jsonl", "hidden.jsonl"),
        ("<img src=x>é\n.jsonl", "img-src-x-.jsonl"),
        (f"{'x' * 300}.jsonl", f"{'x' * 94}.jsonl"),
    ],
)
def test_names_stay_in_their_folder(tmp_path, name, kept):
    found = keep_upload(tmp_path / "corpus", name, io.BytesIO(LINES))
    assert found == tmp_path / "corpus" / kept and found.read_bytes() == LINES
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [kept]


def test_another_upload_takes_the_place_of_the_first(tmp_path):
    keep_upload(tmp_path / "corpus", "a.jsonl", io.BytesIO(LINES))
    keep_upload(tmp_path / "corpus", "b.csv.gz", io.BytesIO(gzip.compress(b"text\none\n")))
    assert [path.name for path in (tmp_path / "corpus").iterdir()] == ["b.csv.gz"]


def table() -> bytes:
    out = io.BytesIO()
    parquet.write_table(pa.table({"text": ["one"]}), out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("posts.jsonl", table()),
        ("posts.jsonl", b"[1, 2]\n"),
        ("posts.csv", table()),
        ("posts.parquet", LINES),
        ("posts.jsonl.gz", LINES),
        ("posts.jsonl.zst", gzip.compress(LINES)),
        ("posts.exe", LINES),
        ("posts", LINES),
        ("posts.jsonl", b""),
        ("posts.txt", b"\xff\xfe"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_leaves_nothing(tmp_path, name, content):
    first = keep_upload(tmp_path / "corpus", "kept.jsonl", io.BytesIO(LINES))
    with pytest.raises(InputError) as refused:
        keep_upload(tmp_path / "corpus", name, io.BytesIO(content))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [first]
    assert str(tmp_path) not in str(refused.value)
