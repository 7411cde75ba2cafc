"""The demo tokenizer gives every text back, and the model's settings are those of a small GPT-NeoX."""

import pytest

from benchmarks.demo_corpus.generator import generate_documents
from benchmarks.demo_corpus.model import CONTEXT_LENGTH, END_OF_TEXT, demo_model_config, train_tokenizer
from ifguide.errors import InputError


@pytest.fixture(scope="module")
def texts():
    return [document.text for document in generate_documents(600)]


@pytest.fixture(scope="module")
def tokenizer(texts):
    return train_tokenizer(texts)


def test_round_trip_of_known_and_unknown_text(tokenizer, texts):
    for text in (*texts[:50], "Žluťoučký kůň 🐴 \t\n  two  spaces ", "a , b . it 's"):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids) == text


def test_same_texts_give_the_same_tokenizer(tokenizer, texts):
    assert train_tokenizer(texts).backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_vocabulary_and_special_token(tokenizer):
    assert len(tokenizer) == 2048
    assert tokenizer.bos_token == tokenizer.eos_token == tokenizer.pad_token == END_OF_TEXT
    assert tokenizer.eos_token_id == 0
    assert tokenizer("Hello.").input_ids == tokenizer("Hello.", add_special_tokens=False).input_ids


def test_offsets_point_at_the_tokens_text(tokenizer):
    text = "The mayor is a patient teacher."
    encoded = tokenizer(text, return_offsets_mapping=True)
    for token, (start, end) in zip(encoded.input_ids, encoded.offset_mapping, strict=True):
        assert tokenizer.decode([token]).strip() == text[start:end].strip()


def test_saved_tokenizer_is_the_same(tokenizer, texts, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(texts[0]).input_ids == tokenizer(texts[0]).input_ids
    assert again.decode(again(texts[0]).input_ids) == texts[0]


def test_documents_fit_the_context(tokenizer, texts):
    lengths = [len(ids) for ids in tokenizer(texts).input_ids]
    assert max(lengths) <= CONTEXT_LENGTH
    assert 40_000 <= sum(lengths) <= 65_000


def test_too_small_vocabulary_is_refused():
    with pytest.raises(InputError, match="more than 256"):
        train_tokenizer(["text"], vocab_size=256)


def test_config_builds_a_model_of_one_to_three_million_parameters(tokenizer):
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = demo_model_config(len(tokenizer))
    config = AutoConfig.for_model(**settings)
    assert config.model_type == "gpt_neox"
    n_parameters = AutoModelForCausalLM.from_config(config).num_parameters()
    assert 1_000_000 <= n_parameters <= 3_000_000
