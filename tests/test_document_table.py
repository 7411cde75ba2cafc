"""The document table and the store against plain loops over the same study."""

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest

from ifguide import document_table as tables
from ifguide.document_store import SORTS, DocumentFilter, DocumentStore
from ifguide.errors import ConfigError, StaleError
from ifguide.near_duplicates import group_near_duplicates
from tests.app.fake_study import write_study


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
    wanted = DocumentFilter(sources=("forum",), only_selected=True, lowest=5.0, highest=60.0, shortest=20, longest=400, spans="with")  # fmt: skip
    keep = lambda r: r["source"] == "forum" and r["selected"] and 5 <= r["hit_sum"] <= 60 and 20 <= r["n_tokens"] <= 400 and r["span_tokens"]  # noqa: E731 # fmt: skip
    expected = plain(store, corpus, study, keep=keep, sort=lambda r: r["rank"])
    assert store.order(wanted).tolist() == expected
    assert 2 < len(expected) < 20
    everything = lambda r: True  # noqa: E731
    for name, column in (("length", "n_tokens"), ("id", "id"), ("sum", "sum"), ("loss", "mean_loss"), ("source", "source")):  # fmt: skip
        assert store.order(DocumentFilter(), sort=name).tolist() == plain(store, corpus, study, keep=everything, sort=lambda r, c=column: r[c])  # fmt: skip
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
    own.save_selection("few", {"quantile": 0.999})
    assert [p.name.rsplit("-", 1)[0] for p in tables.write_tables(own)] == ["ranks-few"]
    own.save_selection("few", {"quantile": 0.99})
    second = tables.write_tables(own)
    assert len(second) == 1
    assert len(list((own.root / tables.FOLDER).glob("ranks-few-*"))) == 1
    assert tables.read_notes(second[0])["quantile"] == 0.99
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
