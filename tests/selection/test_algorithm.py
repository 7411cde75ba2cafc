import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifguide.config.schema import SelectionConfig
from ifguide.data import by_document
from ifguide.data.stretches import find_edges
from ifguide.errors import ConfigError, NumericalError
from ifguide.selection import algorithm as selection
from ifguide.selection.choice import read_choice
from ifguide.selection.index.chunks import Chunks
from tests import reference

N_SETTINGS = 400


def threshold_above(scores, valid, above):
    return Chunks(scores, np.array([0, len(scores)]), find_edges(valid)).threshold_above(above)[0]


def threshold_at_quantile(scores, valid, quantile):
    above = selection.rank_at_quantile(int(np.count_nonzero(valid)), quantile) if np.any(valid) else 0
    return threshold_above(scores, valid, above)


class Setting:
    """A small random corpus with scores, and settings that provoke ties, empty documents and cut budgets."""

    def __init__(self, seed):
        draw = np.random.default_rng(seed)
        n_documents = int(draw.integers(1, 13))
        lengths = draw.choice([0, 1, 2, 3, 5, 9, 17], size=n_documents)
        lengths[draw.integers(n_documents)] = draw.integers(2, 20)  # one token at least is valid
        self.offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        n_tokens = int(self.offsets[-1])
        scores = draw.normal(draw.choice([-2.0, 0.0, 2.0]), draw.choice([0.01, 1.0, 1e4]), size=n_tokens)
        style = draw.choice(["exact", "rounded", "few values"])  # the last two make ties
        scores = {"exact": scores, "rounded": scores.round(1), "few values": draw.integers(-1, 3, size=n_tokens)}[style]
        self.scores = scores.astype(np.float32)  # invalid tokens have scores too: they must not count
        self.valid = draw.random(n_tokens) < draw.choice([1.0, 1.0, 0.8])
        self.valid[self.offsets[:-1][lengths > 0]] &= draw.random() < 0.2  # first tokens are invalid in a real corpus
        self.valid[self.offsets[np.argmax(lengths)] + 1] = True
        self.ids = [f"{draw.choice(['a', 'B', 'é', '文', '10', '9'])}-{i}" for i in range(n_documents)]
        draw.shuffle(self.ids)
        self.id_rank = np.array([sorted(self.ids).index(name) for name in self.ids], dtype=np.int64)
        self.quantile = float(draw.choice([1e-9, 0.07, 0.5, 0.8, 0.9, 0.99, draw.random()]))
        self.window = int(draw.choice([0, 0, 1, 2, 5]))
        self.max_tokens = int(draw.choice([0, 1, draw.integers(1, n_tokens + 2), draw.integers(1, n_tokens + 2)]))

    def fast(self):
        threshold = threshold_at_quantile(self.scores, self.valid, self.quantile)
        ranking = selection.rank_documents(self.scores, self.offsets, self.valid, threshold, self.id_rank)
        mask = selection.select_tokens(
            self.scores, self.offsets, self.valid, ranking, window=self.window, max_tokens=self.max_tokens
        )
        return ranking, mask

    def slow(self, max_tokens=None):
        scores, offsets, valid = self.scores.tolist(), self.offsets.tolist(), self.valid.tolist()
        threshold = reference.threshold_at_quantile(scores, valid, self.quantile)
        counts, sums, rank_scores, order = reference.rank_documents(scores, offsets, valid, threshold, self.ids)
        budget = self.max_tokens if max_tokens is None else max_tokens
        taken = reference.select_tokens(scores, offsets, valid, threshold, order, self.window, budget)
        return threshold, counts, sums, rank_scores, order, taken


def same_bits(array, values, dtype):
    return array.dtype == dtype and array.tobytes() == np.array(values, dtype=dtype).tobytes()


@pytest.mark.parametrize("tokens_at_once", [by_document.TOKENS_AT_ONCE, 7])
def test_fast_selection_is_bit_equal_to_the_slow_reference(tokens_at_once, monkeypatch):
    monkeypatch.setattr(by_document, "TOKENS_AT_ONCE", tokens_at_once)
    for seed in range(N_SETTINGS):
        setting = Setting(seed)
        ranking, mask = setting.fast()
        threshold, counts, sums, rank_scores, order, taken = setting.slow()
        assert isinstance(ranking.threshold, float)
        assert ranking.threshold == threshold, seed
        assert same_bits(ranking.count_above, counts, np.int64), seed
        assert same_bits(ranking.sum_above, sums, np.float64), seed
        assert same_bits(ranking.rank_score, rank_scores, np.float64), seed
        assert same_bits(ranking.order, order, np.int64), seed
        assert mask.dtype == bool
        assert np.flatnonzero(mask).tolist() == sorted(taken), seed


def test_the_random_settings_reach_every_hard_case():
    seen = Counter()
    for seed in range(N_SETTINGS):
        setting = Setting(seed)
        threshold, counts, sums, rank_scores, _, taken = setting.slow()
        everything = setting.slow(max_tokens=0)[-1]
        hits = int(((setting.scores > threshold) & setting.valid).sum())
        owner = np.repeat(np.arange(len(counts)), np.diff(setting.offsets))
        seen.update({f"length {n}": n in np.diff(setting.offsets) for n in (0, 1, 2)})
        seen["tied documents with hits"] += any(n > 1 and score > 0 for score, n in Counter(rank_scores).items())
        seen["tied scores at the threshold"] += int((setting.scores[setting.valid] == threshold).sum()) > 1
        seen["no hit"] += hits == 0
        seen["negative sums"] += min(sums) < 0
        seen["windows overlap or meet an edge"] += 0 < len(everything) < hits * (2 * setting.window + 1)
        seen["budget unused"] += len(everything) <= setting.max_tokens
        cut = Counter(owner[sorted(everything - taken)]).keys() & Counter(owner[sorted(taken)]).keys()
        seen["budget cuts inside a document"] += bool(cut)
        seen["budget ends between documents"] += len(taken) < len(everything) and not cut
    missing = [name for name in seen if seen[name] < 5]
    assert not missing, f"fewer than 5 of {N_SETTINGS} settings have: {missing} ({dict(seen)})"


def test_quantiles_follow_the_reference_where_binary_fractions_do_not_fit():
    """7% of 100 is 7. The next float above k/n takes the next score, though n times it rounds to k."""
    pairs = list(itertools.product((1, 7, 10, 25, 50, 100, 200), (0.0, 0.07, 0.28, 0.29, 0.55, 0.57, 0.58, 0.99)))
    for n, k in ((3, 1), (6, 4), (7, 3), (9, 2)):
        quantile = float(np.nextafter(k / n, 1))
        pairs.append((n, quantile))
        assert int(np.ceil(quantile * n)) == k
        assert selection.rank_at_quantile(n, quantile) == n - 1 - k
        assert selection.rank_at_quantile(n, k / n) == n - k
    for n, quantile in pairs:
        scores, valid = np.arange(n, dtype=np.float32)[::-1].copy(), np.ones(n, dtype=bool)
        expected = reference.threshold_at_quantile(scores.tolist(), valid.tolist(), quantile)
        assert threshold_at_quantile(scores, valid, quantile) == expected, (n, quantile)
        assert threshold_above(scores, valid, selection.rank_at_quantile(n, quantile)) == expected
    assert threshold_at_quantile(np.arange(1, 101, dtype=np.float32), np.ones(100, dtype=bool), 0.07) == 7


@given(st.integers(2, 2_000_000_000), st.data())
def test_a_number_of_tokens_above_goes_to_its_quantile_and_share_and_back(n, data):
    above = data.draw(st.integers(1, n - 1))
    assert selection.rank_at_quantile(n, (n - above) / n) == above
    for share, expected in ((5, n // 20), (0.5, n // 200), (100, n - 1)):
        assert selection.rank_at_quantile(n, selection.quantile_of_share(share)) == expected


def test_the_upper_tail_is_what_stands_out_from_the_scores(monkeypatch):
    draw = np.random.default_rng(1)
    n, offsets = 50_000, np.concatenate([np.arange(0, 50_000, 100), [50_000, 50_000]])
    for share, spread in ((0.002, 1.0), (0.03, 0.1), (0.1, 10.0)):
        high = draw.random(n) < share
        scores = (spread * np.where(high, draw.normal(9, 0.5, n), np.clip(draw.normal(0, 1, n), -2.5, 2.5))).astype(
            np.float32
        )
        high[offsets[:-2]] = False  # a document's first token has no score
        scores[offsets[:-2]] = 100 * spread
        assert selection.count_tail(scores, offsets) == np.count_nonzero(high)
        far = np.where(scores < 0, 2 * scores, scores)  # a long lower tail does not make the upper one longer
        assert selection.count_tail(far, offsets) <= np.count_nonzero(high)
    with monkeypatch.context() as smaller:
        smaller.setattr(by_document.sample_valid, "__defaults__", (None, 5_000))
        assert abs(selection.count_tail(scores, offsets) / np.count_nonzero(high) - 1) < 0.1
    nothing = draw.normal(0, 1, n).astype(np.float32)
    assert selection.count_tail(nothing, offsets) < 0.002 * n


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("empty", "no score is below the median"),
        ("equal", "no score is below the median"),
        ("sparse", "no score is below the median"),
        ("pooled", "no score is below the median"),
        ("uniform", r"0\.00% of the scores are far above the median"),
        ("exponential", r"1[34]\.\d\d% of the scores are far above the median"),
        ("lognormal", r"1[67]\.\d\d% of the scores are far above the median"),
    ],
)
def test_scores_without_a_tail_have_no_automatic_number(name, said):
    draw, n = np.random.default_rng(2), 50_000
    ones = draw.random(n) < 0.01
    scores = {
        "empty": np.zeros(0),
        "equal": np.full(n, 0.3),
        "sparse": ones,
        "pooled": ones + np.where(draw.random(n) < 0.47, draw.random(n), 0),  # as imported scores are treated
        "uniform": draw.random(n),
        "exponential": draw.exponential(size=n),
        "lognormal": draw.lognormal(size=n),
    }[name].astype(np.float32)
    with pytest.raises(ConfigError, match=f"{said}.*--tokens, --share or --quantile"):
        selection.count_tail(scores, np.arange(0, len(scores) + 1, 100))


@pytest.mark.parametrize("asked", [{}, {"quantile": 1 - 1e-9}], ids=["tail", "quantile"])
def test_settings_that_select_nothing_take_the_best_and_say_why(asked):
    """Those of study.toml do; what somebody asks for now is refused, or as they say."""

    def no_tail(kind):
        raise ConfigError("no token stands out; choose how many")

    settings = SelectionConfig(**asked)
    choice = read_choice(settings, settings, 1000, no_tail)
    assert choice.tokens_above == 5
    assert choice.no_tail == ("no token is above the quantile 0.999999999" if asked else "no token stands out")
    assert read_choice(settings, settings, 1, no_tail).tokens_above == 0
    if asked:
        now = read_choice(asked, SelectionConfig(), 1000, no_tail)
        assert (now.tokens_above, now.no_tail) == (0, "")
    else:
        with pytest.raises(ConfigError, match="stands out; choose how many"):
            read_choice({}, settings, 1000, no_tail)


def test_no_token_is_above_the_threshold_when_all_scores_are_equal():
    offsets, valid = np.array([0, 3, 6]), np.array([False, True, True] * 2)
    scores = np.where(valid, 0.3, 0).astype(np.float32)
    threshold = threshold_at_quantile(scores, valid, 0.5)
    assert threshold == np.float32(0.3)
    ranking = selection.rank_documents(scores, offsets, valid, threshold, np.array([1, 0]))
    assert ranking.count_above.tolist() == [0, 0]
    assert ranking.rank_score.tolist() == [0.0, 0.0]
    assert ranking.order.tolist() == [1, 0], "ties break by id"
    assert not selection.select_tokens(scores, offsets, valid, ranking, window=2, max_tokens=3).any()


def test_documents_with_equal_hits_rank_zero_but_are_still_selected():
    """Both measures are the same for all documents, so they normalise to 0; the ids alone order them."""
    offsets, valid = np.array([0, 2, 4, 6]), np.array([False, True] * 3)
    scores = np.where(valid, 1, 0).astype(np.float32)
    ranking = selection.rank_documents(scores, offsets, valid, 0.5, np.array([2, 0, 1]))
    assert ranking.rank_score.tolist() == [0.0, 0.0, 0.0]
    assert ranking.order.tolist() == [1, 2, 0]
    mask = selection.select_tokens(scores, offsets, valid, ranking, max_tokens=2)
    assert np.flatnonzero(mask).tolist() == [3, 5]


def test_a_window_stays_in_its_document_and_on_valid_tokens():
    offsets, valid = np.array([0, 3, 6]), np.array([False, True, True] * 2)
    scores = np.array([0, 0, 5, 0, 0, 0], dtype=np.float32)
    ranking = selection.rank_documents(scores, offsets, valid, 1.0, np.array([0, 1]))
    mask = selection.select_tokens(scores, offsets, valid, ranking, window=9)
    assert np.flatnonzero(mask).tolist() == [1, 2]


def test_no_valid_token_is_an_error():
    with pytest.raises(NumericalError, match="no valid score"):
        threshold_at_quantile(np.zeros(3, dtype=np.float32), np.zeros(3, dtype=bool), 0.9)


def test_a_score_that_is_not_finite_is_an_error():
    for bad in [np.nan, np.inf, -np.inf]:
        scores = np.array([0, 1, bad], dtype=np.float32)
        with pytest.raises(NumericalError, match="1 of 2 scores are not finite"):
            threshold_at_quantile(scores, np.array([False, True, True]), 0.9)
        assert threshold_at_quantile(scores, np.array([True, True, False]), 0.9) == 1


def test_a_quantile_out_of_range_is_an_error():
    for quantile in [-0.01, 1.0, 1.5, float("nan")]:
        with pytest.raises(ConfigError, match="quantile"):
            threshold_at_quantile(np.ones(3, dtype=np.float32), np.ones(3, dtype=bool), quantile)


def test_random_selection_takes_valid_tokens_and_repeats_for_a_seed():
    valid = np.arange(200) % 3 > 0
    one, again, other = (selection.select_random(valid, 40, seed) for seed in (1, 1, 2))
    assert one.dtype == bool
    assert one.sum() == other.sum() == 40
    assert not (one & ~valid).any()
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert np.array_equal(selection.select_random(valid, 10_000, 0), valid)
    assert not selection.select_random(valid, 0, 0).any()


def test_random_selection_of_a_large_corpus_takes_its_share_of_every_part(monkeypatch):
    valid = np.arange(1000) % 3 > 0
    monkeypatch.setattr(by_document, "TOKENS_AT_ONCE", 100)
    for n_tokens in (0, 7, 333, 666, 10_000):
        mask = selection.select_random(valid, n_tokens, 1)
        assert mask.sum() == min(n_tokens, 666)
        assert not (mask & ~valid).any()
        shares = mask.reshape(10, 100).sum(axis=1)
        assert shares.max() - shares.min() <= 1 + (n_tokens >= 666)


def test_random_selection_is_uniform_over_valid_tokens():
    """2,000 draws of 5 among 20: each is chosen 500 times give or take 19, so 100 is over five deviations."""
    valid = np.arange(40) % 2 > 0
    times = sum(selection.select_random(valid, 5, seed).astype(int) for seed in range(2000))
    assert np.abs(times[valid] - 500).max() < 100


def test_precision_and_recall_match_sklearn():
    metrics = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(0)
    for _ in range(20):
        mask, truth, valid = (draw.random(50) < share for share in (0.3, 0.4, 0.8))
        precision, recall = selection.precision_recall(mask, truth, valid)
        assert precision == pytest.approx(metrics.precision_score(truth[valid], mask[valid]))
        assert recall == pytest.approx(metrics.recall_score(truth[valid], mask[valid]))


def test_precision_and_recall_without_a_denominator_are_none():
    nothing, everything = np.zeros(4, dtype=bool), np.ones(4, dtype=bool)
    assert selection.precision_recall(nothing, everything, everything) == (None, 0.0)
    assert selection.precision_recall(everything, nothing, everything) == (0.0, None)
    assert selection.precision_recall(everything, everything, nothing) == (None, None)


def test_the_best_tokens_are_those_a_sort_gives(monkeypatch):
    rng = np.random.default_rng(0)
    scores, valid = rng.integers(-3, 4, 200).astype(np.float32), rng.random(200) < 0.8
    kth = -np.sort(-scores[valid])[29]

    def best(kth, n_tokens):
        kept = np.zeros(200, dtype=np.float32)
        threshold = selection.keep_best(scores, valid, kth, n_tokens, kept)
        np.testing.assert_array_equal(kept[np.isfinite(kept)], scores[np.isfinite(kept)])
        np.testing.assert_array_equal(kept > threshold, np.isfinite(kept))
        return np.isfinite(kept)

    monkeypatch.setattr(by_document, "TOKENS_AT_ONCE", 32)
    mask = best(kth, 30)
    assert mask.sum() == 30 and not (mask & ~valid).any()
    left_out = valid & ~mask
    assert scores[mask].min() >= scores[left_out].max()
    lowest = scores[mask].min()
    tied = np.flatnonzero(valid & (scores == lowest))
    np.testing.assert_array_equal(tied[: mask[tied].sum()], tied[mask[tied]])  # the first of those that are equal
    assert best(scores[valid].min(), 10_000).sum() == (valid & (scores > 0)).sum()


def test_a_budget_takes_whole_documents_and_what_is_left_of_the_next():
    taken = {0: [3, 0, 2, 4], 1: [0, 0, 1, 0], 4: [2, 0, 2, 0], 5: [3, 0, 2, 0], 8: [3, 0, 2, 3], 9: [3, 0, 2, 4]}
    for budget, expected in (taken | {20: taken[0]}).items():
        found = selection.spend_budget(np.array([3, 0, 2, 4]), np.array([2, 0, 1, 3]), budget)
        assert found.tolist() == expected, budget


def test_hits_alone_are_selected_unless_a_window_or_a_budget_is_asked_for():
    scores, valid = np.array([0, 1, 9, 1, 9, 1], dtype=np.float32), np.ones(6, dtype=bool)
    ranking = selection.rank_documents(scores, np.array([0, 6]), valid, 5.0, np.array([0]))
    assert np.flatnonzero(selection.select_tokens(scores, np.array([0, 6]), valid, ranking)).tolist() == [2, 4]


def test_no_documents_have_an_empty_order():
    nothing = np.zeros(0, dtype=np.int64)
    assert selection.rank_measured(1.0, nothing, nothing.astype(float), nothing).order.shape == (0,)
