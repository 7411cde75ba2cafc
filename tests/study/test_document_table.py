"""The document table and the store against plain loops over the same study."""

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ifguide.data.near_duplicates import group_near_duplicates
from ifguide.errors import ConfigError, StaleError
from ifguide.storage import artifacts
from ifguide.study.freshness import stage_state, study_fingerprint, unit_state
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stage_table import STAGES
from ifguide.study.stages import document_table as tables
from ifguide.study.stages.document_table import COLUMNS, CORPUS, Column, find_damage, table_path
from ifguide.study.stages.select import save_selection
from ifguide.ui.documents import store as document_store
from ifguide.ui.documents.lines import describe_row
from ifguide.ui.documents.store import DocumentFilter, DocumentStore, open_documents
from ifguide.ui.format import score
from tests.app.fake_study import Content, fake_texts, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("store") / "cache")


@pytest.fixture(scope="module")
def corpus(study):
    return study.corpus()


@pytest.fixture(scope="module")
def store(study):
    return open_documents(study, "default")


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
    whole = tables.describe_scores(scores, ids, offsets, 1.0)
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
    keep = lambda r: (  # noqa: E731
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


def test_tables_are_written_once_and_follow_what_they_are_made_of(tmp_path):
    own = write_study(tmp_path / "cache", until="selection")
    assert stage_state(own, "documents").state == "missing"
    names = [Unit("documents", name) for name in own.selection_names()]
    assert tables.write_tables(own) == [CORPUS, *names]
    assert stage_state(own, "documents").state == "fresh"
    assert tables.write_tables(own) == []
    few = Unit("documents", "few")
    for quantile in (0.999, 0.99):
        save_selection(own, "few", {"quantile": quantile})
        assert unit_state(own, few).state != "fresh"
        assert tables.write_tables(own) == [few]
        assert tables.read_notes(table_path(own, "few")) == own.selection("few").settings
    shutil.rmtree(own.folder(Unit("selection", "few")))
    assert tables.write_tables(own) == []
    assert not own.folder(few).exists()
    with pytest.raises(ConfigError):
        table_path(own, "../outside")
    with pytest.raises(StaleError, match="no selection nothing yet"):
        open_documents(own, "nothing")


def test_a_selection_may_have_the_name_of_any_stage(tmp_path):
    own = write_study(tmp_path / "cache", until="selection")
    for name in ("corpus", "documents"):
        save_selection(own, name, {"quantile": 0.99})
        assert open_documents(own, name).settings["name"] == name
    assert len(list((own.root / "documents").glob("*/manifest.json"))) == 3


def test_the_stage_follows_the_selection_and_changes_no_page(tmp_path):
    """The tables follow from the other stages, so pages that are open stay as they are when the app writes them."""
    assert list(STAGES).index("documents") == list(STAGES).index("selection") + 1
    own = write_study(tmp_path / "cache", until="selection")
    before = study_fingerprint(own)
    open_documents(own, "default")
    assert study_fingerprint(own) == before


def test_one_entry_makes_a_column(tmp_path, monkeypatch):
    """Stored, sorted by, shown and explained, each from the one entry."""
    toy = Column("squared", "corpus", pa.int64(), "squared", "Length, squared", "Tokens, squared")
    for module in (tables, document_store):
        monkeypatch.setattr(module, "COLUMNS", (*COLUMNS, toy))
    describe = tables.describe_corpus
    squared = lambda facts: facts | {"squared": facts["n_tokens"].astype(np.int64) ** 2}  # noqa: E731
    monkeypatch.setattr(tables, "describe_corpus", lambda study: squared(describe(study)))
    own = write_study(tmp_path / "cache", until="selection")
    store = open_documents(own, "default")
    assert store.sorts()["squared"] is toy
    order = store.order(DocumentFilter(), sort="squared", descending=True)
    rows = store.rows(order)
    assert [row["squared"] for row in rows] == sorted((row["n_tokens"] ** 2 for row in rows), reverse=True)
    assert describe_row(rows[0], 0, toy, snippet=[])["figure"] == f"{rows[0]['n_tokens'] ** 2:,}"


def test_the_list_shows_the_number_it_is_sorted_by(store):
    row = store.rows(np.array([0]))[0]
    usual = describe_row(row, 0, store.sorts()["rank"], snippet=[])["figure"]
    assert usual == score(row["hit_sum"])
    assert describe_row(row, 0, store.sorts()["loss"], snippet=[])["figure"] == f"{row['mean_loss']:.2f}"
    for column in store.sorts().values():
        shown = describe_row(row, 0, column, snippet=[])["figure"]
        assert column.title and ((shown == usual) == (not column.note) or column.name == "hit_sum"), column.name


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
    open_documents(own, "default")
    table = pq.read_table(table_path(own))
    group = np.arange(len(table), dtype=np.int32)
    group[[5, 9, 30]], group[[40, 41]] = 5, 40
    size = np.bincount(group, minlength=len(group)).astype(np.int32)[group]
    for name, values in (("group", group), ("group_size", size)):
        table = table.set_column(table.schema.get_field_index(name), name, [values])
    pq.write_table(table, tmp_path / "table.parquet")
    grouped = DocumentStore(tmp_path / "table.parquet", table_path(own, "default"))
    kept = grouped.order(DocumentFilter(collapse=True)).tolist()
    assert len(kept) == len(group) - 3
    whole = grouped.order(DocumentFilter()).tolist()
    best = [min(members, key=whole.index) for members in ([5, 9, 30], [40, 41])]
    assert set(best) <= set(kept)
    ids = own.corpus().ids()
    assert sorted(grouped.ids(np.array([9]), copies=True)) == sorted(ids[d] for d in (5, 9, 30))
    assert grouped.ids(np.array([9]), copies=False) == [ids[9]]
    assert grouped.numbers([ids[9], "nowhere"]) == {ids[9]: 9}
    assert grouped.has_copies and not store.has_copies


def test_every_sort_and_field_can_be_used(store):
    for name in store.sorts():
        assert len(store.order(DocumentFilter(), sort=name, descending=True)) == store.n_documents
    assert list(store.sorts()) == [column.key for column in COLUMNS if column.key]


# ---- damage ----


def flip(path, at=0.5):
    data = bytearray(path.read_bytes())
    data[min(int(len(data) * at), len(data) - 1)] ^= 0x10
    path.write_bytes(data)


def put_another(path):
    """A whole Parquet file of somebody else's."""
    pq.write_table(pa.table({"document": [0, 1], "title": ["a", "b"]}), path)


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
    "a row less": lambda p: pq.write_table(pq.read_table(p).slice(1), p),
}


@pytest.fixture
def own(study, tmp_path):
    """A copy to harm."""
    return Study(shutil.copytree(study.root, tmp_path / "cache" / study.name), study.config)


PARTS = (CORPUS, Unit("documents", "default"))


def path_of(study, unit):
    return table_path(study, unit.name)


def test_a_damaged_table_is_written_again(own, store):
    everything = np.arange(store.n_documents)
    for unit in PARTS:
        path = path_of(own, unit)
        whole = path.read_bytes()
        for name, harm in HARMS.items():
            harm(path)
            assert find_damage(own, unit), (unit, name)
            restored = open_documents(own, "default")
            assert path.read_bytes() == whole, (unit, name)
            assert find_damage(own, unit) == "", (unit, name)
            assert restored.rows(everything) == store.rows(everything), (unit, name)


def test_every_flipped_bit_is_found(own):
    for unit in PARTS:
        path = path_of(own, unit)
        whole = path.read_bytes()
        for bit in range(0, 8 * len(whole), 997):
            data = bytearray(whole)
            data[bit // 8] ^= 1 << bit % 8
            path.write_bytes(data)
            assert "has the hash" in find_damage(own, unit), bit
        path.write_bytes(whole)
        assert find_damage(own, unit) == ""


def test_a_damaged_manifest_costs_no_more_than_writing_the_table_again(own):
    path = own.folder(CORPUS) / artifacts.MANIFEST
    for harm in (lambda: flip(path, 0.1), lambda: path.write_bytes(b""), path.unlink):
        harm()
        assert open_documents(own, "default").n_documents == own.corpus().n_documents
        assert find_damage(own, CORPUS) == ""


def test_the_table_of_another_study_is_no_table_of_this_one(own, tmp_path):
    """Its manifest comes along, but names another corpus."""
    other = write_study(tmp_path / "cache", "other", until="documents", content=Content(documents=fake_texts(seed=1)))
    for unit in PARTS:
        whole = path_of(own, unit).read_bytes()
        shutil.rmtree(own.folder(unit))
        shutil.copytree(other.folder(unit), own.folder(unit))
        assert path_of(own, unit).read_bytes() != whole
        assert open_documents(own, "default").find("doc-001") == 1
        assert path_of(own, unit).read_bytes() == whole


def test_a_store_of_damaged_files_is_an_error_of_ours(own):
    for unit in PARTS:
        path = path_of(own, unit)
        whole = path.read_bytes()
        for name in ("half", "empty", "garbage", "removed", "another", "a row less"):
            HARMS[name](path)
            with pytest.raises(StaleError, match="`ifguide documents NAME`"):
                DocumentStore(*(path_of(own, part) for part in PARTS))
            path.write_bytes(whole)


def test_rows_of_two_studies_do_not_make_a_store(own, tmp_path):
    short = tmp_path / "short.parquet"
    pq.write_table(pq.read_table(table_path(own, "default")).slice(0, 10), short)
    with pytest.raises(StaleError, match=r"52 documents.*`ifguide documents NAME`"):
        DocumentStore(table_path(own), short)


def test_a_table_that_is_damaged_again_is_named_with_the_command(own, monkeypatch):
    path, unit = table_path(own, "default"), PARTS[1]
    monkeypatch.setattr(document_store, "write_tables", lambda *_: None)
    flip(path)
    with pytest.raises(StaleError, match=r"damaged again .* then write it with `ifguide documents fake`") as caught:
        open_documents(own, "default")
    assert str(path) in str(caught.value)
    assert find_damage(own, unit) and not find_damage(own, CORPUS)


def test_a_disk_that_refuses_is_one_sentence(own, monkeypatch):
    def refuse(study, unit, folder, report):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    monkeypatch.setattr(tables, "write_table", refuse)
    flip(table_path(own))
    with pytest.raises(StaleError, match=r"the disk is full.*`ifguide documents fake`"):
        open_documents(own, "default")


def test_the_table_of_a_large_corpus_is_not_written_while_somebody_waits(own):
    n_tokens = own.corpus().n_tokens
    flip(table_path(own, "default"))
    open_documents(own, "default", most_tokens=n_tokens - 1)  # that of a selection takes no time
    flip(table_path(own))
    with pytest.raises(StaleError, match=r"has the hash .* write it again with `ifguide documents fake`"):
        open_documents(own, "default", most_tokens=n_tokens - 1)
    assert not table_path(own).exists()
    assert open_documents(own, "default", most_tokens=n_tokens).n_documents == own.corpus().n_documents


def test_writers_wait_for_each_other_and_write_once(own, monkeypatch):
    shutil.rmtree(own.root / "documents")
    write, written = tables.write_table, []

    def note(study, unit, folder, report=None):
        written.append(unit)
        write(study, unit, folder, report)

    monkeypatch.setattr(tables, "write_table", note)
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: open_documents(own, "default"), range(4)))
    assert sorted(written) == sorted(PARTS)
    assert {store.n_documents for store in stores} == {own.corpus().n_documents}


def test_nothing_is_written_where_all_is_whole(own, monkeypatch):
    monkeypatch.setattr(tables, "write_tables", None)
    monkeypatch.setattr(document_store, "write_tables", None)
    assert open_documents(own, "default").n_documents == own.corpus().n_documents
