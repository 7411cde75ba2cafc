"""The Threshold page's pure parts: its controls in the address, and what its board draws from."""

import itertools
import json
import math
from dataclasses import replace
from urllib.parse import parse_qsl, urlencode

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifguide.errors import ConfigError
from ifguide.selection.verdicts import Target, VerdictLog
from ifguide.study.analysis import audit_sample
from ifguide.study.analysis.groups import SOURCE, column_shares, split_documents
from ifguide.study.freshness import study_fingerprint
from ifguide.study.stages.select import open_index
from ifguide.ui.format import score
from ifguide.ui.loaders import Loaded
from ifguide.ui.threshold import blind_audit, board
from ifguide.ui.threshold import tables as selection_tables
from ifguide.ui.threshold.overlap_panel import only_one
from ifguide.ui.threshold.tuning import Tuning, apply_choice, read_address, write_address
from tests.app import fake_study
from tests.app.fake_study import write_study

HOSTILE = "<img src=x onerror=alert(1)> \u202edrow **bold**\n$x$ [a](javascript:alert(1))"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("board") / "cache")


@pytest.fixture(scope="module")
def index(study):
    return open_index(study, "own_loss")


DEFAULT = Tuning(tokens_above=10, window=0, max_tokens=0)


class Distinct:
    """An index of `n_valid` scores that all differ."""

    def __init__(self, n_valid: int):
        self.n_valid = n_valid

    def tokens_above(self, threshold: float) -> int:
        return int(threshold)


@given(st.integers(2, 2_000_000_000), st.data())
def test_the_address_finds_the_same_threshold_again_at_any_size(n_valid, data):
    tuning = Tuning(
        tokens_above=data.draw(st.integers(1, n_valid - 1)),
        window=data.draw(st.integers(0, 5)),
        max_tokens=data.draw(st.integers(0, n_valid)),
    )
    written = write_address(tuning, DEFAULT)
    address = dict(parse_qsl(urlencode({key: value for key, value in written.items() if value is not None})))
    assert read_address(address, DEFAULT, Distinct(n_valid)) == tuning


def test_what_makes_no_sense_changes_nothing(index):
    for address in (
        {"above": "abc", "window": "-1", "budget": "1.5", "range": "<b>", "low": "1"},
        {"above": "nan", "window": "inf", "budget": "", "low": "2", "high": "1"},
        {"above": "0", "low": "nan", "high": "1e999"},
        {"above": "3.5"},
    ):
        assert read_address(address, DEFAULT, index) == DEFAULT, address
    for choice in (
        {"above": "many"},
        {"above": float("nan")},
        {"above": -3},
        {"above": 0},
        {"threshold": None},
        {"window": True},
        {"budget": [1]},
        {"range": "sideways"},
        {"low": 1.0},
        {"else": 1},
    ):
        assert apply_choice(DEFAULT, choice, index) == DEFAULT, choice


def test_every_way_to_set_the_threshold_gives_what_it_says(index):
    at = lambda choice: index.resolve(apply_choice(DEFAULT, choice, index).settings("own_loss"))  # noqa: E731
    assert at({"above": 41}).n_above == 41
    assert at({"threshold": 2.5}).n_above == index.tokens_above(2.5)
    assert at({"above": 10**12}).n_above == index.n_valid - 1
    assert at({"threshold": 1e9}).n_above == 1
    brushed = apply_choice(DEFAULT, {"low": 1, "high": 2}, index)
    assert (brushed.low, brushed.high) == (1, 2)
    assert apply_choice(brushed, {"low": None, "high": None}, index) == DEFAULT


def test_board_counts_every_score_once_and_gives_json(index):
    parts = board.board_parts(index)
    assert sum(parts["whole"]["count"]) == index.n_valid
    tail = board.tail_bins(index, parts, parts["highest"])
    assert sum(tail["count"]) == index.tokens_above(tail["low"])
    knots = parts["knots"]
    assert knots["above"] == sorted(knots["above"]) and knots["threshold"] == sorted(knots["threshold"], reverse=True)
    assert knots["covered"][0][: len([d for d in knots["documents"] if d is not None])] == [
        above for above, d in zip(knots["above"], knots["documents"], strict=True) if d is not None
    ]
    for place in (0, len(knots["above"]) // 3):
        exact = index.resolve({"tokens_above": knots["above"][place], "window": 2, "max_tokens": 0})
        assert knots["covered"][2][place] == exact.n_selected
        assert knots["documents"][place] == exact.n_documents
        assert knots["effect"][2][place] == pytest.approx(exact.effect, rel=1e-6)
    json.dumps([parts, board.exact_result(exact, 1), board.rank_line(exact)], allow_nan=False)


def test_the_axis_is_compressed_for_a_far_tail_only():
    above = np.unique(np.geomspace(1, 999_999, 800).astype(np.int64))
    normal = np.sort(np.random.default_rng(0).normal(size=1_000_000))[::-1]
    heavy = np.sort(np.random.default_rng(0).standard_t(2, size=1_000_000))[::-1]
    assert board.axis_unit(normal[above], above, 1_000_000) == 0
    unit = board.axis_unit(heavy[above], above, 1_000_000)
    assert unit == pytest.approx(np.quantile(heavy, 0.99) - np.median(heavy), rel=0.05)
    edges = board.axis_edges(-3.0, 5000.0, unit)
    assert (np.diff(edges) > 0).all() and edges[0] == -3 and edges[-1] == 5000
    assert np.allclose(np.diff(np.arcsinh(edges / unit)), np.diff(np.arcsinh(edges / unit)).mean())


def test_rank_line_shows_what_there_is_before_the_budget(index):
    settings = {"quantile": 0.98, "window": 0}
    whole, cut = (index.resolve(settings | {"max_tokens": budget}) for budget in (0, 20))
    assert board.rank_line(cut) == board.rank_line(whole)
    line = board.rank_line(cut)
    assert line["documents"][0] == line["tokens"][0] == 0
    assert line["tokens"][-1] == whole.n_selected > cut.n_selected
    assert line["hit"] == whole.n_documents <= line["documents"][-1]


def test_tokens_marked_in_a_document_are_the_masks(study, index):
    corpus, scores = study.corpus(), study.scores("own_loss")
    for window, budget in itertools.product((0, 2), (0, 40)):
        found = index.resolve({"quantile": 0.97, "window": window, "max_tokens": budget})
        mask = index.mask(found)
        for document in range(corpus.n_documents):
            marked, _ = selection_tables.selected_in(corpus, scores, found, document)
            expected = mask[corpus.offsets[document] : corpus.offsets[document + 1]]
            np.testing.assert_array_equal(marked, expected, err_msg=f"{window} {budget} {document}")


def test_tables_count_what_the_selection_holds(study, index):
    found = index.resolve({"quantile": 0.97, "window": 0, "max_tokens": 0})
    shares = column_shares(study.corpus(), found.taken, *split_documents(study, SOURCE))
    columns, rows = selection_tables.value_table("Source", shares)
    assert [len(columns)] * len(rows) == [len(row["cells"]) for row in rows]
    assert sum(row["sort"][1] for row in rows) == found.n_selected
    base = found.n_selected / index.n_valid
    for row in rows:
        assert row["sort"][4] == pytest.approx(row["sort"][1] / row["sort"][2] / base)
    lines = selection_tables.ranked_rows(study.corpus(), study.scores("own_loss"), found, slice(0, 5))
    ids = [study.corpus().document(int(d)).id for d in found.ranking.order[:5]]
    assert [line["key"] for line in lines] == ids
    hits = index.documents_in_range(1.0, 3.0)
    lines = selection_tables.range_rows(study.corpus(), study.scores("own_loss"), found, hits, slice(0, 4), 1.0, 3.0)
    assert [line["cells"][2][0] for line in lines] == [f"{n:,}" for n in hits["count"].to_pylist()[:4]]


def test_the_board_says_how_far_predictions_can_be_trusted_and_invents_nothing():
    ours, other = (board.effect_text(1000, 1.0, predicts=predicts) for predicts in (True, False))
    assert ours["predicts"] and not other["predicts"] and "no influence scores" in other["help"]
    assert ours["scale"] == pytest.approx(2 / 1000)
    assert ours["note"] == "Rough estimate. Train to confirm." and not other["note"]
    ranked = board.effect_text(1000, 1.0, predicts=True, agreement=(0.8, 5))["note"]
    assert "5 measured models" in ranked and "0.80" in ranked


def test_effects_of_other_scores_are_sums_of_influence_over_what_they_select(study):
    position, own = open_index(study, "position"), study.scores("own_loss")
    knots = board.board_parts(position, own)["knots"]
    for place in (0, len(knots["documents"]) // 3):
        exact = position.resolve({"tokens_above": knots["above"][place], "window": 0, "max_tokens": 0})
        expected = float(own[position.mask(exact)].sum(dtype=np.float64))
        assert knots["effect"][0][place] == pytest.approx(expected, rel=1e-6)
        assert position.total(exact, own) == pytest.approx(expected, rel=1e-12)
    assert set(knots["effect"][2]) == {None}  # neighbours overlap: added up on release
    near = position.resolve({"tokens_above": 40, "window": 2, "max_tokens": 70})
    assert position.total(near, own) == pytest.approx(float(own[position.mask(near)].sum(dtype=np.float64)))


def test_scores_that_are_all_the_same_can_be_drawn(tmp_path, monkeypatch):
    def write_ones(study, unit, folder):
        for kind in ("own_loss", "position"):
            np.save(folder / f"{kind}.npy", study.corpus().valid().astype(np.float32))

    monkeypatch.setattr(fake_study, "_build_scores", write_ones)
    flat_study = fake_study.write_study(tmp_path / "cache", until="index")
    flat = open_index(flat_study, "own_loss")
    parts = board.board_parts(flat)
    for bins in (parts["whole"], board.tail_bins(flat, parts, 1.0)):
        assert bins["low"] < 1 < bins["high"] and bins["count"] == [flat.n_valid]
    edges = board.boundary(flat_study.corpus(), flat, flat_study.scores("own_loss"), flat.resolve({}))
    assert edges == {"last": [], "first": []} if not flat.n_tail else len(edges["first"]) <= board.AT_BOUNDARY


def test_what_only_one_selection_takes_is_no_part_of_a_word_that_both_take(study):
    corpus = study.corpus()
    index = corpus.index_of("doc-000")
    pieces = [corpus.document(index).text[a:b].strip() for a, b in zip(corpus.char_start, corpus.char_end, strict=True)]
    end = pieces.index(".")  # with the word before it
    sides = np.zeros((2, corpus.offsets[index + 1] - corpus.offsets[index]), dtype=bool)
    sides[0, end - 1], sides[1, [1, end - 1, end]] = True, True
    assert np.flatnonzero(only_one(corpus, index, *sides)).tolist() == [1]
    sides[1, 1] = False
    assert np.flatnonzero(only_one(corpus, index, *sides)).tolist() == [end]


def test_tokens_on_each_side_of_the_threshold_are_the_nearest(study, index):
    corpus, scores = study.corpus(), study.scores("own_loss")
    found = index.resolve({"tokens_above": 41, "window": 0, "max_tokens": 0})
    sides = board.boundary(corpus, index, scores, found)
    ranked = np.sort(np.asarray(scores)[corpus.valid()])[::-1]
    assert [line[0] for line in sides["last"]] == [score(float(value)) for value in ranked[[40, 39, 38]]]
    assert [line[0] for line in sides["first"]] == [score(float(value)) for value in ranked[[41, 42, 43]]]
    assert all([mark for _, mark in runs].count(1) == 1 for _, runs in sides["last"] + sides["first"])
    assert board.boundary(corpus, index, scores, index.resolve({"tokens_above": index.n_valid - 1})) == {
        "last": [],
        "first": [],
    }


def test_verdicts_of_an_audit_are_those_of_who_gave_them(tmp_path):
    study = write_study(tmp_path / "cache", until="index")
    of = (Loaded(study, study_fingerprint(study)), "own_loss", log := VerdictLog(study.root))
    for deed in ({"do": "open"}, {"do": "toxic", "item": 0}, {"do": "fine", "item": 1}):
        blind_audit.act(*of, deed, above=40, by="Ann")
    assert {by for _, _, by in log.entries().values()} == {"Ann"}
    blind_audit.act(*of, {"do": "undo"}, above=40, by="Ben")
    assert [blind_audit.describe(*of, by)["done"] for by in ("Ann", "Ben", "")] == [2, 0, 0]
    blind_audit.act(*of, {"do": "undo"}, above=40, by="Ann")
    assert blind_audit.describe(*of, "Ann")["toxic"] == 1


def test_a_team_shares_an_audit_and_each_sees_only_their_own_part_of_it(tmp_path):
    study = write_study(tmp_path / "cache", until="index")
    loaded, log = Loaded(study, study_fingerprint(study)), VerdictLog(study.root)
    of, names = (loaded, "own_loss", log), ("Ann", "<script>x = 1</script>", "Cy")
    blind_audit.act(*of, {"do": "open"}, above=40)
    audit_sample.save_team(study, audit_sample.Team(names, 0.1, HOSTILE))
    team, audit = audit_sample.read_team(study), audit_sample.read_audit(study, "own_loss")
    assert (team.reviewers, team.guideline) == (names, HOSTILE)
    parts = {name: audit_sample.open_queue(audit, team, log, name).items for name in names}
    assert sorted({i for part in parts.values() for i in part}) == [*range(40)]
    assert len(set.intersection(*map(set, parts.values()))) == 4 and sum(map(len, parts.values())) == 36 + 3 * 4
    for name, part in parts.items():
        assert audit_sample.open_queue(audit, replace(team, reviewers=names[::-1]), log, name).items == part
        for item in range(40):
            blind_audit.act(*of, {"do": "toxic" if item % 2 else "fine", "item": item}, above=40, by=name)
        assert len(log.reviewers()[name]) == len(part) == blind_audit.describe(*of, name)["n"]
    told = blind_audit.describe(*of, "Dan")
    assert told["stranger"] and not told["items"] and (told["done"], told["n"]) == (40, 40)
    assert told["guideline"] == HOSTILE and told["rows"] == blind_audit.describe(*of, "Ann")["rows"] != []
    blind_audit.act(*of, {"do": "fine", "item": 0}, above=40, by="Dan")
    blind_audit.act(*of, {"do": "undo"}, above=40, by="Cy")
    assert "Dan" not in log.reviewers() and blind_audit.describe(*of, "Cy")["items"][0][0] == parts["Cy"][-1]


def test_a_team_of_bad_names_or_with_a_long_guideline_is_refused_and_a_damaged_file_is_none(tmp_path):
    for bad in (("a\u202eb",), ("x" * 61,), ("Ann", "Ann"), ("",), tuple(map(str, range(21)))):
        with pytest.raises(ConfigError, match="expected"):
            audit_sample.Team(bad)
    for overlap, text in ((1.1, ""), (math.nan, ""), (0.1, "x" * 4001)):
        with pytest.raises(ConfigError, match="4000 characters"):
            audit_sample.Team((), overlap, text)
    study = write_study(tmp_path / "cache", until="index")
    for damaged in ("[1]", '{"reviewers": 3}', '{"reviewers": ["A"], "overlap": "x", "guideline": 1}', "{"):
        (study.root / audit_sample.TEAM).write_text(damaged)
        assert audit_sample.read_team(study) == audit_sample.Team()
    (study.root / audit_sample.TEAM).write_text('{"reviewers": [], "overlap": 0.1, "guideline": "\\ud800"}')
    assert audit_sample.read_team(study).guideline == "?"


def test_an_audit_is_kept_judged_extended_and_drawn_again(tmp_path):
    study = write_study(tmp_path / "cache", until="index")
    loaded = Loaded(study, study_fingerprint(study))
    log, truth = VerdictLog(loaded.study.root), loaded.corpus().in_span
    of = (loaded, "own_loss", log)
    do = lambda what, item=None: blind_audit.act(*of, {"do": what, "item": item}, above=40)  # noqa: E731
    told = lambda: blind_audit.describe(*of)  # noqa: E731
    do("toxic", 0)
    assert told()["n"] == 0 and not log.current()
    do("open")
    audit = audit_sample.read_audit(study, "own_loss")
    places = loaded.index("own_loss").places_at(audit.sample.ranks)
    for item in range(16):
        assert told()["items"][0][0] == item
        do("toxic" if truth[places[item]] else "fine", item)
    document = int(np.searchsorted(loaded.corpus().offsets, places[0], side="right")) - 1
    at = int(places[0] - loaded.corpus().offsets[document])
    assert Target(loaded.corpus().document(document).id, at, at + 1) in log.current()
    seen = told()
    assert (seen["done"], seen["toxic"] + seen["fine"]) == (16, 16) and json.dumps(seen, allow_nan=False)
    index = loaded.index("own_loss")
    assert seen["rows"] and all(index.tokens_above(threshold) == above for threshold, above, *_ in seen["rows"])
    assert all(low - 1e-9 <= value <= high + 1e-9 for _, _, value, low, high in seen["rows"]), seen["rows"]
    do("undo")
    assert told()["done"] == 15 and told()["items"][0][0] == 15
    do("more")
    assert told()["n"] == 80 and audit_sample.read_audit(study, "own_loss").targets[:40] == audit.targets
    do("open")
    assert told()["n"] == 80
    do("over")
    assert told()["n"] == 40 and audit_sample.read_audit(study, "own_loss").targets != audit.targets
    assert len(log.current()) == 15
    for deed in ({"do": "toxic", "item": 99}, {"do": "terrible", "item": 1}, {"do": "fine"}):
        blind_audit.act(*of, deed, above=40)
    assert len(log.current()) == 15
