import math

import numpy as np
import pytest

from ifguide.evaluation.statistics import (
    Interval,
    bootstrap_interval,
    emt,
    mean_toxicity,
    paired_bootstrap_difference,
    paired_perplexity_difference,
    perplexity_interval,
    share_interval,
    share_of_reduction,
    tp,
)

SCORES = np.array([[0.1, 0.9, 0.2], [0.4, 0.3, 0.0], [0.5, 0.1, 0.1]])


def draws(n_prompts=200, n_samples=5, seed=0, shift=0.0):
    return np.clip(np.random.default_rng(seed).beta(1, 3, (n_prompts, n_samples)) - shift, 0, 1)


def test_by_hand():
    assert emt(SCORES) == pytest.approx((0.9 + 0.4 + 0.5) / 3)
    assert tp(SCORES) == pytest.approx(2 / 3)  # .5 itself counts
    assert mean_toxicity(SCORES) == pytest.approx(2.6 / 9)


def test_order_of_prompts_and_samples_changes_nothing():
    generator = np.random.default_rng(1)
    mixed = generator.permuted(SCORES, axis=1)[generator.permutation(3)]
    for statistic in (emt, tp, mean_toxicity):
        assert statistic(mixed) == pytest.approx(statistic(SCORES))


def test_one_sample_makes_emt_the_mean():
    assert emt(SCORES[:, :1]) == pytest.approx(mean_toxicity(SCORES[:, :1]))


def test_interval_holds_its_value_and_narrows_with_prompts():
    widths = []
    for n_prompts in (50, 800):
        interval = bootstrap_interval(emt, draws(n_prompts), n=500)
        assert interval.low < interval.value < interval.high
        widths.append(interval.high - interval.low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.35)  # as 1/sqrt(P)


def test_interval_of_a_mean_is_the_normal_one():
    scores = draws(400, 1)
    interval = bootstrap_interval(mean_toxicity, scores, n=4000)
    error = scores.std() / math.sqrt(400)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_interval_is_over_prompts_not_samples():
    repeated = np.repeat(draws(100, 1), 25, axis=1)  # 25 equal samples say no more than one
    assert bootstrap_interval(mean_toxicity, repeated) == pytest.approx(
        bootstrap_interval(mean_toxicity, repeated[:, :1])
    )


def test_the_seed_decides():
    scores = draws()
    assert bootstrap_interval(emt, scores, seed=1) == bootstrap_interval(emt, scores, seed=1)
    assert bootstrap_interval(emt, scores, seed=1) != bootstrap_interval(emt, scores, seed=2)


def test_bounds_are_scipys_to_the_next_draw():
    """The same draws and percentiles; SciPy interpolates between two draws, ours takes the one farther out."""
    from scipy.stats import bootstrap

    scores = draws(80)
    theirs = bootstrap((scores.max(axis=1),), np.mean, n_resamples=2000, method="percentile", rng=0).confidence_interval
    found = bootstrap_interval(emt, scores, seed=0)
    assert found.low <= theirs.low and theirs.high <= found.high
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-3)


def test_the_interval_of_a_share_is_wilsons_and_no_point_at_its_ends():
    from scipy.stats import binomtest

    for hits in (0, 3, 100):
        found = share_interval(np.arange(100) < hits)
        theirs = binomtest(hits, 100).proportion_ci(method="wilson")
        assert found == pytest.approx((hits / 100, theirs.low, theirs.high), abs=1e-12)
        assert found.high - found.low > 0.03


def test_equal_scores_have_no_width():
    assert bootstrap_interval(emt, np.full((9, 4), 0.25)) == Interval(0.25, 0.25, 0.25)


def test_difference_is_paired():
    base = draws(300)
    difference = paired_bootstrap_difference(emt, base + 0.05, base)
    assert difference == pytest.approx(Interval(0.05, 0.05, 0.05))
    swapped = paired_bootstrap_difference(emt, base, base + 0.05)
    assert swapped.value == pytest.approx(-difference.value)
    assert paired_bootstrap_difference(emt, base, base) == Interval(0.0, 0.0, 0.0)


def test_share_runs_from_base_to_oracle():
    base = draws(300) * 0.5 + 0.5
    oracle = base - 0.4
    assert share_of_reduction(base, base, oracle) == pytest.approx(Interval(0.0, 0.0, 0.0))
    assert share_of_reduction(base, oracle, oracle) == pytest.approx(Interval(1.0, 1.0, 1.0))
    assert share_of_reduction(base, base - 0.1, oracle).value == pytest.approx(0.25)


def test_share_says_when_it_means_nothing():
    base = draws(50)
    share = share_of_reduction(base, base - 0.1, base)
    assert math.isnan(share.value) and share.low == -math.inf and share.high == math.inf
    unsure = share_of_reduction(base, draws(50, seed=1), draws(50, seed=2), n=400)
    assert unsure.low < unsure.high  # an oracle that helps in some draws only: wide, not NaN


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="prompts, samples"):
        emt(np.zeros(3))
    with pytest.raises(ValueError, match="prompts, samples"):
        tp(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="same prompts"):
        paired_bootstrap_difference(emt, np.zeros((3, 2)), np.zeros((4, 2)))


def heldout(n_texts=300, rise=0.0, seed=0):
    """Losses of texts of 5 to 60 tokens under two models, the second worse by `rise` nats a token, and how many tokens
    they have."""
    draw = np.random.default_rng(seed)
    tokens = draw.integers(5, 60, n_texts)
    base = tokens * draw.normal(3, 0.8, n_texts)
    return base, base + tokens * draw.normal(rise, 0.01, n_texts), tokens


def test_perplexitys_interval_holds_it_and_is_over_texts():
    base, _, tokens = heldout()
    found = perplexity_interval(base, tokens)
    assert found.value == pytest.approx(math.exp(base.sum() / tokens.sum()))
    assert found.low < found.value < found.high
    few = perplexity_interval(base[:30], tokens[:30])
    assert few.high - few.low > 2 * (found.high - found.low)
    with_empty = perplexity_interval(np.append(base, 0.0), np.append(tokens, 0))
    assert with_empty == found
    assert perplexity_interval(base[:1], tokens[:1]) is None


def test_perplexitys_interval_is_the_normal_one_where_texts_are_alike_in_length():
    draw = np.random.default_rng(1)
    means, tokens = draw.normal(3, 0.5, 400), np.full(400, 20)
    found = perplexity_interval(means * tokens, tokens, n=4000)
    half = 1.96 * means.std() / math.sqrt(400)
    assert math.log(found.low) == pytest.approx(means.mean() - half, abs=0.2 * half)
    assert math.log(found.high) == pytest.approx(means.mean() + half, abs=0.2 * half)


def test_difference_of_perplexities_is_paired():
    base, other, tokens = heldout(rise=0.02)
    share = paired_perplexity_difference(base, other, tokens, relative=True)
    assert share.value == pytest.approx(1 - math.exp(other.sum() / tokens.sum() - base.sum() / tokens.sum()))
    assert share.low < share.value < share.high < 0, (
        "the second model is worse, and the texts' own spread does not hide it"
    )
    alone = perplexity_interval(base, tokens)
    nats = paired_perplexity_difference(base, other, tokens)
    assert nats.value == pytest.approx(share.value * alone.value)
    assert nats.high - nats.low < 0.2 * (alone.high - alone.low)
    assert paired_perplexity_difference(base, base, tokens) == (0.0, 0.0, 0.0)
