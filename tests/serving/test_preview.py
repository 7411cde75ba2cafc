"""A preview of a selection: what an edit of it gives, and what a neighbouring one costs."""

import json
import threading

import numpy as np
import pytest

from ifguide.evaluation.statistics import emt
from ifguide.serving.preview import Preview
from ifguide.serving.worker import Worker
from ifguide.study.analysis.comparison import scores_matrix
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import build, edit_model
from ifguide.study.stages.editing import EditedTokens, selected_gradient
from ifguide.study.variants import edit_recipe
from tests.influence.dense import relative_error
from tests.serving.test_worker import wait_for
from tests.tiny_study import build_to_edit


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return build_to_edit(tmp_path_factory.mktemp("preview"))


def test_a_preview_is_the_edit_of_its_selection(study):
    seen = []
    variant = edit_recipe(study.config, "default", {"perplexity_budget": 0.05})
    mask = np.asarray(study.selection().mask)
    shown = Preview.open(study).measure(mask, variant, lambda *told: seen.append(told))
    edited = edit_model(study, "cut", variant)
    notes = edited.manifest(Unit("suppress", "cut"))["notes"]["edit"]
    assert shown["strength"] == pytest.approx(notes["strength"], rel=1e-6) and shown["n_tokens"] == mask.sum()
    assert shown["emt"] == pytest.approx(emt(scores_matrix(edited.samples("cut"))))
    assert shown["base"]["emt"] == pytest.approx(emt(scores_matrix(edited.samples("base"))))
    rows = edited.samples("cut")[["prompt_index", "sample_index", "completion"]].to_dict("records")
    assert [{key: row[key] for key in rows[0]} for row in shown["samples"]] == rows
    assert json.loads(json.dumps(shown)) == shown  # it goes through a pipe
    assert {what for what, _, _ in seen} == {"batches", "strengths", "completions"}


def test_a_neighbouring_selection_costs_only_what_differs(study):
    preview = Preview.open(study)
    order = np.argsort(-np.asarray(study.scores()), kind="stable")
    batches = []

    def report(what, done, total):
        if what == "batches":
            batches.append(total)

    for n_tokens in (40, 44, 36):
        mask = np.zeros(len(order), dtype=bool)
        mask[order[:n_tokens]] = True
        preview._sum_gradients(mask, report)
        whole = selected_gradient(study, preview.model, preview.modules, EditedTokens(mask))
        assert all(relative_error(preview.gradient[name], whole[name]) < 1e-4 for name in whole)
    batches.clear()
    preview._sum_gradients(mask, report)
    assert not batches  # the same tokens again


def test_the_models_process_shows_progress_and_ends_when_the_reader_leaves(study):
    worker = Worker()
    threading.Thread(target=worker.run, daemon=True).start()
    answer = wait_for(worker, worker.answer({"ask": ask(study, {"tokens_above": 30})})["id"], "done", "failed")
    assert answer["state"] == "done", answer["message"]
    assert answer["figures"]["n_tokens"] >= 30 and answer["figures"]["emt_low"] <= answer["figures"]["emt"]
    second = worker.answer({"ask": ask(study, {"tokens_above": 12})})["id"]
    worker.answer({"id": second, "cancel": True})
    assert wait_for(worker, second, "cancelled")["figures"] == {}
    assert build(study, [Unit("selection", "default")]) == []


def ask(study, choice: dict) -> dict:
    return {"study": str(study.root), "models": [], "choice": choice}
