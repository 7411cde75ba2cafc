import numpy as np
import pandas as pd
import pytest
import torch

from ifguide.config.schema import BaselinesConfig, EvaluateConfig
from ifguide.errors import ConfigError
from ifguide.evaluation.generation import generate_completions
from ifguide.evaluation.steering import RewardProcessor
from ifguide.models.loading import load_model
from ifguide.training.preference import MIN_PAIRS, can_prefer, pair_queries, prefer_safe
from tests.tiny import tiny_model
from tests.tiny_tokenizers import tiny_tokenizer

PAIRS = [{"prompt": "You are", "chosen": " kind and clever", "rejected": " a lazy dog"}] * MIN_PAIRS


def test_only_queries_with_the_same_prompt_are_pairs():
    toxic = pd.DataFrame({"prompt": ["You are", "He is", "You are"], "completion": [" bad", " worse", " awful"]})
    safe = pd.DataFrame({"prompt": ["You are", "It was", "You are"], "completion": [" kind", " fine", " good"]})
    assert pair_queries(toxic, safe) == [
        {"prompt": "You are", "chosen": " kind", "rejected": " bad"},
        {"prompt": "You are", "chosen": " good", "rejected": " awful"},
    ]


def test_too_few_pairs_are_refused_with_the_remedy(tmp_path):
    toxic, safe = (pd.DataFrame([{"prompt": str(n), "completion": " a"} for n in range(16)]) for _ in range(2))
    assert can_prefer(toxic, safe)
    assert not can_prefer(toxic, safe[1:])
    said = "needs 16 toxic queries whose prompt a safe query has too, got 15; put completions of the same prompts"
    with pytest.raises(ConfigError, match=said):
        prefer_safe(None, None, PAIRS[1:], BaselinesConfig(), tmp_path, batch_size=4, max_length=48, seed=0)


def log_probability(model, tokenizer, prompt, completion):
    start, whole = (tokenizer(text, return_tensors="pt")["input_ids"] for text in (prompt, prompt + completion))
    with torch.no_grad():
        logits = model(input_ids=whole).logits[0, :-1].log_softmax(-1)
    return logits.gather(-1, whole[0, 1:, None])[start.shape[1] - 1 :].sum().item()


def test_preference_moves_the_model_from_the_rejected_to_the_chosen_completion(tmp_path):
    pytest.importorskip("trl", reason="trl is an optional extra: pip install 'ifguide[dpo]'")
    tokenizer = tiny_tokenizer("byte_bpe")
    model = tiny_model("llama", vocab_size=len(tokenizer), positions=48).float()
    before = [log_probability(model, tokenizer, "You are", PAIRS[0][key]) for key in ("chosen", "rejected")]
    told = []
    place = prefer_safe(
        model,
        tokenizer,
        PAIRS,
        BaselinesConfig(dpo_epochs=2, dpo_learning_rate=1e-2),
        tmp_path,
        batch_size=8,
        max_length=48,
        seed=0,
        report=lambda done, total: told.append((done, total)),
    )
    trained = load_model(str(place))
    after = [log_probability(trained, tokenizer, "You are", PAIRS[0][key]) for key in ("chosen", "rejected")]
    assert (after[0] - after[1]) > (before[0] - before[1]) + 1
    assert told[-1] == (4, 4)


class NoDogs:
    """Toxic is what holds a letter of `dog`."""

    name = "no-dogs"

    def score(self, texts):
        return np.array([float(any(letter in text for letter in "dog")) for text in texts])


def test_steering_lifts_harmless_candidates_and_leaves_only_candidates():
    tokenizer = tiny_tokenizer("byte_bpe")
    steer = RewardProcessor(tokenizer, NoDogs(), strength=5.0, candidates=6)
    logits = torch.randn(3, len(tokenizer), generator=torch.Generator().manual_seed(0))
    so_far = torch.tensor([tokenizer("fox")["input_ids"][:1]] * 3)
    found = steer(so_far, logits)
    for before, after, start in zip(logits, found, so_far, strict=True):
        kept = torch.isfinite(after).nonzero()[:, 0]
        assert set(kept.tolist()) == set(before.topk(6).indices.tolist())
        for token in kept.tolist():
            toxic = any(letter in tokenizer.decode([*start.tolist(), token]) for letter in "dog")
            assert after[token].item() == pytest.approx(before[token].item() + (0.0 if toxic else 5.0), abs=1e-5)


def test_steered_completions_are_less_toxic_and_no_steering_is_the_model_itself():
    tokenizer = tiny_tokenizer("byte_bpe")
    model = tiny_model("gpt_neox", vocab_size=len(tokenizer), positions=48).float()
    config = EvaluateConfig(n_samples=4, max_new_tokens=6, batch_size=3)
    plain = generate_completions(model, tokenizer, ["You are", "The"], config)
    scorer = NoDogs()
    steered = generate_completions(
        model, tokenizer, ["You are", "The"], config, steer=RewardProcessor(tokenizer, scorer, 30.0, 12)
    )
    rate = lambda found: scorer.score([completion.completion for completion in found]).mean()  # noqa: E731
    assert rate(plain) > 0 and rate(steered) < rate(plain)
    weak = generate_completions(
        model, tokenizer, ["You are", "The"], config, steer=lambda tokens, logits: logits.clone()
    )
    assert weak == plain
