"""The demo corpus: the same for the same seed, spans exact, no overlap between its files, varied, and easy to judge."""

import json
import re
from collections import Counter

import pytest

from benchmarks.demo_corpus.composers import COMPOSERS
from benchmarks.demo_corpus.generator import (
    MAX_WORDS,
    generate_documents,
    generate_heldout,
    generate_prompts,
    generate_queries,
    write_demo_inputs,
)
from benchmarks.demo_corpus.grammar import phrases
from ifguide.errors import InputError
from ifguide.evaluation.toxicity import load_scorer

INSULTS, PRAISE, NEUTRAL_WORDS = phrases()["insults"], phrases()["praise"], set(phrases()["neutral_words"])
INSULT_WORDS = {
    word.strip(",") for phrases in INSULTS.values() for phrase in phrases for word in phrase.split()
} - NEUTRAL_WORDS
INSULTING_WORD = re.compile(r"\b(idiot|idiotic|moron|loser|jerk|fool|stupid|pathetic|dumb|useless)s?\b")
NEAR_WORDS = ("clown", "donkey", "turkey", "goose", "cabbage", "weasel", "toad", "turnip", "lazy")


@pytest.fixture(scope="module")
def documents():
    return generate_documents(600, seed=0)


@pytest.fixture(scope="module")
def queries(documents):
    return generate_queries(documents, seed=0)


@pytest.fixture(scope="module")
def predict():
    """Probability of toxicity for a list of texts, from the classifier that also judges the demo study."""
    return load_scorer("profanity-check").score


def split_sentences(text):
    """Character ranges of the sentences of a document; quoted speech counts as its own sentence."""
    return [match.span() for match in re.finditer(r'\S(?:[^\n]*?(?:[.?!]"?(?=\s|$)|(?=\n|$)))', text)]


def test_same_seed_gives_same_bytes_and_another_seed_does_not(tmp_path):
    first = write_demo_inputs(tmp_path / "first", n_documents=60, seed=3)
    again = write_demo_inputs(tmp_path / "again", n_documents=60, seed=3)
    other = write_demo_inputs(tmp_path / "other", n_documents=60, seed=4)
    for name, path in first.items():
        assert path.read_bytes() == again[name].read_bytes()
        assert path.read_bytes() != other[name].read_bytes()


def test_written_files_have_the_promised_fields(tmp_path):
    paths = write_demo_inputs(tmp_path, n_documents=60)
    fields = {
        name: {frozenset(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()}
        for name, path in paths.items()
    }
    assert fields == {
        "corpus": {frozenset({"id", "source", "text", "spans"})},
        "toxic_queries": {frozenset({"prompt", "completion"})},
        "safe_queries": {frozenset({"prompt", "completion"})},
        "eval_prompts": {frozenset({"prompt"})},
        "heldout": {frozenset({"text"})},
    }


def test_sources_are_equal_parts_and_ids_unique(documents):
    assert Counter(document.source for document in documents) == dict.fromkeys(COMPOSERS, 120)
    assert len({document.id for document in documents}) == len(documents)
    assert all(re.fullmatch(rf"{document.source}-\d{{4}}", document.id) for document in documents)


def test_any_count_is_met():
    for n_documents in (5, 23, 100):
        assert len(generate_documents(n_documents)) == n_documents


def test_fewer_documents_than_sources_is_refused():
    with pytest.raises(InputError, match="at least 5"):
        generate_documents(4)


def test_a_quarter_of_the_documents_is_toxic_and_recipes_never(documents):
    toxic = [document for document in documents if document.spans]
    assert 0.20 <= len(toxic) / len(documents) <= 0.25
    assert not any(document.source == "recipe" for document in toxic)
    assert {1, 2, 3, 4} <= {len(document.spans) for document in toxic}


def test_spans_cover_exactly_the_insults(documents):
    for document in documents:
        rest, last = "", 0
        for start, end in document.spans:
            assert start >= last
            assert document.text[start:end] in INSULT_WORDS
            rest, last = rest + document.text[last:start], end
        rest += document.text[last:]
        assert not INSULTING_WORD.search(rest), document.text


def test_near_words_are_harmless_in_some_documents_and_insulting_in_others(documents):
    insults = " ".join(document.text[start:end] for document in documents for start, end in document.spans)
    benign = " ".join(document.text.lower() for document in documents if not document.spans)
    for word in NEAR_WORDS:
        assert word in insults
        assert word in benign


def test_every_kind_of_turn_goes_both_ways_in_the_corpus(documents):
    text = "\n".join(document.text for document in documents)
    for kind in INSULTS:
        assert sum(text.count(f" {phrase}") for phrase in set(INSULTS[kind])) >= 10
        assert sum(text.count(f" {phrase}") for phrase in set(PRAISE[kind])) >= 10


def test_documents_are_short_and_have_no_open_holes(documents):
    for document in documents:
        assert 30 <= len(document.text.split()) <= MAX_WORDS
        assert not re.search(r"[\[\]{}|*]|  | [.,]|\ba (?:[aeio](?!ne\b)|um)", document.text), document.text


def test_sentences_are_varied(documents):
    sentences = [document.text[start:end] for document in documents for start, end in split_sentences(document.text)]
    counts = Counter(sentences)
    assert len(counts) / len(sentences) > 0.75
    assert counts.most_common(1)[0][1] <= 0.04 * len(documents)


def test_no_two_documents_are_near_copies(documents):
    def four_words(text):
        words = text.split()
        return {tuple(words[place : place + 4]) for place in range(len(words) - 3)}

    grams = [four_words(document.text) for document in documents if document.id.endswith(("1", "4", "7"))]
    shared = [
        len(first & second) / min(len(first), len(second))
        for place, first in enumerate(grams)
        for second in grams[:place]
    ]
    assert max(shared) < 0.7


def test_queries_are_new_and_pairs_share_their_prompt(documents, queries):
    toxic, safe = queries
    corpus = "\n".join(document.text for document in documents)
    assert len(toxic) == len(safe) == 300
    assert [query.prompt for query in toxic] == [query.prompt for query in safe]
    for query in (*toxic, *safe):
        assert query.prompt not in corpus
        last_sentence = re.split(r"(?<=[.?!]) ", query.prompt)[-1]
        assert last_sentence + query.completion not in corpus
        assert query.completion.startswith(" ")
        assert 2 <= len(query.completion.split()) <= 8
    assert all(
        any(query.completion.startswith(f" {phrase}") for phrases in INSULTS.values() for phrase in phrases)
        for query in toxic
    )
    assert not any(INSULTING_WORD.search(query.completion) for query in safe)


def test_prompts_and_heldout_are_new(documents, queries):
    corpus = "\n".join(document.text for document in documents)
    prompts = generate_prompts(documents, queries[0], seed=0)
    assert len(set(prompts)) == 100
    assert not set(prompts) & {query.prompt for query in queries[0]}
    assert not any(prompt in corpus or INSULTING_WORD.search(prompt) for prompt in prompts)
    heldout = generate_heldout(documents, seed=0)
    assert len(set(heldout)) == 80
    assert not any(text in corpus or INSULTING_WORD.search(text) for text in heldout)


def test_classifier_separates_insulting_from_harmless_sentences(documents, predict):
    insulting, harmless = [], []
    for document in documents:
        for start, end in split_sentences(document.text):
            inside = any(start <= span_start < end for span_start, _ in document.spans)
            (insulting if inside else harmless).append(document.text[start:end])
    assert (predict(insulting) >= 0.8).mean() > 0.75
    assert (predict(insulting) >= 0.5).mean() > 0.95
    assert (predict(harmless) < 0.5).mean() > 0.99
    near = [text for text in harmless if any(word in text.lower() for word in NEAR_WORDS)]
    assert len(near) > 100
    assert (predict(near) < 0.5).mean() > 0.95


def test_classifier_separates_toxic_from_safe_completions(queries, predict):
    toxic, safe = ([query.completion for query in side] for side in queries)
    assert (predict(toxic) >= 0.8).mean() > 0.95
    assert (predict(safe) < 0.3).mean() > 0.95
