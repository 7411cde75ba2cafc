"""Which documents made an answer likelier: against autograd, one token at a time."""

import threading

import numpy as np
import pytest
import torch

from ifguide.errors import InputError
from ifguide.influence.edit import edited
from ifguide.serving.worker import Worker
from ifguide.study.analysis.trace import (
    ALIKE,
    CANDIDATES,
    RANDOM,
    SCORE,
    Answer,
    Candidate,
    Tracer,
    choose_candidates,
    find_obstacle,
    find_part,
    noise_floor,
    word_index,
)
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import build
from ifguide.study.stages.editing import EditedTokens, load_base, selected_gradient
from ifguide.study.stages.select import save_documents
from tests.influence.dense import dot, layer_gradient, sequence_losses
from tests.serving.test_worker import wait_for
from tests.tiny_study import build_to_edit

ANSWER = Answer(prompt="You are", completion=" a stupid fool")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return build_to_edit(tmp_path_factory.mktemp("trace"), "model.dtype=float64")


@pytest.fixture(scope="module")
def tracer(study):
    return Tracer.open(study)


def all_documents(study):
    return [Candidate(document=number, sources=(RANDOM,)) for number in range(study.corpus().n_documents)]


def test_a_documents_score_is_the_derivative_of_its_tokens_losses(study, tracer):
    direction, corpus = tracer.direction(ANSWER), study.corpus()
    traced = [one for part in tracer.trace(direction, all_documents(study)) for one in part]
    slow, fast = [], []
    for one in traced[:8]:
        first, last = corpus.offsets[one.candidate.document : one.candidate.document + 2]
        losses = sequence_losses(tracer.model, np.asarray(corpus.token_ids[first:last]).astype(np.int64))
        slow += [float(dot(layer_gradient(tracer.model, tracer.modules, loss), direction)) for loss in losses]
        fast += one.scores[1:].tolist()
    assert len(fast) > 50 and np.corrcoef(slow, fast)[0, 1] > 0.99999
    assert np.allclose(slow, fast, rtol=1e-2, atol=1e-3 * np.abs(slow).max())


def test_the_direction_is_the_answers_gradient_in_the_curvature(study, tracer):
    ids, counted = tracer._encode(ANSWER.prompt, ANSWER.completion, None)
    loss = sequence_losses(tracer.model, ids)[counted[1:]].mean()
    gradient, config = layer_gradient(tracer.model, tracer.modules, loss), study.config.direction
    for name, v in tracer.direction(ANSWER).items():
        expected = tracer.factors[name].to(torch.device("cpu")).precondition(gradient[name], config.damping)
        assert torch.allclose(v, expected, rtol=1e-6, atol=1e-9 * expected.abs().max())


def test_without_what_pushed_towards_it_an_answer_is_less_likely(study, tracer):
    direction = tracer.direction(ANSWER)
    step = {name: 1e-3 * v for name, v in direction.items()}
    ids, counted = tracer._encode(ANSWER.prompt, ANSWER.completion, None)

    def loss() -> float:
        with torch.no_grad():
            return float(sequence_losses(tracer.model, ids)[counted[1:]].mean())

    before = loss()
    with edited(tracer.modules, step, 1.0):
        assert loss() > before
    traced = sorted(
        (one for part in tracer.trace(direction, all_documents(study)) for one in part), key=lambda t: t.total
    )
    model, modules, _ = load_base(study)
    for one, sign in ((traced[-1], 1), (traced[0], -1)):
        mask = np.zeros(study.corpus().n_tokens, bool)
        mask[study.corpus().offsets[one.candidate.document] : study.corpus().offsets[one.candidate.document + 1]] = True
        gradient = selected_gradient(study, model, modules, EditedTokens(mask & study.corpus().valid()))
        assert sign * float(dot(gradient, direction)) > 0 and np.sign(one.total) == sign


def test_a_document_pushes_an_answer_as_far_as_the_answers_trace_says(study, tracer):
    answers = [ANSWER, Answer(prompt="The dog is", completion=" kind"), Answer(prompt="It was", completion=" a fox")]
    traced = [one for part in tracer.trace(tracer.direction(ANSWER), all_documents(study)) for one in part]
    pushed = np.array([tracer.score_answers(one.candidate.document, answers) for one in traced])
    assert np.corrcoef(pushed[:, 0], [one.total for one in traced])[0, 1] > 0.99999
    assert np.allclose(pushed[:, 0], [one.total for one in traced], rtol=1e-2, atol=1e-3 * np.abs(pushed).max())
    assert not np.allclose(pushed[:, 0], pushed[:, 1])


def test_one_word_and_another_answer_have_their_own_directions(tracer):
    whole = tracer.direction(ANSWER)
    word = Answer(prompt=ANSWER.prompt, completion=ANSWER.completion, span=find_part(ANSWER.completion, "fool"))
    other = Answer(prompt=ANSWER.prompt, completion=ANSWER.completion, contrast=" kind")
    safe = tracer.direction(Answer(prompt=ANSWER.prompt, completion=" kind"))
    for name, v in tracer.direction(other).items():
        assert torch.allclose(v, whole[name] - safe[name], atol=1e-9 * whole[name].abs().max())
        assert not torch.allclose(tracer.direction(word)[name], whole[name])
    _, counted = tracer._encode(ANSWER.prompt, ANSWER.completion, word.span)
    _, all_counted = tracer._encode(ANSWER.prompt, ANSWER.completion, None)
    assert 0 < counted.sum() < all_counted.sum() and counted[-1]
    with pytest.raises(InputError, match="is not in the answer"):
        find_part(ANSWER.completion, "clown")


def test_candidates_come_from_every_source_in_turn_and_once(study):
    counts = {ALIKE: 3, SCORE: 3, RANDOM: 4}
    candidates = choose_candidates(study, ANSWER, word_index(study), counts)
    numbers = [one.document for one in candidates]
    assert len(set(numbers)) == len(numbers)
    assert {source for one in candidates for source in one.sources} == set(CANDIDATES)
    assert all((one.alike > 0) == (ALIKE in one.sources) for one in candidates)
    assert sum(RANDOM in one.sources for one in candidates) == 4
    assert candidates == choose_candidates(study, ANSWER, word_index(study), counts)


def test_all_tokens_of_the_best_documents_can_be_left_out(study):
    saved, corpus = save_documents(study, "without", [2, 5]), study.corpus()
    owners = np.repeat(np.arange(corpus.n_documents), np.diff(corpus.offsets))
    assert np.array_equal(np.asarray(saved.mask), np.isin(owners, [2, 5]) & corpus.valid())


def test_the_models_process_streams_a_trace_best_first(study):
    worker = Worker()
    threading.Thread(target=worker.run, daemon=True).start()
    fields = {"prompt": ANSWER.prompt, "completion": ANSWER.completion, "span": [3, 9]}
    ask = {"study": str(study.root), "models": [], "trace": fields}
    answer = wait_for(worker, worker.answer({"ask": ask})["id"], "done", "failed")
    assert answer["state"] == "done", answer["message"]
    scores = [cell["score"] for cell in answer["cells"]]
    assert scores == sorted(scores, reverse=True) and len(scores) == study.corpus().n_documents
    low, high = answer["figures"]["noise"]
    assert low == min(scores) and high == max(scores)  # so small a corpus is drawn whole
    assert noise_floor([]) == (0.0, 0.0)
    for cell in answer["cells"]:
        assert sum(cell["scores"]) == pytest.approx(cell["score"], abs=1e-3 + 1e-3 * abs(cell["score"]))


def test_the_models_process_tells_which_recorded_answers_a_document_pushed_toward(study):
    worker = Worker()
    threading.Thread(target=worker.run, daemon=True).start()
    ask = {"study": str(study.root), "models": [], "document": "d08"}
    answer = wait_for(worker, worker.answer({"ask": ask})["id"], "done", "failed")
    assert answer["state"] == "done", answer["message"]
    scores = [cell["score"] for cell in answer["cells"]]
    samples = study.samples("base")
    texts = samples.set_index(["prompt_index", "sample_index"])["completion"]
    assert scores == sorted(scores, reverse=True) and 0 < len(scores) <= len(samples)
    assert all(texts[cell["prompt_index"], cell["sample_index"]] for cell in answer["cells"])


def test_a_study_without_influence_scores_is_traced_by_the_curvature_of_its_edits(tmp_path):
    no_influence = (
        "scores.own_loss=false",
        "scores.position=false",
        "scores.probe=true",
        "selection.attribution=probe",
    )
    study = build_to_edit(tmp_path, *no_influence, "suppress.curvature=checkpoint")
    assert find_obstacle(study).endswith("has no curvature checkpoint yet; build it with `ifguide run tiny`")
    build(study, [Unit("curvature", "checkpoint")])
    assert not find_obstacle(study)
    tracer = Tracer.open(study)
    assert tracer.factors and any(v.any() for v in tracer.direction(ANSWER).values())
