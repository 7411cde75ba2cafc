"""Query sets from what people have: no text is in both, pairs keep one prompt, and lengths are alike."""

import json
from collections import Counter

import pytest

from ifguide.config.schema import QueriesConfig
from ifguide.data.query_sources import MOST_WORDS, letters, make_sets, read_query_sets, split_rewrite
from ifguide.errors import InputError
from tests.shared_data import shared_file

CONFIG = QueriesConfig()
DRAWN = 300


def read(path, rows, **options):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_query_sets(str(path), CONFIG, **options)


def queries(frame, kind):
    return list(frame.loc[frame["kind"] == kind, ["prompt", "completion"]].itertuples(index=False, name=None))


def labelled():
    """Toxic texts are longer on the whole, and some texts come again."""
    for number in range(DRAWN):
        bad, word = number % 3 == 0, "".join(chr(97 + int(digit)) for digit in str(number))
        yield {"text": " ".join([word] * (2 + number % 7 + 4 * bad)) + " end", "label": bad}
    yield from ({"text": "The same, twice!", "label": label} for label in (0, 1, 1))


def test_prompt_and_rests_of_a_rewrite_make_both_sentences_again():
    assert split_rewrite("You are a fool", "you are a friend") == ("You are a", " fool", " friend")
    assert split_rewrite("Fool, stop", "Please stop") is None
    assert split_rewrite("You are", "You are kind") is None


def test_pairs_are_whole_have_one_prompt_and_are_counted_when_left_out(tmp_path):
    rows = [
        {"en_toxic": "you are mad , really", "en_neutral": "you are wrong , really"},
        {"en_toxic": "get lost", "en_neutral": "please go"},
        {"en_toxic": "you are bad", "en_neutral": "you are wrong, really"},  # safe in the first pair as well
        {"en_toxic": "you are wrong, really!", "en_neutral": "you are there"},  # safe in the first pair
        {"en_toxic": "stop it now", "en_neutral": "stop this now"},
    ]
    found = read(tmp_path / "q.jsonl", rows)
    assert queries(found, "toxic") == [("stop", " it now")] and queries(found, "safe") == [("stop", " this now")]
    assert "1 pairs that do not begin alike" in found.attrs["left_out"] and "6 queries" in found.attrs["left_out"]


def test_a_tsv_quotes_nothing_and_may_end_a_row_early(tmp_path):
    (tmp_path / "q.tsv").write_text('toxic\tneutral1\tneutral2\nyou "mad one\tyou "kind one\n', encoding="utf-8")
    found = read_query_sets(str(tmp_path / "q.tsv"), CONFIG)
    assert queries(found, "toxic") == [("you", ' "mad one')] and queries(found, "safe") == [("you", ' "kind one')]


def test_scored_rows_are_divided_by_both_bounds(tmp_path):
    part = lambda text, score: {"text": text, "toxicity": score}  # noqa: E731
    scores = {"a": (0.9, 0.8), "b": (0.1, 0.2), "c": (0.9, 0.1), "d": (0.3, 0.3), "e": (None, 0.9)}
    rows = [{"prompt": part(f"{k} x", s), "continuation": part(f" {k} y", t)} for k, (s, t) in scores.items()]
    found = read(tmp_path / "q.jsonl", rows)
    assert queries(found, "toxic") == [("a x", " a y")] and queries(found, "safe") == [("b x", " b y")]


def test_labelled_texts_are_matched_in_length_and_no_text_is_in_both_sets(tmp_path):
    rows = list(labelled())
    found = read(tmp_path / "q.jsonl", rows)
    by_label = {text["text"]: text["label"] for text in rows[:DRAWN]}
    lengths = {}
    for kind in ("toxic", "safe"):
        assert all(by_label[prompt + rest] == (kind == "toxic") for prompt, rest in queries(found, kind))
        lengths[kind] = [len(rest.split()) for _, rest in queries(found, kind)]
    texts = {kind: {letters(p + c) for p, c in queries(found, kind)} for kind in lengths}
    assert not texts["toxic"] & texts["safe"] and "thesametwice" not in texts["toxic"] | texts["safe"]
    assert len(lengths["toxic"]) == len(lengths["safe"]) > 20
    assert Counter(n > 4 for n in lengths["toxic"]) == Counter(n > 4 for n in lengths["safe"])
    assert read(tmp_path / "q.jsonl", rows).equals(found)


@pytest.mark.parametrize(("yes", "no"), [(1, 0), ("true", "false"), (0.7, 0.1), (True, False), ("1.0", "0.0")])
def test_labels_come_in_many_forms(tmp_path, yes, no):
    rows = [{"body": "one two", "bad": yes}, {"body": "three four", "bad": no}, {"body": "five six", "bad": None}]
    found = read(tmp_path / "q.jsonl", [*rows, {"body": "seven eight", "bad": 0.4}], labels=("body", "bad"))
    assert queries(found, "toxic") == [("one", " two")] and queries(found, "safe") == [("three", " four")]
    assert found.attrs["left_out"] == "2 rows without a clear label"


def test_a_long_text_is_cut(tmp_path):
    rows = [{"text": " ".join(f"{word}{n}" for n in range(200)), "label": word == "b"} for word in "ab"]
    found = read(tmp_path / "q.jsonl", rows)
    assert {len((p + c).split()) for kind in ("toxic", "safe") for p, c in queries(found, kind)} == {MOST_WORDS}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"body": "x", "bad": 1}], r"expected columns .*'text' and 'label', got 'body', 'bad'; name .*--labels"),
        ([{"text": "x y", "label": "maybe"}], r"true, false or a score from 0 to 1 in 'label', got 'maybe'"),
        ([{"text": "x y", "label": 1}, {"text": "u v", "label": -1}], r"line 2: .*from 0 to 1 in 'label', got '-1'"),
        ([{"text": "x y", "label": 100}], r"line 1: .*from 0 to 1 in 'label', got '100'"),
        (
            [{"text": f"{chr(97 + n)} y", "label": 1} for n in range(20)],
            r"expected toxic and safe queries, got 20 toxic and 0 safe .left out: nothing.; add texts of both kinds",
        ),
    ],
)
def test_an_error_says_what_was_expected_and_what_is_there(tmp_path, rows, said):
    with pytest.raises(InputError, match=said):
        read(tmp_path / "q.jsonl", rows)


def test_a_completion_without_letters_is_no_query():
    rows = [[("toxic", "you", " ?!")], [("toxic", "you", " fool")], [("safe", "you", " there")]]
    found = make_sets(rows, "here")
    assert queries(found, "toxic") == [("you", " fool")]


def test_real_pairs_share_prompts_and_no_text():
    found = read_query_sets(str(shared_file("paradetox.tsv")), CONFIG)
    toxic, safe = queries(found, "toxic"), queries(found, "safe")
    assert len(toxic) > 7000 and [prompt for prompt, _ in toxic] == [prompt for prompt, _ in safe]
    assert not {letters("".join(pair)) for pair in toxic} & {letters("".join(pair)) for pair in safe}
