"""What goes to the token viewer: faithful text, the numbers of the study, colours that everybody can tell apart."""

import itertools

import colour
import numpy as np
import pandas as pd
import pytest

from ifguide.selection.algorithm import rank_at_quantile
from ifguide.study.stages.document_table import scale_middle, scale_top
from ifguide.study.stages.select import open_index, preview_selection
from ifguide.ui.documents import lines as document_list
from ifguide.ui.documents.token_view import HIDDEN, HIT, MATCH, SELECTED, TRUTH, Layer, mark_table, token_table
from ifguide.ui.excerpts import excerpt
from ifguide.ui.palette import LIKELIHOOD_BINS, TOKEN_BINS
from ifguide.ui.veil import hide_words, marked_words
from tests.app.fake_study import HOSTILE_ID, HOSTILE_TEXT, LONG_ID, write_study
from tests.data.test_corpus import build
from tests.hostile_texts import hostile_texts


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("view") / "cache")


@pytest.fixture(scope="module")
def corpus(study):
    return study.corpus()


def test_texts_are_the_documents_and_numbers_the_studys(study, corpus):
    documents = [corpus.index_of(HOSTILE_ID), corpus.index_of(LONG_ID), 3]
    own, index_of_scores = study.scores("own_loss"), open_index(study)
    valid = np.asarray(own)[corpus.valid()]
    floor = np.sort(valid)[-1 - rank_at_quantile(len(valid), 0.9)]
    layers = [Layer("own_loss", own, 3.0), Layer("token_loss", study.scores("token_loss"), 9.0)]
    table = token_table(corpus, documents, layers, rank=index_of_scores.ranks, ranked=own)
    assert table.column_names == ["text", "raw", "own_loss", "token_loss", "rank"]
    at = 0
    for index in documents:
        here = slice(int(corpus.offsets[index]), int(corpus.offsets[index + 1]))
        part = table.slice(at, here.stop - here.start)
        at += len(part)
        assert "".join(part["text"].to_pylist()) == corpus.document(index).text
        np.testing.assert_array_equal(part["own_loss"], own[here])
        ranks = part["rank"].to_numpy()
        assert ranks[0] == 0
        assert ranks[1:].tolist() == [1 + int((valid > v).sum()) if v > floor else 0 for v in own[here][1:]]
    assert at == len(table)
    assert "".join(table["text"].to_pylist()[: int(np.diff(corpus.offsets)[documents[0]])]) == HOSTILE_TEXT


def test_marks_are_the_mask_the_hits_and_the_human_spans(study, corpus):
    chosen, own = study.selection("default"), study.scores("own_loss")
    index = corpus.index_of(HOSTILE_ID)
    here = slice(int(corpus.offsets[index]), int(corpus.offsets[index + 1]))
    wide = preview_selection(study, {"window": 2, "quantile": 0.98})
    marks = mark_table(corpus, [index], mask=wide.mask, scores=own, threshold=chosen.settings["threshold"])[
        "marks"
    ].to_numpy()
    np.testing.assert_array_equal(marks & SELECTED > 0, wide.mask[here])
    np.testing.assert_array_equal(marks & TRUTH > 0, corpus.in_span[here])
    hits = (own[here] > chosen.settings["threshold"]) & (np.arange(here.stop - here.start) > 0)
    np.testing.assert_array_equal(marks & HIT > 0, hits)
    assert ((marks & SELECTED > 0) & ~hits).any()  # the window's halo
    bare = mark_table(corpus, [index], mask=wide.mask, scores=None, threshold=None)["marks"].to_numpy()
    np.testing.assert_array_equal(bare & HIT > 0, wide.mask[here])


def test_hidden_are_whole_words_and_the_classifiers(study, corpus):
    pieces = ["You", " stu", "pid", ",", " (don", "key", ")", " Moron", "s", " moron", " end"]
    marked = np.array([piece in (" stu", "key") for piece in pieces])
    hidden = hide_words("".join(pieces), np.cumsum(list(map(len, pieces))), marked, frozenset({"moron"}))
    shown = [piece for piece, hide in zip(pieces, hidden, strict=True) if not hide]
    assert shown == ["You", ",", ")", " Moron", "s", " end"]
    samples = pd.DataFrame({"completion": ["You moron", "moron fox!", "a fox"], "toxic_spans": [[4, 9], [0, 9], []]})
    assert marked_words(samples) == {"moron"} and marked_words(samples[["completion"]]) == set()
    index, chosen = corpus.index_of(HOSTILE_ID), study.selection("default")
    marks = mark_table(corpus, [index], mask=chosen.mask, scores=None, threshold=None, words=frozenset())["marks"]
    shown = marks.to_numpy()
    assert (shown[(shown & (SELECTED | TRUTH)) > 0] & HIDDEN).all() and not (shown & HIDDEN).all()
    usual, veiled = (excerpt(corpus, index, centre=5, mask=chosen.mask, words=words) for words in (None, frozenset()))
    assert "".join(run[0] for run in usual) == "".join(run[0] for run in veiled)
    assert all(hide for _, selected, hide in veiled if selected)


def test_matches_are_where_the_search_found_them(study, corpus):
    texts = ["Fox, FOX. Ä\x01fox\n", "none", "a.c abc"]
    found = document_list.find_matches(texts, "fox", regex=False)
    assert [texts[0][a:b] for a, b in found[0]] == ["Fox", "FOX", "fox"] and not len(found[1]) and not len(found[2])
    assert document_list.find_matches(texts[2:], "a.c", regex=False)[0].tolist() == [[0, 3]]
    assert document_list.find_matches(texts[2:], r"a.c\b", regex=True)[0].tolist() == [[0, 3], [4, 7]]
    index = corpus.index_of(LONG_ID)
    places = document_list.find_matches([corpus.document(index).text], "part", regex=False)
    mask = study.selection().mask
    marks = mark_table(corpus, [index], mask=mask, scores=None, threshold=None, matches=places)["marks"].to_numpy()
    tokens = np.array(corpus.document_tokens(index), dtype=object)[marks & MATCH > 0]
    assert len(tokens) == len(places[0]) == 320 and {token.strip() for token in tokens} == {"Part"}


def test_a_document_of_a_thousand_tokens_stays_under_the_wire_bar(study, corpus):
    import pyarrow as pa

    layers = [Layer(kind, study.scores(kind), 1.0) for kind in ("own_loss", "position", "token_loss")]
    own = study.scores("own_loss")
    table = token_table(corpus, [corpus.index_of(LONG_ID)], layers, rank=open_index(study).ranks, ranked=own)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    assert sink.getvalue().size / len(table) * 1000 < 60_000


def test_scale_ignores_one_outlier_and_tokens_without_a_score():
    scores = np.ones(5000, dtype=np.float32)
    scores[7], scores[9] = -1000, 5000
    assert scale_top(scores, np.array([0, 9, 5000])) == 1.0  # token 9 begins a document
    assert scale_top(np.zeros(1, dtype=np.float32), np.array([0, 1])) == 0.0
    half = np.concatenate([np.full(1000, 2.0), np.full(9, 8.0)]).astype(np.float32)
    assert scale_top(half, np.array([0, 1009])) == 8.0


@pytest.mark.parametrize("kind", ["byte_bpe", "llama_style"])
def test_five_hundred_hostile_texts_come_back_as_they_were(tmp_path, kind):
    texts = hostile_texts()
    assert len(set(texts)) >= 500
    corpus = build(tmp_path, [{"text": text} for text in texts], kind, skip_empty=False)
    zeros = np.zeros(corpus.n_tokens, dtype=np.float32)
    shared = 0
    for index, text in enumerate(texts):
        table = token_table(corpus, [index], [Layer("own_loss", zeros, 1.0)])
        pieces, raw = table["text"].to_pylist(), table["raw"].to_pylist()
        assert "".join(pieces) == text
        assert len(pieces) == corpus.offsets[index + 1] - corpus.offsets[index]
        assert all(name is not None for piece, name in zip(pieces, raw, strict=True) if piece == "")
        shared += sum(piece == "" for piece in pieces)
    assert shared > 500  # bytes of one character, one token each


# ---- colours ----

_DEFICIENCIES = ("Deuteranomaly", "Protanomaly")
PALETTES = [TOKEN_BINS, LIKELIHOOD_BINS]


def linear(code: str) -> np.ndarray:
    return colour.models.eotf_sRGB(colour.notation.HEX_to_RGB(code))


def lab(code: str, deficiency: str) -> np.ndarray:
    """CIE Lab of a colour as people with a full deficiency see it (Machado et al. 2009)."""
    seen = np.clip(colour.blindness.matrix_cvd_Machado2009(deficiency, 1.0) @ linear(code), 0, 1)
    white = colour.CCS_ILLUMINANTS["CIE 1931 2 Degree Standard Observer"]["D65"]
    return colour.XYZ_to_Lab(colour.RGB_to_XYZ(seen, "sRGB", apply_cctf_decoding=False), white)


@pytest.mark.parametrize("palette", PALETTES)
def test_neighbouring_colours_can_be_told_apart(palette):
    for case in itertools.product(palette, ("signed", "loss"), _DEFICIENCIES):
        scheme, scale, deficiency = case
        seen = [lab(code, deficiency) for code in palette[scheme][scale]]
        gaps = [float(colour.delta_E(a, b, method="CIE 2000")) for a, b in itertools.pairwise(seen)]
        assert min(gaps) >= 10, (case, np.round(gaps, 1))


@pytest.mark.parametrize("palette", PALETTES)
def test_text_can_be_read_on_every_colour(palette):
    def luminance(code):
        return linear(code) @ [0.2126, 0.7152, 0.0722]

    for scheme, scale in itertools.product(palette, ("signed", "loss")):
        ink = luminance(palette[scheme]["ink"])
        for code in palette[scheme][scale]:
            low, high = sorted((luminance(code), ink))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (scheme, code)


def test_the_middle_of_the_scale_is_the_pages_own_ground():
    import tomllib

    from tests.browser.running_app import REPOSITORY

    theme = tomllib.loads((REPOSITORY / ".streamlit" / "config.toml").read_text())["theme"]
    for scheme, bins in [*TOKEN_BINS.items(), *LIKELIHOOD_BINS.items()]:
        assert bins["signed"][3] == bins["loss"][0] == theme[scheme]["backgroundColor"]


def test_half_of_the_tokens_have_scores_below_the_middle_of_the_colours():
    scores = np.concatenate([[0.0], np.linspace(-4, -1, 99), np.full(101, 6.0)]).astype(np.float32)[:101]
    middle = scale_middle(scores, np.array([0, 101]))
    assert abs(np.mean(scores[1:] < middle) - 0.5) < 0.02 and middle < 0
    layer = Layer("probe", scores, scale_top(scores, np.array([0, 101])), middle)
    assert layer.as_json()["middle"] == middle
    assert scale_middle(np.zeros(1, dtype=np.float32), np.array([0, 1])) == 0.0
