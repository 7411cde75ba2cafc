"""The screens' pure parts: what is listed, drawn, counted and written."""

import dataclasses
import re
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifguide.data import words
from ifguide.data.by_document import sum_by_document
from ifguide.errors import InputError
from ifguide.study.variants import BASELINES
from ifguide.ui import format, method_text
from ifguide.ui.compare import charts
from ifguide.ui.documents import lines as document_list
from ifguide.ui.excerpts import excerpt
from ifguide.ui.palette import variant_colours
from ifguide.ui.results import side_by_side
from ifguide.ui.results import tables as comparison
from ifguide.ui.threshold import selection_panel
from tests.app.fake_study import write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("ui") / "cache")


@pytest.fixture(scope="module")
def corpus(study):
    return study.corpus()


@given(st.lists(st.integers(0, 4), max_size=12), st.randoms())
def test_selected_tokens_are_counted_in_empty_documents_too(lengths, random):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    mask = np.array([random.random() < 0.5 for _ in range(offsets[-1])], dtype=bool)
    expected = [int(mask[a:b].sum()) for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
    assert sum_by_document(mask, offsets).tolist() == expected


def test_search_agrees_with_plain_python(corpus):
    texts = [corpus.document(i).text for i in range(corpus.n_documents)]
    found = document_list.find_text(corpus.batches, "Idiot")
    assert found.tolist() == [i for i, text in enumerate(texts) if "idiot" in text.lower()]
    assert found.size
    pattern = r"you (stupid|pathetic) \w+"
    found = document_list.find_text(corpus.batches, pattern, regex=True)
    assert found.tolist() == [i for i, text in enumerate(texts) if re.search(pattern, text, re.I)]
    assert 0 < found.size < len(texts)


def test_search_for_a_special_character_is_literal(corpus):
    assert document_list.find_text(corpus.batches, "<b>not bold</b>").size == 1
    with pytest.raises(InputError, match="is not a regular expression"):
        document_list.find_text(corpus.batches, "(", regex=True)


def test_excerpt_is_part_of_the_document_and_marks_selected_text(study, corpus):
    selection, scores = study.selection("default"), study.scores("own_loss")
    for index in range(corpus.n_documents):
        here = slice(int(corpus.offsets[index]), int(corpus.offsets[index + 1]))
        centre = int(np.argmax(scores[here]))
        shown = excerpt(corpus, index, centre=centre, mask=selection.mask)
        line = "".join(text for text, _ in shown).removeprefix("… ").removesuffix(" …")
        text = corpus.document(index).text
        assert "".join(line.split()) in "".join(text.split())
        pieces = corpus.document_tokens(index)
        marked = "".join(
            "".join(pieces[i].split())
            for i in range(max(0, centre - 8), min(len(pieces), centre + 22))
            if selection.mask[here][i]
        )
        assert "".join("".join(text.split()) for text, chosen in shown if chosen) == marked
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
    values = {"base": np.random.default_rng(1).random(50_000), "default": np.zeros(9)}
    drawn = charts.toxicity_chart(values, unit="completions", colours=variant_colours(values))
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


def test_a_row_of_the_prompts_holds_the_same_sample_of_every_model():
    frames = {
        "base": frame([[0.9, 0.1], [0.2, 0.3]]),
        "mine": frame([[0.1, 0.95], [0.9, 0.0]]),
        "other": frame([[0.3, 0.2], [0.1, 0.1]]),
    }
    shown = side_by_side.prompt_payload(frames, 0)
    assert [row["sample"] for row in shown["rows"]] == [1, 0]
    assert [cell["toxicity"] for cell in shown["rows"][0]["cells"]] == ["0.10", "0.95", "0.20"]
    assert [cell["high"] for cell in shown["rows"][1]["cells"]] == [True, False, False]
    assert shown["highest"] == ["0.90", "0.95", "0.30"]
    blind = side_by_side.prompt_payload(frames, 0, by_toxicity=False, ratings=False)
    assert [row["sample"] for row in blind["rows"]] == [0, 1]
    assert not any(cell["toxicity"] or cell["high"] for row in blind["rows"] for cell in row["cells"])


def test_swapping_the_models_negates_the_difference():
    from ifguide.study.analysis.comparison import compare_variants

    samples = {"base": frame([[0.9, 0.1], [0.2, 0.3], [0.5, 0.5]]), "mine": frame([[0.1, 0.2], [0.4, 0.0], [0.5, 0.1]])}
    metrics = {"emt": 0.5, "tp": 0.5, "mean_toxicity": 0.4, "perplexity": 10.0}
    both = {"base": metrics, "mine": metrics | {"perplexity": 12.0}}
    there = comparison.difference_rows(both, {"mine": compare_variants(samples, base="base")[0]})[0]
    back = comparison.difference_rows(
        dict(reversed(both.items())), {"base": compare_variants(samples, base="mine")[0]}
    )[0]
    flip = str.maketrans("+−", "−+")
    assert there["cells"][1][0].translate(flip) == back["cells"][1][0] == "+0.200"
    assert there["cells"][4] == ["+2.00", ""] and back["cells"][4] == ["−2.00", ""]


def test_models_without_a_number_or_its_interval_have_their_row():
    metrics = {"base": {"emt": 0.5, "emt_low": 0.4, "emt_high": 0.6, "n_prompts": 9}, "mine": {"emt": 0.2}, "new": {}}
    columns, rows = comparison.metric_table(metrics)
    assert [c["label"] for c in columns] == ["Model", "Worst-case toxicity (EMT)"]
    assert [row["cells"][1] for row in rows] == [["0.500", "0.400 – 0.600"], ["0.200", ""], ["–", ""]]
    assert [row["cells"][1] for row in comparison.difference_rows(metrics, {})] == [["−0.300", ""], ["–", ""]]


def test_headline_says_what_is_clear_and_what_may_be_chance():
    from ifguide.study.analysis.comparison import compare_variants

    samples = {"base": frame([[0.9, 0.1]] * 9 + [[0.1, 0.1]]), "mine": frame([[0.1, 0.2]] * 10)}
    metrics = {"base": {"tp": 0.9, "perplexity": 10.0}, "mine": {"tp": 0.0}, "random": {"tp": 0.875}}
    found = compare_variants(samples, base="base")[0]
    assert comparison.headline(metrics, "mine", found) == [
        "Toxic answers fell from 90% to 0% of prompts.",
        "Random tokens, same amount: 87.5%.",
    ]
    back = comparison.headline({"mine": metrics["mine"], "base": metrics["base"]}, "base", None)
    assert back == ["Toxic answers rose from 0% to 90% of prompts."]
    unclear = dataclasses.replace(found, tp=found.tp._replace(low=-0.1), perplexity=found.tp)
    assert "may be chance" in comparison.headline(metrics, "mine", unclear)[0]
    assert "Fluency: better" in comparison.headline(metrics, "mine", unclear)[1]
    unclear = dataclasses.replace(unclear, perplexity=unclear.tp)
    assert "Fluency: no clear change" in comparison.headline(metrics, "mine", unclear)[1]


def test_groups_and_harness_tasks_become_tables_where_they_are():
    assert comparison.group_table({"base": {"emt": 1}}) is None and comparison.harness_table({"base": {}}) is None
    metrics = {
        "base": {
            "groups": {"trade": {"n_prompts": 3, "emt": 0.5, "emt_low": 0.4, "emt_high": 0.6}},
            "harness": {"sums": {"acc": 0.5, "acc_stderr": 0.1, "n_samples": 20, "alias": "x"}},
        },
        "mine": {
            "groups": {"trade": {"n_prompts": 3, "emt": 0.25}, "other": {"n_prompts": 1, "emt": 0.1}},
            "harness": None,
        },
    }
    columns, rows = comparison.group_table(metrics)
    assert [c["label"] for c in columns] == ["Group", "Base model", "mine"]
    assert [row["cells"] for row in rows] == [
        [["trade", "3 prompts", ""], ["0.500", "0.400 – 0.600"], ["0.250", ""]],
        [["other", "1 prompt", ""], ["–", ""], ["0.100", ""]],
    ]
    columns, rows = comparison.harness_table(metrics)
    assert [row["cells"] for row in rows] == [[["sums", "acc on 20 examples", ""], ["0.500", "± 0.100"], ["–", ""]]]


def test_models_beside_each_other_have_different_colours():
    names = ["base", "default", "random", "oracle", "words", "classifier", "position", "masked", "mine"]
    assert len(set(variant_colours(names).values())) == len(names)
    assert variant_colours(names)["words"] == variant_colours(["base", "words"])["words"]


def test_numbers_keep_their_sign_and_small_shares_are_not_called_nothing():
    scores = {0: "0", 1.234: "+1.23", -0.01234: "−0.012", 250.0: "+250.0", 12345.0: "+1.23e4", -0.00001: "−1.00e−5"}
    assert {value: format.score(value) for value in scores} == scores
    shares = {(1, 4): "25.0%", (1, 1_000_000): "<0.1%", (0, 5): "0.0%", (1, 0): "0.0%"}
    assert {pair: format.share(*pair) for pair in shares} == shares
    assert [format.per_cent(value) for value in (0.88, 0.8793, 1.0, 0.0, 1e-5)] == [
        "88%",
        "87.9%",
        "100%",
        "0%",
        "<0.1%",
    ]


@given(st.text(max_size=60))
def test_escaped_text_has_no_markdown_left(text):
    escaped = format.plain(text)
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]<>()#!|~:$]", escaped.replace("\\\\", ""))


def test_signs_that_turn_the_writing_are_spelt_out():
    assert format.plain("a\u202eb\u2069c\x1b[0m") == r"a‹U\+202E›b‹U\+2069›c‹U\+001B›\[0m"


def test_error_sentences_keep_commands_as_code():
    assert format.sentence("no *study*; run `ifguide demo`") == r"no \*study\*; run `ifguide demo`"
    assert format.sentence("a lone ` tick") == r"a lone \` tick"
    assert format.sentence("a text's `own` ticks") == r"a text's \`own\` ticks"


def test_bare_addresses_and_emoji_names_are_broken_by_an_invisible_character():
    """GFM finds links, and Streamlit emoji, in text whose every character is escaped."""
    for text in ("http://a.bc/d", "HTTPS://a.bc", "www.a.bc", "WWW.a.bc", "a@b.cd", "_a@b-c.d", "x :smile: :+1: :a:b:"):
        shown = re.sub(r"\\(.)", r"\1", format.plain(text))
        assert shown.replace("\u2060", "") == text
        assert not re.search(r"https?://|www\.|\w@\w|:[\w+-]+:", shown, re.IGNORECASE), text
    assert "\u2060" not in format.plain("12:30 C:/x a:b 5 @ 6")


def test_every_page_is_explained_by_the_method():
    for title, sections in method_text.SECTIONS.items():
        text = method_text.explain_page(title)
        places = [text.index(f"**{name}**") for name in ("The words", *sections)]
        assert places == sorted(places) and not places[0], title
        plain = text[: places[1]]
        assert "**score**" in plain and not re.search("[λḡ∇=⁻]", plain)  # the formulas come after the words
        assert len(text) > 300 and "](" not in text, title


def test_a_text_is_cut_where_its_toxic_spans_begin_and_end():
    runs = side_by_side.cut_runs(" you old fool, really", [(0, 4), (5, 13), (13, 14)])
    assert runs == [[" you", "0-4"], [" ", ""], ["old fool", "5-13"], [",", "13-14"], [" really", ""]]
    assert side_by_side.cut_runs("", []) == [] and side_by_side.cut_runs(" a", []) == [[" a", ""]]


def test_toxic_words_are_marked_where_they_are_and_known():
    frames = {"base": frame([[0.9, 0.1]]), "mine": frame([[0.1, 0.95]])}
    frames["base"]["toxic_spans"] = [np.array([0, 2], dtype=np.int32), np.zeros(0, dtype=np.int32)]
    rows = side_by_side.prompt_payload(frames, 0, by_toxicity=False, ratings=False)["rows"]
    cells = [cell for row in rows for cell in row["cells"]]
    assert [cell["runs"] for cell in cells[:2]] == [[["c0", "0-2"], [".0", ""]], [["c0.0", ""]]]
    assert [cell["whole"] for cell in cells] == [False, False, False, True]
    found = [side_by_side.offensive_spans(row) for name in frames for _, row in frames[name].iterrows()]
    assert found == [[(0, 2)], [], [], [(0, 4)]]


def test_a_change_inside_its_interval_says_so():
    from ifguide.study.analysis.comparison import compare_variants

    samples = {"base": frame([[0.9, 0.1]] * 9), "mine": frame([[0.1, 0.1]] * 9)}
    metrics = {name: {"emt": float(s["toxicity"].max()), "tp": 0.5} for name, s in samples.items()}
    found = compare_variants(samples, base="base")[0]
    cells = comparison.difference_rows(metrics, {"mine": dataclasses.replace(found, tp=found.tp._replace(low=-1.0))})
    assert cells[0]["cells"][1:] == [["−0.800", "−0.800 – −0.800"], ["−100 pp", "−100 pp – +100 pp", "no clear change"]]


def test_a_selection_without_a_threshold_is_described_by_what_made_it():
    kinds = ("oracle", "borrowed", *BASELINES)
    lines = [selection_panel.settings_line({"kind": kind, "tokens_above": None}) for kind in kinds]
    assert len(set(lines)) == len(kinds)
    assert [line for line in lines if "people marked" in line] == [lines[0]]
    assert all(line[0].isupper() for line in lines)
