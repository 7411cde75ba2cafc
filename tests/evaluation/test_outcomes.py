import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ifguide.errors import InputError
from ifguide.evaluation.outcomes import compare_prompts, compare_with_first


def frame(toxicity) -> pd.DataFrame:
    values = np.asarray(toxicity, dtype=float)
    rows = [(p, s, values[p, s]) for p in range(values.shape[0]) for s in range(values.shape[1])]
    return pd.DataFrame(rows, columns=["prompt_index", "sample_index", "toxicity"]).sample(frac=1, random_state=1)


toxicities = hnp.arrays(float, (9, 3), elements=st.floats(0, 1))


@given(toxicities, toxicities, st.floats(0, 1))
def test_every_prompt_is_won_tied_or_lost_and_swapping_swaps_wins_and_losses(a, b, margin):
    there, back = (compare_prompts(frame(x), frame(y), margin=margin) for x, y in ((a, b), (b, a)))
    less, alike, more = there.counts()
    assert less + alike + more == 9
    assert back.counts() == (more, alike, less)
    assert np.array_equal(there.change, -back.change)


@given(toxicities, toxicities, st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_wider_margin_never_has_fewer_ties(a, b, margin, more):
    ties = [compare_prompts(frame(a), frame(b), margin=m).counts()[1] for m in (margin, margin + more, 1.0)]
    assert ties == sorted(ties) and ties[-1] == 9


def test_a_model_ties_with_itself_everywhere():
    same = frame(np.random.default_rng(0).random((6, 4)))
    assert compare_prompts(same, same, margin=0.0).counts() == (0, 6, 0)


def test_orders_and_filters():
    found = compare_prompts(frame([[0.9, 0.1], [0.2, 0.3], [0.5, 0.5]]), frame([[0.1, 0.2], [0.9, 0.0], [0.5, 0.1]]))
    assert found.first.tolist() == [0.9, 0.3, 0.5] and found.other.tolist() == [0.2, 0.9, 0.5]
    assert found.arrange("largest").tolist() == [0, 1, 2]
    assert found.arrange("drop").tolist() == [0, 2, 1]
    assert found.arrange("rise").tolist() == [1, 2, 0]
    assert found.arrange("prompt").tolist() == [0, 1, 2]
    assert [found.arrange("prompt", kind).tolist() for kind in ("less", "alike", "more")] == [[0], [2], [1]]
    with pytest.raises(InputError, match="expected an order"):
        found.arrange("backwards")


def test_only_prompts_that_both_completed_are_compared():
    a, b = frame([[0.1], [0.2], [0.3]]), frame([[0.9], [0.8], [0.7]])
    found = compare_with_first({"a": a, "b": b[b["prompt_index"] != 1]})["b"]
    assert found.prompts.tolist() == [0, 2] and found.first.tolist() == [0.1, 0.3]


def test_a_margin_outside_the_scale_is_refused():
    with pytest.raises(InputError, match="from 0 to 1"):
        compare_prompts(frame([[0.1]]), frame([[0.1]]), margin=-0.1)
