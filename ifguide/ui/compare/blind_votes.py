"""A reader's preference among completions without names: ballots, a tally, and the votes as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ifguide.selection.audit import Precision, simple_precision
from ifguide.study.analysis.export import neutralise_cell

LETTERS = "ABCD"
TIE = ""
"""A vote for none: about the same."""


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """One prompt, and the order in which its models are shown."""

    prompt: int
    """Its index."""
    order: tuple[str, ...]
    """Models; the first one is shown as A."""


def draw_ballots(models: Sequence[str], prompts: Sequence[int], seed: int) -> list[Ballot]:
    """All prompts in an order drawn from a seed, each with its models in its own random order.

    The order of a prompt's models depends on the seed and its index alone, not on the order of `models`. So the first n
    ballots are a random sample of the prompts.
    """
    names = sorted(models)
    turns = np.random.default_rng([seed]).permutation(len(prompts))
    found = []
    for prompt in np.sort(np.asarray(prompts, dtype=np.int64))[turns].tolist():
        order = np.random.default_rng([seed, prompt]).permutation(len(names))
        found.append(Ballot(prompt=prompt, order=tuple(names[i] for i in order)))
    return found


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How often one model was preferred."""

    model: str
    wins: int
    """Votes for it."""
    decided: int
    """Votes for any model."""
    share: Precision | None
    """wins / decided with its 95% Wilson interval; None before any vote is decided."""


def tally_votes(votes: Mapping[int, str], models: Sequence[str]) -> tuple[list[Tally], int]:
    """Votes by model, and how many are ties; `votes` are prompt -> the preferred model, or `TIE`."""
    chosen = list(votes.values())
    decided = len(chosen) - chosen.count(TIE)
    rows = [
        Tally(model=m, wins=chosen.count(m), decided=decided, share=simple_precision(chosen.count(m), decided))
        for m in models
    ]
    return rows, chosen.count(TIE)


def votes_csv(votes: Mapping[int, str], ballots: Sequence[Ballot], texts: Mapping[int, str], seed: int) -> str:
    """The votes as CSV, in the order of the ballots; no cell can be taken for a formula."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["prompt_index", "prompt", "shown_as", "choice", "model", "seed"])
    for ballot in ballots:
        if ballot.prompt in votes:
            model = votes[ballot.prompt]
            letter = LETTERS[ballot.order.index(model)] if model else "tie"
            shown = "; ".join(f"{LETTERS[i]}: {name}" for i, name in enumerate(ballot.order))
            writer.writerow(
                [ballot.prompt, neutralise_cell(texts[ballot.prompt]), shown, letter, neutralise_cell(model), seed]
            )
    return stream.getvalue()
