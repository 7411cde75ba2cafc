"""The document table and the store against plain loops over the same study."""

import dataclasses
import errno
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ifguide.data.near_duplicates import group_near_duplicates
from ifguide.errors import ConfigError, StaleError
from ifguide.study import document_table as tables
from ifguide.study.reading import Study
from ifguide.study.select import save_selection
from ifguide.ui.documents import store as document_store
from ifguide.ui.documents.store import SORTS, DocumentFilter, DocumentStore, open_documents
from tests.app.fake_study import Content, fake_texts, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("store") / "cache")


@pytest.fixture(scope="module")
def corpus(study):
    return study.corpus()


@pytest.fixture(scope="module")
def store(study):
    tables.write_tables(study)
    return DocumentStore(tables.table_path(study), tables.ranks_path(study, "default"))


def slices(corpus):
    return [slice(int(a), int(b)) for a, b in zip(corpus.offsets[:-1], corpus.offsets[1:], strict=True)]


def test_every_column_agrees_with_a_slow_loop(study, corpus, store):
    scores, losses, selection = study.scores("own_loss"), study.scores("token_loss"), study.selection("default")
    order = selection.order.tolist()
    top = store.notes["tops"]["own_loss"]
    for row in store.rows(np.arange(corpus.n_documents)):
        index, here = row["document"], slices(corpus)[row["document"]]
        document, values = corpus.document(index), np.asarray(scores[here])
        assert (row["id"], row["source"], row["n_tokens"]) == (document.id, document.source, here.stop - here.start)
        assert row["rank"] == order.index(index) + 1
        assert (row["hits"], row["selected"]) == (selection.count_above[index], selection.mask[here].sum())
        assert row["span_tokens"] == corpus.in_span[here].sum()
        assert row["sum"] == pytest.approx(values.sum(dtype=np.float64), abs=1e-4)
        assert row["max"] == values[1:].max()
        assert row["strongest"] == 1 + values[1:].argmax()
        assert row["mean_loss"] == pytest.approx(losses[here][1:].mean(), rel=1e-4)
        n = len(values)
        for bar, drawn in enumerate(np.frombuffer(row["spark"], dtype=np.int8)):
            first = bar * n // tables.SPARK_BINS
            part = values[first : max(first + 1, (bar + 1) * n // tables.SPARK_BINS)]
            furthest = part[np.abs(part).argmax()]
            assert drawn == round(127 * np.clip(furthest / top, -1, 1))


def test_short_and_portioned_documents_give_the_same_columns():
    generator = np.random.default_rng(0)
    lengths = np.array([1, 2, 40, 1, 500, 3, 33])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    scores = generator.normal(size=offsets[-1]).astype(np.float32)
    ids = generator.integers(0, 99, offsets[-1]).astype(np.int32)
    whole = tables._describe_scores(scores, ids, offsets, 1.0, None)
    for tokens in (1, 37, 100):
        runs = list(tables.document_runs(offsets, tokens))
        assert [a for a, _ in runs[1:]] == [b for _, b in runs[:-1]] and runs[-1][1] == len(lengths)
    assert whole["sum"][0] == 0 and whole["max"][0] == 0  # a document of one token has no score
    assert whole["strongest"].tolist() == [
        0 if n == 1 else 1 + int(scores[a + 1 : a + n].argmax()) for a, n in zip(offsets, lengths, strict=False)
    ]


def plain(store, corpus, study, *, keep, sort, descending=False):
    rows = [row for row in store.rows(np.arange(corpus.n_documents)) if keep(row)]
    return [row["document"] for row in sorted(sorted(rows, key=lambda r: r["rank"]), key=sort, reverse=descending)]


def test_filters_and_sorts_agree_with_plain_python(study, corpus, store):
    wanted = DocumentFilter(
        sources=("forum",), only_selected=True, lowest=5.0, highest=60.0, shortest=20, longest=400, spans="with"
    )
    keep = lambda r: (
        r["source"] == "forum"
        and r["selected"]
        and 5 <= r["hit_sum"] <= 60
        and 20 <= r["n_tokens"] <= 400
        and r["span_tokens"]
    )
    expected = plain(store, corpus, study, keep=keep, sort=lambda r: r["rank"])
    assert store.order(wanted).tolist() == expected
    assert 2 < len(expected) < 20
    everything = lambda r: True  # noqa: E731
    for name, column in (
        ("length", "n_tokens"),
        ("id", "id"),
        ("sum", "sum"),
        ("loss", "mean_loss"),
        ("source", "source"),
    ):
        assert store.order(DocumentFilter(), sort=name).tolist() == plain(
            store, corpus, study, keep=everything, sort=lambda r, c=column: r[c]
        )
    falling = store.order(DocumentFilter(), sort="max", descending=True)
    assert np.all(np.diff([row["max"] for row in store.rows(falling)]) <= 0)


def test_only_and_without_part_the_list(store):
    some = tuple(int(d) for d in store.order(DocumentFilter())[:7])
    assert store.order(DocumentFilter(only=some)).tolist() == list(some)
    rest = store.order(DocumentFilter(without=some)).tolist()
    assert not set(some) & set(rest) and len(rest) == store.n_documents - 7
    assert store.order(DocumentFilter(only=())).tolist() == []


def test_hostile_values_are_only_values(store):
    poison = "x') OR 1=1; DROP TABLE documents; --"
    assert store.order(DocumentFilter(sources=(poison,))).size == 0
    assert store.find(poison) is None
    with pytest.raises(ConfigError, match="to sort by"):
        store.order(DocumentFilter(), sort=poison)
    assert store.order(DocumentFilter()).size == store.n_documents


def test_diverse_takes_each_strongest_token_once_before_any_twice(study, corpus, store):
    order = store.order(DocumentFilter(), sort="diverse")
    strongest = [int(corpus.token_ids[corpus.offsets[r["document"]] + r["strongest"]]) for r in store.rows(order)]
    n = len(set(strongest))
    assert len(set(strongest[:n])) == n
    assert sorted(order.tolist()) == list(range(corpus.n_documents))


def test_tables_are_written_once_and_follow_what_they_are_made_of(study, tmp_path):
    own = write_study(tmp_path / "cache", until="selection")
    first = tables.write_tables(own)
    assert len(first) == 4
    assert tables.write_tables(own) == []
    save_selection(own, "few", {"quantile": 0.999})
    assert [p.name.rsplit("-", 1)[0] for p in tables.write_tables(own)] == ["ranks-few"]
    save_selection(own, "few", {"quantile": 0.99})
    second = tables.write_tables(own)
    assert len(second) == 1
    names = sorted(path.name for path in (own.root / tables.FOLDER).iterdir())
    assert len([name for name in names if name.startswith("ranks-few-")]) == 2  # the table and its checksum
    assert names[1::2] == [f"{name}.sum" for name in names[::2]]
    assert tables.read_notes(second[0]) == own.selection("few").settings
    with pytest.raises(ConfigError):
        tables.ranks_path(own, "../outside")
    with pytest.raises(StaleError, match="no selection nothing yet"):
        tables.ranks_path(own, "nothing")
    assert set(pq.read_schema(first[0]).names) >= {"id", "group", "own_loss_spark"}


def test_near_duplicates_fall_into_one_group():
    generator = np.random.default_rng(3)
    text = generator.integers(0, 5000, 300).astype(np.int32)
    nearly = text.copy()
    nearly[150] = 6000
    half = np.concatenate([text[:150], generator.integers(0, 5000, 150).astype(np.int32)])
    others = [generator.integers(0, 5000, n).astype(np.int32) for n in (300, 3, 1, 200)]
    documents = [others[0], text, others[1], nearly, half, others[2], text[:290], others[3], others[1].copy()]
    offsets = np.concatenate([[0], np.cumsum([len(d) for d in documents])])
    assert group_near_duplicates(np.concatenate(documents), offsets).tolist() == [0, 1, 2, 1, 4, 5, 1, 7, 2]


def test_collapsing_keeps_the_best_of_every_group(study, tmp_path, store):
    own = write_study(tmp_path / "cache", until="selection")
    table = pq.read_table(tables.write_tables(own)[0])
    group = np.arange(len(table), dtype=np.int32)
    group[[5, 9, 30]], group[[40, 41]] = 5, 40
    size = np.bincount(group, minlength=len(group)).astype(np.int32)[group]
    for name, values in (("group", group), ("group_size", size)):
        table = table.set_column(table.schema.get_field_index(name), name, [values])
    pq.write_table(table, tmp_path / "table.parquet")
    grouped = DocumentStore(tmp_path / "table.parquet", tables.ranks_path(own, "default"))
    kept = grouped.order(DocumentFilter(collapse=True)).tolist()
    assert len(kept) == len(group) - 3
    whole = grouped.order(DocumentFilter()).tolist()
    best = [min(members, key=whole.index) for members in ([5, 9, 30], [40, 41])]
    assert set(best) <= set(kept)
    ids = own.corpus().ids()
    assert grouped.members(5) == [ids[d] for d in sorted([5, 9, 30], key=whole.index)]
    assert grouped.numbers([ids[9], "nowhere"]) == {ids[9]: 9}
    assert grouped.has_copies() and not store.has_copies()


def test_every_sort_and_field_can_be_used(store):
    for name in store.sorts():
        assert len(store.order(DocumentFilter(), sort=name, descending=True)) == store.n_documents
    assert set(store.sorts()) <= set(SORTS)
    assert {f.name for f in dataclasses.fields(DocumentFilter)} >= {"sources", "spans", "collapse"}


# ---- damage ----


def flip(path, at=0.5):
    data = bytearray(path.read_bytes())
    data[min(int(len(data) * at), len(data) - 1)] ^= 0x10
    path.write_bytes(data)


def put_another(path):
    """A whole Parquet file of somebody else's."""
    pq.write_table(pa.table({"document": [0, 1], "title": ["a", "b"]}), path)


def drop_row(path):
    """A table of ours that lacks a document."""
    tables._write(path, pq.read_table(path).slice(1))


def drop_column(path):
    table = pq.read_table(path)
    tables._write(path, table.drop_columns([table.column_names[-1]]))


def widen_column(path):
    table = pq.read_table(path)
    place = table.schema.get_field_index("document")
    tables._write(path, table.set_column(place, "document", table["document"].cast("int64")))


def forget_notes(path):
    tables._write(path, pq.read_table(path).replace_schema_metadata(None))


HARMS = {
    "first bit": lambda p: flip(p, 0.0),
    "a bit": flip,
    "bit of the footer": lambda p: flip(p, 0.97),
    "last bit": lambda p: flip(p, 1.0),
    "half": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "empty": lambda p: p.write_bytes(b""),
    "garbage": lambda p: p.write_bytes(bytes(range(256)) * 64),
    "removed": lambda p: p.unlink(),
    "another": put_another,
    "a row less": drop_row,
    "a column less": drop_column,
    "another type": widen_column,
    "no notes": forget_notes,
}
"""The last four come with a checksum that fits."""


@pytest.fixture
def own(study, tmp_path):
    """A copy to harm."""
    copy = Study(shutil.copytree(study.root, tmp_path / "cache" / study.name), study.config)
    tables.write_tables(copy, ["default"])
    return copy


def both(study):
    return {"corpus": tables.table_path(study), "ranks": tables.ranks_path(study, "default")}


@pytest.mark.parametrize("which", ["corpus", "ranks"])
@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_table_is_written_again(own, store, which, harm):
    path = both(own)[which]
    whole = path.read_bytes()
    HARMS[harm](path)
    assert tables.find_damage(own, path)
    mended = open_documents(own, "default")
    assert path.read_bytes() == whole
    assert tables.find_damage(own, path) == ""
    everything = np.arange(store.n_documents)
    assert mended.rows(everything) == store.rows(everything)


def test_every_flipped_bit_is_found(own):
    for path in both(own).values():
        whole = path.read_bytes()
        for bit in range(0, 8 * len(whole), 997):
            data = bytearray(whole)
            data[bit // 8] ^= 1 << bit % 8
            path.write_bytes(data)
            assert tables.find_damage(own, path) == "its bytes are not those that were written"
        path.write_bytes(whole)
        assert tables.find_damage(own, path) == ""


@pytest.mark.parametrize("harm", [lambda p: flip(p, 0.1), lambda p: p.write_bytes(b"")])
def test_a_damaged_checksum_costs_no_more_than_writing_the_table_again(own, harm):
    path = both(own)["corpus"]
    harm(path.with_name(f"{path.name}.sum"))
    assert tables.find_damage(own, path)
    assert open_documents(own, "default").n_documents == own.corpus().n_documents
    assert tables.find_damage(own, path) == ""


def test_the_table_of_another_study_is_no_table_of_this_one(own, tmp_path):
    """Its checksum comes along, but says what file it is of."""
    other = write_study(tmp_path / "cache", "other", until="selection", content=Content(documents=fake_texts(seed=1)))
    tables.write_tables(other, ["default"])
    for which, path in both(own).items():
        whole = path.read_bytes()
        for ending in ("", ".sum"):
            foreign = both(other)[which].with_name(both(other)[which].name + ending)
            path.with_name(path.name + ending).write_bytes(foreign.read_bytes())
        assert path.read_bytes() != whole
        assert open_documents(own, "default").find("doc-001") == 1
        assert path.read_bytes() == whole


def test_tables_of_an_earlier_version_have_no_checksum_and_are_taken_as_they_are(own):
    for path in both(own).values():
        path.with_name(f"{path.name}.sum").unlink()
    assert tables.write_tables(own, ["default"]) == []
    assert open_documents(own, "default").n_documents == own.corpus().n_documents


@pytest.mark.parametrize("harm", [harm for harm in HARMS if "bit" not in harm])
def test_without_a_checksum_what_cannot_be_read_is_still_found(own, harm):
    for path in both(own).values():
        whole = path.read_bytes()
        HARMS[harm](path)
        path.with_name(f"{path.name}.sum").unlink(missing_ok=True)
        open_documents(own, "default")
        assert path.read_bytes() == whole


@pytest.mark.parametrize("harm", ["half", "empty", "garbage", "removed", "another", "a row less", "no notes"])
def test_a_store_of_damaged_files_is_an_error_of_ours(own, harm):
    for path in both(own).values():
        whole = path.read_bytes()
        HARMS[harm](path)
        with pytest.raises(StaleError, match="`ifguide documents NAME`"):
            DocumentStore(*both(own).values())
        path.write_bytes(whole)


def test_rows_of_two_studies_do_not_make_a_store(own, tmp_path):
    short = tmp_path / "short.parquet"
    tables._write(short, pq.read_table(both(own)["ranks"]).slice(0, 10))
    with pytest.raises(StaleError, match=r"52 documents are in one of them alone.*`ifguide documents NAME`"):
        DocumentStore(both(own)["corpus"], short)


def test_a_table_that_is_damaged_again_is_named_with_the_command(own, monkeypatch):
    path, write = both(own)["ranks"], tables._write

    def write_badly(path, table):
        write(path, table)
        flip(path)

    monkeypatch.setattr(tables, "_write", write_badly)
    flip(path)
    with pytest.raises(
        StaleError, match=r"damaged again: its bytes are not.* then write it with `ifguide documents fake`"
    ) as caught:
        open_documents(own, "default")
    assert str(path) in str(caught.value)
    assert both(own)["corpus"].is_file()


def test_a_disk_that_refuses_is_one_sentence(own, monkeypatch):
    def refuse(path, table):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(tables, "_write", refuse)
    flip(both(own)["corpus"])
    with pytest.raises(StaleError, match=r"the disk is full.*`ifguide documents fake`"):
        open_documents(own, "default")


def test_the_table_of_a_large_corpus_is_not_written_while_somebody_waits(own):
    n_tokens = own.corpus().n_tokens
    paths = both(own)
    flip(paths["ranks"])
    open_documents(own, "default", most_tokens=n_tokens - 1)  # that of a selection takes no time
    flip(paths["corpus"])
    with pytest.raises(
        StaleError, match="are not those that were written; write it again with `ifguide documents fake`"
    ):
        open_documents(own, "default", most_tokens=n_tokens - 1)
    assert not paths["corpus"].exists()
    assert open_documents(own, "default", most_tokens=n_tokens).n_documents == own.corpus().n_documents


def test_nothing_is_written_where_all_is_whole(own, monkeypatch):
    monkeypatch.setattr(tables, "write_tables", None)
    monkeypatch.setattr(document_store, "write_tables", None)
    assert open_documents(own, "default").n_documents == own.corpus().n_documents
