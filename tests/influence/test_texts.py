"""`score_texts` against a whole study with the same model, and what it leaves of the model."""

import numpy as np
import pytest
import torch

from ifguide.errors import ConfigError
from ifguide.influence import score_texts
from ifguide.models.loading import load_model
from ifguide.study.pipeline import run_study
from ifguide.study.reading import Study
from tests.tiny import tiny_model
from tests.tiny_study import DOCUMENTS, save_tiny_model, tiny_config, write_tiny_inputs
from tests.tiny_tokenizers import tiny_tokenizer

TEXTS = [text for text, _ in DOCUMENTS]
TOXIC = [("You are", " a stupid fool"), ("The dog is", " an idiot")]
SAFE = [("You are", " kind"), ("The dog is", " at home")]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    cache = tmp_path_factory.mktemp("cache")
    write_tiny_inputs(cache / "inputs")
    save_tiny_model("llama", cache / "inputs" / "model")
    settings = (
        "model.mode=asis",
        "scores.probe=true",
        "scores.combined=true",
        "scores.pooling=1",
        "scores.position=false",
    )
    config = tiny_config(cache / "inputs", *settings, "factors.products=auto", "factors.max_tokens=100")
    study = Study.create("tiny", config, cache)
    run_study(study, until="selection")
    return Study.open("tiny", cache)


def score(study: Study, kind: str, model=None):
    model = model or load_model(study.config.model.source, device=torch.device("cpu"))
    how = {"damping": 10.0, "factor_tokens": 100, "tokens_per_batch": 128}
    return score_texts(model, tiny_tokenizer("byte_bpe"), TEXTS, TOXIC, SAFE, kind=kind, **how)


@pytest.mark.parametrize("kind", ["own_loss", "probe", "combined"])
def test_scores_are_those_of_a_study(study, kind):
    found = score(study, kind)
    expected = np.asarray(study.scores(kind))
    assert expected.std() > 0
    np.testing.assert_allclose(found.scores, expected, rtol=1e-4, atol=1e-5 * expected.std())


def test_selection_is_the_studys(study):
    found = score(study, "own_loss")
    found.scores[:] = study.scores("own_loss")
    chosen, expected = found.select(0.9), study.selection("default")
    assert 0 < chosen.selected.sum() < len(chosen.selected)
    np.testing.assert_array_equal(chosen.selected, expected.mask)
    np.testing.assert_array_equal(chosen.ranking.order, expected.order)


def test_the_model_is_left_as_it_was(study):
    model = tiny_model("llama", vocab_size=len(tiny_tokenizer("byte_bpe")), dtype=torch.float32, attention="sdpa")
    model.train()
    model.requires_grad_(True)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    score(study, "combined", model)
    assert model.training
    for name, weight in model.named_parameters():
        assert weight.requires_grad and weight.grad is None, name
        torch.testing.assert_close(weight.detach(), before[name], rtol=0, atol=0)
    assert model.config._attn_implementation == "sdpa"


def test_a_notebook_shows_escaped_text_only_on_request():
    texts = ["<script>alert(1)</script> & you", "The dog is kind."]
    model = tiny_model("gpt_neox", vocab_size=len(tiny_tokenizer("byte_bpe")), dtype=torch.float32)
    shown = score_texts(model, tiny_tokenizer("byte_bpe"), texts, TOXIC, SAFE, kind="probe").select(0.5)._repr_html_()
    assert shown.startswith("<details><summary>2 texts, ") and "<script" not in shown
    assert "&lt;" in shown and "&amp;" in shown and "underline" in shown


def test_bad_input_is_refused():
    tokenizer = tiny_tokenizer("byte_bpe")
    model = tiny_model("gpt_neox", vocab_size=len(tokenizer), dtype=torch.float32)
    with pytest.raises(ConfigError, match="kind: expected one of own_loss, probe, combined, got 'position'"):
        score_texts(model, tokenizer, TEXTS, TOXIC, SAFE, kind="position")
    with pytest.raises(ConfigError, match="expected a text of at least two tokens, got none"):
        score_texts(model, tokenizer, ["", "a"], TOXIC, SAFE)
    with pytest.raises(ConfigError, match="call select"):
        next(score_texts(model, tokenizer, TEXTS, TOXIC, SAFE, kind="probe").rows())
