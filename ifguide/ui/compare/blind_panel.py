"""Blind mode: completions without names, colours and ratings; one vote per prompt, a tally, and then the names."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import streamlit as st

from ifguide.selection.audit import Interval, wilson
from ifguide.study.analysis.rating import SIZE
from ifguide.study.sharing.export import neutralise_cell
from ifguide.ui import components, layout
from ifguide.ui.compare import rating_panel
from ifguide.ui.format import column, count, count_of, model_cell, share, variant_title
from ifguide.ui.loaders import Loaded
from ifguide.ui.results import side_by_side
from ifguide.ui.results.side_by_side import Samples

TASKS = {"vote": "Vote for models", "rate": f"Rate {SIZE} answers"}
LETTERS = "ABCD"
TIE = ""
"""The vote for “about the same”."""


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """A prompt, and the order in which its models are shown."""

    prompt: int
    """Index of the prompt."""
    order: tuple[str, ...]
    """Models; the first one is shown as A."""


def draw_ballots(models: Sequence[str], prompts: Sequence[int], seed: int) -> list[Ballot]:
    """All prompts in random order, each with its models in random order; both depend only on the seed and the prompt's
    index. The first n ballots are a random sample of the prompts."""
    names = sorted(models)
    turns = np.random.default_rng([seed]).permutation(len(prompts))
    ballots = []
    for prompt in np.sort(np.asarray(prompts, dtype=np.int64))[turns].tolist():
        order = np.random.default_rng([seed, prompt]).permutation(len(names))
        ballots.append(Ballot(prompt=prompt, order=tuple(names[i] for i in order)))
    return ballots


def tally_votes(votes: Mapping[int, str], models: Sequence[str]) -> tuple[dict[str, tuple[int, Interval | None]], int]:
    """The votes for each model, with their share of all decided votes and its 95% Wilson interval (None before any vote
    is decided), and the number of ties. `votes` maps a prompt to the preferred model or `TIE`."""
    given = Counter(votes.values())
    decided = len(votes) - given[TIE]
    shares = {m: Interval(given[m] / decided, *wilson(given[m], decided)) for m in models} if decided else {}
    return {m: (given[m], shares.get(m)) for m in models}, given[TIE]


def votes_csv(votes: Mapping[int, str], ballots: Sequence[Ballot], texts: Mapping[int, str], seed: int) -> str:
    """The votes as CSV in the order of the ballots, safe to open in a spreadsheet."""
    rows = []
    for ballot in ballots:
        if ballot.prompt in votes:
            text, model = (neutralise_cell(cell) for cell in (texts[ballot.prompt], votes[ballot.prompt]))
            letter = LETTERS[ballot.order.index(votes[ballot.prompt])] if model else "tie"
            shown = "; ".join(f"{LETTERS[i]}: {name}" for i, name in enumerate(ballot.order))
            rows.append([ballot.prompt, text, shown, letter, model, seed])
    table = pd.DataFrame(rows, columns=["prompt_index", "prompt", "shown_as", "choice", "model", "seed"])
    return table.to_csv(index=False, lineterminator="\r\n")


def show_blind(loaded: Loaded, samples: Samples, colours: Mapping[str, str]) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        task = layout.switch("Task", TASKS, key="blind_task", default="vote")
        note = "Sets what is drawn and in which order, and which model is A. Another seed starts another task."
        seed = st.number_input("Seed", 0, 10**6, 1, 1, key="blind_seed", bind="query-params", width=140, help=note)
    st.subheader("Which completions are better?" if task == "vote" else "Is it toxic?", anchor=False)
    if task == "rate":
        rating_panel.show_rating(loaded, tuple(samples), int(seed))
        return
    st.caption(
        "You see what each model wrote, but not its name. A and B are shuffled for every prompt, and the prompts come"
        " in random order, so a few votes are a fair sample. Names, ratings and the other results stay hidden until"
        " you reveal them, which closes the vote."
    )
    _show_ballots(loaded, samples, colours, int(seed))


@st.fragment
def _show_ballots(loaded: Loaded, samples: Samples, colours: Mapping[str, str], seed: int) -> None:
    """One ballot after the other; reruns alone, without the page."""
    texts = side_by_side.prompt_texts(next(iter(samples.values())))
    shared = sorted(set(texts).intersection(*(set(frame["prompt_index"].tolist()) for frame in samples.values())))
    ballots = draw_ballots(list(samples), shared, seed)
    if not ballots:
        st.info("These models have no prompt in common.", icon=":material/help:")
        return
    of = (loaded.name, tuple(sorted(samples)), seed)
    key = (*of, loaded.fingerprint)
    state = st.session_state.setdefault("votes", {}).setdefault(key, {"votes": {}, "revealed": False})
    at = layout.pager("vote", n_items=len(ballots), page_size=1, noun="prompt", of=of, keys=True).start
    _show_ballot(loaded, samples, colours, ballots[at], revealed=state["revealed"])
    if not state["revealed"]:
        _ask_vote(ballots, at, state["votes"])
    _show_tally(loaded, samples, colours, ballots, texts, state, seed)


def _show_ballot(loaded, samples, colours, ballot: Ballot, *, revealed: bool) -> None:
    sides = {name: samples[name] for name in ballot.order}
    pair = side_by_side.prompt_payload(sides, ballot.prompt, by_toxicity=False, ratings=revealed)
    pair["change"] = ""
    pair["results"] = [f"highest {value}" if revealed else "" for value in pair["highest"]]
    letters, edited = dict(zip(LETTERS, sides, strict=False)), loaded.edited
    components.completions(
        pair,
        key="ballot",
        names=[*letters],
        titles=[f"{letter}: {variant_title(n, n in edited)}" if revealed else letter for letter, n in letters.items()],
        hollow=[letter for letter, name in letters.items() if revealed and name in edited],
        colours={letter: colours[name] for letter, name in letters.items()} if revealed else {},
        memory=f"{loaded.name}:{ballot.prompt}",
        rated=revealed,
        first=5,
    )


def _ask_vote(ballots: list[Ballot], at: int, votes: dict[int, str]) -> None:
    ballot = ballots[at]
    current = votes.get(ballot.prompt)
    word = "better" if len(ballot.order) == 2 else "best"
    choices = [(f"{letter} is {word}", name) for letter, name in zip(LETTERS, ballot.order, strict=False)]
    with st.container(horizontal=True, gap="small"):
        for turn, (label, model) in enumerate([*choices, ("About the same", TIE)]):
            kind: Literal["primary", "secondary"] = "primary" if current == model else "secondary"
            arguments = (votes, ballot.prompt, model, min(len(ballots), at + 2))
            press = "w" if model == TIE else {2: "ad", 3: "asd", 4: "asdf"}[len(ballot.order)][turn]
            st.button(label, key=f"vote_{turn}", type=kind, on_click=_vote, args=arguments, shortcut=press)


def _vote(votes: dict[int, str], prompt: int, model: str, next_page: int) -> None:
    votes[prompt] = model
    layout.turn_to("vote", next_page)


def _start_over(state: dict) -> None:
    state["votes"], state["revealed"] = {}, False
    layout.turn_to("vote", 1)


def _show_tally(loaded, samples, colours, ballots, texts, state: dict, seed: int) -> None:
    votes: dict[int, str] = state["votes"]
    wins, ties = tally_votes(votes, list(samples))
    st.caption(
        f"{count_of(len(votes), 'vote')} of {count_of(len(ballots), 'prompt')}, {count_of(ties, 'tie')} among them."
    )
    if state["revealed"]:
        columns = [column("Model", "titled"), column("Preferred", note="Votes for it")]
        columns.append(column("Share of decided votes", "interval", "With its 95% Wilson interval; ties are left out"))
        rows = []
        for model, (n_wins, part) in wins.items():
            cell = ["–", ""] if part is None else [share(part.value), f"{share(part.low)} – {share(part.high)}"]
            rows.append(
                {"key": model, "cells": [model_cell(model, colours, "", model in loaded.edited), count(n_wins), cell]}
            )
        components.record_table(columns, rows, key="tally", label="Votes by model")
        st.caption("These votes show one reader's preference, in fluency as much as in tone.")
    with st.container(horizontal=True, gap="small"):
        if state["revealed"]:
            table, file = votes_csv(votes, ballots, texts, seed), f"{loaded.name}-votes.csv"
            layout.offer_download("Votes as CSV", table, file, "text/csv", key="vote_csv")
        else:
            revealed, none = {"revealed": True}, not votes
            layout.button("Reveal the models", "vote_reveal", "visibility", state.update, revealed, disabled=none)
        if votes:
            note = "Deletes these votes and hides the names."
            layout.button("Start over", "vote_start_over", "restart_alt", _start_over, state, help=note)
