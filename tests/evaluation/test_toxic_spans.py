import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.evaluation import toxic_spans
from ifguide.evaluation.statistics import TOXIC_FROM
from ifguide.evaluation.toxic_spans import (
    ROUNDS_MOST,
    TRIED_MOST,
    find_toxic_spans,
    find_words,
    flatten_spans,
    read_spans,
)
from tests.hostile_texts import hostile_texts


class ListScorer:
    """Toxic is a text with a word of a list in it; remembers what it rated."""

    name = "list"

    def __init__(self, *words):
        self.words = words
        self.seen = []
        self.calls = 0

    def score(self, texts):
        self.seen += list(texts)
        self.calls += 1
        return np.array([self.rate(text) for text in texts], dtype=float)

    def rate(self, text):
        return 0.9 * any(word in text for word in self.words)


class PairScorer(ListScorer):
    """Toxic is a text with all of the words in it; part of them only raises the score."""

    name = "pair"

    def rate(self, text):
        found = [word in text for word in self.words]
        return 0.9 if all(found) else 0.4 if any(found) else 0.1


def find(scorer, *texts):
    """The spans of texts as the words they cover."""
    toxicity = scorer.score(texts)
    scorer.seen, scorer.calls = [], 0
    found = find_toxic_spans(texts, toxicity, scorer)
    return [[text[start:end] for start, end in spans] for text, spans in zip(texts, found, strict=True)]


def test_words_are_what_white_space_parts_without_the_punctuation_around_it():
    words = lambda text: [text[start:end] for start, end in find_words(text)]  # noqa: E731
    assert words(" you, “idiot”! \n(don't) -- f**k <b>off</b> $hit") == [
        "you",
        "idiot",
        "don't",
        "f**k",
        "b>off</b",
        "$hit",
    ]
    assert words("") == words(" \t\n…!? \u200b") == []
    assert words("naive\u0301! 👍🏽, 👩\u200d💻. \u202eabc\u202c שלום, 世界。") == [
        "naive\u0301",
        "👍🏽",
        "👩\u200d💻",
        "abc",
        "שלום",
        "世界",
    ]


def test_toxic_words_become_spans_and_neighbours_one():
    scorer = ListScorer("idiot", "moron")
    assert find(scorer, " you idiot, moron! and\nidiot again", " a friend", " Xidiot-like") == [
        ["idiot, moron", "idiot"],
        [],
        ["Xidiot-like"],
    ]


def test_every_different_word_of_the_toxic_texts_is_rated_once():
    scorer = ListScorer("idiot")
    texts = [" you idiot", " you are an idiot, you idiot", " a fine day", " you idiot"]
    assert find(scorer, *texts) == [["idiot"], ["idiot", "idiot"], [], ["idiot"]]
    assert scorer.seen == ["you", "idiot", "are", "an"] and scorer.calls == 1


def test_words_that_are_toxic_only_together_are_found_by_taking_them_out():
    scorer = PairScorer("people", "vermin")
    text = " such people are vermin, people say"
    assert find(scorer, text) == [["people", "people"]]  # without it at both its places the rest is not toxic
    scorer = PairScorer("people are vermin")
    assert find(scorer, " such people are vermin") == [["people"]]  # the first of those that lower it alike


class SumScorer(ListScorer):
    """Each word of the list adds its weight to the score."""

    name = "sum"

    def rate(self, text):
        return min(1.0, sum(weight for word, weight in self.words if word in text.split()))


def test_as_many_words_are_taken_out_as_it_takes():
    scorer = SumScorer(("one", 0.2), ("two", 0.45), ("three", 0.25))
    assert find(scorer, " one two three") == [["two"]]
    scorer = SumScorer(("one", 0.4), ("two", 0.45), ("three", 0.3))
    assert find(scorer, " one and two and three") == [["one", "two"]]
    scorer = SumScorer(*((f"w{i}", 0.08) for i in range(12)))
    assert find(scorer, " " + " ".join(f"w{i}" for i in range(12))) == [["w0 w1 w2 w3 w4"]]  # no more are taken out


def test_a_text_that_no_single_word_makes_less_toxic_has_no_spans():
    scorer = ListScorer(" ")  # toxic is what has a blank in it
    assert find(scorer, " a b c") == [[]]
    assert scorer.calls == 2  # the words alone, and one round


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 12), max_size=8), max_size=6), st.sets(st.integers(0, 12), max_size=4))
def test_spans_hold_all_toxic_words_and_only_those(rows, bad):
    texts = [" " + ", ".join(f"w{i}." for i in row) for row in rows]
    scorer = ListScorer(*(f"w{i}." for i in bad))  # with the full stop, no word alone is toxic
    inner = ListScorer(*(f"w{i}" for i in bad))
    inner.rate = lambda text: 0.9 * bool({word.strip(",.") for word in text.split()} & {f"w{i}" for i in bad})
    for rater in (scorer, inner):
        toxicity = rater.score(texts)
        for text, score, spans in zip(texts, toxicity, find_toxic_spans(texts, toxicity, rater), strict=True):
            assert spans == sorted(spans) and all(a[1] < b[0] for a, b in zip(spans, spans[1:], strict=False))
            rest = "".join(sign for i, sign in enumerate(text) if not any(a <= i < b for a, b in spans))
            if score < TOXIC_FROM:
                assert spans == []
            elif rater is inner:
                assert spans and inner.rate(rest) < TOXIC_FROM
                assert all(inner.rate(text[a:b]) >= TOXIC_FROM for a, b in spans)
            elif len({word for word in text.split() if word.strip(",") in scorer.words}) <= 1:
                assert scorer.rate(rest) < TOXIC_FROM


def test_cost_is_bounded(monkeypatch):
    long = " " + " ".join(f"w{i}" for i in range(500))
    scorer = SumScorer(*((f"w{i}", 0.0019) for i in range(500)))
    assert find(scorer, long) == [["w0 w1 w2 w3 w4"]]
    assert len(scorer.seen) == 500 + sum(TRIED_MOST - i for i in range(ROUNDS_MOST)) and scorer.calls == 1 + ROUNDS_MOST
    short = [f" a{i} b{i} {' '.join('xyz')}" for i in range(20)]
    scorer = SumScorer(("x", 0.3), ("y", 0.3))
    monkeypatch.setattr(toxic_spans, "_TOGETHER", 7)
    assert find(scorer, *short) == [["x"]] * 20
    assert len(scorer.seen) == (2 * 20 + 3) + 5 * 20 and scorer.calls == 1 + 3  # words alone; three groups of one round


def test_spans_of_any_text_are_inside_it_and_begin_and_end_with_a_word():
    scorer, texts = ListScorer(""), hostile_texts()  # everything is toxic
    for text, spans in zip(texts, find_toxic_spans(texts, scorer.score(texts), scorer), strict=True):
        words = find_words(text)
        assert spans == ([(words[0][0], words[-1][1])] if words else []), repr(text)
        assert read_spans(flatten_spans(spans), text) == spans, repr(text)


def test_spans_count_characters_in_every_script():
    scorer = ListScorer("bad", "רע", "🖕", "cafe\u0301")
    texts = [
        "😀👩\u200d💻 bad 🏳️\u200d🌈",
        "\u202eabc bad\u202c x",
        "אתה רע מאוד",
        "you 🖕🏽 there",
        "the cafe\u0301. x",
        "",
    ]
    assert find(scorer, *texts) == [["bad"], ["bad"], ["רע"], ["🖕🏽"], ["cafe\u0301"], []]


def test_an_empty_or_blank_text_has_no_spans_even_where_it_is_called_toxic():
    scorer = ListScorer("")
    assert find(scorer, "", " \n", "...") == [[], [], []]
    assert scorer.seen == []


def test_the_same_texts_give_the_same_spans():
    texts = [f" {a} {b} {a}{b}." for a in ("you", "one", "two") for b in ("one", "idiot", "two")]
    scorer = SumScorer(("one", 0.3), ("two", 0.3), ("idiot", 0.7))
    toxicity = scorer.score(texts)
    assert find_toxic_spans(texts, toxicity, scorer) == find_toxic_spans(texts, toxicity, scorer)
    mixed = np.random.default_rng(0).permutation(len(texts))
    again = find_toxic_spans([texts[i] for i in mixed], toxicity[mixed], scorer)
    assert again == [find_toxic_spans(texts, toxicity, scorer)[i] for i in mixed]


def test_stored_spans_are_read_back_and_odd_ones_left_out():
    assert flatten_spans([(1, 3), (4, 9)]).tolist() == [1, 3, 4, 9] and flatten_spans([]).dtype == np.int32
    assert read_spans(np.array([1, 3, 4, 9], dtype=np.int32), "x" * 9) == [(1, 3), (4, 9)]
    assert read_spans([4, 9, 1, 3, 8, 10, 9], "x" * 9) == [(4, 9)]
    assert read_spans(None, "x") == read_spans(float("nan"), "x") == []
