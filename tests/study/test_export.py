"""Exported tables hold what the study holds, in every format, and nothing else is left behind."""

import csv
import itertools
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from datasets import load_from_disk

from ifguide.data import by_document
from ifguide.data.spans import mark_tokens, parse_spans
from ifguide.errors import ConfigError, InputError, StaleError
from ifguide.study.freshness import inputs_of
from ifguide.study.lineage import Unit
from ifguide.study.sharing import export
from ifguide.study.sharing.export import SCHEMAS, character_spans, export_study
from ifguide.study.stages.select import save_mask
from tests.small_study import DOCUMENTS, make_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("cache"))


def read(path):
    """Rows as dicts of plain values, from any of the formats."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_tokens_join_to_the_texts_and_carry_the_study_s_scores(study, tmp_path):
    n_rows = {export_study(study, "tokens", tmp_path / f"t{suffix}") for suffix in (".parquet", ".jsonl")}
    rows = read(tmp_path / "t.parquet")
    assert rows == read(tmp_path / "t.jsonl")
    corpus, chosen = study.corpus(), study.selection("default")
    assert n_rows == {len(rows)} == {corpus.n_tokens}
    assert list(rows[0]) == SCHEMAS["tokens"].names
    texts = {}
    for row in rows:
        texts[row["document_id"]] = texts.get(row["document_id"], "") + row["token"]
    assert texts == {document["id"]: document["text"] for document in DOCUMENTS}
    valid = corpus.valid()
    for kind, column in (("own_loss", "own_loss"), ("position", "position_score")):
        expected = [float(score) if ok else None for score, ok in zip(study.scores(kind), valid, strict=True)]
        assert [row[column] for row in rows] == expected
    assert [row["selected"] for row in rows] == chosen.mask.tolist()
    assert [row["in_span"] for row in rows] == corpus.in_span.tolist()
    assert [row["position"] for row in rows if row["document_id"] == "b"] == list(range(len("You are kind.")))


def test_a_span_is_seen_at_its_characters(study, tmp_path):
    export_study(study, "tokens", tmp_path / "t.jsonl")
    inside = [row for row in read(tmp_path / "t.jsonl") if row["in_span"] and row["document_id"] == "a"]
    assert [(row["token"], row["char_start"], row["char_end"]) for row in inside] == [("fool", 14, 18)]


def test_the_mask_is_the_selection(study, tmp_path):
    export_study(study, "mask", tmp_path / "m.parquet", selection="oracle")
    rows = read(tmp_path / "m.parquet")
    assert [row["selected"] for row in rows] == study.selection("oracle").mask.tolist()
    assert list(rows[0]) == ["document_id", "position", "selected"]


def test_documents_come_by_rank_with_sums_of_their_tokens(study, tmp_path):
    export_study(study, "documents", tmp_path / "d.parquet")
    export_study(study, "tokens", tmp_path / "t.parquet")
    documents = pd.read_parquet(tmp_path / "d.parquet").set_index("document_id")
    tokens = pd.read_parquet(tmp_path / "t.parquet").groupby("document_id")
    assert documents["rank"].tolist() == [1, 2, 3]
    assert [study.corpus().index_of(i) for i in documents.index] == study.selection("default").order.tolist()
    assert documents["n_tokens"].to_dict() == tokens.size().to_dict()
    assert documents["n_selected"].to_dict() == tokens["selected"].sum().to_dict()
    assert documents["text"].to_dict() == {d["id"]: d["text"] for d in DOCUMENTS}
    for document_id, total in tokens["own_loss"].sum().items():
        assert documents["score_sum"][document_id] == pytest.approx(total, rel=1e-5)


def test_small_blocks_change_nothing(study, tmp_path, monkeypatch):
    for what, suffix in itertools.product(("tokens", "mask", "spans", "documents"), (".parquet", ".jsonl", ".csv")):
        monkeypatch.undo()
        whole, blocks, seen = tmp_path / f"whole{suffix}", tmp_path / f"blocks{suffix}", []
        export_study(study, what, whole)
        monkeypatch.setattr(export, "BLOCK_TOKENS", 20)
        export_study(study, what, blocks, report=lambda done, total, seen=seen: seen.append((done, total)))
        same = read(blocks) == read(whole) if suffix == ".parquet" else blocks.read_bytes() == whole.read_bytes()
        assert same, (what, suffix)
        assert len(seen) > 1 and seen[-1] == (3, 3), (what, suffix)


def test_csv_texts_are_no_formulas_and_lose_nothing(study, tmp_path):
    export_study(study, "documents", tmp_path / "d.csv")
    with (tmp_path / "d.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    texts = {row["document_id"]: row["text"] for row in rows}
    assert texts["a"].startswith("'=SUM")
    assert {i: text.removeprefix("'") for i, text in texts.items()} == {d["id"]: d["text"] for d in DOCUMENTS}
    export_study(study, "tokens", tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as stream:
        cells = list(csv.DictReader(stream))
    assert not [row["token"] for row in cells if row["token"].startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert "".join(row["token"].removeprefix("'") for row in cells if row["document_id"] == "a") == DOCUMENTS[1]["text"]
    assert any(row["own_loss"].startswith("-") for row in cells)  # numbers stay numbers
    assert {row["selected"] for row in cells} == {"true", "false"}
    assert cells[0]["own_loss"] == ""


def test_without_known_spans_or_position_scores_there_are_nulls(tmp_path):
    study = make_study(tmp_path, spans=False, position=False)
    export_study(study, "tokens", tmp_path / "t.parquet")
    table = pd.read_parquet(tmp_path / "t.parquet")
    assert table["in_span"].isna().all()
    assert table["position_score"].isna().all()
    assert table["own_loss"].notna().sum() == study.corpus().valid().sum()


def test_what_cannot_be_exported_is_refused_and_nothing_written(study, tmp_path):
    for name in ("t.xlsx", "t", "t.parquet.gz"):
        with pytest.raises(ConfigError, match=r"ending in \.parquet, \.jsonl, \.csv"):
            export_study(study, "tokens", tmp_path / name)
    with pytest.raises(InputError, match="make the folder first"):
        export_study(study, "mask", tmp_path / "nowhere" / "m.csv")
    with pytest.raises(StaleError, match=r"there is no selection 'mine' \(there: default, random, oracle\)"):
        export_study(study, "mask", tmp_path / "m.csv", selection="mine")
    assert list(tmp_path.iterdir()) == []


def test_a_path_and_a_study_may_hold_quotes(tmp_path):
    study = make_study(tmp_path, name="its")
    settings = study.selection("default").settings
    for suffix in (".parquet", ".jsonl", ".csv"):
        out = tmp_path / f"it's (1); DROP --{suffix}"
        assert export_study(study, "mask", out) == study.corpus().n_tokens
        assert out.is_file()
    assert "'" not in json.dumps(settings)  # so the next line is what tests quotes in the metadata
    export._write_rows(iter([]), "mask", SCHEMAS["mask"], tmp_path / "m.parquet", ".parquet", {"name": "it's"}, print)
    assert json.loads(pq.read_schema(tmp_path / "m.parquet").metadata[b"ifguide"]) == {"name": "it's"}


def test_an_interrupted_export_is_an_interruption_and_not_an_error_of_the_database(study, tmp_path):
    for error in (KeyboardInterrupt, StaleError("gone")):

        def stop(done, total, error=error):
            raise error

        with pytest.raises(type(error) if isinstance(error, Exception) else error):
            export_study(study, "mask", tmp_path / "m.csv", report=stop)
    assert list(tmp_path.iterdir()) == []


def test_stale_scores_are_refused_with_the_command_that_rebuilds_them(tmp_path):
    study = make_study(tmp_path)
    corpus = tmp_path / "inputs" / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace("kind", "mild"))
    with pytest.raises(StaleError, match=r"corpus is stale .*`ifguide run small --until selection`"):
        export_study(study, "tokens", tmp_path / "t.csv")
    assert not (tmp_path / "t.csv").exists()


def test_a_failed_export_leaves_the_old_file_and_no_other(study, tmp_path, monkeypatch):
    out = tmp_path / "t.csv"
    out.write_text("old")

    def fill_disk(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left"):
        export_study(study, "tokens", out, report=fill_disk)
    monkeypatch.setattr(export, "_quote", lambda text: "'/no/such/folder/t.csv'")
    with pytest.raises(InputError, match=r"could not write .*t\.csv: .*/no/such/folder"):
        export_study(study, "tokens", out)
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_sums_by_document_match_plain_sums(monkeypatch):
    monkeypatch.setattr(by_document, "TOKENS_AT_ONCE", 7)
    generator = np.random.default_rng(1)
    offsets = np.concatenate([[0], np.cumsum(generator.integers(1, 12, 40))])
    values = generator.normal(size=offsets[-1]).astype(np.float32)
    expected = [values[a:b].sum(dtype=np.float64) for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
    np.testing.assert_allclose(by_document.sum_by_document(values, offsets), expected, atol=1e-12)


def test_selected_characters_go_in_again_as_spans(study, tmp_path):
    """The exported spans are a form that a corpus can bring, and mark the tokens that were selected."""
    for suffix in (".parquet", ".jsonl", ".csv", ".dataset"):
        out = tmp_path / f"s{suffix}"
        assert export_study(study, "spans", out, selection="oracle") == len(DOCUMENTS)
        if suffix == ".csv":
            with out.open(encoding="utf-8", newline="") as stream:
                rows = list(csv.DictReader(stream))
        else:
            rows = load_from_disk(out).to_list() if suffix == ".dataset" else read(out)
        assert [row["document_id"] for row in rows] == [document["id"] for document in DOCUMENTS]
        check_spans(study, rows, suffix)


def check_spans(study, rows, suffix):
    corpus, chosen = study.corpus(), study.selection("oracle")
    for index, row in enumerate(rows):
        tokens, text = slice(*corpus.offsets[index : index + 2]), corpus.document(index).text
        spans = parse_spans(row["spans"], len(text), "here", "spans")
        marked = mark_tokens(text, spans, corpus.char_start[tokens], corpus.char_end[tokens])
        assert marked.tolist() == chosen.mask[tokens].tolist()
        selected = json.loads(row["selected"]) if suffix == ".csv" else row["selected"]
        assert selected == chosen.mask[tokens].tolist()
        assert int(row["n_selected"]) == chosen.mask[tokens].sum()
        assert int(row["n_tokens"]) == len(selected)


def test_what_made_a_selection_goes_along(study, tmp_path):
    for what in ("mask", "spans"):
        export_study(study, what, tmp_path / f"{what}.parquet")
        export_study(study, what, tmp_path / f"{what}.dataset")
        held = json.loads(pq.read_schema(tmp_path / f"{what}.parquet").metadata[b"ifguide"])
        assert held == json.loads((tmp_path / f"{what}.dataset" / "made-from.json").read_text(encoding="utf-8"))
        assert held["selection"] == study.selection("default").settings
        assert held["inputs"] == inputs_of(study, Unit("selection", "default"))
        assert held["inputs"].keys() >= {"corpus", "scores"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "mask.dataset",
        "mask.parquet",
        "spans.dataset",
        "spans.parquet",
    ]


def test_a_folder_that_is_there_is_not_written_over(study, tmp_path):
    (tmp_path / "there.dataset").mkdir()
    with pytest.raises(InputError, match="is there already; give the folder another name"):
        export_study(study, "mask", tmp_path / "there.dataset")


def test_runs_of_tokens_become_one_range_of_characters():
    mask = np.array([True, True, False, False, True, True])
    start, end = np.array([0, 2, 5, 7, 7, 9]), np.array([2, 5, 7, 7, 9, 9])
    assert character_spans(mask, start, end) == [{"start": 0, "end": 5}, {"start": 7, "end": 9}]
    assert character_spans(np.array([False, True]), np.array([0, 3]), np.array([3, 3])) == []


def test_an_exported_mask_is_read_back_from_every_format(tmp_path, monkeypatch):
    """Also from CSV, where true is a word and an id that looks like a formula has a ' before it."""
    monkeypatch.setattr("tests.small_study.DOCUMENTS", [row | {"id": f"={row['id']}"} for row in DOCUMENTS])
    study = make_study(tmp_path)
    for ending in (".csv", ".jsonl", ".parquet"):
        file = tmp_path / f"mask{ending}"
        export_study(study, "mask", file)
        made = save_mask(study, f"from-{ending[1:]}", str(file))
        np.testing.assert_array_equal(made.mask, study.selection().mask)
        assert made.settings["matched"]["rows"] == study.corpus().n_tokens
