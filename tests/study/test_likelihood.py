import numpy as np
import pytest
import torch

from ifguide.errors import InputError
from ifguide.evaluation.generation import encode_prompts
from ifguide.evaluation.likelihood import token_likelihoods
from ifguide.study.analysis.likelihood import compute_likelihoods, likelihood_path, read_likelihoods
from ifguide.study.stages.evaluating import load_evaluated
from tests.tiny import SHAPES, tiny_model
from tests.tiny_study import write_evaluation, write_two_models
from tests.tiny_tokenizers import tiny_tokenizer

PROMPT = "You are such "
COMPLETIONS = [" a kind fox.", " an idiot, and naïve 😀", "", " x", "  two\nlines "]


@pytest.mark.parametrize("kind", SHAPES)
def test_log_probabilities_sum_to_minus_the_completions_loss(kind):
    tokenizer = tiny_tokenizer("byte_bpe")
    model = tiny_model(kind, vocab_size=len(tokenizer))
    found = token_likelihoods(model, tokenizer, PROMPT, COMPLETIONS)
    lead = encode_prompts(tokenizer, [PROMPT], 64)[0]
    for text, likelihood in zip(COMPLETIONS, found, strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert "".join(likelihood.pieces) == text and len(likelihood.pieces) == len(ids) == len(
            likelihood.log_probability
        )
        if ids:
            labels = torch.tensor([[-100] * len(lead) + ids])
            loss = model(input_ids=torch.tensor([lead + ids]), labels=labels).loss.item()
            assert likelihood.log_probability.sum() == pytest.approx(-loss * len(ids), rel=1e-6)  # its loss is float32
            assert (likelihood.log_probability < 0).all()


def test_batches_and_neighbours_change_nothing():
    tokenizer = tiny_tokenizer("byte_bpe")
    model = tiny_model("gpt_neox", vocab_size=len(tokenizer))
    together = token_likelihoods(model, tokenizer, PROMPT, COMPLETIONS)
    alone = [token_likelihoods(model, tokenizer, PROMPT, [text], batch_size=1)[0] for text in COMPLETIONS]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a.log_probability, b.log_probability, atol=1e-12)


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setenv("IFGUIDE_CACHE", str(tmp_path))
    return write_two_models(tmp_path)


def test_an_answer_is_kept_until_a_changed_model_makes_it_stale(study):
    assert read_likelihoods(study, 1, ["base", "default"]) is None
    computed = compute_likelihoods(study, 1, ["default", "base"], load_evaluated)
    found = read_likelihoods(study, 1, ["default", "base"])
    assert found == computed
    assert found["prompt"] == "prompt 1 is" and [c["sample"] for c in found["completions"]] == [0, 1, 2, 0, 1, 2]
    for completion in found["completions"]:
        assert "".join(completion["pieces"]) == f" {completion['model']} fox {completion['sample']}"
        assert all(len(values) == len(completion["pieces"]) for values in completion["log_probability"].values())
    values = found["completions"][0]["log_probability"]
    assert values["base"] != values["default"]
    assert read_likelihoods(study, 0, ["base", "default"]) is None
    write_evaluation(study, "default", [(1, 0, "prompt 1 is", " another fox", 0.1)])
    assert read_likelihoods(study, 1, ["base", "default"]) is None


def test_bad_prompts_and_models_are_refused(study):
    for models in (["base"], ["base", "nobody"], []):
        with pytest.raises(InputError, match="expected two to 4 of the evaluated models"):
            compute_likelihoods(study, 0, models, load_evaluated)
    with pytest.raises(InputError, match="expected a prompt from 0 to 1, got 9"):
        compute_likelihoods(study, 9, ["base", "default"], load_evaluated)
    assert not likelihood_path(study, 9, ["base", "default"]).exists()
