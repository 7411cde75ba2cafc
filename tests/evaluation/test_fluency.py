import math
from typing import NamedTuple

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ifguide.errors import InputError, NumericalError
from ifguide.evaluation.fluency import distinct_n, heldout_losses, perplexity_of, repetition_share
from ifguide.training.train import initialise_model

SHAPE = dict(
    model_type="gpt_neox",
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=12,
)
TEXTS = ["w1 w2 w3", "w4", "", "w5 w6 w7 w8 w9 w1 w2", "w3 w3"]


class Found(NamedTuple):
    value: float
    n_tokens: int


def perplexity(model, tokenizer, texts, **how) -> Found:
    losses = heldout_losses(model, tokenizer, texts, **how)
    return Found(perplexity_of(losses), int(losses.tokens.sum()))


def tiny_tokenizer(bos=False):
    core = Tokenizer(models.WordLevel({f"w{i}": i for i in range(20)}, "w0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos:
        core.post_processor = processors.TemplateProcessing(single="w19 $A", special_tokens=[("w19", 19)])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="w18", bos_token="w19" if bos else None)


def tiny_model():
    return initialise_model(SHAPE, 20, 0).double().eval()


@torch.no_grad()
def loss_by_hand(model, ids, lead=()):
    """Sum of -log p of every token but the first, each read with all before it."""
    total = 0.0
    for t in range(1, len(ids)):
        logits = model(torch.tensor([[*lead, *ids[:t]]])).logits[0, -1]
        total -= math.log(torch.softmax(logits, -1)[ids[t]].item())
    return total


def test_matches_token_by_token_and_weighs_tokens_alike():
    model = tiny_model()
    total = loss_by_hand(model, [1, 2, 3]) + loss_by_hand(model, [5, 6, 7, 8, 9, 1, 2]) + loss_by_hand(model, [3, 3])
    result = perplexity(model, tiny_tokenizer(), TEXTS)
    assert result.n_tokens == 2 + 6 + 1
    assert result.value == pytest.approx(math.exp(total / 9), rel=1e-9)


def test_batch_size_and_order_change_nothing():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    whole = perplexity(model, tokenizer, TEXTS)
    for batch_size in (1, 2):
        assert perplexity(model, tokenizer, TEXTS[::-1], batch_size=batch_size) == pytest.approx(whole)


def test_uniform_model_has_the_vocabularys_perplexity():
    model = tiny_model()
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    assert perplexity(model, tiny_tokenizer(), TEXTS).value == pytest.approx(20)


def test_long_texts_are_read_in_chunks_that_overlap_by_one():
    model = tiny_model()
    ids = [int(i) for i in torch.randint(0, 18, (30,), generator=torch.Generator().manual_seed(0))]
    result = perplexity(model, tiny_tokenizer(), [" ".join(f"w{i}" for i in ids)])
    chunks = [ids[0:12], ids[11:23], ids[22:30]]
    assert result.n_tokens == 29
    assert result.value == pytest.approx(math.exp(sum(loss_by_hand(model, chunk) for chunk in chunks) / 29))


def test_beginning_of_text_is_context_only():
    model = tiny_model()
    result = perplexity(model, tiny_tokenizer(bos=True), ["w1 w2 w3"])
    assert result.n_tokens == 2
    assert result.value == pytest.approx(math.exp(loss_by_hand(model, [1, 2, 3], lead=[19]) / 2))


def test_nothing_to_score_is_an_error():
    with pytest.raises(InputError, match="at least two tokens"):
        perplexity(tiny_model(), tiny_tokenizer(), ["w1", ""])
    with pytest.raises(InputError, match="at least two tokens"):
        perplexity(tiny_model(), tiny_tokenizer(), [])


def test_damaged_model_is_an_error():
    model = tiny_model()
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(NumericalError, match="finite loss"):
        perplexity(model, tiny_tokenizer(), TEXTS)


def test_progress_ends_at_the_whole():
    calls = []
    perplexity(tiny_model(), tiny_tokenizer(), TEXTS, batch_size=2, report=lambda *call: calls.append(call))
    assert calls == [(2, 3), (3, 3)]


def test_distinct_by_hand():
    assert distinct_n(["a b A", "b c"], 1) == pytest.approx(3 / 5)
    assert distinct_n(["a b A", "b c"], 2) == 1.0
    assert distinct_n(["a b a b", "a b"], 2) == pytest.approx(2 / 4)
    assert distinct_n(["", "a"], 2) == 0.0


def test_repetition_by_hand():
    assert repetition_share(["a b a b a b"], 2) == pytest.approx(3 / 5)  # ab ba ab ba ab
    assert repetition_share(["a b", "a b"], 2) == 0.0  # repeats across texts do not count
    assert repetition_share(["no no no no no no no"], 4) == pytest.approx(3 / 4)
    assert repetition_share([], 4) == 0.0
