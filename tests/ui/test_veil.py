"""The offensive words of a text that no model has read."""

from hashlib import sha256

from ifguide.evaluation.judges.linear import built_in
from ifguide.ui.veil import OFFENSIVE, mark_offensive


def test_the_list_has_each_word_that_the_classifier_finds_offensive_by_itself():
    words = [*built_in().model[0][0]]
    offensive = [word for word, rating in zip(words, built_in().score(words), strict=True) if rating >= 0.8]
    assert {
        sha256(word.encode()).hexdigest()[:8] for word in offensive
    } == OFFENSIVE  # else: write its hashes, sorted, to ifguide/ui/static/offensive_words.txt


def test_a_text_is_cut_at_its_offensive_words_and_nothing_is_lost():
    text = "You IDIOT, an idiot's fool: \u202e idiotic? naïve_idiot."
    runs = mark_offensive(text)
    assert "".join(run for run, _ in runs) == text
    assert [run for run, mark in runs if mark] == ["IDIOT", "idiot", "fool", "idiotic"]
    assert mark_offensive("kind") == [["kind", 0]] and mark_offensive("") == []
