"""The screens' pure parts: what is listed, drawn, counted and written."""

import re
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifguide.errors import InputError
from ifguide.ui import charts, comparison, document_list, format, token_view, words
from ifguide.ui.document_list import DocumentFilter
from tests.app.fake_study import HOSTILE_ID, HOSTILE_TEXT, LONG_ID, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("ui") / "cache")


@pytest.fixture(scope="module")
def corpus(study):
    return study.corpus()


@pytest.fixture(scope="module")
def listing(study, corpus):
    selection = study.selection("default")
    texts = pa.chunked_array([pa.array([corpus.document(i).text for i in range(corpus.n_documents)])])
    parts = {
        "n_selected": document_list.selected_per_document(selection.mask, corpus.offsets),
        "sources": np.array(corpus.sources(), dtype=object),
        "texts": texts,
    }
    return selection, parts


def payload(study, corpus, name, **more):
    scores = study.scores("own_loss")
    layers = {"own_loss": (scores, token_view.scale_top(scores, corpus.valid()))}
    mask = study.selection("default").mask
    return token_view.build_payload(corpus, corpus.index_of(name), layers=layers, colour="own_loss", mask=mask, **more)


def test_payload_pieces_are_the_text_and_its_marks_are_the_masks(study, corpus):
    shown = payload(study, corpus, HOSTILE_ID)
    assert "".join(shown["pieces"]) == HOSTILE_TEXT
    index = corpus.index_of(HOSTILE_ID)
    here = slice(corpus.offsets[index], corpus.offsets[index + 1])
    assert shown["selected"] == np.flatnonzero(study.selection("default").mask[here]).tolist()
    assert shown["truth"] == np.flatnonzero(corpus.in_span[here]).tolist()
    assert [shown["pieces"][i].strip() for i in shown["truth"]] == ["idiot"]
    np.testing.assert_allclose(shown["layers"]["own_loss"]["values"], study.scores("own_loss")[here], rtol=1e-3)


def test_parts_of_a_long_document_join_to_the_whole(study, corpus):
    length = len(corpus.document_tokens(corpus.index_of(LONG_ID)))
    parts = [payload(study, corpus, LONG_ID, part=p) for p in range(token_view.n_parts(length))]
    assert len(parts) == 2
    assert "".join("".join(p["pieces"]) for p in parts) == corpus.document(corpus.index_of(LONG_ID)).text
    assert [p["start"] for p in parts] == [0, token_view.TOKENS_PER_PART]
    assert "Tokens 1 to 3,000 of" in parts[0]["note"]


def test_scale_ignores_one_outlier_and_tokens_without_a_score():
    scores = np.ones(5000, dtype=np.float32)
    scores[7], scores[9] = -1000, 5000
    valid = np.ones(5000, dtype=bool)
    valid[9] = False
    assert token_view.scale_top(scores, valid) == 1.0
    assert token_view.scale_top(np.zeros(3), np.zeros(3, dtype=bool)) == 0.0


def test_filters_agree_with_plain_python(corpus, listing):
    selection, parts = listing
    wanted = DocumentFilter(sources=("forum",), only_selected=True, search="Idiot", lowest=5.0, highest=40.0)
    found = document_list.filter_documents(wanted, selection, **parts)
    expected = [
        int(i)
        for i in selection.order
        if corpus.document(int(i)).source == "forum"
        and parts["n_selected"][i] > 0
        and "idiot" in corpus.document(int(i)).text.lower()
        and 5.0 <= selection.sum_above[i] <= 40.0
    ]
    assert found.tolist() == expected
    assert expected


@given(st.lists(st.integers(0, 4), max_size=12), st.randoms())
def test_selected_tokens_are_counted_in_empty_documents_too(lengths, random):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    mask = np.array([random.random() < 0.5 for _ in range(offsets[-1])], dtype=bool)
    expected = [int(mask[a:b].sum()) for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
    assert document_list.selected_per_document(mask, offsets).tolist() == expected


def test_regular_expressions_agree_with_pythons(listing):
    _, parts = listing
    pattern = r"you (stupid|pathetic) \w+"
    found = document_list.find_text(parts["texts"], pattern, regex=True)
    assert found.tolist() == [bool(re.search(pattern, text, re.I)) for text in parts["texts"].to_pylist()]
    assert 0 < found.sum() < len(found)


def test_search_for_a_special_character_is_literal(listing):
    _, parts = listing
    assert document_list.find_text(parts["texts"], "<b>not bold</b>").sum() == 1
    with pytest.raises(InputError, match="is not a regular expression"):
        document_list.find_text(parts["texts"], "(", regex=True)


def test_excerpt_is_part_of_the_document_and_marks_selected_text(study, corpus, listing):
    selection, parts = listing
    scores = study.scores("own_loss")
    for index in selection.order[:20]:
        shown = document_list.excerpt(corpus, int(index), mask=selection.mask, scores=scores)
        line = "".join(text for text, _ in shown).removeprefix("… ").removesuffix(" …")
        assert " ".join(line.split()) in " ".join(corpus.document(int(index)).text.split())
        assert any(marked for _, marked in shown) == bool(parts["n_selected"][index])
        assert "\n" not in line


def test_word_counts_agree_with_a_slow_count(study, corpus):
    texts = [corpus.document(i).text for i in range(corpus.n_documents)]
    slow = Counter(w for text in texts for m in re.findall(r"(?:[^\W_]|['’])+", text) if (w := m.lower().strip("'’")))
    assert words.count_words(pa.chunked_array([pa.array(texts)])) == slow
    mask = study.selection("default").mask
    selected = Counter()
    for i, text in enumerate(texts):
        first = corpus.offsets[i]
        chosen = np.flatnonzero(mask[first : corpus.offsets[i + 1]]) + first
        for m in re.finditer(r"(?:[^\W_]|['’])+", text):
            if any(corpus.char_start[t] < m.end() and corpus.char_end[t] > m.start() for t in chosen):
                selected[m.group().lower().strip("'’")] += 1
    assert words.count_selected_words(corpus, mask) == selected
    ranked = words.rank_words(selected, slow)
    assert ranked[0].selected == max(selected.values())
    everything = words.rank_words(slow, slow)
    assert {round(w.lift, 9) for w in everything} == {1.0}


def test_chart_size_does_not_grow_with_the_corpus():
    drawn = charts.toxicity_chart({"base": np.random.default_rng(1).random(50_000), "default": np.zeros(9)})
    assert sum(len(trace.x) for trace in drawn.data) <= 60


def frame(toxicity):
    values = np.asarray(toxicity, dtype=float)
    return pd.DataFrame(
        [
            {
                "prompt_index": p,
                "sample_index": s,
                "prompt": f"p{p}",
                "completion": f"c{p}.{s}",
                "toxicity": values[p, s],
            }
            for p in range(values.shape[0])
            for s in range(values.shape[1])
        ]
    )


def test_prompts_are_ordered_by_the_change_of_their_highest_toxicity():
    left, right = frame([[0.9, 0.1], [0.2, 0.3], [0.5, 0.5]]), frame([[0.1, 0.2], [0.9, 0.0], [0.5, 0.1]])
    assert comparison.compare_prompts(left, right, order="largest").prompts.tolist() == [0, 1, 2]
    assert comparison.compare_prompts(left, right, order="better").prompts.tolist() == [0, 2, 1]
    assert comparison.compare_prompts(left, right, order="worse").prompts.tolist() == [1, 2, 0]
    assert comparison.compare_prompts(left, right, order="prompt").prompts.tolist() == [0, 1, 2]
    shift = comparison.compare_prompts(left, right)
    shown = comparison.pairs_payload(left, right, shift, slice(0, 1), names=("base", "default"), veil=True)
    assert shown["pairs"][0]["change"] == "highest 0.90 → 0.20"
    assert shown["pairs"][0]["sides"][0]["samples"] == [["c0.0", "0.90", True], ["c0.1", "0.10", False]]


def test_swapping_the_models_negates_the_difference():
    from ifguide.compare import compare_variants

    samples = {"base": frame([[0.9, 0.1], [0.2, 0.3], [0.5, 0.5]]), "mine": frame([[0.1, 0.2], [0.4, 0.0], [0.5, 0.1]])}
    metrics = {"emt": 0.5, "tp": 0.5, "mean_toxicity": 0.4, "perplexity": 10.0}
    there = comparison.difference_row(
        metrics, metrics | {"perplexity": 12.0}, compare_variants(samples, base="base")[0]
    )
    back = comparison.difference_row(metrics | {"perplexity": 12.0}, metrics, compare_variants(samples, base="mine")[0])
    flip = str.maketrans("+−", "−+")
    assert there["cells"][1][0].translate(flip) == back["cells"][1][0] == "+0.200"
    assert there["cells"][4] == ["+2.00", ""]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (1.234, "+1.23"), (-0.01234, "−0.012"), (250.0, "+250.0"), (12345.0, "+1.23e4"), (-0.00001, "−1.00e−5")],
)
def test_score_keeps_its_sign_and_three_digits(value, expected):
    assert format.score(value) == expected


@given(st.text(max_size=60))
def test_escaped_text_has_no_markdown_left(text):
    escaped = format.plain(text)
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]<>()#!|~:$]", escaped.replace("\\\\", ""))


def test_error_sentences_keep_commands_as_code():
    assert format.sentence("no *study*; run `ifguide demo`") == r"no \*study\*; run `ifguide demo`"
    assert format.sentence("a lone ` tick") == r"a lone \` tick"


@pytest.mark.parametrize(
    ("part", "whole", "expected"), [(1, 4, "25.0%"), (1, 1_000_000, "<0.1%"), (0, 5, "0.0%"), (1, 0, "0.0%")]
)
def test_small_shares_are_not_called_nothing(part, whole, expected):
    assert format.share(part, whole) == expected
