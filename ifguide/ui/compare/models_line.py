"""The Compare page's first line: which models, and how many prompts got better."""

from collections.abc import Container, Mapping, Sequence

import streamlit as st

from ifguide.evaluation.outcomes import TIE_MARGIN, Outcomes
from ifguide.study.analysis.likelihood import MODELS_MOST
from ifguide.ui import layout
from ifguide.ui.format import count, plain, variant_title
from ifguide.ui.loaders import Loaded
from ifguide.ui.results import tables as comparison
from ifguide.ui.results.pins import usual_models

NONE = ""
"""The option that removes a model."""

COUNTED = (
    "Prompts by the highest toxicity of their completions: lower than the first model's by more than the tie margin,"
    " within it, or higher."
)


def ask_models(names: Sequence[str], edited: Container[str] = ()) -> list[str]:
    """Two to four different measured models; the others are compared with the first. They are in the address, so links
    and the browser's Back change them."""
    chosen = [name for name in dict.fromkeys(st.query_params.get("models", "").split(",")) if name in names]
    chosen = chosen[:MODELS_MOST] if len(chosen) > 1 else usual_models(names)
    _set(chosen, names)
    for place, name in enumerate(chosen):
        if place:
            st.markdown("vs." if place == 1 else "and", width="content")
        key, options = f"model_{place}", [*names, *([NONE] if len(chosen) > 2 and place else [])]
        st.session_state[key] = name
        label = "Model that the others are compared with" if not place else f"Model {place + 1}"
        arguments, title_of = (chosen, place, names), lambda name: _title(name, edited)
        st.selectbox(
            label, options, 0, title_of, key, None, _choose, arguments, label_visibility="collapsed", width=170
        )
    if unused := [name for name in names if name not in chosen][: MODELS_MOST - len(chosen)]:
        layout.button("Add", "model_add", "add", _set, [*chosen, unused[0]], names, help="Add a model")
    return chosen


def _title(name: str, edited: Container[str]) -> str:
    return "Remove" if name == NONE else variant_title(name, name in edited)


def _choose(chosen: list[str], place: int, names: Sequence[str]) -> None:
    """Put a model at a place; if it is already shown elsewhere, the two swap."""
    picked, now = st.session_state[f"model_{place}"], list(chosen)
    if picked in now:
        now[now.index(picked)] = now[place]
    now[place] = picked
    _set([name for name in now if name != NONE], names)


def _set(chosen: list[str], names: Sequence[str]) -> None:
    layout.set_parameter("models", "" if chosen == usual_models(names) else ",".join(chosen))


def ask_margin() -> float:
    with st.popover("Tie margin", type="tertiary", width="content"):
        note = "Two models tie on a prompt if the highest toxicities of their completions differ by at most this much."
        return st.number_input(
            "Tie margin", 0.0, 1.0, TIE_MARGIN, 0.05, format="%.2f", key="margin", bind="query-params", help=note
        )


def describe_outcomes(loaded: Loaded, first: str, outcomes: Mapping[str, Outcomes]) -> str:
    """Each model's wins, ties and losses by prompt against the first, in Markdown: one line each, grey if the change in
    worst-case toxicity is not clear."""
    lines = []
    for name, outcome in outcomes.items():
        less, alike, more = map(count, outcome.counts())
        model = f"{plain(variant_title(name, name in loaded.edited))}: " if len(outcomes) > 1 else ""
        line = f"{model}**{less}** better · **{alike}** tie · **{more}** worse"
        clear = comparison.is_clear(loaded.difference(first, name).emt)
        lines.append(line if clear else f":gray[{line} (no clear change)]")
    return "  \n".join(lines)
