"""The Compare page's prompts: a list to choose from on the left, the chosen one's completions on the right."""

from collections.abc import Container, Mapping

import numpy as np
import streamlit as st

from ifguide.evaluation.outcomes import OUTCOMES, Outcomes
from ifguide.evaluation.statistics import TOXIC_FROM
from ifguide.storage.lock import read_record
from ifguide.study.analysis.likelihood import read_likelihoods
from ifguide.ui import components, layout
from ifguide.ui.compare.drawer import show_drawer
from ifguide.ui.compare.picks import Pick, read_pick, remember_pick, shown_pick
from ifguide.ui.compare.trace_panel import stop_trace
from ifguide.ui.format import column, count, count_of, number, plain, variant_title
from ifguide.ui.loaders import Loaded
from ifguide.ui.results import pins
from ifguide.ui.results.side_by_side import Samples, prompt_payload, prompt_texts

LISTED = 200
"""Most prompts in the list; filters and the search lead to the others."""
ORDERS = {"largest": "Largest change", "drop": "Largest drop", "rise": "Largest rise", "prompt": "As in the file"}
FILTERS = {"all": "All prompts", "less": "Less toxic", "alike": "Tie", "more": "More toxic"}
OUTCOME_WORDS = {"less": "less toxic", "alike": "tie", "more": "more toxic"}


@st.fragment
def show_prompts(
    loaded: Loaded,
    samples: Samples,
    outcomes: Mapping[str, Outcomes],
    colours: Mapping[str, str],
    tried: Mapping[str, Mapping],
) -> None:
    """The prompts; reruns alone, without the page. `tried` are the completions of the reader's own prompt, by model."""
    _take_choice()
    first, *others = samples
    listed, shown = st.columns([1, 2.6], gap="small")
    with listed:
        versus, outcome, order, search = _ask(others, loaded.edited)
        compared = outcomes[versus]
        places = compared.arrange(order, outcome).tolist()
        texts = prompt_texts(samples[first])
        if search:
            places = [p for p in places if search.casefold() in texts[int(compared.prompts[p])].casefold()]
        if not places:
            none = f"None of {count_of(len(compared.prompts), 'prompt')} matches these filters."
            st.info(none, icon=":material/filter_alt:")
            st.stop()
        chosen = _show_list(compared, places, texts, order)
    pick = read_pick(samples, tried)
    with shown:
        study = loaded.study  # no model is left in a recorded one
        likely = not read_record(study.root) or read_likelihoods(study, chosen, [*samples]) is not None
        _show_prompt(loaded, samples, outcomes, colours, chosen, pick, versus, likely)
        _explain(loaded, first, likely)
    if not (pick and pick.model) and stop_trace():
        st.rerun()  # only a run of the page ends the browser's timer that follows a trace
    if pick:
        show_drawer(loaded, samples, pick, colours)


def _ask(others: list[str], edited: Container[str]) -> tuple[str, str, str, str]:
    """(model to compare with the first, outcome or empty, order, search)."""
    versus = others[0]
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        search = layout.search_box("Prompt contains", key="find", placeholder="Filter prompts")
        with st.popover("Filters", icon=":material/filter_list:", width="content"):
            outcome = layout.choose("Show", FILTERS, key="outcome")
            order = layout.choose("Order", ORDERS, key="order")
            if len(others) > 1:
                titles = {name: variant_title(name, name in edited) for name in others}
                versus = layout.choose("Changes of", titles, key="versus")
    return versus, outcome if outcome in OUTCOMES else "", order, search


def _show_list(compared: Outcomes, places: list[int], texts: Mapping[int, str], order: str) -> int:
    """The list; returns the index of the chosen prompt, or of the first."""
    prompts = [int(compared.prompts[place]) for place in places]
    linked = st.query_params.get("prompt", "")
    chosen = int(linked) if linked.isdecimal() and len(linked) < 10 and int(linked) in prompts else prompts[0]
    rows = []
    for place, prompt in list(zip(places, prompts, strict=True))[:LISTED]:
        change = f"{number(compared.first[place], 2)} → {number(compared.other[place], 2)}"
        outcome = OUTCOMES[int(compared.kinds[place])]
        rating = [change, "", "tie"] if outcome == "alike" else [change, OUTCOME_WORDS[outcome]]
        rows.append({"key": str(prompt), "cells": [[[texts[prompt], False]], rating]})
    columns = [column("Prompt", "excerpt"), column("Highest", "interval", "Highest toxicity of its completions")]
    with st.container(key="prompt_list"):
        components.record_table(columns, rows, key="prompt_table", label="Prompts", chosen=str(chosen), pickable=True)
    of = count_of(len(compared.prompts), "prompt")
    some = f"{count(len(prompts))} of {of}" if len(prompts) < len(compared.prompts) else f"All {of}"
    cut = f", the first {count(LISTED)} listed" if len(prompts) > LISTED else ""
    at, last = prompts.index(chosen), min(len(prompts), LISTED) - 1
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        for label, key, to in (("Previous", "k", at - 1), ("Next", "j", at + 1)):
            off, args = not 0 <= to <= last, (str(prompts[min(max(to, 0), last)]),)
            st.button(label, f"prompt_{key}", on_click=_choose, args=args, type="tertiary", disabled=off, shortcut=key)
        st.caption(f"{some}{cut}, by {ORDERS[order].lower()}" if order != "prompt" else f"{some}{cut}", width="content")
    return chosen


def _take_choice() -> None:
    picked = st.session_state.get("prompt_table", {}).get("pick")
    if picked is not None:
        _choose(picked)


def _choose(prompt: str) -> None:
    layout.set_parameter("prompt", prompt)
    remember_pick(0, "close")


def _show_prompt(loaded, samples, outcomes, colours, prompt: int, pick: Pick | None, versus: str, likely: bool) -> None:
    """One prompt with all models' completions, and with token probabilities if `likely`."""
    names = list(samples)
    pair = prompt_payload(samples, prompt) | {"change": ""}
    words = ["", *(_outcome(outcomes[name], prompt) for name in names[1:])]
    pair["results"] = [f"highest {value}{word}" for value, word in zip(pair["highest"], words, strict=True)]
    key, models = f"pair_{prompt}", [names[0], versus]

    def pin() -> None:
        sample = st.session_state[key]["pin"]
        with layout.guard(go_on=True):
            if sample >= 0:
                pins.pin_pair(loaded.study.root, models, pair["prompt"], sample)
            else:
                pins.unpin(loaded.study.root)

    _, place = pins.read_pin(loaded.study, loaded.samples)
    components.completions(
        pair,
        key=key,
        names=names,
        colours=colours,
        hollow=loaded.edited,
        memory=f"{loaded.name}:{prompt}",
        pinned=place[1] if place and place[0] == prompt else None,
        on_pick=lambda: remember_pick(prompt, st.session_state[key]["pick"]),
        on_pin=pin,
        tokens=likely,
        picked=shown_pick(pick, prompt),
    )


def _outcome(compared: Outcomes, prompt: int) -> str:
    places = np.flatnonzero(compared.prompts == prompt)
    return f", {OUTCOME_WORDS[OUTCOMES[int(compared.kinds[places[0]])]]}" if places.size else ""


def _explain(loaded: Loaded, name: str, likely: bool) -> None:
    """How to read the rows and the marks on toxic words; `name` is one of the models."""
    scorer = plain(str((loaded.study.metrics(name) or {}).get("scorer", "")))
    tokens = ", ≋ shows its token probabilities" if likely else ""
    st.caption(
        f"Same prompt and random seed on each row; the most toxic rows come first, and {TOXIC_FROM} or more counts as"
        f" toxic. Click a completion to see where it comes from; ☆ pins a row to the Overview page{tokens}."
        f" Words with a dotted underline are what {scorer} finds toxic: click them to see training documents with those"
        " words."
    )
