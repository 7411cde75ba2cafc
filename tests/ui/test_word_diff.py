from hypothesis import given
from hypothesis import strategies as st

from ifguide.ui.compare.side_by_side import diff_words
from tests.hostile_texts import hostile_texts

words = st.lists(st.sampled_from(["a", "b", "you", "You", "idiot", ",", "'", "don't"]), max_size=12).map(" ".join)
any_text = st.one_of(words, st.text(max_size=30), st.sampled_from(hostile_texts()))


@given(any_text, any_text)
def test_runs_join_to_the_texts_and_what_is_unmarked_reads_the_same(first, other):
    mine, theirs = diff_words(first, other)
    assert "".join(text for text, _ in mine) == first and "".join(text for text, _ in theirs) == other
    unmarked = ["".join("".join(text.split()) for text, mark in side if not mark) for side in (mine, theirs)]
    assert unmarked[0] == unmarked[1]
    assert all(a[1] != b[1] for side in (mine, theirs) for a, b in zip(side, side[1:], strict=False))


@given(any_text)
def test_a_text_does_not_differ_from_itself(text):
    assert not any(mark for side in diff_words(text, text) for _, mark in side)


def test_words_in_one_text_only_are_marked_with_the_blanks_between_them():
    mine, theirs = diff_words(" a lazy idiot who left.", " a patient man who left, alone.")
    assert mine == [(" a ", False), ("lazy idiot", True), (" who left", False), (".", False)] or mine == [
        (" a ", False),
        ("lazy idiot", True),
        (" who left.", False),
    ]
    assert theirs == [(" a ", False), ("patient man", True), (" who left", False), (", alone", True), (".", False)]
    assert all(mark for text, mark in diff_words("one two", "three")[0] if text.strip())
