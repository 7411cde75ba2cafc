import csv
import io
from collections import Counter

from ifguide.ui.compare.blind_panel import TIE, draw_ballots, tally_votes, votes_csv
from tests.hostile_texts import hostile_texts

MODELS = ["base", "default", "random"]


def test_ballots_depend_on_the_seed_alone_and_hold_every_prompt_and_model():
    ballots = draw_ballots(MODELS, range(40), seed=3)
    assert ballots == draw_ballots(MODELS[::-1], list(range(40))[::-1], seed=3)
    assert ballots != draw_ballots(MODELS, range(40), seed=4)
    assert sorted(b.prompt for b in ballots) == list(range(40)) and [b.prompt for b in ballots] != list(range(40))
    assert all(sorted(b.order) == MODELS for b in ballots)
    fewer = {b.prompt: b.order for b in draw_ballots(MODELS, range(10), seed=3)}
    assert all(fewer[b.prompt] == b.order for b in ballots if b.prompt < 10)


def test_every_model_is_shown_first_about_as_often():
    first = Counter(ballot.order[0] for ballot in draw_ballots(MODELS, range(1200), seed=0))
    assert all(340 <= first[name] <= 460 for name in MODELS)


def test_votes_go_to_the_model_behind_the_letter():
    ballots = draw_ballots(MODELS, range(6), seed=1)
    votes = {ballot.prompt: ballot.order[1] for ballot in ballots[:4]} | {ballots[4].prompt: TIE}
    rows, ties = tally_votes(votes, MODELS)
    assert ties == 1 and sum(wins for wins, _ in rows.values()) == 4
    assert {m: wins for m, (wins, _) in rows.items()} == {m: sum(b.order[1] == m for b in ballots[:4]) for m in MODELS}
    assert all(share.low <= share.value <= share.high for _, share in rows.values())
    assert tally_votes({0: TIE}, MODELS)[0]["base"] == (0, None)


def test_table_of_votes_holds_no_formula_and_reads_back():
    texts = dict(enumerate(["=1+1", "@x", "+1", "-1", "\t=x", *hostile_texts()[:60]]))
    ballots = draw_ballots(["base", "default"], list(texts), seed=2)
    votes = {ballot.prompt: [ballot.order[0], TIE][i % 2] for i, ballot in enumerate(ballots)}
    rows = list(csv.DictReader(io.StringIO(votes_csv(votes, ballots, texts, 2), newline="")))
    assert [int(row["prompt_index"]) for row in rows] == [ballot.prompt for ballot in ballots]
    for row, ballot in zip(rows, ballots, strict=True):
        assert not row["prompt"].startswith(("=", "+", "-", "@", "\t", "\r"))
        assert row["choice"] == ("A" if votes[ballot.prompt] else "tie") and row["model"] == votes[ballot.prompt]
        assert row["shown_as"] == f"A: {ballot.order[0]}; B: {ballot.order[1]}"
