"""The drawer's column of documents that pushed toward an answer, in each of its states."""

import shutil

import numpy as np
import pytest

from ifguide.storage import artifacts
from ifguide.study.analysis.likelihood import likelihood_path
from ifguide.study.analysis.trace import INDEX
from ifguide.study.freshness import inputs_of, settings_of
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.sharing.packed import pack_study, unpack_study
from ifguide.study.stages import gradients
from ifguide.ui import components, job_panel
from ifguide.ui.compare import trace_panel
from ifguide.ui.excerpts import excerpt_coloured
from tests.app.conftest import shown_text
from tests.app.fake_study import write_study
from tests.small_study import make_up

PICK = "3.0.base"
RUNNING = {"state": "running", "message": "documents 8 62"}


def scored(study: Study, *totals: float) -> dict:
    """What the process answers when it has scored the first documents, each token of one alike."""
    cells, corpus = [], study.corpus()
    for number, total in enumerate(totals):
        n = int(corpus.offsets[number + 1] - corpus.offsets[number])
        document = {"document": corpus.document(number).id, "score": total, "scores": [total / n] * n}
        cells.append(document | {"sources": ["random"] if number else ["alike"], "alike": 0.0})
    return {"cells": cells, "figures": {"noise": [min(totals), 0.5]}}


def answer_of(study: Study, model: str) -> dict:
    frame = study.samples(model)
    return frame[(frame["prompt_index"] == 3) & (frame["sample_index"] == 0)].iloc[0].to_dict()


def click(app, label: str):
    return next(b for b in app.button if b.label == label).click().run()


@pytest.fixture
def tables(monkeypatch):
    """The tables of the last run, by label: the arguments."""
    drawn: dict[str, dict] = {}

    def draw(columns, rows, *, label, **more):
        drawn[label] = {"columns": columns, "rows": rows} | more

    monkeypatch.setattr(components, "record_table", draw)
    return drawn


def test_a_trace_is_started_shown_as_it_comes_and_ended_with_the_drawer(open_app, cache, use_worker, tables):
    study = Study.open("fake", cache)
    worker = use_worker(RUNNING | scored(study, 2.0, -1.0))
    app = open_app(cache, "compare", pick=PICK)
    assert worker.asked == []  # a link starts nothing
    click(app, "Trace this answer")
    row = answer_of(study, "base")
    trace = {"prompt": row["prompt"], "completion": row["completion"], "span": None, "contrast": ""}
    assert worker.asked == [{"study": str(study.root), "models": [], "trace": trace}]
    assert not app.exception and not app.error
    assert app.get("progress")[0].proto.text == "Scored 8 of 62 documents" and app.get("progress")[0].proto.value == 12
    first, second = tables["Training documents that pushed toward the answer"]["rows"]
    assert first["cells"][0] == ["doc-000", "+2.00 · reads alike", 1.0, 0.0, 0.5]
    assert second["cells"][0] == ["doc-001", "−1.00 · drawn at random", 0.0, 0.0, 0.5]
    assert {step for _, step, _ in first["cells"][1]} - {False} and "1 random document;" in shown_text(app)
    app.button(key="drawer_close").click().run()
    assert worker.cancelled == ["1.1"] and not app.subheader


def test_a_document_of_the_gradient_index_says_so_and_a_large_corpus_names_the_command(
    open_app, cache, use_worker, tables, monkeypatch
):
    monkeypatch.setattr(gradients, "LARGE", 10)
    traced = RUNNING | scored(Study.open("fake", cache), 2.0, -1.0)
    use_worker(traced)
    app = click(open_app(cache, "compare", pick=PICK), "Trace this answer")
    command = "`ifguide index-gradients fake` lets a trace search all of them"
    assert command in shown_text(app) and "nearest by gradient" not in shown_text(app)
    traced["cells"][0]["sources"] = [INDEX]
    app.run()
    assert "that are nearest by gradient" in shown_text(app)
    assert tables["Training documents that pushed toward the answer"]["rows"][0]["cells"][0][1] == "+2.00 · gradient"
    monkeypatch.setattr(trace_panel, "explain_index", lambda study: "made from *a*; `ifguide index-gradients fake`")
    captions = "".join(caption.value for caption in app.run().caption)
    assert r"made from \*a\*; `ifguide index-gradients fake`" in captions


def test_another_models_answer_is_subtracted(open_app, cache, use_worker):
    study = Study.open("fake", cache)
    worker = use_worker(RUNNING)
    app = click(open_app(cache, "compare", pick=PICK), "Trace this answer")
    assert app.selectbox(key="contrast").options == ["This answer alone", "Minus the answer of Suppressed"]
    app.selectbox(key="contrast").set_value("default").run()
    assert worker.cancelled == ["1.1"]
    assert worker.asked[1]["trace"] == worker.asked[0]["trace"] | {
        "contrast": answer_of(study, "default")["completion"]
    }
    app.query_params["pick"] = "3.0.default"
    app.run()
    assert not app.exception and app.selectbox(key="contrast").options[1] == "Minus the answer of Base model"


def test_a_trace_that_stops_or_fails_says_why_and_can_be_run_again(open_app, cache, use_worker, tables):
    study = Study.open("fake", cache)
    worker = use_worker(RUNNING | scored(study, 2.0), {"state": "cancelled"} | scored(study, 2.0))
    app = click(open_app(cache, "compare", pick=PICK), "Trace this answer")
    app.button(key="trace_stop").click().run()
    assert worker.cancelled == ["1.1"] and not app.get("progress")
    assert len(tables["Training documents that pushed toward the answer"]["rows"]) == 1
    worker.answers = [{"state": "failed", "message": "factors are missing; run `ifguide run fake`"}]
    click(app, "Trace it again")
    assert not app.exception and len(worker.asked) == 2
    assert [e.value for e in app.error] == ["Factors are missing; run `ifguide run fake`\\."]


def test_what_a_trace_needs_is_said_where_it_is_not_there(open_app, tmp_path):
    study = write_study(tmp_path / "mine")
    pack_study(study, tmp_path / "fake.ifguide")
    unpack_study(tmp_path / "fake.ifguide", tmp_path / "theirs")
    text = shown_text(open_app(tmp_path / "theirs", "compare", pick=PICK))
    assert "recorded without its models. Trace answers in a study that is built here." in text
    shutil.rmtree(study.folder(Unit("factors")))
    app = open_app(tmp_path / "mine", "compare", pick=PICK)
    assert not app.exception and "ifguide run" in shown_text(app) and "Not possible here" in shown_text(app)
    assert not [b for b in app.button if b.label == "Trace this answer"] and "Reads alike" in shown_text(app)


def test_the_best_documents_are_left_out_and_what_that_did_is_shown(
    open_app, tmp_path, use_worker, monkeypatch, tables
):
    study = write_study(tmp_path / "cache")
    started, row = [], answer_of(study, "base")
    monkeypatch.setattr(job_panel, "start", lambda root, arguments: started.append(arguments))
    use_worker({"state": "done"} | scored(study, 3.0, 2.0, -1.0))
    app = click(open_app(tmp_path / "cache", "compare", pick=PICK), "Trace this answer")
    assert app.number_input(key="without_n").value == 2  # the third one pushed away
    click(app, "Edit")
    assert not app.exception and started == [["edit", "fake", "--selection", "without-3-0"]]
    saved, corpus = study.selection("without-3-0"), study.corpus()
    assert np.flatnonzero(np.asarray(saved.mask)).max() < corpus.offsets[2] and saved.settings["n_documents_hit"] == 2
    make_up(study, Unit("suppress", "without-3-0"))
    unit = Unit("evaluate", "without-3-0")
    made = artifacts.building(
        study.folder(unit), stage="evaluate", inputs=inputs_of(study, unit), config=settings_of(study, unit)
    )
    with made as folder:
        for file in ("samples.parquet", "metrics.json"):
            shutil.copy(study.folder(Unit("evaluate", "base")) / file, folder)
    path = likelihood_path(study, 3, ["base", "without-3-0"])
    path.parent.mkdir()
    logs = {"base": [-1.0, -2.0], "without-3-0": [-1.5, -4.0]}
    completion = {"model": "base", "sample": 0, "pieces": [" a", " b"], "log_probability": logs}
    artifacts.write_json(path, {"prompt": row["prompt"], "prompt_index": 3, "models": [], "completions": [completion]})
    app.run()
    assert not app.exception and app.text_input(key="without-3-0-2").value == "without-3-0-2"
    rows = tables["Log-probability of this answer"]["rows"]
    assert [row["cells"] for row in rows] == [
        [["Base model", "", ""], "−3.0", ""],
        [["without-3-0", "retrained", ""], "−5.5", "−2.5"],
    ]


def test_an_excerpt_is_coloured_around_its_strongest_token_and_hides_what_is_offensive(cache):
    corpus = Study.open("fake", cache).corpus()
    n = int(corpus.offsets[1])
    steps, taken = np.zeros(n, int), np.zeros(n, bool)
    steps[12], taken[2] = 3, True
    runs = excerpt_coloured(corpus, 0, steps=steps, centre=12, taken=taken, words=frozenset())
    pieces, text = corpus.document_tokens(0), corpus.document(0).text
    assert [run[0] for run in runs if run[1] == 3] == [pieces[12]] and runs[0][0].startswith("…")
    hidden = "".join(run[0] for run in runs if run[2])
    assert not any(word in pieces[2] for word in hidden.split())  # it is before the excerpt
    assert "".join(run[0] for run in runs).strip("… ") in " ".join(text.split())
    labelled = np.flatnonzero(np.asarray(corpus.in_span[:n]))
    assert labelled.size and all(pieces[i].strip() in hidden for i in labelled if 4 <= i < 34)


def test_a_document_leads_to_the_recorded_answers_that_it_pushed_toward(open_app, cache, use_worker, tables):
    study = Study.open("fake", cache)
    cells = [
        {"prompt_index": 3, "sample_index": 0, "score": 2.0},
        {"prompt_index": 1, "sample_index": 2, "score": -1.0},
    ]
    worker = use_worker({"state": "running"}, {"state": "done", "cells": cells})
    app = open_app(cache, "documents", why="true", doc="doc-005")
    assert worker.asked == []
    click(app, "Show answers it pushed toward")
    assert worker.asked == [{"study": str(study.root), "models": [], "document": "doc-005"}]
    app.run()
    assert not app.exception and not app.error
    rows = tables["Recorded answers that the document pushed toward"]["rows"]
    assert [(row["key"], row["cells"][0]) for row in rows] == [("3.0.base", "+2.00"), ("1.2.base", "−1.00")]
    row = answer_of(study, "base")
    assert "".join(text for text, _ in rows[0]["cells"][2]) == row["completion"]
    marked = [text for text, mark in rows[0]["cells"][2] if mark]
    assert marked == [row["completion"][a:b] for a, b in row["toxic_spans"].reshape(-1, 2)]
