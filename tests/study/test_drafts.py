"""A study in the making: which uploads are kept, what becomes of it, and that nothing is left behind."""

import gzip
import io
import shutil

import pyarrow as pa
import pytest
from pyarrow import parquet

from ifguide.errors import ConfigError, InputError
from ifguide.study.drafts import Draft
from ifguide.study.folder import list_studies
from tests.app.fake_study import write_study

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
    draft = Draft(tmp_path)
    assert draft.keep("corpus", name, io.BytesIO(LINES)) == f"inputs/corpus/{kept}"
    assert [path for path in draft.root.rglob("*") if path.is_file()] == [draft.root / "inputs" / "corpus" / kept]
    assert (draft.root / "inputs" / "corpus" / kept).read_bytes() == LINES


def test_another_upload_takes_the_place_of_the_first(tmp_path):
    draft = Draft(tmp_path)
    (draft.root / "study.toml").write_text("what was checked with the first one")
    draft.keep("corpus", "a.jsonl", io.BytesIO(LINES))
    draft.keep("corpus", "b.csv.gz", io.BytesIO(gzip.compress(b"text\none\n")))
    assert [path.name for path in draft.root.rglob("*") if path.is_file()] == ["b.csv.gz"]


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
        ("posts.jsonl.zst", gzip.compress(LINES, mtime=0)),
        ("posts.exe", LINES),
        ("posts", LINES),
        ("posts.jsonl", b""),
        ("posts.txt", b"\xff\xfe"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_leaves_nothing(tmp_path, name, content):
    draft = Draft(tmp_path)
    first = draft.keep("corpus", "kept.jsonl", io.BytesIO(LINES))
    with pytest.raises(InputError) as refused:
        draft.keep("corpus", name, io.BytesIO(content))
    assert [path for path in draft.root.rglob("*") if path.is_file()] == [draft.root / first]
    assert str(tmp_path) not in str(refused.value)


def test_a_draft_becomes_a_study_or_is_removed_by_the_next_one(tmp_path):
    kept, left = Draft(tmp_path), Draft(tmp_path)
    study = write_study(tmp_path / "made", "draft", until="queries").root
    kept.root.rmdir()
    shutil.move(study, kept.root)
    folder = left.folder
    del left  # as when a reader closes the page
    Draft(tmp_path)
    assert kept.root.is_dir() and not folder.exists() and list_studies(tmp_path) == []
    with pytest.raises(ConfigError):
        kept.finish("../out")
    assert kept.finish("whole") == tmp_path / "whole"
    kept.discard()
    assert list_studies(tmp_path) == ["whole"] and not kept.folder.exists()
