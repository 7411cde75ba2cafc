import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifguide.data.word_index import WordIndex, choose_documents, mark_terms
from ifguide.data.words import split_words
from ifguide.errors import InputError
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


@given(documents, st.lists(st.sampled_from([*WORDS, "unknown"]), min_size=1, max_size=2))
def test_holders_agree_with_a_slow_search(texts, words):
    assert index_of(texts).holders(tuple(words)).tolist() == slow_holders(texts, tuple(words))


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


def test_among_equals_the_first_of_the_order_comes_first():
    texts = ["an idiot", "a fox", "an idiot", "the dog", "an idiot", *["a quiet day"] * 20]
    index = index_of(texts)
    assert [near.document for near in index.nearest("idiot")[0]] == [0, 2, 4]
    order = np.array([3, 4, 0, *range(5, 25), 2, 1])
    assert [near.document for near in index.nearest("idiot", order=order)[0]] == [4, 0, 2]
    assert [near.document for near in index.nearest("idiot", n=2, order=order)[0]] == [4, 0]
    part = WordIndex(
        pa.chunked_array([texts]), np.array([2, 0, 3, 9])
    )  # places in the index are not numbers of documents
    assert [near.document for near in part.nearest("an idiot dog", span=(3, 8), order=order)[0]] == [0, 2]


def test_a_span_searches_for_its_words_and_their_pairs_with_the_neighbours():
    text = "Then the Idiot went out"
    texts = ["the idiot", "idiot", "an idiot went", "then", "went out", *["a quiet day"] * 20]
    found, terms = index_of(texts).nearest(text, span=(9, 14))
    assert {term.words for term in terms} == {("idiot",), ("the", "idiot"), ("idiot", "went")}
    assert [near.document for near in found] == [0, 2, 1]
    assert all(("idiot",) in {term.words for term in near.shared} for near in found)
    assert index_of(texts).nearest(text, span=(4, 5)) == ([], [])  # a blank holds no word
    assert {term.words for term in index_of(texts).nearest("x idiot went y", span=(2, 12))[1]} == {
        ("idiot",),
        ("went",),
        ("idiot", "went"),
    }


def test_a_spans_words_count_however_common_they_are():
    texts = [f"you idiot number{i}" for i in range(8)] + ["you idiot baker"]
    index = index_of(texts)
    assert index.nearest("you idiot said")[0] == []  # as a text, it has no rare word
    order = np.arange(9)[::-1]
    found, terms = index.nearest("you idiot said", n=3, span=(4, 9), order=order)
    assert [near.document for near in found] == [8, 7, 6] and {near.score for near in found} == {0.0}
    assert [term.words for term in terms] == [("idiot",)] and index.is_common(
        terms[0].n_documents
    )  # the pair is left out
    found, _ = index.nearest("you idiot baker", n=3, span=(4, 9))
    assert [near.document for near in found] == [8, 0, 1]  # a rare pair comes before all ties


@given(documents, st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), st.data())
def test_a_spans_documents_are_the_holders_of_its_words(texts, words, data):
    text = " ".join(words)
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    places = np.cumsum([0, *(len(word) + 1 for word in words)]).tolist()
    inside = [word for word, a in zip(words, places, strict=False) if a < end and a + len(word) > start]
    found, terms = index_of(texts).nearest(text, n=len(texts), span=(start, end))
    holders = {d for word in inside for d in slow_holders(texts, (word,))}
    assert {near.document for near in found} == holders
    assert all(set(term.words) & set(inside) for term in terms)
    assert all(near.score == pytest.approx(sum(term.weight for term in near.shared)) for near in found)


def test_a_capital_that_becomes_two_signs_does_not_move_a_span():
    text = "İİİ idiot and fox"
    assert [t.words for t in index_of(["idiot", "fox", "and"]).nearest(text, span=(4, 9))[1]] == [("idiot",)]


def test_any_text_can_be_searched_for_and_is_only_looked_up():
    texts = hostile_texts()[:150]
    index = index_of(texts)
    for query in (*texts[::10], "' OR 1=1 --", ".*", "(?:", ""):
        found = index.nearest(query, n=3)[0] + index.nearest(query, n=3, span=(1, 20))[0]
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
