"""The map of documents: means of hidden states, always the same places, of one corpus and one model."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ifguide.cli.build import _draw_map
from ifguide.cli.main import app
from ifguide.errors import InputError, StaleError
from ifguide.study.analysis import document_map, meaning
from ifguide.study.analysis.meaning import average_text
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import run_study
from ifguide.study.stages.checkpoints import corpus_sequences, load_checkpoint, study_tokenizer
from tests.small_study import changed, make_study, rebuild
from tests.tiny_study import DOCUMENTS, study_with_a_lone_token

pytestmark = pytest.mark.slow
ALONE = len(DOCUMENTS)
"""Number of a document of one token, which nothing predicts."""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("map")
    made = study_with_a_lone_token(folder / "inputs", folder / "cache")
    run_study(made, until="model")
    return made


def test_every_document_with_a_score_has_a_place_which_is_always_the_same(study):
    places = document_map.draw_map(study)
    assert places.shape == (len(DOCUMENTS) + 1, 2) and places.dtype == np.float32
    assert np.flatnonzero(~np.isfinite(places).all(axis=1)).tolist() == [ALONE]
    assert len(np.unique(places[:ALONE], axis=0)) == len(DOCUMENTS)
    np.testing.assert_array_equal(document_map.read_map(study), places)
    document_map.map_path(study).unlink()
    assert document_map.read_map(study) is None
    np.testing.assert_array_equal(document_map.draw_map(study), places)


def test_a_document_is_the_mean_of_its_hidden_states_over_all_its_chunks(study):
    loaded = load_checkpoint(study, "base")
    chosen = np.array([2, len(DOCUMENTS) - 1, ALONE])
    documents, early, means = document_map._read_states(study, loaded[0], chosen, lambda done, total: None)
    assert documents.tolist() == [2, len(DOCUMENTS) - 1]
    whole = [average_text(study, study.corpus().document(n).text, loaded[0], study_tokenizer(study)) for n in documents]
    np.testing.assert_allclose(early, np.concatenate(whole), rtol=1e-4, atol=1e-5)
    for document, mean in zip(documents, means, strict=True):
        states = []
        sequences = corpus_sequences(study, chosen=np.array([document]))
        for chunk in (sequences[i] for i in range(len(sequences))):
            with torch.no_grad():
                last = loaded[0].base_model(torch.from_numpy(chunk.token_ids)[None]).last_hidden_state[0]
            states.append(last[1:][chunk.index[1:] >= 0])
        assert document == 2 or len(states) > 1
        np.testing.assert_allclose(mean, torch.cat(states).mean(dim=0), rtol=1e-4, atol=1e-5)


def test_documents_beyond_the_sample_go_beside_those_that_read_alike(study, monkeypatch):
    monkeypatch.setattr(document_map, "SAMPLE", 8)
    monkeypatch.setattr(document_map, "FEWEST", 5)
    laid_out = {}
    read = document_map._read_states

    def remember(*arguments):
        documents, *means = read(*arguments)
        laid_out.setdefault("sample", documents)
        return documents, *means

    monkeypatch.setattr(document_map, "_read_states", remember)
    places = document_map.draw_map(study)
    sample = places[laid_out["sample"]]
    others = np.delete(places, [*laid_out["sample"], ALONE], axis=0)
    assert len(sample) + len(others) == len(DOCUMENTS) and len(others) >= 4
    assert ((others >= sample.min(axis=0)) & (others <= sample.max(axis=0))).all()


def test_a_map_belongs_to_one_corpus_and_model_and_what_is_missing_is_named(tmp_path):
    study = make_study(tmp_path)
    path = document_map.map_path(study)
    path.parent.mkdir()
    np.save(path, np.zeros((3, 2), dtype=np.float32))
    assert document_map.read_map(study).shape == (3, 2)
    with pytest.raises(StaleError, match=r"model is stale .*`ifguide run small`"):
        document_map.draw_map(changed(study, "training.seed=7"))
    path.write_bytes(b"damaged")
    assert document_map.read_map(study) is None
    np.save(path, np.zeros((3, 2), dtype=np.float32))
    rebuild(study, Unit("model"), lambda folder: (folder / "made-up.txt").write_text("other weights"))
    assert document_map.read_map(study) is None
    (study.folder(Unit("model")) / "manifest.json").unlink()
    assert document_map.read_map(study) is None
    with pytest.raises(StaleError, match=r"model is missing .*`ifguide run small`"):
        document_map.draw_map(study)


def test_a_map_of_a_handful_of_documents_is_refused(study, monkeypatch):
    monkeypatch.setattr(document_map, "FEWEST", 99)
    with pytest.raises(InputError, match="expected at least 99 documents with scores, got 12"):
        document_map.draw_map(study)


def test_a_documents_own_text_is_nearest_to_it_and_hostile_text_gets_a_clear_answer(study):
    document_map.draw_map(study)
    for number, (text, *_) in enumerate(DOCUMENTS):
        nearest = document_map.rank_meant(study, document_map.read_meaning(study, text))
        assert nearest[0] == number and ALONE not in nearest and len(nearest) == len(DOCUMENTS)
        np.testing.assert_array_equal(nearest, document_map.rank_alike(study, f"d{number:02}"))
    for text in ("<b onclick='x'>\x1b[31m the \x07dog", "\u202e dog " * 2_000):
        assert len(document_map.rank_meant(study, document_map.read_meaning(study, text))) == len(DOCUMENTS)
    refused = {
        "": "got 0",
        " \n": "got 0",
        "x" * 20_001: "got 20,001",
        "x": "got one",
        "a\0b": "NUL",
        "\ud800 b": "half",
    }
    for text, why in refused.items():
        with pytest.raises(InputError, match=why):
            document_map.read_meaning(study, text)
    document_map.map_path(study).with_suffix(document_map.WHITENING).unlink()
    with pytest.raises(StaleError, match="draw it with `ifguide map real`"):
        document_map.read_meaning(study, "the dog")


def test_whitened_states_vary_alike_along_every_component_and_ranks_do_not_depend_on_blocks(monkeypatch):
    draw = np.random.default_rng(0)
    means = (draw.normal(size=(500, 4)) @ np.diag([9, 3, 1, 0])).astype(np.float32) + 7
    whitening = meaning.fit_whitening(means)
    white = means @ whitening[1:] - whitening[0]
    assert white.shape == (500, 3)  # nothing varies along the fourth
    np.testing.assert_allclose(white.T @ white / 500, np.eye(3), atol=1e-3)
    states = meaning.whiten(means, whitening)
    np.testing.assert_allclose(np.linalg.norm(states, axis=1), 1, rtol=1e-5)
    states[[3, 8]], states[5] = states[2], np.nan
    monkeypatch.setattr(meaning, "BLOCK", 7)
    nearest = meaning.rank_nearest(states, states[2])
    assert nearest[:3].tolist() == [2, 3, 8] and 5 not in nearest and len(nearest) == 499
    np.testing.assert_allclose(-np.sort(-(states @ states[2]))[:499], states[nearest] @ states[2], rtol=1e-5)


def test_the_command_says_how_many_are_on_it_and_draws_once(study, monkeypatch):
    monkeypatch.setenv("IFGUIDE_CACHE", str(study.root.parent))
    run = lambda: CliRunner().invoke(app, ["map", "real"], catch_exceptions=False).stdout  # noqa: E731
    run()
    document_map.map_path(study).with_suffix(".meaning.npy").unlink()  # as an earlier version left it
    first = run()
    assert document_map.read_map(study, document_map.STATES).shape == (13, 6)
    assert "12 of 13 documents are on the map" in first
    monkeypatch.setattr(document_map, "draw_map", None)
    assert run() == first.splitlines(keepends=True)[-1]


def test_a_run_draws_the_map_of_as_many_documents_as_are_laid_out(study, monkeypatch):
    messages: list[str] = []
    progress = SimpleNamespace(message=messages.append, begin_stage=lambda *_: None, report=lambda *_: None)
    for suffix in (".npy", document_map.STATES):
        document_map.map_path(study).with_suffix(suffix).unlink(missing_ok=True)
    monkeypatch.setattr(document_map, "SAMPLE", len(DOCUMENTS))
    _draw_map(study, progress)
    assert document_map.read_map(study) is None and "`ifguide map real` draws the map" in messages[-1]
    monkeypatch.setattr(document_map, "SAMPLE", len(DOCUMENTS) + 1)
    _draw_map(study, progress)
    assert document_map.read_map(study).shape == (len(DOCUMENTS) + 1, 2)
    monkeypatch.setattr(document_map, "draw_map", None)
    _draw_map(study, progress)  # it is there
    assert len(messages) == 2
