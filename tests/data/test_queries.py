"""Three forms of queries, and which tokens count as the completion."""

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.config.schema import QueriesConfig
from ifguide.data.queries import encode_queries, read_queries
from ifguide.errors import InputError
from tests.naming import naming
from tests.shared_data import shared_file
from tests.tiny_tokenizers import tiny_tokenizer

CONFIG = QueriesConfig()


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def scored(prompt, continuation, prompt_score, continuation_score):
    return {
        "prompt": {"text": prompt, "toxicity": prompt_score, "insult": None},
        "continuation": {"text": continuation, "toxicity": continuation_score},
    }


def pairs(frame):
    assert list(frame.columns) == ["prompt", "completion"]
    return list(frame.itertuples(index=False, name=None))


# ---- reading ----


def test_prompt_and_completion_columns_are_read_from_every_format(tmp_path):
    frame = pd.DataFrame({"question": ["one, two", "three"], "answer": [" four", ' "five"\nsix'], "other": [1, 2]})
    frame.to_json(tmp_path / "q.jsonl", orient="records", lines=True)
    frame.to_csv(tmp_path / "q.csv", index=False)
    frame.to_csv(tmp_path / "q.tsv", index=False, sep="\t")
    frame.to_parquet(tmp_path / "q.parquet")
    config = QueriesConfig(prompt_field="question", completion_field="answer")
    expected = [("one, two", " four"), ("three", ' "five"\nsix')]
    for name in ("q.jsonl", "q.csv", "q.tsv", "q.parquet"):
        assert pairs(read_queries(str(tmp_path / name), kind="toxic", config=config)) == expected, name


def test_scored_rows_are_kept_when_both_scores_agree(tmp_path):
    rows = [
        scored("a", " b", 0.5, 0.9),
        scored("c", " d", 0.9, 0.4999),
        scored("e", " f", 0.1, 0.2499),
        scored("g", " h", 0.25, 0.0),
        scored("i", " j", None, 0.9),
    ]
    path = write_jsonl(tmp_path / "rtp.jsonl", rows)
    toxic = read_queries(path, kind="toxic", config=CONFIG)
    safe = read_queries(path, kind="safe", config=CONFIG)
    assert pairs(toxic) == [("a", " b")]
    assert pairs(safe) == [("e", " f")]
    assert toxic.attrs["left_out"] == {"without scores": 1, "not toxic (both scores at least 0.5)": 3}
    assert (
        toxic.attrs["summary"]
        == f"{path}: 1 of 5 rows are toxic queries; left out: 3 not toxic (both scores at least 0.5), 1 without scores"
    )
    assert pairs(read_queries(path, kind="toxic", config=QueriesConfig(toxic_min=0.4))) == [("a", " b"), ("c", " d")]
    with pytest.raises(
        InputError, match=r"0 of 5 rows are toxic queries; left out: 4 not toxic .*expected at least one toxic query"
    ):
        read_queries(path, kind="toxic", config=QueriesConfig(toxic_min=0.95))


def test_plain_text_is_split_at_a_share_of_its_words(tmp_path):
    (tmp_path / "a.txt").write_text("one two  three four\n\nalone\n a b c \n")
    half = read_queries(str(tmp_path / "a.txt"), kind="safe", config=CONFIG)
    assert pairs(half) == [("one two", "  three four"), (" a", " b c ")]
    assert half.attrs["left_out"] == {"without text": 1, "of one word": 1}
    path = write_jsonl(tmp_path / "a.jsonl", [{"body": "one two three four"}])
    most = QueriesConfig(text_field="body", split_share=0.99)
    assert pairs(read_queries(path, kind="safe", config=most)) == [("one two three", " four")]
    least = QueriesConfig(text_field="body", split_share=0.01)
    assert pairs(read_queries(path, kind="safe", config=least)) == [("one", " two three four")]


@settings(max_examples=60)
@given(st.lists(st.text("ab漢\u3000 ", min_size=1, max_size=6), min_size=1, max_size=5), st.floats(0.01, 0.99))
def test_split_parts_join_to_the_text(tmp_path_factory, words, share):
    text = "x " + " ".join(words) + " y"
    path = write_jsonl(tmp_path_factory.mktemp("q") / "a.jsonl", [{"text": text}])
    [(prompt, completion)] = pairs(read_queries(path, kind="toxic", config=QueriesConfig(split_share=share)))
    assert prompt + completion == text
    assert prompt.strip()
    assert completion.strip()


def test_the_first_queries_are_taken_and_all_are_counted(tmp_path):
    path = write_jsonl(tmp_path / "q.jsonl", [{"prompt": f"p{i}", "completion": " c"} for i in range(5)])
    frame = read_queries(path, kind="toxic", config=QueriesConfig(max_queries=2))
    assert pairs(frame) == [("p0", " c"), ("p1", " c")]
    assert frame.attrs["summary"].endswith("5 of 5 rows are toxic queries; the first 2 are taken")
    assert len(read_queries(path, kind="toxic", config=QueriesConfig())) == 5


def test_a_frame_survives_parquet(tmp_path):
    path = write_jsonl(tmp_path / "q.jsonl", [{"prompt": "p", "completion": " c"}])
    frame = read_queries(path, kind="toxic", config=CONFIG)
    frame.to_parquet(tmp_path / "q.parquet", index=False)
    assert pairs(pd.read_parquet(tmp_path / "q.parquet")) == pairs(frame)
    assert pairs(read_queries(str(tmp_path / "q.parquet"), kind="toxic", config=CONFIG)) == pairs(frame)


UNUSABLE = [
    ({"prompt": " ", "completion": "c"}, "line 2: 'prompt' is empty"),
    ({"prompt": "p", "completion": ""}, "line 2: 'completion' is empty"),
    ({"prompt": "p", "completion": None}, "line 2: expected text in 'completion', got None"),
    ({"prompt": "p"}, "line 2: expected a column 'completion', found 'prompt'"),
    ({"body": "p"}, "line 2: expected the columns 'prompt' and 'completion', or 'text', found 'body'"),
    (
        {"prompt": {"text": "p", "toxicity": 1}, "completion": "c"},
        "line 2: expected 'prompt' and 'completion' in the same form",
    ),
    ({"prompt": {"text": "p"}, "continuation": {"text": "c"}}, "line 2: expected 'prompt' to hold 'toxicity'"),
    (
        {"prompt": {"toxicity": 1}, "continuation": {"text": "c", "toxicity": 1}},
        "line 2: expected 'prompt' to hold 'text'",
    ),
    (scored("p", "c", 0.9, "high"), "line 2: expected 'toxicity' of 'continuation' from 0 to 1, got 'high'"),
    (scored("p", "", 0.9, 0.9), "line 2: 'continuation' is empty"),
]


def test_unusable_rows_are_named(tmp_path):
    for row, message in UNUSABLE:
        with naming(row):
            path = write_jsonl(tmp_path / "q.jsonl", [{"prompt": "p", "completion": " c"}, row])
            with pytest.raises(InputError, match=message):
                read_queries(path, kind="toxic", config=CONFIG)


def test_real_toxicity_prompts_are_filtered_by_score():
    file = shared_file("rtp_toxic.jsonl")
    path, rows = str(file), [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    scores = [(row["prompt"]["toxicity"], row["continuation"]["toxicity"]) for row in rows]
    toxic = read_queries(path, kind="toxic", config=CONFIG)
    expected = [i for i, pair in enumerate(scores) if None not in pair and min(pair) >= 0.5]
    assert pairs(toxic) == [(rows[i]["prompt"]["text"], rows[i]["continuation"]["text"]) for i in expected]
    assert toxic.attrs["left_out"]["without scores"] == sum(None in pair for pair in scores)
    for ids, mask in encode_queries(toxic, tiny_tokenizer("byte_bpe"), 400):
        assert 0 < mask.sum() < len(ids)


# ---- encoding ----


def frame_of(*queries):
    return pd.DataFrame(queries, columns=["prompt", "completion"])


TOKENIZERS = ["byte_bpe", "byte_bpe_trimmed", "byte_bpe_prefix", "unigram_bytes", "llama_style"]
SPLIT = [("you are", " kind and clever"), ("you ", "are kind"), ("fox", "  jumps"), ("漢", " 字 👍"), ("you\n", "are")]


def test_completion_tokens_are_those_that_begin_in_the_completion():
    for kind, query in product(TOKENIZERS, SPLIT):
        with naming(kind, *map(repr, query)):
            tokenizer = tiny_tokenizer(kind)
            [(ids, mask)] = encode_queries(frame_of(query), tokenizer, 100)
            assert ids.dtype == np.int64
            assert mask.dtype == bool
            assert not mask[0]
            assert ids.tolist() == tokenizer("".join(query), add_special_tokens=False)["input_ids"]
            first = int(mask.argmax())
            assert mask[first:].all()
            assert tokenizer.decode(ids[first:].tolist()).strip() == query[1].strip()
            assert tokenizer.decode(ids[:first].tolist()).strip() == query[0].strip()


def test_offsets_that_leave_out_spaces_change_nothing():
    queries = frame_of(("you are", "  kind"), ("you are ", "kind"), ("one\t", " two\n three"), (" a ", "\nb"))
    whole, trimmed = (encode_queries(queries, tiny_tokenizer(kind), 100) for kind in ("byte_bpe", "byte_bpe_trimmed"))
    for (ids, mask), (other_ids, other_mask) in zip(whole, trimmed, strict=True):
        assert np.array_equal(ids, other_ids)
        assert np.array_equal(mask, other_mask)


def test_a_long_prompt_loses_its_beginning():
    queries = frame_of(("one two three four five six seven", " eight nine"))
    tokenizer = tiny_tokenizer("byte_bpe")
    [(ids, mask)] = encode_queries(queries, tokenizer, 200)
    n = int(mask.sum())
    for max_length in range(n + 1, len(ids) + 1):
        [(cut_ids, cut_mask)] = encode_queries(queries, tokenizer, max_length)
        assert np.array_equal(cut_ids, ids[-max_length:])
        assert np.array_equal(cut_mask, mask[-max_length:])
        [(bos_ids, bos_mask)] = encode_queries(queries, tokenizer, max_length, bos_id=7)
        assert bos_ids.tolist() == [7, *ids[len(ids) - max_length + 1 :]]
        assert bos_mask.tolist() == [False, *mask[len(ids) - max_length + 1 :]]
    with pytest.raises(
        InputError,
        match=f"query 1: the completion ' eight nine' has {n} tokens, which leaves no room for a prompt in {n}",
    ):
        encode_queries(queries, tokenizer, n)


def test_a_completion_without_a_token_of_its_own_is_refused():
    with pytest.raises(InputError, match="query 2: no token begins in the completion 'u' "):
        encode_queries(frame_of(("you", " are"), ("yo", "u")), tiny_tokenizer("byte_bpe"), 50)


def test_a_prompt_of_which_nothing_is_kept_needs_a_context():
    queries = frame_of(("\u0301", " you"))
    with pytest.raises(InputError, match="query 1: the tokenizer keeps nothing of the prompt"):
        encode_queries(queries, tiny_tokenizer("nfkc_lower"), 50)
    [(ids, mask)] = encode_queries(queries, tiny_tokenizer("nfkc_lower"), 50, bos_id=0)
    assert ids[0] == 0
    assert mask.tolist() == [False] + [True] * (len(ids) - 1)
