"""The Compare page's first line: which models, and how many prompts got better."""

from collections.abc import Mapping, Sequence

import streamlit as st

from ifguide.evaluation.outcomes import TIE_MARGIN, Outcomes
from ifguide.study.analysis.likelihood import MODELS_MOST
from ifguide.ui import layout
from ifguide.ui.format import count, plain, variant_title
from ifguide.ui.loaders import Loaded
from ifguide.ui.results import tables as comparison
from ifguide.ui.results.pins import usual_models

NONE = ""
"""Stands for no model where one can be taken out."""

COUNTED = (
    "Prompts by the highest toxicity of their completions: lower than the first model's by more than the tie margin,"
    " within it, or higher."
)


def ask_models(names: Sequence[str]) -> list[str]:
    """Two to four different models of those measured, the first of which the others are compared with. They are in the
    address: so a link, or the browser's Back, changes them."""
    chosen = [name for name in dict.fromkeys(st.query_params.get("models", "").split(",")) if name in names]
    chosen = chosen[:MODELS_MOST] if len(chosen) > 1 else usual_models(names)
    _set(chosen, names)
    for place, name in enumerate(chosen):
        if place:
            st.markdown("vs." if place == 1 else "and", width="content")
        key, options = f"model_{place}", [*names, *([NONE] if len(chosen) > 2 and place else [])]
        st.session_state[key] = name
        label = "Model that the others are compared with" if not place else f"Model {place + 1}"
        look: dict = {"label_visibility": "collapsed", "width": 170, "format_func": _title}
        st.selectbox(label, options, key=key, **look, on_change=_choose, args=(chosen, place, names))
    if left := [name for name in names if name not in chosen][: MODELS_MOST - len(chosen)]:
        look = {"on_click": _set, "args": ([*chosen, left[0]], names), "key": "model_add"}
        st.button("Add", icon=":material/add:", type="tertiary", help="Add a model", **look)
    return chosen


def _title(name: str) -> str:
    return "Remove" if name == NONE else variant_title(name)


def _choose(chosen: list[str], place: int, names: Sequence[str]) -> None:
    """Take a model at a place; one that is shown elsewhere changes places."""
    picked, now = st.session_state[f"model_{place}"], list(chosen)
    if picked in now:
        now[now.index(picked)] = now[place]
    now[place] = picked
    _set([name for name in now if name != NONE], names)


def _set(chosen: list[str], names: Sequence[str]) -> None:
    layout.set_parameter("models", "" if chosen == usual_models(names) else ",".join(chosen))


def ask_margin() -> float:
    """From which difference on two models do not tie."""
    with st.popover("Tie margin", type="tertiary", width="content"):
        size: dict = {"min_value": 0.0, "max_value": 1.0, "value": TIE_MARGIN, "step": 0.05, "format": "%.2f"}
        note = "Two models tie on a prompt when the highest toxicities of their completions differ by at most this."
        return st.number_input("Tie margin", **size, key="margin", bind="query-params", help=note)


def say_outcomes(loaded: Loaded, first: str, outcomes: Mapping[str, Outcomes]) -> str:
    """Wins, ties and losses by prompt against the first model, in Markdown: a line for each further one, grey where the
    change of worst-case toxicity is not clear."""
    lines = []
    for name, found in outcomes.items():
        less, alike, more = map(count, found.counts())
        whose = f"{plain(variant_title(name))}: " if len(outcomes) > 1 else ""
        said = f"{whose}**{less}** better · **{alike}** tie · **{more}** worse"
        clear = comparison.is_clear(loaded.difference(first, name).emt)
        lines.append(said if clear else f":gray[{said} (no clear change)]")
    return "  \n".join(lines)
