import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.errors import InputError
from ifguide.nearest import WordIndex, choose_documents, mark_terms, split_words
from tests.hostile_texts import hostile_texts

WORDS = ["you", "are", "a", "fox", "idiot", "dog", "don't", "naïve", "über"]
documents = st.lists(st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join), min_size=1, max_size=9)


def index_of(texts: list[str]) -> WordIndex:
    half = len(texts) // 2  # two chunks, as a corpus on disk may have
    return WordIndex(pa.chunked_array([texts[:half], texts[half:]], type=pa.string()), np.arange(len(texts)))


def slow_holders(texts: list[str], words: tuple[str, ...]) -> list[int]:
    size = len(words)
    split = [split_words(text) for text in texts]
    return [d for d, found in enumerate(split) if any(tuple(found[i : i + size]) == words for i in range(len(found)))]


@settings(deadline=None)
@given(documents, st.lists(st.sampled_from([*WORDS, "unknown"]), min_size=1, max_size=2))
def test_holders_agree_with_a_slow_search(texts, words):
    assert index_of(texts).holders(tuple(words)).tolist() == slow_holders(texts, tuple(words))


@settings(deadline=None)
@given(documents, st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join))
def test_scores_are_the_sums_of_the_shared_terms_and_fall(texts, query):
    found, terms = index_of(texts).nearest(query, n=len(texts))
    for near in found:
        assert near.score == pytest.approx(sum(term.weight for term in near.shared))
        assert all(near.document in slow_holders(texts, term.words) for term in near.shared)
        missing = set(terms) - set(near.shared)
        assert not any(near.document in slow_holders(texts, term.words) for term in missing)
    assert [n.score for n in found] == sorted((n.score for n in found), reverse=True)
    assert all(term.n_documents == len(slow_holders(texts, term.words)) for term in terms)


def test_the_document_itself_is_nearest_and_common_words_do_not_count():
    texts = [f"the {word} went home" for word in ("fox", "dog", "baker", "idiot", "mayor", "sailor")]
    found, terms = index_of(texts).nearest("And the idiot went out")
    assert [near.document for near in found] == [3]
    assert [term.words for term in terms] == [("idiot", "went"), ("the", "idiot"), ("idiot",)]
    assert index_of(texts).nearest("nothing of it is known")[0] == []
    with pytest.raises(InputError, match="at least one"):
        index_of(texts).nearest("fox", n=0)


def test_any_text_can_be_searched_for_and_is_only_looked_up():
    texts = hostile_texts()[:150]
    index = index_of(texts)
    for query in (*texts[::10], "' OR 1=1 --", ".*", "(?:", ""):
        found, _ = index.nearest(query, n=3)
        assert all(slow_holders(texts, term.words) for near in found for term in near.shared)


def test_excerpt_is_part_of_the_text_with_the_shared_words_marked():
    text = "At first nothing happened. " * 9 + "Then the rude Baker said no.\nAnd that was that. " + "It ends. " * 20
    index = index_of([text, "a quiet baker", "nothing", "no one", "they said"])
    near = next(n for n in index.nearest("the rude baker")[0] if n.document == 0)
    runs = mark_terms(text, near.shared)
    assert "".join(part for part, _ in runs).strip("… ") in " ".join(text.splitlines())
    assert [part.lower() for part, marked in runs if marked] == ["the", "rude", "baker"]
    assert mark_terms("short", ()) == [("short", False)]


def test_the_best_ranked_documents_are_searched_up_to_a_number_of_tokens():
    offsets = np.array([0, 5, 6, 16, 20])
    assert choose_documents(offsets, None).tolist() == [0, 1, 2, 3]
    assert choose_documents(offsets, np.array([2, 3, 1, 0]), most_tokens=15).tolist() == [2, 3, 1]
    assert choose_documents(offsets, np.array([2, 3, 1, 0]), most_tokens=1).tolist() == [2]


def test_a_search_of_ten_thousand_documents_is_quick():
    generator = np.random.default_rng(0)
    vocabulary = [f"word{i}" for i in range(3000)]
    texts = [" ".join(vocabulary[i] for i in row) for row in generator.zipf(1.3, (10_000, 60)).clip(max=3000) - 1]
    index = index_of(texts)
    began = time.perf_counter()
    found, _ = index.nearest(texts[1234])
    assert found[0].document == 1234 and time.perf_counter() - began < 1.0
