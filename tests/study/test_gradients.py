"""The gradient index: its products against autograd, and that one of another model is not used."""

import shutil

import numpy as np
import pytest

from ifguide.errors import StaleError
from ifguide.influence.batches import make_batches
from ifguide.influence.compressed import choose_coordinates, compress_direction, compress_documents
from ifguide.study.analysis.trace import ALIKE, INDEX, Tracer, word_index
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import build
from ifguide.study.reading import Study
from ifguide.study.stages import gradients
from ifguide.study.stages.checkpoints import corpus_sequences
from ifguide.study.stages.gradients import GradientIndex, explain_index, open_index
from tests.influence.dense import dot, layer_gradient, sequence_losses
from tests.small_study import changed
from tests.study.test_trace import ANSWER
from tests.tiny_study import build_to_edit

SMALL = Unit("gradients", "500")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A study with an index, to copy from."""
    study = build_to_edit(tmp_path_factory.mktemp("gradients"), "model.dtype=float64")
    build(study, [SMALL])
    return study


@pytest.fixture
def study(built, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(built.root, tmp_path / "tiny")
    return Study.open("tiny", tmp_path)


@pytest.fixture(scope="module")
def tracer(built):
    return Tracer.open(built)


@pytest.fixture(scope="module")
def truth(built, tracer):
    """What autograd gives each document: its gradient's product with the answer's direction."""
    direction, sequences = tracer.direction(ANSWER), corpus_sequences(built)
    sums = np.zeros(built.corpus().n_documents)
    for number, (document, *_) in enumerate(sequences._chunks.tolist()):
        one = sequences[number]
        losses = sequence_losses(tracer.model, one.token_ids)[one.index[1:] >= 0]
        sums[document] += float(dot(layer_gradient(tracer.model, tracer.modules, losses.sum()), direction))
    return sums


def products(study, tracer, n):
    """What n coordinates give, in float64."""
    kept, config = choose_coordinates(tracer.factors, n, study.config.direction.damping), study.config
    batches = make_batches(corpus_sequences(study), config.compute.tokens_per_batch)
    rows = compress_documents(tracer.model, tracer.modules, kept, batches, np.asarray(study.corpus().offsets))
    assert rows.dtype == np.float64 and rows.shape[1] == min(
        n, sum(f.eigenvalues.numel() for f in tracer.factors.values())
    )
    return rows @ compress_direction(tracer.direction(ANSWER), kept)


def test_all_coordinates_give_the_exact_influence_of_every_document(built, tracer, truth):
    chunks = corpus_sequences(built)._chunks[:, 0].tolist()
    assert len(chunks) > len({*chunks})  # of one document several
    assert np.allclose(products(built, tracer, 10**9), truth, rtol=1e-5, atol=1e-9 * np.abs(truth).max())


def test_fewer_coordinates_lose_little_by_little(built, tracer, truth):
    all_of_them = sum(f.eigenvalues.numel() for f in tracer.factors.values())
    fits = [np.corrcoef(products(built, tracer, all_of_them // part), truth)[0, 1] for part in (2, 8)]
    assert 0.5 < fits[1] < fits[0] < 0.99999 and fits[0] > 0.9


def test_the_stored_index_ranks_documents_as_its_products_do(built, tracer):
    exact, index = products(built, tracer, int(SMALL.name)), open_index(built)
    found = gradients.multiply(index.rows, compress_direction(tracer.direction(ANSWER), index.kept))
    assert index.rows.dtype == np.float16 and np.allclose(found, exact, rtol=0, atol=5e-3 * np.abs(exact).max())
    assert index.nearest(tracer.direction(ANSWER), 3).tolist() == np.argsort(-exact)[:3].tolist()


def test_a_trace_scores_what_the_index_and_the_words_find(built, tracer):
    direction = tracer.direction(ANSWER)
    candidates = tracer.choose(ANSWER, direction, word_index(built))
    assert candidates[0].document == open_index(built).nearest(direction, 1)[0] and INDEX in candidates[0].sources
    assert {ALIKE, INDEX} <= {source for one in candidates for source in one.sources}


@pytest.mark.parametrize("setting", ["training.seed=9", "direction.damping=3"])
def test_an_index_of_another_model_or_curvature_is_refused_and_traced_without(study, setting):
    moved = changed(study, setting)
    with pytest.raises(StaleError, match=r"gradients 500 is stale.*`ifguide index-gradients tiny --dimensions 500`"):
        GradientIndex(moved, SMALL)
    assert open_index(moved) is None and "`ifguide index-gradients tiny`" in explain_index(moved)


def test_of_several_indexes_the_largest_that_is_up_to_date_is_used(study):
    build(study, [Unit("gradients", "60")])
    assert open_index(study).rows.shape[1] == 500
    with (study.folder(SMALL) / gradients.ROWS).open("ab") as stream:
        stream.write(b"more")
    assert open_index(study).rows.shape[1] == 60 and not explain_index(study)


def test_a_large_corpus_without_an_index_names_the_command(study, monkeypatch):
    assert not explain_index(study)
    shutil.rmtree(study.folder(SMALL))
    assert not explain_index(study)
    monkeypatch.setattr(gradients, "LARGE", 10)
    assert "a few of 12 documents" in explain_index(study) and "`ifguide index-gradients tiny`" in explain_index(study)


def test_a_stopped_build_leaves_no_index_and_goes_on_where_it_was(study, monkeypatch):
    whole = (study.folder(SMALL) / gradients.ROWS).read_bytes()
    shutil.rmtree(study.folder(SMALL))
    monkeypatch.setattr(gradients, "SHARD_TOKENS", 30)
    write, written = gradients.ShardStore.write, []

    def stop_at_the_third(store, shard, values):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(shard)
        write(store, shard, values)

    monkeypatch.setattr(gradients.ShardStore, "write", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        build(study, [SMALL])
    assert open_index(study) is None and not list(study.folder(SMALL).parent.glob("*"))
    monkeypatch.setattr(gradients.ShardStore, "write", lambda *of: (written.append(of[1]), write(*of)))
    build(study, [SMALL])
    assert written == [*range(len(written))] and len(written) > 3
    rows = np.frombuffer((study.folder(SMALL) / gradients.ROWS).read_bytes()[-len(whole) :], np.float16)[64:]
    assert np.allclose(rows.astype(float), np.frombuffer(whole, np.float16)[64:].astype(float), rtol=2e-3, atol=1e-4)
