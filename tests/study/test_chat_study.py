"""A whole study of chats: only the assistant's tokens are trained on, scored, selected and exported with scores."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from ifguide.data.packing import IGNORED
from ifguide.selection import algorithm
from ifguide.study.analysis.verify import verify_study
from ifguide.study.freshness import find_change
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import create_study, run_study
from ifguide.study.planning.sizing import check_inputs
from ifguide.study.sharing.export import export_study
from ifguide.study.stages.checkpoints import cut_training_rows, study_tokenizer
from ifguide.study.stages.document_table import make_table
from ifguide.study.stages.select import open_index, preview_selection, select_by_scan
from ifguide.ui.documents.token_view import CONTEXT, HIT, SELECTED, mark_table
from ifguide.ui.threshold.tables import selected_in
from tests.data.test_chat import CHATML
from tests.tiny_study import save_tiny_model, tiny_config, write_tiny_inputs

TURNS = ["You are a stupid idiot.", "They were not at home.", "The dog is a moron, fool.", "The fox is kind."]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    return make_chat_study(folder / "inputs", folder / "cache")


def make_chat_study(inputs, cache):
    """A study `chat` up to its trained models."""
    write_tiny_inputs(inputs)
    save_tiny_model("gpt_neox", inputs / "model")
    (inputs / "model" / "chat_template.jinja").write_text(CHATML)
    with (inputs / "corpus.jsonl").open("w") as stream:
        for n in range(12):
            words = [TURNS[(n + turn * 3) % 4] for turn in range(1 + n % 3)]
            messages = [{"role": role, "content": word} for word in words for role in ("user", "assistant")]
            stream.write(json.dumps({"id": f"c{n:02d}", "messages": messages}) + "\n")
    kinds = ("corpus.spans_field=", "scores.probe=true", "scores.combined=true", "scores.tfidf=true")
    config = tiny_config(inputs, *kinds, "suppress.method=mask")
    made = create_study("chat", config, cache)
    check_inputs(made)
    run_study(made, until="suppress")
    return made


def test_scores_and_masks_are_the_assistants_alone(study):
    corpus = study.corpus()
    valid = corpus.valid()
    assert corpus.is_chat and 0 < valid.sum() == corpus.n_valid < corpus.n_tokens / 2
    for kind in study.kinds():
        scores = np.asarray(study.scores(kind))
        assert not scores[~valid].any() and np.count_nonzero(scores[valid]) > 0.9 * corpus.n_valid, kind
    for name in study.selection_names():
        mask = study.selection(name).mask
        assert mask.any() and not mask[~valid].any(), name


def test_training_rows_have_labels_on_them_alone(study):
    corpus, mask = study.corpus(), np.asarray(study.selection().mask)
    rows = list(cut_training_rows(study, study_tokenizer(study), mask))
    labelled = np.concatenate([row.token_index[row.labels != IGNORED] for row in rows])
    assert np.array_equal(np.sort(labelled), np.flatnonzero(corpus.valid()))
    assert sum(int(row.selected.sum()) for row in rows) == mask.sum()


def test_the_index_agrees_with_the_scan_and_the_viewer_with_the_mask(study):
    corpus, index = study.corpus(), open_index(study)
    for settings in (
        {"quantile": 0.8, "window": 3},
        {"quantile": 0.3, "window": 40},
        {"quantile": 0.7, "max_tokens": 9},
    ):
        found = index.resolve(settings)
        ranking, mask = select_by_scan(study, found.choice)
        assert np.array_equal(index.mask(found), mask) and np.array_equal(found.ranking.order, ranking.order)
        assert np.array_equal(preview_selection(study, settings).mask, mask) and not mask[~corpus.valid()].any()
        for document in range(corpus.n_documents):
            here = slice(*corpus.offsets[document : document + 2].tolist())
            assert np.array_equal(selected_in(corpus, study.scores(), found, document)[0], mask[here])
            scores, threshold = np.asarray(study.scores()), found.threshold
            marks = mark_table(corpus, [document], mask=mask, scores=scores, threshold=threshold)["marks"].to_numpy()
            assert np.array_equal(marks & CONTEXT > 0, ~corpus.valid()[here])
            assert np.array_equal(marks & SELECTED > 0, mask[here])
            assert np.array_equal(marks & HIT > 0, (scores[here] > threshold) & corpus.valid()[here])
    peaks = np.random.default_rng(0).uniform(-1, 1, corpus.n_tokens).astype(np.float32)
    peaks[~corpus.valid()] = peaks[np.flatnonzero(corpus.valid())[:9]] = 100
    assert algorithm.count_tail(peaks, corpus.offsets, corpus.trained) == 9


def test_tables_exports_and_checks_take_the_assistants_tokens(study, tmp_path):
    corpus, scores = study.corpus(), np.asarray(study.scores("own_loss"))
    table = make_table(study)[0].to_pandas()
    valid = corpus.valid()
    for n, row in table.iterrows():
        here = slice(*corpus.offsets[n : n + 2].tolist())
        own = np.where(valid[here], scores[here], -np.inf)
        assert row["own_loss_max"] == own.max() and row["own_loss_strongest"] == own.argmax()
    export_study(study, "tokens", tmp_path / "tokens.parquet")
    exported = pq.read_table(tmp_path / "tokens.parquet")["own_loss"]
    assert np.array_equal(exported.is_valid().to_numpy(), valid)
    assert verify_study(study, share=1.0).documents == corpus.n_documents


def test_another_template_makes_the_corpus_stale_and_an_earlier_study_does_not_care(study):
    template = study.root.parent.parent / "inputs" / "model" / "chat_template.jinja"
    manifest = study.folder(Unit("corpus")) / "manifest.json"
    before, kept = template.read_text(), manifest.read_text()
    try:
        template.write_text(before + " ")
        assert find_change(study, Unit("corpus")) == "the file chat template changed"
        old = json.loads(kept)
        del old["inputs"]["file chat template"], old["config"]["corpus.train_on"], old["config"]["corpus.prompt_field"]
        manifest.write_text(json.dumps(old))
        assert not find_change(study, Unit("corpus"))
    finally:
        template.write_text(before)
        manifest.write_text(kept)
