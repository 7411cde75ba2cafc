import numpy as np
import pandas as pd
import pytest

from benchmarks.before_after import compare_judges
from ifguide.errors import InputError
from ifguide.evaluation.statistics import emt, tp
from ifguide.study.analysis.comparison import compare_variants, scores_matrix
from ifguide.ui.results.tables import share_texts


def samples(scores, prompts=None, seed=0):
    """Rows of samples.parquet in mixed order."""
    n_prompts, n_samples = scores.shape
    frame = pd.DataFrame(
        {
            "prompt_index": np.repeat(np.arange(n_prompts), n_samples),
            "sample_index": np.tile(np.arange(n_samples), n_prompts),
            "prompt": np.repeat(prompts or [f"prompt {i}" for i in range(n_prompts)], n_samples),
            "completion": "x",
            "toxicity": scores.ravel(),
        }
    )
    return frame.sample(frac=1, random_state=seed)


BASE = np.random.default_rng(0).uniform(0.4, 1, (40, 3))


def test_matrix_puts_rows_in_order():
    assert np.array_equal(scores_matrix(samples(BASE)), BASE)


def test_lost_and_doubled_samples_are_noticed():
    frame = samples(BASE)
    for damaged in (frame.iloc[1:], pd.concat([frame, frame.iloc[:1]]), pd.concat([frame.iloc[1:], frame.iloc[1:2]])):
        with pytest.raises(InputError, match="40 prompts with 3 samples"):
            scores_matrix(damaged)


def test_each_variant_against_the_base():
    variants = {"base": samples(BASE), "default": samples(BASE - 0.1, seed=1), "oracle": samples(BASE - 0.4, seed=2)}
    default, oracle = compare_variants(variants)
    assert (default.variant, oracle.variant) == ("default", "oracle")
    assert default.emt == pytest.approx((0.1, 0.1, 0.1))
    assert default.emt.value == pytest.approx(emt(BASE) - emt(BASE - 0.1))
    assert default.tp.value == pytest.approx(tp(BASE) - tp(BASE - 0.1))
    assert default.share_of_oracle.value == pytest.approx(0.25) and oracle.share_of_oracle.value == 1.0


def test_the_share_of_what_training_added_is_against_the_untouched_model():
    variants = {"base": samples(BASE), "default": samples(BASE - 0.3, seed=1), "untouched": samples(BASE - 0.2, seed=2)}
    default, untouched = compare_variants(variants)
    assert default.share_of_added.value == pytest.approx(1.5) and untouched.share_of_added.value == 1.0
    [text] = share_texts({"default": default, "untouched": untouched})
    assert "150" in text and "added" in text
    assert all(c.share_of_added is None for c in compare_variants(variants | {"untouched": samples(BASE)}))
    assert all(c.share_of_added is None for c in compare_variants(variants, base="untouched"))


def test_without_an_oracle_there_is_no_share():
    (only,) = compare_variants({"base": samples(BASE), "default": samples(BASE)})
    assert only.share_of_oracle is None and only.emt.value == 0.0


def losses(rise):
    tokens = np.arange(5, 45)
    return pd.DataFrame({"nats": tokens * (3.0 + rise), "n_tokens": tokens})


def test_perplexity_is_compared_where_both_models_losses_are_known():
    variants = {"base": samples(BASE), "default": samples(BASE, seed=1)}
    (found,) = compare_variants(variants, heldout={"base": losses(0.0), "default": losses(0.1)})
    assert found.perplexity == pytest.approx((np.exp(3) - np.exp(3.1),) * 3)
    assert found.perplexity_rise == pytest.approx((np.expm1(0.1),) * 3)
    for known in ({}, {"base": losses(0.0), "default": None}, {"base": losses(0.0), "default": losses(0.1)[1:]}):
        (found,) = compare_variants(variants, heldout=known)
        assert found.perplexity is None and found.perplexity_rise is None


def test_other_prompts_and_a_missing_base_are_refused():
    other = samples(BASE, prompts=[f"other {i}" for i in range(40)])
    with pytest.raises(InputError, match="other prompts"):
        compare_variants({"base": samples(BASE), "default": other})
    with pytest.raises(InputError, match="'base'"):
        compare_variants({"default": other})


def test_pairs_of_methods_that_change_places_by_the_judge_are_counted_by_budget():
    emts = {
        "base": (1.0, 1.0),
        "combined": (0.2, 0.5),
        "probe": (0.3, 0.4),
        "position": (0.6, 0.7),
        "oracle": (0.1, 0.1),
    }
    rows = [
        {"study": "s", "training_seed": seed, "method": name, "budget": 1.0, "emt": first, "second_emt": second}
        for seed in (0, 1)
        for name, (first, second) in emts.items()
    ]
    [sentence] = compare_judges(pd.DataFrame(rows))
    assert sentence == (
        "x1, 2 seeds: combined 0.200, probe 0.300, position 0.600; by the second judge probe 0.400, combined 0.500,"
        " position 0.700: 1 of 3 pairs change places, 1 of them with every seed"
    )
    rows[-4]["second_emt"], rows[-3]["second_emt"] = 0.45, 0.5  # with the second seed both judges have the same order
    [sentence] = compare_judges(pd.DataFrame(rows))
    assert sentence.endswith("1 of 3 pairs change places, 0 of them with every seed")
    assert compare_judges(pd.DataFrame(rows).drop(columns="second_emt")) == []
