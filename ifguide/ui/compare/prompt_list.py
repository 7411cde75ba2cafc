"""The Compare page's prompts with all models' completions: filtered, sorted and searched."""

from collections.abc import Mapping

import numpy as np
import streamlit as st

from ifguide.evaluation.outcomes import OUTCOMES, TIE_MARGIN, Outcomes, compare_with_first
from ifguide.evaluation.statistics import TOXIC_FROM
from ifguide.ui import components, layout
from ifguide.ui.compare import completion_panel, side_by_side
from ifguide.ui.compare import tables as comparison
from ifguide.ui.compare.side_by_side import Samples
from ifguide.ui.format import count_of, number, plain, variant_title
from ifguide.ui.loaders import Loaded

PAGE_SIZE = 5
ORDERS = {"largest": "Largest change", "drop": "Largest drop", "rise": "Largest rise", "prompt": "As in the file"}
FILTERS = {"all": "All prompts", "less": "Less toxic", "alike": "Tie", "more": "More toxic"}
OUTCOME_WORDS = {"less": "less toxic", "alike": "tie", "more": "more toxic"}


def show_outcomes(samples: Samples, colours: Mapping[str, str]) -> dict[str, Outcomes]:
    """Wins, ties and losses by prompt against the first model."""
    first = next(iter(samples))
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        st.subheader("Prompt by prompt", anchor=False)
        size: dict = {"min_value": 0.0, "max_value": 1.0, "value": TIE_MARGIN, "step": 0.05, "format": "%.2f"}
        note = "Two models tie on a prompt when the highest toxicities of their completions differ by at most this."
        margin = st.number_input("Tie margin", **size, key="margin", bind="query-params", width=150, help=note)
    outcomes = compare_with_first(samples, margin=margin)
    columns, rows = comparison.outcome_table(outcomes, first, colours)
    components.record_table(columns, rows, key="outcomes", label="Wins, ties and losses by prompt")
    st.caption(
        f"By the highest toxicity among a prompt's completions; a difference of at most {number(margin, 2)} is a tie."
    )
    return outcomes


@st.fragment
def show_prompts(
    loaded: Loaded, samples: Samples, outcomes: Mapping[str, Outcomes], colours: Mapping[str, str]
) -> None:
    """The prompts; reruns by itself, without the rest of the page."""
    first, *others = samples
    st.subheader("The same prompts, side by side", anchor=False)
    versus, outcome, order, search, differ = _ask(others)
    found = outcomes[versus]
    places = found.arrange(order, outcome)
    if search:
        contain = samples[first]["prompt"].str.casefold().str.contains(search.casefold(), regex=False)
        places = places[np.isin(found.prompts[places], samples[first]["prompt_index"][contain])]
    said = (
        f"Same prompt and random seed on each row. Rows with the highest toxicity come first; {TOXIC_FROM} or more"
        " counts as toxic. "
    )
    if len(others) > 1:
        said += f"Order and filter compare {plain(variant_title(versus))} with {plain(variant_title(first))}. "
    if differ:
        said += "Words with a solid underline are not in the first model's completion on that row. "
    said += _explain_spans(loaded, samples)
    st.caption(f"{said}Click a completion to see its nearest training documents.")
    if not len(places):
        none = f"None of {count_of(len(found.prompts), 'prompt')} matches these filters."
        st.info(none, icon=":material/filter_alt:")
        return
    of = (loaded.name, tuple(samples), versus, outcome, order, search, found.margin)
    part = layout.pager("prompts", n_items=len(places), page_size=PAGE_SIZE, noun="prompts", of=of)
    pick = completion_panel.read_pick(samples)
    for place in places[part].tolist():
        _show_prompt(loaded, samples, outcomes, colours, int(found.prompts[place]), pick, differ)


def _explain_spans(loaded: Loaded, samples: Samples) -> str:
    """What the marks on toxic words mean, and which models have none because an older version measured them."""
    old = [name for name, frame in samples.items() if "toxic_spans" not in frame]
    said = ""
    if len(old) < len(samples):
        scorer = plain(str((loaded.study.metrics(next(n for n in samples if n not in old)) or {}).get("scorer", "")))
        said = (
            f"Words with a dotted underline are what {scorer} finds toxic in a completion: click them for the training"
            " documents nearest to those words. "
        )
    if old:
        whose = "these models" if len(old) == len(samples) else plain(", ".join(variant_title(name) for name in old))
        said += (
            f"Toxic words of {whose} are not marked: an older version measured them. Measure them again (`--force"
            " evaluate`) to find them. "
        )
    return said


def _show_prompt(loaded, samples, outcomes, colours, prompt: int, pick, differ: bool) -> None:
    """One prompt, and under it the panel about its picked completion."""
    names = list(samples)
    pair = side_by_side.prompt_payload(samples, prompt, differ=differ, spans=True)
    if len(names) > 2:
        pair["change"] = ""
    words = ["", *(_outcome(outcomes[name], prompt) for name in names[1:])]
    pair["results"] = [f"highest {value}{word}" for value, word in zip(pair["highest"], words, strict=True)]
    here = pick if pick and pick.prompt == prompt else None
    components.completions(
        pair,
        key=f"pair_{prompt}",
        names=names,
        titles=[variant_title(name) for name in names],
        colours=[colours[name] for name in names],
        chosen=f"{here.sample}.{here.model}" if here else "",
        span=here.span_text if here else "",
        memory=f"{loaded.name}:{prompt}",
        on_pick=lambda: completion_panel.remember_pick(prompt, st.session_state[f"pair_{prompt}"]["pick"]),
    )
    if here:
        completion_panel.show_panel(loaded, samples, here, colours)


def _outcome(found: Outcomes, prompt: int) -> str:
    """What happened on a prompt, compared with the first model."""
    places = np.flatnonzero(found.prompts == prompt)
    return f", {OUTCOME_WORDS[OUTCOMES[int(found.kinds[places[0]])]]}" if places.size else ""


def _ask(others: list[str]) -> tuple[str, str, str, str, bool]:
    """(which model against the first, outcome or nothing, order, search, whether differing words are marked)."""
    versus = others[0]
    with st.grid(4 if len(others) > 1 else 3, min_column_width=180, vertical_alignment="bottom"):
        search = layout.search_box("Prompt contains", key="find")
        if len(others) > 1:
            versus = layout.choose("Changes of", {name: variant_title(name) for name in others}, key="versus")
        outcome = layout.choose("Show", FILTERS, key="outcome")
        order = layout.choose("Order", ORDERS, key="order")
    differ = st.toggle("Mark words that differ from the first model's", key="differ", bind="query-params")
    return versus, outcome if outcome in OUTCOMES else "", order, search, differ
