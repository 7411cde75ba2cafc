"""The index gives the same bits as the slow reference, for all settings and however it was built."""

import re
from collections import Counter

import numpy as np
import pytest

from ifguide.errors import ConfigError, NumericalError, StaleError
from ifguide.selection import algorithm as selection
from ifguide.selection.coverage import count_covered, cover_hits, expand_intervals
from ifguide.selection.index import hits
from ifguide.selection.index.chunks import sort_key, value_of_key
from ifguide.selection.index.counts import normalise_piece
from ifguide.study.stages.select import open_index
from tests.selection.memory_study import PIECES, MemoryStudy, slow_answer
from tests.selection.test_algorithm import threshold_at_quantile

N_SETTINGS = 240


def same_bits(array, values, dtype):
    return array.dtype == dtype and array.tobytes() == np.array(values, dtype=dtype).tobytes()


@pytest.fixture(params=["few hits", "many hits"])
def way(request, monkeypatch):
    """Hits are looked up one by one, or the tail is read in chunks; small studies would only ever use the first way."""
    if request.param == "many hits":
        monkeypatch.setattr(hits, "FEW_HITS", -1)
        monkeypatch.setattr(hits, "CHUNK_TAIL", 3)
    return request.param


def test_masks_ranks_and_budgets_are_bit_equal_to_the_slow_reference(tmp_path, monkeypatch):
    seen: Counter = Counter()
    for seed in range(N_SETTINGS):
        with monkeypatch.context() as patched:
            if seed % 2:
                patched.setattr(hits, "FEW_HITS", -1)
                patched.setattr(hits, "CHUNK_TAIL", 3)
            try:
                seen += _compare_with_the_slow_reference(seed, tmp_path)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}") from error
    assert len(seen) == 8 and min(seen.values()) >= 3, dict(seen)


def _compare_with_the_slow_reference(seed, tmp_path) -> Counter:
    study = MemoryStudy(tmp_path, seed)
    index = study.build(chunk_tokens=(1, 7, 64, 1 << 21)[seed % 4])
    settings = study.random_settings()
    found = index.resolve(settings)
    threshold, counts, sums, rank_scores, order, taken, everything = slow_answer(study, settings)
    assert found.threshold == threshold == index.locate(found.n_above)[0]
    assert found.n_above == sum(counts) == index.tokens_above(threshold) == index.above_quantile(settings["quantile"])
    assert same_bits(found.ranking.count_above, counts, np.int64)
    assert same_bits(found.ranking.sum_above, sums, np.float64)
    assert same_bits(found.ranking.rank_score, rank_scores, np.float64)
    assert same_bits(found.ranking.order, order, np.int64)
    mask = index.mask(settings)
    assert mask.dtype == bool
    assert np.flatnonzero(mask).tolist() == sorted(taken)
    assert (found.n_selected, found.covered.sum()) == (len(taken), len(everything))
    owner = np.repeat(np.arange(len(counts)), np.diff(study.offsets))
    assert np.array_equal(found.taken, np.bincount(owner[mask], minlength=len(counts)))
    assert found.n_documents == np.count_nonzero(found.taken)
    assert (found.precision, found.recall) == selection.precision_recall(mask, study.in_span, study.valid)
    scale = np.abs(study.values[mask]).sum(dtype=np.float64)
    assert found.effect == pytest.approx(study.values[mask].sum(dtype=np.float64), abs=1e-9 * scale + 1e-12)

    cut = Counter(owner[sorted(everything - taken)]).keys() & Counter(owner[sorted(taken)]).keys()
    return Counter(
        {
            "budget cuts inside a document": int(bool(cut)),
            "budget ends between documents": int(len(taken) < len(everything) and not cut),
            "in the tail": int(not found.hits.scanned),
            "below the tail": int(found.hits.scanned),
            "tied scores at the threshold": int((study.values[study.valid] == threshold).sum() > 1),
            "negative threshold": int(threshold < 0),
            "windows": int(bool(settings["window"] and taken)),
            "cut with windows in the tail": int(bool(cut and settings["window"] and not found.hits.scanned)),
        }
    )


def test_large_corpora_agree_with_the_fast_selection(tmp_path, way):
    study = MemoryStudy(tmp_path, 3, n_documents=300, lengths=(1, 30, 80, 200))
    index, id_rank = study.build(chunk_tokens=5000), study.corpus().id_rank
    for _ in range(25):
        settings = study.random_settings()
        found = index.resolve(settings)
        threshold = threshold_at_quantile(study.values, study.valid, settings["quantile"])
        ranking = selection.rank_documents(study.values, study.offsets, study.valid, threshold, id_rank)
        limits = {key: settings[key] for key in ("window", "max_tokens")}
        mask = selection.select_tokens(study.values, study.offsets, study.valid, ranking, **limits)
        assert found.threshold == threshold
        assert np.array_equal(found.ranking.order, ranking.order)
        assert same_bits(found.ranking.sum_above, ranking.sum_above, np.float64)
        assert np.array_equal(index.mask(found), mask)
        assert found.n_selected == mask.sum()


def test_every_row_of_the_preview_equals_brute_force(tmp_path):
    for seed in range(4):
        study = MemoryStudy(
            tmp_path,
            seed,
            n_documents=60,
            lengths=(1, 4, 30, 60),
            style=("exact", "heavy tail", "rounded", "exact")[seed],
        )
        index = study.build(chunk_tokens=500)
        owner = np.repeat(np.arange(60), np.diff(study.offsets))
        preview = index.preview()
        tail, counts = len(preview.documents), preview.tokens_above.tolist()
        assert counts[tail - 1] == index.n_tail > 10
        assert counts == sorted(set(counts))
        for threshold, count in zip(preview.threshold, counts, strict=True):
            above = study.valid & (study.values.astype(np.float64) > threshold)
            assert count == above.sum() == index.locate(count)[1], (seed, threshold)
        for place in [*range(0, tail, max(1, tail // 25)), tail - 1]:
            ranking = selection.rank_documents(
                study.values, study.offsets, study.valid, preview.threshold[place], study.corpus().id_rank
            )
            assert preview.documents[place] == np.count_nonzero(ranking.count_above)
            for window in range(6):
                where = (seed, place, window)
                mask = selection.select_tokens(study.values, study.offsets, study.valid, ranking, window=window)
                by_source = Counter(study.sources[owner[mask]].tolist())
                assert preview.covered[place, window].tolist() == [by_source[name] for name in index.sources], where
                assert preview.spans[place, window] == np.count_nonzero(mask & study.in_span), where
                effect = study.values[mask].sum(dtype=np.float64)
                assert preview.effect[place, window] == pytest.approx(effect, rel=1e-9, abs=1e-6), where


def test_the_streaming_build_gives_the_same_files_whatever_the_chunks_and_threads(tmp_path, monkeypatch):
    study = MemoryStudy(tmp_path, 5, n_documents=80, lengths=(0, 1, 7, 50))
    study.values = (study.values * 16).round() / 16  # sums are exact, so their order cannot show
    builds = []
    for chunk_tokens, threads, shard in ((1 << 21, 1, 1 << 22), (1, 2, 40), (97, 3, 1), (1000, 2, 1 << 22)):
        monkeypatch.setattr("ifguide.selection.index.build.SHARD_TOKENS", shard)
        study.build(chunk_tokens=chunk_tokens, threads=threads)
        builds.append({p.name: p.read_bytes() for p in (tmp_path / "index" / "own_loss").iterdir()})
    assert len(builds[0]) >= 14
    for other in builds[1:]:
        assert other == builds[0]


def test_the_tail_is_sorted_with_ties_in_corpus_order(tmp_path):
    study = MemoryStudy(tmp_path, 8, n_documents=90, lengths=(30, 60))
    study.values = study.values.round(0)
    index = study.build()
    tail = index._tail
    assert tail.positions.tolist() == np.flatnonzero(study.valid & (study.values > np.float32(tail.floor))).tolist()
    assert tail.floor == threshold_at_quantile(study.values, study.valid, 0.9)
    expected = np.lexsort((np.arange(index.n_tail), -study.values[tail.positions]))
    assert tail.order.tolist() == expected.tolist()


def test_a_number_of_tokens_above_is_kept_but_for_ties_and_its_quantile_leads_back(tmp_path):
    for seed in range(3):
        study = MemoryStudy(tmp_path, seed, n_documents=40, lengths=(20, 30))
        index = study.build()
        ordered = np.sort(study.values[study.valid])[::-1]
        n = index.n_valid
        for asked in [*range(index.n_tail + 5), n // 2, n - 1]:
            threshold, above = index.locate(asked)
            assert threshold == ordered[asked], (seed, asked)
            assert above == np.count_nonzero(ordered > threshold) <= asked, (seed, asked)
            assert index.locate(above) == (threshold, above), (seed, asked)
            if above:
                assert index.above_quantile((n - above) / n) == above, (seed, asked)


def test_the_histogram_counts_what_lies_between_its_own_edges(tmp_path):
    for seed in range(6):
        study = MemoryStudy(tmp_path, seed, n_documents=80, lengths=(5, 30))
        index = study.build()
        values = study.values[study.valid].astype(np.float64)
        floor = index._tail.floor
        for bins in (
            index.histogram(np.linspace(floor, float(values.max()), 34)),
            index.histogram(np.linspace(float(np.median(values)), floor, 21)),
            index.histogram(np.sinh(np.linspace(-12, 12, 150))),
            whole := index.histogram(np.linspace(*index.extremes, 201)),
        ):
            left, right, count = (bins[name].to_numpy() for name in ("left", "right", "count"))
            expected = [np.count_nonzero((values > a) & (values <= b)) for a, b in zip(left, right, strict=True)]
            assert count.tolist() == expected, seed
            assert (right > left).all()
        assert whole["count"].to_numpy().sum() == index.n_valid
        assert (whole["left"][0].as_py(), whole["right"][-1].as_py()) == index.extremes


def test_words_are_counted_as_they_enter(tmp_path):
    study = MemoryStudy(tmp_path, 2, n_documents=120, lengths=(10, 40))
    index = study.build(chunk_tokens=300)
    words = index.words().to_pylist()
    levels = sorted({(w["level"], w["first_above"], w["last_above"]) for w in words})
    assert levels[0][1] == 0
    assert levels[-1][2] == index.n_tail
    assert all(a[2] <= b[1] for a, b in zip(levels, levels[1:], strict=False))
    names = np.array([normalise_piece(piece) for piece in PIECES])[study.token_ids]
    ranked = index._tail.positions[index._tail.order]
    for level, first, last in levels:
        expected = Counter(names[ranked[first:last]].tolist())
        del expected[""]
        assert {w["word"]: w["count"] for w in words if w["level"] == level} == dict(expected)
    assert {w["word"]: w["occurrences"] for w in words} == {k: v for k, v in Counter(names.tolist()).items() if k}
    found = index.resolve({"quantile": 0.93, "window": 1, "max_tokens": 60})
    table = index.selected_words(found).to_pylist()
    expected = Counter(names[index.mask(found)].tolist())
    del expected[""]
    assert {w["word"]: w["selected"] for w in table} == dict(expected)
    share = found.n_selected / index.n_valid
    assert all(w["lift"] == pytest.approx(w["selected"] / w["occurrences"] / share) for w in table)


def test_documents_in_a_range_and_the_overlap_of_two_selections(tmp_path, way):
    study = MemoryStudy(tmp_path, 4, n_documents=50, lengths=(10, 40), style="heavy tail")
    index = study.build(chunk_tokens=200)
    owner = np.repeat(np.arange(50), np.diff(study.offsets))
    floor = index._tail.floor
    for low, high in ((floor, float(study.values.max())), (floor + 0.1234567891, 1e9), (floor - 1, floor + 1)):
        inside = study.valid & (study.values.astype(np.float64) > low) & (study.values.astype(np.float64) <= high)
        expected = np.bincount(owner[inside], minlength=50)
        table = index.documents_in_range(low, high)
        assert dict(zip(table["document"].to_pylist(), table["count"].to_pylist(), strict=True)) == {
            int(d): int(expected[d]) for d in np.flatnonzero(expected)
        }
        assert table["count"].to_pylist() == sorted(expected[expected > 0].tolist(), reverse=True)
    a = index.resolve({"quantile": 0.95, "window": 1, "max_tokens": 40})
    b = index.mask({"quantile": 0.92})
    overlap, in_a = index.compare(a, b), index.mask(a)
    assert overlap.tokens_a == np.count_nonzero(in_a & ~b)
    assert overlap.tokens_b == np.count_nonzero(b & ~in_a)
    assert overlap.tokens_both == np.count_nonzero(in_a & b)
    documents = lambda mask: set(owner[mask].tolist())  # noqa: E731
    assert overlap.documents_a == len(documents(in_a) - documents(b))
    assert overlap.documents_b == len(documents(b) - documents(in_a))
    assert overlap.documents_both == len(documents(b) & documents(in_a))


def test_the_rank_list_says_what_is_selected_of_each_document(tmp_path):
    index = MemoryStudy(tmp_path, 4, n_documents=50, lengths=(10, 40), style="heavy tail").build()
    found = index.resolve({"quantile": 0.92, "window": 1, "max_tokens": 33})
    table = found.documents(slice(5))
    assert table["rank"].to_pylist() == [1, 2, 3, 4, 5]
    assert table["n_selected"].to_pylist() == found.taken[found.ranking.order[:5]].tolist()


def _swap_scores(folder):
    values = np.load(folder / "tail_scores.npy")
    np.save(folder / "tail_scores.npy", values[::-1].copy())


def _point_outside(folder):
    order = np.load(folder / "tail_order.npy")
    np.save(folder / "tail_order.npy", order + 1)


def _cut_short(folder):
    (folder / "tail_positions.npy").write_bytes((folder / "tail_positions.npy").read_bytes()[:-9])


def test_a_damaged_index_is_refused_with_the_command_that_builds_it_again(tmp_path):
    study = MemoryStudy(tmp_path, 6, n_documents=50, lengths=(10, 40), style="exact")
    for number, harm in enumerate(
        (
            _swap_scores,
            _point_outside,
            _cut_short,
            lambda folder: (folder / "covered.npy").unlink(),
            lambda folder: (folder / "index.json").write_text("{"),
            lambda folder: (folder / "index.json").write_text("{}"),
            lambda folder: np.save(folder / "ranks.npy", np.arange(3)),
            lambda folder: np.save(folder / "histogram.npy", np.ones(1 << 16, dtype=np.int64)),
        )
    ):
        study.build()
        harm(tmp_path / "index" / "own_loss")
        said = _refusal_to_open(study)
        assert re.search(r"is damaged .*build it again with `ifguide run made-up --force index`", said), number


def _refusal_to_open(study) -> str:
    try:
        open_index(study)
    except StaleError as error:
        return str(error)
    return "opened"


def test_an_index_of_other_scores_is_refused(tmp_path):
    study = MemoryStudy(tmp_path, 6, n_documents=50, lengths=(10, 40), style="exact")
    study.build()
    study.values = -study.values
    with pytest.raises(StaleError, match="made from other scores"):
        open_index(study)


def test_scores_that_are_not_finite_are_refused(tmp_path):
    for bad in [np.nan, np.inf, -np.inf]:
        study = MemoryStudy(tmp_path, 6, n_documents=5, lengths=(10,))
        study.values[3] = bad
        with pytest.raises(NumericalError, match=r"1 of .* scores are not finite"):
            study.build()


def test_settings_are_checked(tmp_path):
    index = MemoryStudy(tmp_path, 6).build()
    n = index.n_valid
    for settings, said in (
        ({"quantile": 1.0}, "selection.quantile: expected less than 1, got 1.0"),
        ({"attribution": "position", "quantile": 0.9}, "this is the index of own_loss, got 'position'"),
        ({"colour": "red"}, "unknown setting selection.colour"),
        ({"tokens_above": 3, "quantile": 0.9}, "expected tokens_above or quantile, got both"),
        ({"tokens_above": n}, f"tokens_above: expected 0 to {n - 1:,}, got {n:,}"),
        ({"tokens_above": -1}, "tokens_above: expected 0 to"),
    ):
        with pytest.raises(ConfigError, match=said):
            index.resolve(settings)


def test_sort_keys_keep_the_order_of_floats():
    draw = np.random.default_rng(0)
    values = np.sort(
        np.concatenate([draw.normal(size=300) * 10.0 ** draw.integers(-40, 38, 300), [0.0, 1e-45, -1e-45]])
    )
    values = values.astype(np.float32)
    keys = sort_key(values).astype(np.int64)
    assert (np.diff(keys) >= 0).all()
    assert [value_of_key(int(key)) for key in keys] == values.tolist()


def test_sums_keep_their_bits_where_additions_round():
    """Scores so far apart that float64 sums round: only adding in reading order gives the reference's bits."""
    draw = np.random.default_rng(1)
    scores = (10.0 ** draw.uniform(-6, 12, 3000)).astype(np.float32)
    bounds = np.array([0, 1000, 1000, 3000])
    expected = []
    for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
        total = 0.0
        for score in scores[start:stop].tolist():
            total += score
        expected.append(total)
    assert same_bits(hits.add_in_reading_order(scores, bounds, np.float32(1e-7)), expected, np.float64)
    pairwise = np.add.reduceat(scores, [0, 1000], dtype=np.float64)
    assert pairwise.tolist() != [expected[0], expected[2]]


@pytest.mark.parametrize("window", [1, 2, 5, 40])
def test_covered_tokens_are_counted_without_making_their_intervals(window):
    draw = np.random.default_rng(window)
    offsets = np.concatenate([[0], np.cumsum(draw.integers(0, 30, 60))])
    hit = np.flatnonzero((draw.random(offsets[-1]) < 0.15) & ~np.isin(np.arange(offsets[-1]), offsets[:-1]))
    bounds = np.searchsorted(hit, offsets)
    owner = np.repeat(np.arange(60), np.diff(bounds))
    low, high = cover_hits(hit, offsets[owner] + 1, offsets[owner + 1], window)
    expected = np.bincount(owner, weights=high - low, minlength=60)
    assert count_covered(hit.astype(np.uint32), bounds, offsets, window).tolist() == expected.tolist()


def test_intervals_of_neighbouring_hits_do_not_overlap():
    low, high = cover_hits(np.array([3, 4, 9]), np.array([1, 1, 8]), np.array([6, 6, 12]), 2)
    assert expand_intervals(low, high).tolist() == [1, 2, 3, 4, 5, 8, 9, 10, 11]
    assert expand_intervals(low[:0], high[:0]).tolist() == []
