"""The slide on which the room votes, pair after pair, without knowing which model wrote what."""

from ifguide.ui.compare.blind_panel import LETTERS, TIE, Ballot, draw_ballots, tally_votes
from ifguide.ui.format import count, count_of, share, variant_title
from ifguide.ui.loaders import Loaded
from ifguide.ui.palette import variant_colours
from ifguide.ui.report.slides import cell_runs
from ifguide.ui.results.side_by_side import Samples, prompt_payload, prompt_texts

PAIRS = 10
"""Pairs to vote on."""
EQUAL = "="
"""The vote for a tie, in the browser."""


def choose_pairs(samples: Samples, seed: int) -> list[tuple[Ballot, list]]:
    """Ballots, each with the runs of its prompt and of the first completion of each of its models."""
    shared = set.intersection(*(set(prompt_texts(frame)) for frame in samples.values()))
    pairs = []
    for ballot in draw_ballots(list(samples), sorted(shared), seed)[:PAIRS]:
        pair = prompt_payload({name: samples[name] for name in ballot.order}, ballot.prompt, by_toxicity=False)
        texts = [cell_runs(cell) if cell else [] for cell in pair["rows"][0]["cells"]]
        pairs.append((ballot, [[[pair["prompt"], False, False]], *texts]))
    return pairs


def check_votes(votes: object) -> list[str]:
    """The votes as letters, of what a browser sent."""
    return [vote for vote in votes if vote in ("A", "B", EQUAL)][:PAIRS] if isinstance(votes, list) else []


def describe_vote(loaded: Loaded, room: dict) -> dict:
    """The slide: pairs as a prompt and two letters with their texts, the votes, and once they are revealed the result
    and each pair's models."""
    votes, pairs = room["votes"], room["pairs"]
    ballots = [[texts[0], [[a, runs] for a, runs in zip(LETTERS, texts[1:], strict=False)]] for _, texts in pairs]
    slide = {"key": "vote", "title": "Which answer is better?", "ballots": ballots, "votes": votes}
    if room["revealed"] and votes:
        chosen = {ballot.prompt: _model(ballot, vote) for (ballot, _), vote in zip(pairs, votes, strict=False)}
        wins, ties = tally_votes(chosen, pairs[0][0].order)
        colours, edited = variant_colours(loaded.study.evaluation_names()), loaded.edited
        slide["title"] = "What the room preferred"
        slide["tally"] = f"A blind vote on {count_of(len(votes), 'pair')}, {count_of(ties, 'tie')} among them."
        slide["names"] = [[variant_title(name, name in edited) for name in ballot.order] for ballot, _ in pairs]
        slide["bars"] = []
        for name, (n, part) in sorted(wins.items()):
            interval = f"{share(part.low)} – {share(part.high)}" if part else ""
            looks = [colours[name], name in edited, *(part or (0, 0, 0))]
            slide["bars"].append([variant_title(name, name in edited), count(n), interval, *looks])
    return slide


def _model(ballot: Ballot, vote: str) -> str:
    return TIE if vote == EQUAL else ballot.order[LETTERS.index(vote)]
