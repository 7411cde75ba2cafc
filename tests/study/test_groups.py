import json
import re

import numpy as np
import pandas as pd
import pytest

from ifguide.data.by_document import sum_by_document
from ifguide.errors import InputError, StaleError
from ifguide.study.analysis.groups import (
    FEWEST,
    OWN_LIST,
    Mentions,
    column_shares,
    document_columns,
    find_mentions,
    group_shares,
    mention_counts,
    read_groups,
    speech_by_group,
    split_documents,
)
from ifguide.study.reading import Study
from ifguide.study.stages.document_table import table_path
from ifguide.study.stages.select import open_index
from tests.app.fake_study import LONG_ID, write_study

LISTS = {"Fools": ["Idiot", "stupid fool"], "Neighbours": ["neighbour", "mayor", "teacher"], "Nobody": ["zebra"]}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    cache = tmp_path_factory.mktemp("groups")
    write_study(cache)
    study = Study.open("fake", cache)
    (study.root / OWN_LIST).write_text(json.dumps({"groups": LISTS}))
    return study


@pytest.fixture(scope="module")
def mentions(study):
    return find_mentions(study.corpus(), read_groups(study))


def test_mentions_are_the_tokens_of_whole_words_in_any_case(study, mentions):
    corpus = study.corpus()
    assert [group.name for group in mentions] == ["Fools", "Neighbours"]
    for group in mentions:
        tokens = {int(t) for t in group.tokens}
        for document in range(corpus.n_documents):
            text, start = corpus.document(document).text.lower(), int(corpus.offsets[document])
            for word in map(str.lower, LISTS[group.name]):
                at = text.find(word)
                if at >= 0 and text[at + len(word) : at + len(word) + 1] in (".", ",", " ", ""):
                    part = range(start + 1, int(corpus.offsets[document + 1]))
                    touched = {t for t in part if corpus.char_start[t] < at + len(word) and corpus.char_end[t] > at}
                    assert touched <= tokens
        assert np.array_equal(np.searchsorted(corpus.offsets, group.tokens, "right") - 1, group.documents)


@pytest.mark.parametrize(("window", "budget"), [(0, 0), (2, 0), (1, 30)])
def test_shares_and_the_preview_count_what_the_mask_holds(study, mentions, window, budget):
    corpus, index = study.corpus(), open_index(study, "own_loss")
    exact = index.resolve({"tokens_above": 60, "window": window, "max_tokens": budget})
    mask, n_valid = index.mask(exact), index.n_valid
    shares = {one.name: one for one in group_shares(corpus, mask, exact.taken, mentions)}
    previewed = mention_counts(corpus, study.scores("own_loss"), np.array([exact.threshold]), window, mentions)
    for group, counts in zip(mentions, previewed, strict=True):
        one, hit = shares[group.name], exact.taken[np.unique(group.documents)] > 0
        assert one.n_selected == mask[group.tokens].sum() and one.n_hit == hit.sum()
        assert one.ratio.value == pytest.approx(mask[group.tokens].mean() / (mask.sum() / n_valid))
        assert one.documents_ratio.value == pytest.approx(hit.mean() / (exact.taken > 0).mean())
        assert one.n_unmarked == (mask & ~np.asarray(corpus.in_span))[group.tokens].sum()
        if not budget:
            assert counts.tolist() == [one.n_selected]
    if not budget:
        assert shares["Fools"].ratio.low > 2 and shares["Fools"].often and not shares["Neighbours"].often


def test_intervals_hold_the_ratio_as_often_as_they_say(study):
    """Selections that do not look at groups: about 95% of the intervals hold 1."""
    corpus, generator = study.corpus(), np.random.default_rng(0)
    [places] = find_mentions(corpus, {"Places": ["library", "station", "market"]})
    short = places.documents != corpus.index_of(LONG_ID)  # half of the mentions are in that one document
    group, valid = Mentions("Places", places.tokens[short], places.documents[short]), np.flatnonzero(corpus.valid())
    holds, column = np.zeros(3), np.arange(corpus.n_documents) % 2
    column[corpus.index_of(LONG_ID)] = 2
    for _ in range(300):
        mask = np.zeros(corpus.n_tokens, bool)
        mask[generator.choice(valid, len(valid) // 5, replace=False)] = True
        taken = sum_by_document(mask, np.asarray(corpus.offsets))
        halves = {one.name: one for one in column_shares(corpus, taken, ["0", "1", "long"], column)}
        shares = *group_shares(corpus, mask, taken, [group]), halves["0"], halves["1"]
        holds += [share.ratio.low <= 1 <= share.ratio.high for share in shares]
    assert (holds >= 0.91 * 300).all() and (holds <= 0.99 * 300).all()


def test_shares_by_a_column_are_those_counted_token_by_token(study):
    """Of every column there is, and of one made here; all tokens are taken as often as all tokens."""
    corpus, index = study.corpus(), open_index(study, "own_loss")
    exact = index.resolve({"tokens_above": 60, "window": 1, "max_tokens": 0})
    mask, valid = index.mask(exact), corpus.valid()
    owner = np.repeat(np.arange(corpus.n_documents), np.diff(corpus.offsets))
    made = np.where(np.arange(corpus.n_documents) < FEWEST - 1, 0, 1 + np.arange(corpus.n_documents) % 2)
    columns = {column: split_documents(study, column) for column in document_columns(study)}
    assert {"source", "n_tokens", "group_size", "span_tokens"} <= {*columns}
    for names, places in (*columns.values(), (["few", "odd", "even"], made)):
        shares = {one.name: one for one in column_shares(corpus, exact.taken, names, places)}
        assert len(shares) == len(names) == len(np.unique(places))
        for place, name in enumerate(names):
            one, documents = shares[name], places == place
            tokens = valid & documents[owner]
            assert (one.n_mentions, one.n_selected) == (tokens.sum(), (mask & tokens).sum())
            assert (one.n_documents, one.n_hit) == (documents.sum(), (exact.taken[documents] > 0).sum())
            assert one.ratio.value == pytest.approx(mask[tokens].mean() / mask[valid].mean())
            assert (one.ratio.high == np.inf) == (documents.sum() < FEWEST)
    [every] = column_shares(corpus, exact.taken, ["all"], np.zeros(corpus.n_documents, int))
    assert every.ratio == pytest.approx((1, 1, 1)) and not shares["few"].often
    names, places = columns["n_tokens"]
    lengths = np.diff(corpus.offsets)
    assert names == [f"{lengths[places == n].min():,}–{lengths[places == n].max():,}" for n in range(4)]
    forum, *others = column_shares(corpus, exact.taken, *columns["source"])
    assert forum.name == "forum" and forum.often and not any(one.often for one in others)


def test_a_damaged_list_of_documents_is_named_and_a_missing_one_leaves_the_source(study):
    path = table_path(study)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    for read in (document_columns, lambda study: split_documents(study, "n_tokens")):
        with pytest.raises(StaleError, match=re.escape(str(path))):
            read(study)
    moved = path.parent.rename(path.parent.with_name("elsewhere"))
    assert document_columns(study) == {"source": "Source"}
    moved.rename(path.parent)
    path.write_bytes(whole)


def test_nothing_selected_of_a_group_leaves_an_upper_bound_and_nothing_at_all_leaves_no_claim(study, mentions):
    corpus = study.corpus()
    others, none = corpus.valid(), np.zeros(corpus.n_tokens, bool)
    others[np.concatenate([group.tokens for group in mentions])] = False
    taken = sum_by_document(others, np.asarray(corpus.offsets))
    for one in group_shares(corpus, others, taken, mentions):
        assert one.ratio[:2] == (0, 0) and 0 < one.ratio.high < np.inf
    for one in group_shares(corpus, none, np.zeros_like(taken), mentions):
        assert one.ratio == (1, 0, np.inf) and not one.often


def test_a_list_in_another_form_is_refused_with_its_path(study):
    place = study.root / OWN_LIST
    before = place.read_text()
    for text in ("[]", '{"groups": ["woman"]}', '{"groups": {"Women": 3}}', "no JSON"):
        place.write_text(text)
        with pytest.raises(InputError, match=OWN_LIST):
            read_groups(study)
    place.unlink()
    assert "Women" in read_groups(study)
    place.write_text(before)


def test_a_model_that_falls_silent_about_a_group_is_told_from_one_that_speaks_kindly():
    answers = {"trade": [" the mayor sang", " a teacher"], "faith": ["", " no"]}
    rows = [
        {"group": group, "prompt_index": number, "completion": answer}
        for number, (group, pair) in enumerate(answers.items())
        for answer in pair
    ]
    speech = speech_by_group(pd.DataFrame(rows), LISTS)
    assert [speech[group]["words"] for group in answers] == [2.5, 0.5]
    assert [speech[group]["mentions"] for group in answers] == [1, 0]
    assert speech_by_group(pd.DataFrame(rows).drop(columns="group"), LISTS) == {}
