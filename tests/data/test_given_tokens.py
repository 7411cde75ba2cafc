"""Rows that are tokens already: their text, and every token's place in it."""

from itertools import product

import pytest

from ifguide.data.tokenizing import cut_pieces, place_tokens, tokenize
from ifguide.errors import InputError
from tests.data.test_corpus import HOSTILE
from tests.tiny_tokenizers import KINDS, SAMPLE, tiny_tokenizer


def test_tokens_given_as_numbers_have_the_text_that_they_decode_to_wherever_they_are_cut():
    for kind, text in product(KINDS, [*HOSTILE, *SAMPLE]):
        tokenizer = tiny_tokenizer(kind)
        ids = tokenize(tokenizer, [text])[0].token_ids.tolist()
        for cut in range(len(ids)):  # inside words and characters, too
            decoded, tokens = place_tokens(tokenizer, ids[cut:])
            assert decoded == tokenizer.decode(ids[cut:], clean_up_tokenization_spaces=False), (kind, text, cut)
            assert tokens.token_ids.tolist() == ids[cut:]
            assert "".join(cut_pieces(decoded, tokens.char_end)) == decoded
    with pytest.raises(InputError, match=r"from 0 to \d+, got 999; name their tokenizer"):
        place_tokens(tiny_tokenizer("byte_bpe"), [0, 999])


def test_a_token_that_shares_a_character_has_its_place():
    tokenizer = tiny_tokenizer("byte_bpe")
    text, tokens = place_tokens(tokenizer, tokenizer("a 漢 b")["input_ids"])
    assert (text, list(zip(tokens.char_start.tolist(), tokens.char_end.tolist(), strict=True))) == (
        "a 漢 b",
        [(0, 1), (1, 2), (2, 3), (2, 3), (2, 3), (3, 4), (4, 5)],
    )
