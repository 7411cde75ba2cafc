"""The preset `paper` against the arithmetic of IF-Guide's released code, written here once more, slowly: documents run
together, EK-FAC from Kronecker factors rounded to bfloat16, the summed query loss, absolute damping, position scores at
the token that is read, NumPy's quantile over all positions, whole windows up to a budget."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from ifguide.config.io import override
from ifguide.config.presets import apply_preset
from ifguide.models.loading import load_model, load_tokenizer, tracked_modules
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import create_study, run_study
from tests.influence.dense import layer_gradient, layer_traces, sequence_losses, true_label_loss
from tests.tiny_study import save_tiny_model, tiny_config, write_tiny_inputs

LENGTH, BUDGET, QUANTILE, DAMPING = 16, 31, 0.9, 1e-8


@pytest.fixture(scope="module", params=["llama", "gpt_neox"])
def study(request, tmp_path_factory):
    """The preset on a tiny model; what is random in it (drawn labels) is off, and what is large is small."""
    cache = tmp_path_factory.mktemp("cache")
    write_tiny_inputs(cache / "inputs")
    save_tiny_model(request.param, cache / "inputs" / "model")
    config = apply_preset(tiny_config(cache / "inputs"), "paper")
    changes = ["training.max_steps=6", "training.batch_size=4", "training.learning_rate=3e-3"]
    changes += ["model.dtype=float64", "factors.labels=true", f"corpus.max_length={LENGTH}", 'evaluate.implicit=""']
    changes += [f"selection.quantile={QUANTILE}", f"selection.max_tokens={BUDGET}", "evaluate.scorer=profanity-check"]
    config = override(config, changes)
    study = create_study("paper", dataclasses.replace(config), cache)
    run_study(study, until="selection")
    return study


def rounded(matrix):
    return matrix.to(torch.bfloat16).double()


def released_chunks(study):
    """Token ids of every chunk: documents end to end, each with the end-of-text token after it."""
    tokenizer = load_tokenizer(study.config.model.source)
    with open(study.config.corpus.path, encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    documents = tokenizer(texts, add_special_tokens=False)["input_ids"]
    stream = [token for ids in documents for token in (*ids, tokenizer.eos_token_id)]
    return [stream[first : first + LENGTH] for first in range(0, len(stream), LENGTH)]


def released_scores(study, chunks):
    model = load_model(str(study.folder(Unit("model")) / "final"), dtype="float64", attention="eager")
    modules = tracked_modules(model)
    traces = [layer_traces(model, modules, ids, true_label_loss(ids)) for ids in chunks if len(ids) > 1]
    n_tokens = sum(len(ids) for ids in chunks if len(ids) > 1)
    toxic, safe = (mean_query_gradient(study, model, modules, kind) for kind in ("toxic", "safe"))
    scores = [np.zeros(len(ids)) for ids in chunks]
    for name in modules:
        rows = [(trace[name][0], trace[name][1][0]) for trace in traces]
        inputs = rounded(sum(a.T @ a for a, _ in rows) / n_tokens)
        outputs = rounded(sum(g.T @ g for _, g in rows) / n_tokens)
        q_in, q_out = (rounded(torch.linalg.eigh((m + m.T) / 2).eigenvectors) for m in (inputs, outputs))
        squares = [(q_out.T @ (g.T @ a) @ q_in) ** 2 for a, g in rows]
        values = rounded(sum(squares) / len(squares))
        v = q_out @ ((q_out.T @ (toxic[name] - safe[name]) @ q_in) / (values + DAMPING)) @ q_in.T
        for score, (a, g) in zip([s for s in scores if len(s) > 1], rows, strict=True):
            score += ((a @ v.T) * g).sum(1).numpy()
    return scores


def mean_query_gradient(study, model, modules, kind):
    from ifguide.study.stages.checkpoints import encoded_queries

    total = dict.fromkeys(modules, 0)
    queries = encoded_queries(study, kind)
    for ids, mask in queries:
        loss = sequence_losses(model, ids)[torch.as_tensor(mask[1:])].sum()
        for name, gradient in layer_gradient(model, modules, loss).items():
            total[name] = total[name] + gradient
    return {name: gradient / len(queries) for name, gradient in total.items()}


def released_mask(scores):
    """Algorithm 1 as released: one flag a position of each chunk."""
    threshold = np.quantile(np.concatenate(scores), QUANTILE)
    hits = [np.flatnonzero(score > threshold) for score in scores]
    counts, sums = [len(hit) for hit in hits], [score[hit].sum() for score, hit in zip(scores, hits, strict=True)]
    low_high = [(np.array(m) - min(m)) / (max(m) - min(m)) for m in (counts, sums)]
    ranks = [2 * c * s / (c + s) if c + s else 0.0 for c, s in zip(*low_high, strict=True)]
    masks, taken = [np.zeros(len(score), dtype=bool) for score in scores], 0
    for chunk in sorted(range(len(scores)), key=lambda number: -ranks[number]):
        for hit in hits[chunk]:
            window = slice(max(0, hit - 1), hit + 2)
            new = int((~masks[chunk][window]).sum())
            if taken + new > BUDGET:
                return np.concatenate(masks)
            masks[chunk][window] = True
            taken += new
    return np.concatenate(masks)


def test_the_mask_is_that_of_the_released_code_byte_for_byte(study):
    chunks, corpus = released_chunks(study), study.corpus()
    assert np.concatenate(chunks).tolist() == corpus.token_ids.tolist()
    assert np.diff(corpus.offsets).tolist() == [len(ids) for ids in chunks] and corpus.valid().all()
    scores = released_scores(study, chunks)
    close = {"rtol": 1e-4, "atol": 1e-4 * np.std(scores[0])}
    np.testing.assert_allclose(study.scores("position"), np.concatenate(scores), **close)
    expected = released_mask(scores)
    assert 0 < expected.sum() <= BUDGET
    assert np.asarray(study.selection().mask).tobytes() == expected.tobytes()


def test_a_chunk_shows_the_text_it_was_cut_from(study):
    corpus = study.corpus()
    for number in range(corpus.n_documents):
        text, here = corpus.document(number).text, slice(*corpus.offsets[number : number + 2].tolist())
        pieces = [text[a:b] for a, b in zip(corpus.char_start[here], corpus.char_end[here], strict=True)]
        assert all(piece in text for piece in pieces) and np.diff(corpus.char_start[here]).min() >= 0
    joined = "".join(corpus.document(number).text for number in range(corpus.n_documents))
    assert "The quick brown fox jumps over the lazy dog.\n\nYou are kind" in joined
    marked = int(np.asarray(corpus.in_span).sum())
    assert marked and sum(len(corpus.document(number).spans) for number in range(corpus.n_documents)) >= 3
