"""Text -> tokens with their places in the text, and back to display pieces. Imports NumPy only."""

from typing import NamedTuple

import numpy as np

from ifguide.errors import InputError

Encoded = list[tuple[np.ndarray, np.ndarray]]
"""Queries as pairs of token ids int64 (T,) and which of them are the completion's, bool (T,)."""


class TokenizedText(NamedTuple):
    """A text's tokens and their places in it."""

    token_ids: np.ndarray
    """int32 (n,)."""
    char_start: np.ndarray
    """int32 (n,), in code points."""
    char_end: np.ndarray
    """int32 (n,), excluded."""


def tokenize(tokenizer, texts: list[str]) -> list[TokenizedText]:
    """Tokenise texts (without lone surrogates), without adding special tokens, cutting or padding. (A special token
    written out in a text is still read as that token, as is usual in training.) An InputError: the tokenizer is not a
    fast one, so it has no character offsets."""
    if not getattr(tokenizer, "is_fast", False):
        remedy = "convert it: AutoTokenizer.from_pretrained(FOLDER, use_fast=True).save_pretrained(FOLDER)"
        expected = "a fast tokenizer (a tokenizer.json, which knows character offsets)"
        raise InputError(f"expected {expected}, got {type(tokenizer).__name__}; {remedy}")
    if not texts:
        return []
    changes = ("add_special_tokens", "padding", "truncation")
    extras = ("return_attention_mask", "return_token_type_ids", "verbose")
    encoded = tokenizer(texts, return_offsets_mapping=True, **dict.fromkeys((*changes, *extras), False))
    tokenized = []
    for ids, offsets in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        places = np.array(offsets, dtype=np.int32).reshape(-1, 2)
        tokenized.append(TokenizedText(np.array(ids, dtype=np.int32), places[:, 0], places[:, 1]))
    return tokenized


def place_tokens(tokenizer, ids: list[int]) -> tuple[str, TokenizedText]:
    """The text of tokens that are given as numbers, and their places in it; those that share a character have its
    place. An InputError: a number that the tokenizer does not have."""
    from tokenizers.decoders import DecodeStream

    if wrong := [id for id in ids if not 0 <= id < len(tokenizer)]:
        raise InputError(f"expected tokens from 0 to {len(tokenizer) - 1:,}, got {wrong[0]:,}; name their tokenizer")
    stream, places = DecodeStream(skip_special_tokens=False), np.zeros((len(ids), 2), dtype=np.int32)
    text, first = "", 0
    for stop, id in enumerate(ids, start=1):
        piece = stream.step(tokenizer.backend_tokenizer, id)
        if piece is None and stop == len(ids):
            piece = tokenizer.decode(ids, clean_up_tokenization_spaces=False)[len(text) :]
        if piece is not None:  # else a character is not complete
            places[first:stop] = len(text), len(text) + len(piece)
            text, first = text + piece, stop
    return text, TokenizedText(np.array(ids, dtype=np.int32), places[:, 0], places[:, 1])


def cut_pieces(text: str, char_end: np.ndarray) -> list[str]:
    """Cut a text into one piece a token; joined, the pieces are the text for any tokenizer.

    A piece reaches from the end of the one before to the token's own end. So the first of several tokens inside one
    character gets the character and the others nothing, white space that the offsets leave out goes to the token after
    it, and the rest of the text to the last token. `char_end` is int (n,), n >= 1, in code points.
    """
    cuts = piece_ends(char_end, len(text)).tolist()
    return [text[start:end] for start, end in zip([0, *cuts], cuts, strict=False)]


def piece_ends(char_end: np.ndarray, n_characters: int) -> np.ndarray:
    """int64 (n,): where each token's display piece ends, in ascending order; the last is `n_characters`."""
    ends = np.maximum.accumulate(np.clip(char_end.astype(np.int64), 0, n_characters))
    ends[-1:] = n_characters
    return ends
