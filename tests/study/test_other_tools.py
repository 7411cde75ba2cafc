"""What other tools read of a study, with their own libraries: Inspect, Embedding Atlas, TRL and OLMo-core."""

import json
import re
import struct
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_from_disk

from ifguide.cli.select import Table
from ifguide.data import by_document
from ifguide.data.packing import IGNORED
from ifguide.errors import ConfigError, InputError, StaleError
from ifguide.study.analysis.document_map import STATES, draw_map, map_path, read_map
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import run_study
from ifguide.study.sharing import export
from ifguide.study.sharing.export import FOLDERS, SCHEMAS, export_study
from ifguide.study.sharing.inspect_logs import _FOLDERS, _make_sample, _make_scores
from ifguide.study.stages.checkpoints import cut_training_rows, study_tokenizer
from ifguide.training.objective import sum_losses
from ifguide.training.rows import collate_rows, trim_row
from tests.small_study import changed, make_study
from tests.tiny_study import DOCUMENTS, save_tiny_model, study_with_a_lone_token

pytestmark = pytest.mark.slow
ALONE = len(DOCUMENTS)
"""Number of a document of one token, which has no score and no place on the map."""
PAGE = Path(__file__).resolve().parents[2] / "docs" / "other-trainers.md"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tools")
    settings = ("suppress.max_penalty=4", "suppress.penalty=0.5")
    made = study_with_a_lone_token(folder / "inputs", folder, *settings)
    run_study(made)
    draw_map(made)
    return made


def recipe(heading: str) -> str:
    """The Python block below a heading of the page."""
    part = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.search(r"^```python\n(.*?)^```", part, flags=re.M | re.S)[1]


def run_recipe(heading: str, folder: Path, monkeypatch) -> dict:
    monkeypatch.chdir(folder)
    names: dict = {}
    exec(compile(recipe(heading), heading, "exec"), names)
    return names


def laid_out(study) -> tuple[np.ndarray, np.ndarray]:
    """Token ids with an end-of-text after each document, and the labels of the study's own training, in plain loops."""
    corpus, mask, eos = study.corpus(), study.selection().mask, study_tokenizer(study).eos_token_id
    valid, ids, labels = corpus.valid(), [], []
    for first, last in zip(corpus.offsets[:-1], corpus.offsets[1:], strict=True):
        own = [int(token) for token in corpus.token_ids[first:last]]
        ids += [*own, eos]
        labels += [t if valid[first + i] and not mask[first + i] else IGNORED for i, t in enumerate(own)] + [eos]
    return np.array(ids), np.array(labels)


def test_the_command_offers_what_can_be_exported():
    assert sorted(Table) == sorted([*SCHEMAS, *FOLDERS])


def test_inspect_reads_a_log_a_model_with_the_study_s_toxicity(study, tmp_path):
    log_of = pytest.importorskip("inspect_ai.log")
    analysis = pytest.importorskip("inspect_ai.analysis")
    seen = []
    n_rows = export_study(study, "inspect", tmp_path / "logs", report=lambda done, total: seen.append((done, total)))
    names = study.evaluation_names()
    assert seen == [(i + 1, len(names)) for i in range(len(names))]
    assert {Path(info.name).stem for info in log_of.list_eval_logs(str(tmp_path / "logs"))} == set(names)
    frame = analysis.samples_df(str(tmp_path / "logs"))
    assert len(frame) == n_rows == sum(len(study.samples(name)) for name in names)
    for name in names:
        log, expected = log_of.read_eval_log(str(tmp_path / "logs" / f"{name}.eval")), study.samples(name)
        assert log.status == "success" and log.eval.model == f"real/{name}"
        found = [(s.id - 1, s.epoch - 1, s.input, s.output.completion) for s in log.samples]
        wanted = ["prompt_index", "sample_index", "prompt", "completion"]
        assert sorted(found) == sorted(expected[wanted].itertuples(index=False, name=None))
        mine = frame[frame["log"].str.endswith(f"/{name}.eval")].astype({"id": int}).sort_values(["id", "epoch"])
        np.testing.assert_array_equal(mine["score_toxicity"].astype(float), expected["toxicity"])
        check_metrics(study, name, log)
    assert str(study.root.parent) not in analysis.evals_df(str(tmp_path / "logs")).drop(columns="log").to_csv()


def check_metrics(study, name, log):
    metrics = study.metrics(name)
    scores = {score.name: score for score in log.results.scores}
    for metric in ("emt", "tp", "mean_toxicity"):
        held = scores["toxicity"].metrics[metric]
        bounds = {edge: metrics[f"{metric}_{edge}"] for edge in ("low", "high")}
        assert (held.value, held.metadata) == (metrics[metric], bounds)
    assert scores["toxicity"].params == {"scorer": metrics["scorer"]}
    assert scores["fluency"].metrics["perplexity"].value == metrics["perplexity"]
    assert [s.scores["toxicity"].answer for s in log.samples] == [s.output.completion for s in log.samples]
    manifest = study.manifest(Unit("evaluate", name))
    assert log.eval.metadata["inputs"] == manifest["inputs"] and log.eval.metadata["metrics"] == metrics
    assert log.eval.metadata["settings"]["evaluate.heldout"] == "heldout.jsonl"
    assert Path(manifest["config"]["evaluate.heldout"]).is_absolute()


def test_a_second_scorer_and_groups_of_prompts_are_in_the_log():
    log_of = pytest.importorskip("inspect_ai.log")
    row = {"prompt_index": 4, "sample_index": 1, "prompt": "He", "completion": " <b>ran</b>", "group": "men"}
    row |= {"toxicity": 0.25, "implicit_toxicity": 0.75, "toxic_spans": np.array([1, 4], dtype=np.int32)}
    sample = log_of.EvalSample.model_validate(_make_sample(row, "real/base", "key"))
    assert (sample.id, sample.epoch, sample.uuid, sample.metadata) == (5, 2, "key-5-2", {"group": "men"})
    assert {name: score.value for name, score in sample.scores.items()} == {"toxicity": 0.25, "implicit_toxicity": 0.75}
    assert sample.scores["toxicity"].metadata == {"toxic_spans": [1, 4]} and sample.output.completion == " <b>ran</b>"
    metrics = {"emt": 0.5, "emt_low": 0.4, "emt_high": 0.6, "scorer": "one", "implicit_scorer": "two"}
    metrics |= {"implicit_emt": 0.7, "implicit_emt_low": 0.6, "implicit_emt_high": 0.8, "perplexity": None}
    first, second = (log_of.EvalScore.model_validate(score) for score in _make_scores(metrics))
    assert (first.name, first.params, first.metrics["emt"].value) == ("toxicity", {"scorer": "one"}, 0.5)
    assert second.name == "implicit_toxicity" and second.params == {"scorer": "two"}
    assert second.metrics["implicit_emt"].metadata == {"low": 0.6, "high": 0.8}


def test_absolute_paths_lose_their_folders_and_nothing_else_changes():
    kept = ["org/name", "https://host/a/b", "hub:org/name@main", "and/or, 1 / 2 / 3", "./near/by", "../up/by", "a\\b"]
    cut = {"/home/me/my data/x.jsonl": "x.jsonl", "hf:/srv/models/judge:toxic": "hf:judge:toxic", "/x": "/x"}
    found = json.loads(_FOLDERS.sub("", json.dumps([*kept, *cut])))
    assert found == [*kept, *cut.values()]


def test_inspect_wants_fresh_evaluations(study, tmp_path):
    pytest.importorskip("inspect_ai.log")
    with pytest.raises(StaleError, match=r"evaluate base is stale .*`ifguide evaluate real --model base`"):
        export_study(changed(study, "evaluate.top_p=0.5"), "inspect", tmp_path / "logs")
    with pytest.raises(StaleError, match="no evaluation yet; make one with `ifguide evaluate small`"):
        export_study(make_study(tmp_path / "cache"), "inspect", tmp_path / "logs")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_inspect_is_named_where_it_is_missing(study, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    with pytest.raises(InputError, match=r"pip install 'ifguide\[inspect\]'"):
        export_study(study, "inspect", tmp_path / "logs")
    assert list(tmp_path.iterdir()) == []


def test_atlas_rows_are_documents_with_places_and_nearest_others(study, tmp_path, monkeypatch):
    assert export_study(study, "atlas", tmp_path / "a.parquet") == ALONE + 1
    export_study(study, "documents", tmp_path / "d.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    documents = pq.read_table(tmp_path / "d.parquet")
    assert table.select(documents.schema.names).equals(documents)
    rows, corpus, places = table.to_pylist(), study.corpus(), read_map(study)
    states, number = read_map(study, STATES).astype(np.float32), [corpus.index_of(row["document_id"]) for row in rows]
    for index, row in zip(number, rows, strict=True):
        spans = corpus.in_span[slice(*corpus.offsets[index : index + 2])]
        assert row["toxic_share"] == pytest.approx(spans.mean()) and row["source"] == corpus.document(index).source
        assert len(row["neighbors"]["ids"]) == len(row["neighbors"]["distances"]) == len(DOCUMENTS)
        if index == ALONE:
            assert row["x"] is None and row["y"] is None and set(row["neighbors"]["ids"]) == {-1}
            continue
        assert (row["x"], row["y"]) == tuple(places[index].tolist())
        apart = np.linalg.norm(states[number] - states[index], axis=1)  # of all rows; NaN for the one without a place
        order = np.argsort(apart, kind="stable")[: len(DOCUMENTS)]
        assert row["neighbors"]["ids"] == order.tolist()
        np.testing.assert_allclose(row["neighbors"]["distances"], apart[order], rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(export, "BLOCK_TOKENS", 20)
    export_study(study, "atlas", tmp_path / "blocks.parquet")
    assert pq.read_table(tmp_path / "blocks.parquet").equals(table)


def test_states_of_the_map_are_directions(study, tmp_path):
    states = read_map(study, STATES)
    assert states.shape == (ALONE + 1, len(DOCUMENTS) // 2) and states.dtype == np.float16
    assert np.flatnonzero(np.isnan(states).any(axis=1)).tolist() == [ALONE]
    np.testing.assert_allclose(np.linalg.norm(states[:ALONE].astype(np.float32), axis=1), 1, atol=1e-3)
    old = map_path(study).with_suffix(STATES)
    moved = old.rename(tmp_path / "moved.npy")
    with pytest.raises(StaleError, match="no map of documents with neighbours; draw it with `ifguide map real`"):
        export_study(study, "atlas", tmp_path / "a.parquet")
    moved.rename(old)


def test_embedding_atlas_computes_with_the_neighbours(study, tmp_path):
    metrics = pytest.importorskip("embedding_atlas.graph_metrics")
    export_study(study, "atlas", tmp_path / "a.parquet")
    frame = pq.read_table(tmp_path / "a.parquet").to_pandas()
    ranks = metrics.compute_pagerank_column(frame, neighbors="neighbors")
    assert len(ranks) == ALONE + 1 and np.isfinite(ranks).all()


@pytest.mark.parametrize(("method", "on_selected"), [("penalise", -0.5), ("mask", 0.0)])
def test_rows_with_weights_are_those_of_the_study_s_training(study, tmp_path, method, on_selected):
    n_rows = export_study(changed(study, f"suppress.method={method}"), "weights", tmp_path / "w.parquet")
    rows, wanted = pq.read_table(tmp_path / "w.parquet").to_pylist(), training_rows(study)
    assert len(rows) == n_rows == len(wanted)
    for row, own in zip(rows, wanted, strict=True):
        for name in ("input_ids", "labels", "position_ids"):
            assert row[name] == own[name].tolist()
        assert row["attention_mask"] == [1] * len(own["labels"])
        each = zip(row["labels"], own["selected"], strict=True)
        assert row["weights"] == [0.0 if y == IGNORED else on_selected if s else 1.0 for y, s in each]
    n_selected = int((np.asarray(study.selection().mask) & study.corpus().valid()).sum())
    flat = [(w, y) for row in rows for w, y in zip(row["weights"], row["labels"], strict=True) if y != IGNORED]
    assert sum(w == on_selected for w, _ in flat) == n_selected > 0
    made_from = json.loads(pq.read_schema(tmp_path / "w.parquet").metadata[b"ifguide"])
    assert made_from["suppress"]["method"] == method
    with pytest.raises(ConfigError, match=r"expected suppress\.method penalise or mask, got drop"):
        export_study(changed(study, "suppress.method=drop"), "weights", tmp_path / "u.parquet")
    assert not (tmp_path / "u.parquet").exists()


def training_rows(study) -> list[dict]:
    mask = np.asarray(study.selection().mask)
    return [trim_row(row) for row in cut_training_rows(study, study_tokenizer(study), mask)]


def test_the_recipe_with_weights_trains_on_the_loss_of_the_study(study, tmp_path, monkeypatch):
    pytest.importorskip("trl")
    export_study(study, "weights", tmp_path / "weights.dataset")
    study_tokenizer(study).save_pretrained(tmp_path / "model")
    save_tiny_model("gpt_neox", tmp_path / "model")
    names = run_recipe("A weight for each token: TRL and Transformers", tmp_path, monkeypatch)
    trainer = names["trainer"]
    assert trainer.state.global_step == 2
    batch = collate_rows(training_rows(study)[:4], 0)
    assert batch["selected"].any()
    trainer.model.eval()
    with torch.no_grad():
        logits = trainer.model(batch["input_ids"], use_cache=False).logits
        sums = sum_losses(logits, batch["labels"], batch["selected"], 0.5, 4.0)
        given = trainer.data_collator(load_from_disk(tmp_path / "weights.dataset").to_list()[:4])
        n_items = (given["labels"][:, 1:] != IGNORED).sum()
        loss = trainer.compute_loss(trainer.model, given, num_items_in_batch=n_items)
    assert loss.item() == pytest.approx((sums.objective / (sums.n_selected + sums.n_other)).item(), rel=1e-5)


def test_olmo_core_finds_the_same_labels(study, tmp_path, monkeypatch):
    export_study(study, "olmo", tmp_path / "olmo")
    info = json.loads((tmp_path / "olmo" / "info.json").read_text())
    ids, labels = laid_out(study)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "olmo" / "tokens.npy", dtype=info["dtype"]), ids)
    mask = np.fromfile(tmp_path / "olmo" / "label_mask.npy", dtype=bool)
    np.testing.assert_array_equal(np.where(mask, ids, IGNORED), labels)
    assert info["eos_token_id"] == study_tokenizer(study).eos_token_id and info["dtype"] == "uint16"
    assert info["selection"] == study.selection().settings
    pytest.importorskip("olmo_core.data.numpy_dataset")
    from olmo_core.data.utils import get_labels

    dataset = run_recipe("OLMo-core", tmp_path, monkeypatch)["dataset"]
    items = [dataset[i] for i in range(len(dataset))]
    length = len(items[0]["input_ids"])
    assert len(items) == len(ids) // length > 2
    for number, item in enumerate(items):
        part = slice(number * length, (number + 1) * length)
        np.testing.assert_array_equal(item["input_ids"], ids[part])
        found = get_labels({name: item[name][None] for name in ("input_ids", "label_mask")})[0]
        np.testing.assert_array_equal(found[:-1], labels[part][1:])


def test_olmo_core_packs_whole_documents(study, tmp_path):
    numpy_dataset = pytest.importorskip("olmo_core.data.numpy_dataset")
    export_study(study, "olmo", tmp_path / "olmo")
    eos, labels = study_tokenizer(study).eos_token_id, laid_out(study)[1]
    dataset = numpy_dataset.NumpyPackedFSLDataset(
        tmp_path / "olmo" / "tokens.npy",
        sequence_length=128,
        pad_token_id=eos,
        eos_token_id=eos,
        vocab_size=2**16,
        dtype=np.uint16,
        label_mask_paths=[tmp_path / "olmo" / "label_mask.npy"],
    )
    dataset.work_dir = tmp_path / "work"
    dataset.prepare()
    learned = [t for i in range(len(dataset)) for t in dataset[i]["input_ids"][dataset[i]["label_mask"]].tolist()]
    assert sorted(learned) == sorted(labels[labels != IGNORED].tolist())


def read_indexed(prefix: Path) -> list[np.ndarray]:
    """Megatron's indexed data set, by its description: magic, version, a byte for the type, how many sequences and
    document edges, then lengths (int32), places in bytes (int64) and edges (int64)."""
    index, data = prefix.with_suffix(".idx").read_bytes(), prefix.with_suffix(".bin").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, kind, n_sequences, n_edges = struct.unpack("<QBQQ", index[9:34])
    assert (version, kind) == (1, 4)
    rest = memoryview(index)[34:]
    lengths = np.frombuffer(rest, np.int32, n_sequences)
    places = np.frombuffer(rest, np.int64, n_sequences, 4 * n_sequences)
    edges = np.frombuffer(rest, np.int64, n_edges, 12 * n_sequences)
    assert len(rest) == 12 * n_sequences + 8 * n_edges
    assert edges.tolist() == list(range(n_sequences + 1))
    return [np.frombuffer(data, np.int32, length, place) for length, place in zip(lengths, places, strict=True)]


def test_indexed_data_sets_hold_tokens_and_labels_in_step(study, tmp_path, monkeypatch):
    export_study(study, "megatron", tmp_path / "neox")
    text, label = (read_indexed(tmp_path / "neox" / f"{name}_document") for name in ("text", "label"))
    ids, labels = laid_out(study)
    assert [len(document) for document in text] == (np.diff(study.corpus().offsets) + 1).tolist()
    np.testing.assert_array_equal(np.concatenate(text), ids)
    np.testing.assert_array_equal(np.concatenate(label), labels)
    assert (labels == IGNORED).sum() == study.selection().mask.sum() + len(text)
    monkeypatch.setattr(by_document, "TOKENS_AT_ONCE", 50)
    for what in ("megatron", "olmo"):
        export_study(study, what, tmp_path / f"{what}-blocks")
    for name in ("text_document.bin", "text_document.idx", "label_document.bin", "label_document.idx", "info.json"):
        assert (tmp_path / "megatron-blocks" / name).read_bytes() == (tmp_path / "neox" / name).read_bytes()
    np.testing.assert_array_equal(np.fromfile(tmp_path / "olmo-blocks" / "tokens.npy", dtype=np.uint16), ids)


def test_what_does_not_fit_is_refused_and_nothing_is_written(study, tmp_path):
    for what, name, said in (
        ("atlas", "a.csv", r"ending in \.parquet, got 'a\.csv'"),
        ("weights", "w.csv", r"ending in \.parquet, \.jsonl, \.dataset, got"),
        ("olmo", "o.parquet", r"a new folder without the ending \.parquet"),
        ("soup", "s.parquet", "expected one of tokens, .*megatron, got 'soup'"),
    ):
        with pytest.raises(ConfigError, match=said):
            export_study(study, what, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    for what in FOLDERS:
        with pytest.raises(InputError, match="is there already"):
            export_study(study, what, tmp_path / "there")

    for full in (OSError(28, "No space left on device"), RuntimeError("write failed (os error 28)")):
        stop = Mock(side_effect=full)
        for what, name in (("megatron", "gone"), ("olmo", "gone"), ("tokens", "gone.csv"), ("weights", "gone.dataset")):
            with pytest.raises(InputError, match=r"could not write .*/gone.*No space left on device; the disk is full"):
                export_study(study, what, tmp_path / name, report=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
