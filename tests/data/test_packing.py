"""Identities of the training rows, over random corpora."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.data.packing import IGNORED, DroppedRows, pack_rows
from ifguide.errors import ConfigError
from tests.naming import naming

EOS = 999


@st.composite
def corpora(draw):
    lengths = draw(st.lists(st.integers(0, 13), max_size=8))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    token_ids = np.arange(100, 100 + offsets[-1], dtype=np.int32)  # all different, so a mix-up shows
    selected = np.array(draw(st.lists(st.booleans(), min_size=len(token_ids), max_size=len(token_ids))), dtype=bool)
    return token_ids, offsets, selected, draw(st.integers(2, 9))


def predicted_tokens(offsets):
    """Every corpus token but the first of each document."""
    return [t for first, last in zip(offsets, offsets[1:], strict=False) for t in range(first + 1, last)]


@settings(max_examples=150)
@given(corpora(), st.booleans())
def test_each_token_after_the_first_is_a_label_exactly_once(corpus, pack):
    token_ids, offsets, selected, max_length = corpus
    rows = pack_rows(token_ids, offsets, max_length, EOS, selected, pack)
    labelled, ends = [], 0
    for row in rows:
        learned = row.labels != IGNORED
        assert np.array_equal(row.labels[learned], row.input_ids[learned])
        labelled += row.token_index[learned & (row.token_index >= 0)].tolist()
        ends += int((learned & (row.token_index < 0)).sum())
        assert np.all(row.input_ids[learned & (row.token_index < 0)] == EOS)
    assert sorted(labelled) == predicted_tokens(offsets)
    assert ends == int((np.diff(offsets) > 0).sum())


@settings(max_examples=150)
@given(corpora(), st.booleans())
def test_indexes_map_back_to_tokens_and_selection(corpus, pack):
    token_ids, offsets, selected, max_length = corpus
    rows = pack_rows(token_ids, offsets, max_length, EOS, selected, pack)
    flagged = []
    for row in rows:
        inside = row.token_index >= 0
        assert np.array_equal(token_ids[row.token_index[inside]], row.input_ids[inside])
        assert np.all(row.input_ids[~inside] == EOS)
        assert not row.selected[(row.labels == IGNORED) | ~inside].any()
        flagged += row.token_index[row.selected].tolist()
    assert sorted(flagged) == [t for t in predicted_tokens(offsets) if selected[t]]


@settings(max_examples=150)
@given(corpora(), st.booleans())
def test_documents_never_touch_without_an_end_of_text(corpus, pack):
    token_ids, offsets, selected, max_length = corpus
    for row in pack_rows(token_ids, offsets, max_length, EOS, selected, pack):
        documents = row.document_index[row.document_index >= 0]
        assert np.all(row.document_index[len(documents) :] == -1)  # padding comes last
        if not pack:
            assert len(set(documents)) == 1
        for j in range(1, len(documents)):
            if row.document_index[j] != row.document_index[j - 1]:
                assert row.token_index[j - 1] == -1  # the document before ended
                assert row.labels[j] == IGNORED
                assert row.position_ids[j] == 0
                assert row.token_index[j] == offsets[row.document_index[j]]
            else:
                assert row.position_ids[j] == row.position_ids[j - 1] + 1
        owners = np.searchsorted(offsets, row.token_index, side="right") - 1
        inside = row.token_index >= 0
        assert np.array_equal(owners[inside], row.document_index[inside])


@settings(max_examples=60)
@given(corpora())
def test_a_packed_row_wastes_at_most_one_place(corpus):
    token_ids, offsets, selected, max_length = corpus
    rows = list(pack_rows(token_ids, offsets, max_length, EOS, selected, pack=True))
    for row in rows[:-1]:
        assert (row.document_index == -1).sum() <= 1


def test_a_long_document_repeats_one_token_as_context():
    rows = pack_rows(np.arange(5), np.array([0, 5]), 4, EOS, pack=False)
    assert [row.token_index.tolist() for row in rows] == [[0, 1, 2, 3], [3, 4, -1, -1]]
    assert [row.labels.tolist() for row in rows] == [[-100, 1, 2, 3], [-100, 4, EOS, -100]]
    assert [row.position_ids.tolist() for row in rows] == [[0, 1, 2, 3], [0, 1, 2, 0]]


def test_rows_are_counted_from_either_end():
    rows = pack_rows(np.arange(20), np.array([0, 7, 8, 20]), 6, EOS, np.arange(20) % 3 == 0)
    for name, values in vars(rows[-1]).items():
        assert np.array_equal(getattr(rows[len(rows) - 1], name), values)
    with pytest.raises(IndexError, match="expected a row number below"):
        rows[len(rows)]


def test_without_an_end_of_text_rows_hold_the_tokens_alone():
    rows = pack_rows(np.arange(5), np.array([0, 5]), 8, None, pack=False)
    assert rows[0].labels.tolist() == [-100, 1, 2, 3, 4, -100, -100, -100]
    with pytest.raises(ConfigError, match="end-of-text"):
        pack_rows(np.arange(5), np.array([0, 5]), 8, None, pack=True)


def test_impossible_settings_are_named():
    with pytest.raises(ConfigError, match="max_length 1"):
        pack_rows(np.arange(5), np.array([0, 5]), 1, EOS)
    with pytest.raises(ConfigError, match=r"mask of shape \(5,\)"):
        pack_rows(np.arange(5), np.array([0, 5]), 4, EOS, np.zeros(4, dtype=bool))


def test_bos_stands_before_documents_only_and_is_never_learned():
    from ifguide.data.packing import BosRows
    from ifguide.training.rows import trim_row

    token_ids, offsets = np.arange(10, 19, dtype=np.int32), np.array([0, 3, 3, 9])
    selected = np.arange(9) % 2 == 0
    plain = pack_rows(token_ids, offsets, 4, 0, selected, pack=False)
    rows = BosRows(plain, 7)
    assert len(rows) == len(plain)
    for row, before in zip(rows, plain, strict=True):
        begins = before.token_index[0] in (0, 3)
        skip = int(begins)
        assert (row.input_ids[0] == 7) == begins
        assert row.labels[0] == IGNORED and not row.selected[0]
        for name in ("input_ids", "labels", "token_index", "selected", "document_index"):
            np.testing.assert_array_equal(getattr(row, name)[skip:], getattr(before, name))
        assert trim_row(row)["position_ids"].tolist() == list(range(len(trim_row(row)["input_ids"])))


def test_dropped_documents_lose_their_labels_and_nothing_else_moves():
    for pack in [True, False]:
        with naming(pack):
            lengths = np.array([5, 1, 9, 4, 3])
            offsets = np.concatenate([[0], np.cumsum(lengths)])
            rows = pack_rows(np.arange(offsets[-1]), offsets, 8, 99, np.ones(offsets[-1], dtype=bool), pack=pack)
            dropped = np.array([False, False, True, False, True])
            kept = DroppedRows(rows, dropped)
            assert len(kept) == len(rows)
            for before, after in zip(rows, kept, strict=True):
                gone = np.isin(before.document_index, np.flatnonzero(dropped))
                np.testing.assert_array_equal(after.input_ids, before.input_ids)
                np.testing.assert_array_equal(after.labels[~gone], before.labels[~gone])
                assert (after.labels[gone] == IGNORED).all() and not after.selected.any()
            assert any((row.labels != IGNORED).any() for row in kept)
