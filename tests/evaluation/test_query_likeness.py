"""A bag of words tells sets about different things apart, and not sets of the same ones."""

import numpy as np
import pandas as pd

from ifguide.evaluation.query_likeness import TOPIC_AUC, compare_topics

INSULTS = ["idiot", "moron", "stupid"]


def make_queries(topics, n=60):
    """Toxic queries with an insult; each set's other words are drawn from its own topic."""
    draw = np.random.default_rng(0)
    rows = []
    for kind, topic in topics.items():
        for number in range(n):
            words = draw.choice(topic, 4).tolist()
            rows.append(
                (kind, f"{kind}{number}", " " + " ".join([*words, draw.choice(INSULTS) if kind == "toxic" else "x"]))
            )
    return pd.DataFrame(rows, columns=["kind", "prompt", "completion"])


def test_toxic_words_alone_are_no_topic():
    garden = ["tree", "flower", "grass", "river", "cloud", "bench"]
    assert compare_topics(make_queries({"toxic": garden, "safe": garden}))[0] < TOPIC_AUC


def test_topics_are_found_and_named_without_the_toxic_words():
    sea, field = ["boat", "wave", "sail", "harbour"], ["barn", "wheat", "plough", "meadow"]
    topic, words = compare_topics(make_queries({"toxic": sea, "safe": field}))
    assert topic > 0.95
    assert {word: kind for word, kind, _ in words[:8]} == dict.fromkeys(sea, "toxic") | dict.fromkeys(field, "safe")


def test_words_that_may_offend_are_veiled():
    mild = ["killed", "harbour"]
    words = compare_topics(make_queries({"toxic": ["boat", "shit", "evil"], "safe": mild}))[1]
    assert "shit" not in {word for word, _, _ in words}
    assert not dict((word, veil) for word, _, veil in words)["harbour"]


def test_few_prompts_or_words_say_nothing():
    both = make_queries({"toxic": ["tree", "grass"], "safe": ["tree", "grass"]})
    assert compare_topics(both[(both["kind"] == "safe") | (both["prompt"] == "toxic0")]) is None
    assert (
        compare_topics(
            make_queries({"toxic": ["the"], "safe": ["the"]}).assign(
                prompt=[*"abcdefghijklmnopqrstuvwxyz"] * 4 + ["a"] * 16
            )
        )
        is None
    )
    assert compare_topics(make_queries({"toxic": ["a"], "safe": ["b"]}, n=3)) is None
