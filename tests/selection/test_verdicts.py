"""The verdict log: nothing is lost but a torn last line, and replaying gives the state."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.errors import ConfigError
from ifguide.selection import audit
from ifguide.selection.verdicts import LOG, Target, VerdictLog, apply_verdicts
from tests.app.fake_study import write_study


def test_verdicts_are_read_back_by_another_process_of_the_log(tmp_path):
    log = VerdictLog(tmp_path)
    log.decide(Target("a"), "toxic")
    log.decide(Target("b\n\u202e\ud800"), "fine")
    log.decide(Target("a", 3, 5), "unsure")
    log.decide(Target("a"), "fine")
    again = VerdictLog(tmp_path)
    assert again.current() == log.current()
    assert again.of_documents() == {"b\n\u202e\ud800": "fine", "a": "fine"}
    assert again.spans() == {"a": [(3, 5, "unsure")]}


actions = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["toxic", "fine", "unsure", "none", "undo"])), max_size=25
)


@settings(max_examples=40)
@given(actions)
def test_undo_goes_back_to_what_was_there(tmp_path_factory, steps):
    log = VerdictLog(tmp_path_factory.mktemp("log"))
    states = [{}]
    for document, action in steps:
        if action == "undo":
            log.undo()
            states = states[:-1] or [{}]
        else:
            log.decide(Target(document), action)
            states.append({k: v for k, v in {**states[-1], document: action}.items() if v != "none"})
        assert log.of_documents() == states[-1]
    assert VerdictLog(log.path.parent).of_documents() == states[-1]


def test_a_torn_last_line_is_left_out_and_written_over(tmp_path):
    log = VerdictLog(tmp_path)
    log.decide(Target("a"), "toxic")
    log.decide(Target("b"), "fine")
    whole = (tmp_path / LOG).read_bytes()
    for cut in range(len(whole) - 1, whole.index(b"\n") + 1, -7):
        (tmp_path / LOG).write_bytes(whole[:cut])
        torn = VerdictLog(tmp_path)
        assert torn.of_documents() == {"a": "toxic"}
        torn.decide(Target("c"), "unsure")
        assert VerdictLog(tmp_path).of_documents() == {"a": "toxic", "c": "unsure"}


def test_two_readers_see_each_other(tmp_path):
    one, other = VerdictLog(tmp_path), VerdictLog(tmp_path)
    one.decide(Target("a"), "toxic")
    assert other.of_documents() == {"a": "toxic"}
    one.decide(Target("b"), "fine")
    assert other.of_documents() == {"a": "toxic", "b": "fine"}
    other.undo()
    assert one.of_documents() == {"a": "toxic"}


def test_one_verdict_for_a_group_is_one_line_and_one_undo(tmp_path):
    log = VerdictLog(tmp_path)
    log.decide(Target("b"), "fine")
    log.decide(Target("a"), "toxic", copies=["a", "b", "c"])
    assert log.of_documents() == {"a": "toxic", "b": "toxic", "c": "toxic"}
    assert len((tmp_path / LOG).read_bytes().splitlines()) == 2
    assert log.undo() == Target("a")
    assert VerdictLog(tmp_path).of_documents() == {"b": "fine"}


def test_a_killed_writer_loses_at_most_one_line(tmp_path):
    code = (
        "import sys; from ifguide.selection.verdicts import *; log = VerdictLog(sys.argv[1])\n"
        "for n in range(10**6):\n    log.decide(Target(f'd{n}'), 'toxic'); print(n, flush=True)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    said = [int(writer.stdout.readline()) for _ in range(50)][-1]
    os.kill(writer.pid, signal.SIGKILL)
    said = max([said, *map(int, writer.stdout.read().split())])
    writer.wait(timeout=10)
    kept = VerdictLog(tmp_path).of_documents()
    assert len(kept) >= said + 1
    assert set(kept) == {f"d{n}" for n in range(len(kept))}


@pytest.mark.parametrize("bad", [("a", 3, None), ("a", 5, 5), ("a", -1, 2), (7, None, None), ("a", True, 3)])
def test_bad_targets_and_verdicts_are_refused(tmp_path, bad):
    with pytest.raises(ConfigError, match="expected a document's id"):
        Target(*bad)
    with pytest.raises(ConfigError, match="as a verdict"):
        VerdictLog(tmp_path).decide(Target("a"), "terrible")
    assert not (tmp_path / LOG).exists()


def test_verdicts_exclude_and_force_tokens(tmp_path):
    study = write_study(tmp_path / "cache", until="selection")
    corpus, mask = study.corpus(), np.asarray(study.selection("default").mask)
    hit = int(study.selection("default").order[0])
    here = slice(int(corpus.offsets[hit]), int(corpus.offsets[hit + 1]))
    name = corpus.document(hit).id
    inside = int(np.flatnonzero(mask[here])[0])
    verdicts = {
        Target(name): "fine",
        Target(name, inside, inside + 1): "toxic",
        Target("doc-001", 0, 3): "toxic",
        Target("gone"): "fine",
        Target("doc-002"): "toxic",
        Target("doc-003", 0, 10**6): "toxic",
        Target("doc-004", 0, 4): "unsure",
    }
    corrected = apply_verdicts(mask, corpus, verdicts, out=np.zeros_like(mask))
    expected = mask.copy()
    expected[here] = False
    expected[here.start + inside] = True
    first = int(corpus.offsets[corpus.index_of("doc-001")])
    expected[first + 1 : first + 3] = True
    assert (corrected.mask == expected).all()
    assert corrected.excluded == int((mask & ~expected).sum()) and corrected.forced == int((expected & ~mask).sum())
    assert not (corrected.mask & ~corpus.valid()).any()
    unchanged = apply_verdicts(mask, corpus, {}, out=np.zeros_like(mask))
    assert (unchanged.mask == mask).all() and unchanged.excluded == unchanged.forced == 0


def test_wilson_is_the_root_of_its_equation():
    for hits, n in ((0, 10), (3, 10), (93, 100), (100, 100)):
        for bound in audit.wilson(hits, n):
            assert (hits / n - bound) ** 2 == pytest.approx(1.959964**2 * bound * (1 - bound) / n, abs=1e-6)


def test_each_reviewer_has_verdicts_of_their_own_and_one_without_a_name_counts_for_all(tmp_path):
    log = VerdictLog(tmp_path)
    log.decide(Target("a"), "unsure")
    log.decide(Target("b"), "fine", by="ann", note="mild")
    log.decide(Target("b"), "toxic", by="ben", copies=["c"])
    assert log.of_documents() == {"a": "unsure", "b": "toxic", "c": "toxic"}
    assert log.of_documents("ann") == {"a": "unsure", "b": "fine"}
    assert log.entries("ann")[Target("b")] == ("fine", "mild", "ann")
    log.decide(Target("a"), "none", by="ann")
    assert log.of_documents("ben") == {"b": "toxic", "c": "toxic"}
    assert log.undo("ann") == Target("a") and log.undo("ann") == Target("b") and log.undo("ann") is None
    assert log.of_documents() == {"a": "unsure", "b": "toxic", "c": "toxic"}
    again = VerdictLog(tmp_path)
    assert again.entries() == log.entries() and again.of_documents("ann") == {"a": "unsure"}
    theirs = {Target("b"): ("toxic", ""), Target("c"): ("toxic", "")}
    assert again.reviewers() == {"": {Target("a"): ("unsure", "")}, "ben": theirs}


def test_a_final_verdict_takes_precedence_is_undone_and_leaves_what_its_giver_said(tmp_path):
    log, span = VerdictLog(tmp_path), Target("a", 2, 4)
    for who, verdict in (("ann", "toxic"), ("ben", "fine"), ("cy", "fine")):
        log.decide(span, verdict, by=who)
    own = log.reviewers()
    assert log.disputed() == {"a"} and log.current()[span] == "fine"
    log.decide(span, "toxic", by="cy", final=True)
    log.decide(span, "toxic", by="ann")
    for seen in (log, VerdictLog(tmp_path)):
        assert seen.entries()[span] == ("toxic", "", "cy") and not seen.disputed() and [*seen.disputes()] == [span]
        assert seen.reviewers() == own and seen.current("cy")[span] == seen.current("ben")[span] == "fine"
    assert log.undo("cy") == span and log.disputed() == {"a"} and log.reviewers() == own and not log.finals()
    log.decide(span, "unsure", by="dan", final=True)
    log.decide(span, "none", by="dan", final=True)
    assert log.disputed() == {"a"} and VerdictLog(tmp_path).reviewers() == own
    assert (tmp_path / LOG).read_text().count('"final": true') == 3


def test_agreement_is_what_is_left_of_the_agreement_by_chance():
    toxic, fine, unsure = (("toxic", ""),), (("fine", "a note"),), (("unsure", ""),)
    ann = dict(zip(range(50), toxic * 25 + fine * 25, strict=True))
    ben = dict(zip(range(10, 60), toxic * 20 + fine * 20 + unsure * 10, strict=True))
    [found] = audit.find_agreement({"ben": ben, "ann": ann, "carl": {}, "": ann})
    assert found.reviewers == ("ann", "ben") and found.n == 40 and found.same == 35
    by_chance = (15 * 20 + 25 * 20) / 40**2
    assert found.kappa == pytest.approx((35 / 40 - by_chance) / (1 - by_chance))
    assert 0 < found.bounds[0] < found.kappa < found.bounds[1] < 1
    [found] = audit.find_agreement({"ann": dict.fromkeys((1, 2), *fine), "ben": dict.fromkeys((1, 2), *fine)})
    assert found.same == 2 and found.kappa is None


def slow_kappa(pairs: list[tuple[int, int]]) -> float:
    same = sum(a == b for a, b in pairs) / len(pairs)
    firsts, seconds = zip(*pairs, strict=True)
    chance = sum(firsts.count(v) * seconds.count(v) for v in (0, 1)) / len(pairs) ** 2
    return (same - chance) / (1 - chance)


def test_weighted_kappa_is_that_of_verdicts_repeated_as_often_as_they_weigh():
    counts = np.array([[[9, 1], [0, 0]], [[0, 0], [3, 7]], [[4, 1], [2, 3]]])
    pairs, often = [], (40, 3, 11)
    for stratum, times in zip(counts, often, strict=True):
        pairs += [place for place in np.ndindex(2, 2) for _ in range(stratum[place] * times)]
    found = audit.weighted_kappa(counts, 10 * np.array(often))
    assert found.value == pytest.approx(slow_kappa(pairs)) and -1 < found.low < found.value < found.high < 1
    assert found.value != pytest.approx(audit.weighted_kappa(counts, np.array([10, 10, 10])).value, abs=0.01)
    full = audit.weighted_kappa(np.array([[[9, 0], [0, 0]], [[0, 0], [0, 9]]]), np.array([90, 10]))
    assert full.value == full.high == pytest.approx(1) and full.low < 0.9
    assert audit.weighted_kappa(counts * [[[1]], [[0]], [[1]]], np.array([10, 10, 10])) is None
    assert audit.weighted_kappa(counts * [[1, 0], [0, 0]], np.array([10, 10, 10])) is None


def test_interval_of_kappa_covers_the_truth_about_as_often_as_it_says():
    generator, sizes = np.random.default_rng(4), np.array([900, 60, 700, 30])
    covered = 0
    for _ in range(200):
        judge = np.arange(4) % 2
        persons = [generator.random(n) < (0.75 if j else 0.04) for n, j in zip(sizes, judge, strict=True)]
        counts = np.zeros((4, 2, 2), dtype=int)
        for h, person in enumerate(persons):
            np.add.at(counts, (h, judge[h], generator.permutation(person)[:15].astype(int)), 1)
        truth = slow_kappa([(int(j), int(p)) for j, person in zip(judge, persons, strict=True) for p in person])
        found = audit.weighted_kappa(counts, sizes, draws=500)
        covered += found.low <= truth <= found.high
    assert covered >= 180


def test_every_item_is_dealt_to_one_reviewer_or_to_all_and_more_items_begin_with_the_same():
    for n, reviewers, overlap, seed in (
        (40, 3, 0.1, 1),
        (41, 2, 0.25, 2),
        (7, 20, 0, 3),
        (9, 2, 1, 4),
        (500, 3, 0.3, 5),
    ):
        owners = audit.deal(n, reviewers, overlap, seed)
        shared, loads = int((owners == -1).sum()), np.bincount(owners[owners >= 0], minlength=reviewers)
        assert abs(shared - n * overlap) < 1 and loads.sum() + shared == n and np.ptp(loads) <= 1
        assert audit.deal(2 * n, reviewers, overlap, seed)[:n].tolist() == owners.tolist()
    assert audit.deal(500, 3, 0.3, 6).tolist() != owners.tolist()


def test_members_of_strata_are_drawn_in_turn_and_more_of_them_begin_with_the_same():
    strata = [np.arange(2), np.arange(10, 30), np.arange(40, 60)]
    drawn = audit.draw_in_turn(strata, 12, seed=3)
    assert all(sorted(np.searchsorted([10, 40], part, side="right")) == [0, 1, 2] for part in (drawn[:3], drawn[3:6]))
    assert len({*drawn.tolist()}) == 12 and audit.draw_in_turn(strata, 30, seed=3)[:12].tolist() == drawn.tolist()
    assert (
        len(audit.draw_in_turn(strata, 99, seed=3)) == 42
        and audit.draw_in_turn(strata, 9, 4).tolist() != drawn.tolist()[:9]
    )


def test_audit_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(5)
    highest = np.sort(generator.normal(size=4000))
    toxic = generator.random(4000) < 1 / (1 + np.exp(-2 - 2 * highest))
    covered, edges = [], np.arange(0, 4001, 1000)
    for _ in range(300):
        drawn = np.concatenate([generator.choice(1000, 15, replace=False) + 1000 * h for h in range(4)])
        found = audit.precision_above(audit.TokenSample(edges, drawn), np.arange(60), toxic[drawn], 4000)
        covered.append(found.low <= toxic.mean() <= found.high)
        assert found.low <= found.value <= found.high
    assert 0.92 <= np.mean(covered) <= 1.0
    assert audit.precision_above(audit.TokenSample(edges, drawn), np.arange(0), toxic[:0], 4000) is None


def test_audited_tokens_come_from_all_strata_in_turn_and_more_of_them_begin_with_the_same():
    few, many = (audit.draw_tokens(1000, 10**6, n, seed=3) for n in (40, 80))
    assert few.edges.tolist() == [0, 125, 250, 500, 750, 1000, 1500, 2000, 3000]
    assert many.ranks[:40].tolist() == few.ranks.tolist() and len(set(many.ranks.tolist())) == 80
    strata = np.searchsorted(few.edges, few.ranks, side="right") - 1
    assert (np.sort(strata.reshape(5, 8), axis=1) == np.arange(8)).all()
    assert audit.draw_tokens(1000, 10**6, 40, seed=4).ranks.tolist() != few.ranks.tolist()
    assert sorted(audit.draw_tokens(4, 9, 40).ranks.tolist()) == [*range(9)]


def test_precision_of_any_threshold_is_covered_about_as_often_as_it_says():
    generator, ranks = np.random.default_rng(7), np.arange(20_000)
    for share in (1 / (1 + np.exp((ranks - 1500) / 500)), np.full(20_000, 0.5), np.where(ranks < 1000, 0.95, 0.1)):
        toxic = generator.random(20_000) < share
        for above in (125, 400, 1000, 1250, 3000):
            truth, covered = toxic[:above].mean(), 0
            for seed in range(200):
                sample = audit.draw_tokens(1000, 20_000, 40, seed)
                found = audit.precision_above(sample, np.arange(40), toxic[sample.ranks], above)
                covered += found.low <= truth <= found.high
            assert covered / 200 >= 0.88, (share[0], above)
    assert audit.precision_above(sample, np.arange(40), toxic[sample.ranks], 3001) is None
    first = np.flatnonzero(sample.ranks < 125)
    found = audit.precision_above(sample, first, toxic[sample.ranks[first]], 125)
    assert len(first) == 5 and found.value == pytest.approx(toxic[sample.ranks[first]].mean())
    assert audit.precision_above(sample, first, toxic[sample.ranks[first]], 126) is None
