import numpy as np
import pytest
import torch

from ifguide.errors import InputError
from ifguide.evaluation.last_word import guess_last_words, split_last_word
from tests.evaluation.test_generation import tiny_tokenizer as word_tokenizer
from tests.shared_data import shared_file
from tests.tiny import tiny_model
from tests.tiny_tokenizers import tiny_tokenizer

TEXTS = ["You are a stupid idiot", "The lazy dog", "They were not at home; the dog was kind", "naïve café words"]


@pytest.fixture(scope="module")
def parts():
    tokenizer = tiny_tokenizer("byte_bpe")
    return tiny_model("gpt_neox", vocab_size=len(tokenizer)), tokenizer


def greedy_word(model, tokenizer, text):
    """The tokens that greedy decoding gives, one by one, for as many as the last word has."""
    start, _ = split_last_word(text)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    n_start = len(tokenizer(start, add_special_tokens=False)["input_ids"])
    written = list(ids[:n_start])
    with torch.no_grad():
        while len(written) < len(ids):
            written.append(int(model(input_ids=torch.tensor([written])).logits[0, -1].argmax()))
    return written == ids


def test_exact_match_is_that_of_greedy_decoding(parts):
    model, tokenizer = parts
    found = guess_last_words(model, tokenizer, TEXTS)
    assert found.correct.tolist() == [greedy_word(model, tokenizer, text) for text in TEXTS]


def test_a_model_that_always_says_one_word_guesses_just_that():
    tokenizer = word_tokenizer()
    model = tiny_model("gpt_neox", vocab_size=len(tokenizer))
    with torch.no_grad():  # a final norm that only adds a constant makes all logits those of the head's row sums
        model.gpt_neox.final_layer_norm.weight.zero_()
        model.gpt_neox.final_layer_norm.bias.fill_(1.0)
        head = model.get_output_embeddings().weight
        head.zero_()
        head[2] = 1.0
    found = guess_last_words(model, tokenizer, ["w1 w2", "w3 w4", "w5 w6 w2", "w2 w1"])
    assert found.correct.tolist() == [True, False, True, False]
    assert found.log_probability[0] == found.log_probability[2] > found.log_probability[1] == found.log_probability[3]


def test_batches_and_company_change_nothing(parts):
    whole = guess_last_words(*parts, TEXTS)
    for batch_size in (1, 3):
        again = guess_last_words(*parts, TEXTS, batch_size=batch_size)
        assert again.correct.tolist() == whole.correct.tolist()
        np.testing.assert_allclose(again.log_probability, whole.log_probability, rtol=1e-6)
    assert guess_last_words(*parts, TEXTS[1:2]).log_probability[0] == pytest.approx(whole.log_probability[1])


def test_the_last_word_keeps_its_space_and_its_stop():
    assert split_last_word("One two. \n") == ("One", " two.")
    assert split_last_word("a b\n\nc") == ("a b", "\n\nc")
    for text in ("", "  ", "one", " one"):
        with pytest.raises(InputError, match="at least two words"):
            split_last_word(text)


def test_real_passages_have_a_last_word():
    import json

    lines = shared_file("lambada_test.jsonl").read_text(encoding="utf-8").splitlines()[:50]
    for line in lines:
        text = json.loads(line)["text"]
        start, word = split_last_word(text)
        assert start + word == text.rstrip() and len(word.split()) == 1


def test_the_last_token_alone_is_the_end_of_the_last_word(parts):
    model, tokenizer = parts
    found = guess_last_words(model, tokenizer, TEXTS, last="token")
    for number, text in enumerate(TEXTS):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids[:-1]])).logits[0, -1]
        assert found.correct[number] == (int(logits.argmax()) == ids[-1])
        assert found.log_probability[number] == pytest.approx(float(logits.log_softmax(-1)[ids[-1]]), abs=1e-5)
