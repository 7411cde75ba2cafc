"""The Queries page: the list of both sets, one query's effect, and the job that computes it."""

from dataclasses import dataclass

import pandas as pd
import streamlit as st

from ifguide.errors import StaleError
from ifguide.study.analysis import explain
from ifguide.study.freshness import stage_state
from ifguide.study.on_demand import read_result
from ifguide.ui import components, job_panel, layout
from ifguide.ui.format import count, count_of, number, score
from ifguide.ui.loaders import Loaded, open_root

KINDS = {"toxic": "Toxic", "safe": "Safe"}
ORDERS = {"given": "As given", "without": "Changes the direction most", "along": "Most along the direction"}


@dataclass(frozen=True)
class Row:
    """One query of the list."""

    number: int
    prompt: str
    completion: str
    along: float | None
    without: float | None


def read_known(loaded: Loaded) -> dict | None:
    """What the job found, or None before it ran."""
    try:
        return read_result(explain.queries_path(loaded.study))
    except StaleError:
        return None


def ask(loaded: Loaded) -> tuple[str, str, str]:
    """Which set, what it contains, and in which order."""
    with st.grid(3, min_column_width=200, vertical_alignment="bottom"):
        kind = st.segmented_control(
            "Set",
            list(KINDS),
            default="toxic",
            required=True,
            key="set",
            bind="query-params",
            format_func=lambda k: f"{KINDS[k]} ({count(len(_queries(loaded, k)))})",
        )
        search = st.text_input(
            "Text contains",
            key="query_search",
            bind="query-params",
            placeholder="word or phrase",
            icon=":material/search:",
        )
        order = st.selectbox(
            "Order", list(ORDERS), key="query_order", bind="query-params", format_func=lambda key: ORDERS[key]
        )
    return kind, search or "", order


@st.cache_resource(max_entries=8, show_spinner=False)
def _read(root: str, fingerprint: str, kind: str) -> pd.DataFrame:
    return open_root(root).queries(kind)


def _queries(loaded: Loaded, kind: str) -> pd.DataFrame:
    return _read(str(loaded.study.root), loaded.fingerprint, kind)


def list_queries(loaded: Loaded, kind: str, search: str, order: str, known: dict | None) -> list[Row]:
    """The queries that contain the text, in order; without results of the job, as given."""
    table = _queries(loaded, kind)
    found = (known or {}).get(kind)
    rows = [
        Row(i, prompt, completion, found["along"][i] if found else None, found["without"][i] if found else None)
        for i, (prompt, completion) in enumerate(zip(table["prompt"], table["completion"], strict=True))
        if search.lower() in (prompt + completion).lower()
    ]
    if found and order == "without":
        rows.sort(key=lambda row: 2.0 if row.without is None else row.without)
    elif found and order == "along":
        rows.sort(key=lambda row: -(row.along or 0.0))
    return rows


def show_list(rows: list[Row], kind: str, known: dict | None) -> int | None:
    """A page of the list; returns the number of the query that is chosen."""
    columns = [
        {"label": "No.", "kind": "number"},
        {"label": "Prompt", "kind": "excerpt"},
        {"label": "Completion", "kind": "excerpt"},
    ]
    if known:
        columns += [
            {
                "label": "Along",
                "kind": "number",
                "help": "Cosine of this query's own direction with the whole one, −1 to 1: how typical it is",
            },
            {
                "label": "Without it",
                "kind": "number",
                "help": "Cosine of the direction with the one made without this query: 1 means that it changes nothing",
            },
        ]
    lines = []
    for row in rows:
        cells = [count(row.number + 1), [[row.prompt, False]], [[row.completion, True]]]
        if known:
            cells += [number(row.along), number(row.without, 5)]
        lines.append({"key": str(row.number), "cells": cells})
    key = f"query_{kind}"
    linked = st.session_state.get(key, st.query_params.get("query"))
    picked = components.record_table(
        columns,
        lines,
        key="queries",
        label="Queries",
        chosen=linked,
        pickable=True,
        veil=layout.veiled(),
        compact=False,
        empty="No query contains this text.",
    )
    if picked is not None:
        linked = picked
        st.session_state[key] = st.query_params["query"] = picked
    return int(linked) if linked and linked.isdecimal() else None


def show_query(loaded: Loaded, kind: str, chosen: int, known: dict | None) -> None:
    """What one query does."""
    table = _queries(loaded, kind)
    if chosen >= len(table):
        return
    st.subheader(f"{KINDS[kind]} query {count(chosen + 1)}", anchor=False)
    if not known:
        st.caption("What it does to the direction and which documents it pulls is not computed yet: see below.")
        return
    found = known[kind]
    along, without = found["along"][chosen], found["without"][chosen]
    with st.grid(2, min_column_width=260):
        st.metric(
            "Along the direction",
            number(along),
            "cosine, −1 to 1",
            delta_color="off",
            delta_arrow="off",
            border=True,
            help="How far this query alone points where all queries together point.",
        )
        st.metric(
            "The direction without it",
            number(without, 5),
            f"cosine; a change of {number(1 - without, 5)}" if without is not None else "the only one of its set",
            delta_color="off",
            delta_arrow="off",
            border=True,
            help="1 means that the direction stays as it is when this query is left out.",
        )
    st.caption(
        f"Documents it pulls most, of the {count_of(known['candidates'], 'best-ranked document')}. The contribution is"
        " the part of the document's score that comes from this query."
    )
    lines = [{"key": id, "cells": [id, score(value)]} for id, value in found["pulls"][chosen]]
    picked = components.record_table(
        [{"label": "Document", "kind": "text"}, {"label": "Contribution", "kind": "number"}],
        lines,
        key="pulled",
        label="Documents it pulls most",
        pickable=True,
    )
    if picked is not None:
        st.session_state["doc"] = picked
        st.switch_page("pages/documents.py", query_params={"study": loaded.name, "doc": picked})


def offer_job(loaded: Loaded, known: dict | None) -> None:
    """The button that computes what the queries do."""
    if known:
        return
    if any(stage_state(loaded.study, stage).state == "missing" for stage in ("direction", "scores", "selection")):
        st.caption("What each query does can be computed once the study has scores and a selection.")
        return
    if job_panel.show_job(loaded.study.root, quiet=True):
        return
    st.write(
        "For every query: how far it points along the direction, what the direction would be without it, and which"
        " documents it pulls most."
    )
    queries = sum(len(_queries(loaded, kind)) for kind in KINDS)
    st.caption(
        f"One gradient a query and checkpoint: {count_of(queries, 'query', 'queries')},"
        f" {count_of(len(loaded.study.checkpoint_names()), 'checkpoint')}."
    )
    if st.button("Compute what each query does", icon=":material/play_arrow:", type="primary"):
        job_panel.start(loaded.study.root, ["explain", loaded.name])
