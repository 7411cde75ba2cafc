"""Explanations of a real tiny study: the parts sum to the scores that are there."""

import dataclasses
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from ifguide.cli.main import app
from ifguide.errors import InputError
from ifguide.storage import artifacts
from ifguide.study.analysis import explain
from ifguide.study.freshness import study_fingerprint
from ifguide.study.on_demand import read_result
from ifguide.study.pipeline import create_study, run_study
from ifguide.study.reading import Study
from ifguide.study.sharing.packed import pack_study, unpack_study
from ifguide.ui.documents.store import open_documents
from ifguide.ui.queries import query_view
from tests.one_case import for_each
from tests.tiny_study import save_tiny_model, tiny_config, write_tiny_inputs


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    write_tiny_inputs(folder / "inputs")
    save_tiny_model("gpt_neox", folder / "inputs" / "model")
    made = create_study(
        "tiny",
        tiny_config(folder / "inputs", "model.mode=finetune", "training.checkpoint_steps=[1,2,4]"),
        folder / "cache",
    )
    run_study(made, until="selection")
    return made


def own(study, document):
    corpus = study.corpus()
    index = corpus.index_of(document)
    return np.asarray(study.scores("own_loss")[corpus.offsets[index] : corpus.offsets[index + 1]], dtype=np.float64)


def test_contributions_sum_to_the_part_of_their_set(study):
    """d11 is longer than the model's context, d10 is a token or two."""
    for document in ("d02", "d11", "d10"):
        found = explain.explain_document(study, document)
        sums = {f"{kind} queries": sum(found[kind]) for kind in ("toxic", "safe")}
        assert {part: value for part, value in found["parts"].items() if part in sums} == pytest.approx(sums), document
        assert artifacts.read_json(explain.document_path(study, document)) == found
        assert len(found["neighbours"]) == found["candidates"] == 11
        assert document not in dict(found["neighbours"])
        assert all(-1.001 <= alike <= 1.001 for _, alike in found["neighbours"]), document


@for_each(
    "kind, average, pooling",
    [
        ("own_loss", "mean", 0.0),
        ("own_loss", "median", 2.0),
        ("combined", "mean", 2.0),
        ("combined", "median", 0.0),
        ("combined", "median", 2.0),
    ],
)
def test_parts_of_every_document_add_up_to_its_sum_in_the_list(study, tmp_path, monkeypatch, kind, average, pooling):
    monkeypatch.setattr(explain, "NEIGHBOURS", 1)
    shutil.copytree(study.root, tmp_path / "tiny")
    both = kind == "combined"
    scores = dataclasses.replace(study.config.scores, average=average, pooling=pooling, probe=both, combined=both)
    selection = dataclasses.replace(study.config.selection, attribution=kind)
    treated = Study.open("tiny", tmp_path).change(dataclasses.replace(study.config, scores=scores, selection=selection))
    run_study(treated, until="documents")
    treatment = [f"{average} over checkpoints instead of mean"] * (average != "mean") + ["pooling"] * (pooling > 0)
    treatment += ["probe"] * both
    store = open_documents(treated, "default")
    changed = dict.fromkeys(treatment, 0.0)
    assert explain.explain_top(treated, store.n_documents) == store.n_documents
    for line in store.rows(np.arange(store.n_documents)):
        found = read_result(explain.document_path(treated, line["id"]))
        rest = found["parts"].pop("fast derivative instead of the exact one", 0.0)
        assert list(found["parts"]) == ["toxic queries", "safe queries", *treatment] and found["kind"] == kind
        size = sum(map(abs, found["parts"].values()))
        assert abs(rest) < 2e-3 * size
        assert rest + sum(found["parts"].values()) == pytest.approx(line["sum"], abs=1e-5 * size), line["id"]
        assert found["total"] == pytest.approx(line["sum"], rel=1e-9, abs=1e-12), line["id"]
        changed = {part: total + abs(found["parts"][part]) for part, total in changed.items()}
    assert all(total > 0.1 for total in changed.values()), changed


def test_the_best_documents_are_explained_together_as_they_are_alone(study, monkeypatch):
    best = [study.corpus().document(int(d)).id for d in study.selection().order[:3]]
    alone = [explain.explain_document(study, name) for name in best]
    explain.document_path(study, best[0]).unlink()
    explain.document_path(study, best[2]).unlink()
    monkeypatch.setattr(explain, "_fitting", lambda modules: 1)  # the others' gradients are made for each in turn
    assert explain.explain_top(study, 3) == 2 and explain.explain_top(study, 3) == 0
    for name, expected in zip(best, alone, strict=True):
        found = artifacts.read_json(explain.document_path(study, name))
        size = sum(map(abs, expected["parts"].values()))
        assert found["parts"] == pytest.approx(expected["parts"], abs=1e-6 * size)
        assert found["total"] == expected["total"]
        assert dict(found["neighbours"]) == pytest.approx(dict(expected["neighbours"]), abs=1e-5)


def test_a_run_explains_the_best_documents_at_its_end_and_never_fails_by_that(study, tmp_path, monkeypatch):
    shutil.copytree(study.root, tmp_path / "tiny", ignore=shutil.ignore_patterns("explanations"))
    mine, n_best = Study.open("tiny", tmp_path), 2
    monkeypatch.setattr(explain, "TOP", n_best)

    def run(*options: str) -> tuple[str, int]:
        done = CliRunner().invoke(app, ["run", "tiny", *options], env={"IFGUIDE_CACHE": str(tmp_path)})
        assert done.exit_code == 0, done.output
        return done.output, len([*(tmp_path / "tiny" / "explanations").glob("*.json")])

    assert run("--until", "selection")[1] == run("--until", "evaluate")[1] == 0
    with monkeypatch.context() as broken:
        broken.setattr(explain, "_load", lambda *_: 1 / 0)
        said, n_there = run()
    assert "no explanations: ZeroDivisionError" in said and not n_there
    said, n_there = run()
    assert n_there == n_best and "no explanations" not in said
    for place in mine.selection().order[:n_best]:
        assert explain.document_path(mine, mine.corpus().document(int(place)).id).is_file()
    monkeypatch.setattr(explain, "_load", lambda *_: 1 / 0)
    assert "no explanations" not in run()[0]  # up to date: nothing is loaded
    pack_study(mine, tmp_path / "tiny.ifguide")
    theirs = Study.open(unpack_study(tmp_path / "tiny.ifguide", tmp_path / "theirs"), tmp_path / "theirs")
    found = read_result(explain.document_path(theirs, theirs.corpus().document(int(theirs.selection().order[0])).id))
    assert found["document"] == mine.corpus().document(int(mine.selection().order[0])).id


def test_spans_part_the_score(study):
    n = len(own(study, "d02"))
    parts = [explain.explain_document(study, "d02", a, b)["total"] for a, b in ((0, 4), (4, n))]
    assert sum(parts) == pytest.approx(own(study, "d02").sum(), rel=1e-3)
    assert parts[0] == pytest.approx(own(study, "d02")[:4].sum(), rel=1e-3, abs=1e-3)
    for bad in ((3, n + 1), (5, 5)):
        with pytest.raises(InputError, match="expected a span inside"):
            explain.explain_document(study, "d02", *bad)


def test_queries_pull_what_the_documents_say_they_do(study):
    result = CliRunner().invoke(app, ["explain", "tiny"], env={"IFGUIDE_CACHE": str(study.root.parent)})
    assert result.exit_code == 0, result.output
    found = artifacts.read_json(explain.queries_path(study))
    for kind in ("toxic", "safe"):
        for query, pulls in enumerate(found[kind]["pulls"]):
            sizes = [abs(value) for _, value in pulls]
            assert sizes == sorted(sizes, reverse=True)
            name, value = pulls[0]
            assert value == pytest.approx(explain.explain_document(study, name)[kind][query], rel=1e-4)
        assert all(-1 <= cosine <= 1.0001 for cosine in found[kind]["along"] + found[kind]["without"])


def test_another_direction_has_other_explanations(study):
    before = explain.queries_path(study)
    manifest = study.folder(explain.Unit("direction")) / artifacts.MANIFEST
    kept = manifest.read_bytes()
    try:
        changed = artifacts.read_json(manifest)
        changed["outputs"] = {name: "0" * 64 for name in changed["outputs"]}
        artifacts.write_json(manifest, changed)
        assert explain.queries_path(study) != before
    finally:
        manifest.write_bytes(kept)


def test_list_of_queries_is_searched_and_ordered(study):
    from ifguide.ui.loaders import Loaded

    loaded = Loaded(study, study_fingerprint(study))
    known = {"toxic": {"along": [0.2, 0.9], "without": [0.9, 0.99]}}
    assert [*query_view.list_queries(loaded, "toxic", "", "along", known).index] == [1, 0]
    assert [*query_view.list_queries(loaded, "toxic", "", "without", known).index] == [0, 1]
    assert [*query_view.list_queries(loaded, "toxic", "IDIOT", "along", None)["completion"]] == [" an idiot"]
    alone = {"toxic": {"along": [0.2, 0.9], "without": [None, 0.99]}}  # the only one of its set
    assert [*query_view.list_queries(loaded, "toxic", "", "without", alone).index] == [1, 0]
