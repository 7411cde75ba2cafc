"""The Queries page: the lists of both sets, a query's effect, and the job that computes it."""

import pandas as pd
import streamlit as st

from ifguide.config.attributions import needs_direction
from ifguide.errors import StaleError
from ifguide.study.analysis import explain
from ifguide.study.freshness import stage_state
from ifguide.study.on_demand import read_result
from ifguide.ui import components, job_panel, layout
from ifguide.ui.format import column, count, count_of, finite, number, score
from ifguide.ui.loaders import Loaded

KINDS = {"toxic": "Toxic", "safe": "Safe"}
ORDERS = {"given": "As given", "without": "Changes the direction most", "along": "Most along the direction"}


def read_effects(loaded: Loaded) -> dict | None:
    """The effects of the queries, from `explain_queries`; None if they are not computed."""
    try:
        return read_result(explain.queries_path(loaded.study))
    except StaleError:
        return None


def ask(loaded: Loaded, effects: dict | None) -> tuple[str, str, str]:
    """The set, the text to search for, and the order, of which only `effects` give more than one."""
    sets = {kind: f"{title} ({count(len(loaded.queries(kind)))})" for kind, title in KINDS.items()}
    with st.grid(3, min_column_width=200, vertical_alignment="bottom"):
        kind = layout.switch("Set", sets, key="set", default="toxic")
        search = layout.search_box("Text contains", key="query_search")
        return kind, search, layout.choose("Order", ORDERS, key="query_order") if effects else "given"


def list_queries(loaded: Loaded, kind: str, search: str, order: str, effects: dict | None) -> pd.DataFrame:
    """The queries that contain the text, in order, with their cosines `along` and `without` if there are `effects`."""
    table = loaded.queries(kind)
    if effects:
        along, without = (pd.Series(effects[kind][name], dtype=float) for name in ("along", "without"))
        table = table.assign(along=along, without=without)
    table = table[(table["prompt"] + table["completion"]).str.lower().str.contains(search.lower(), regex=False)]
    return table.sort_values(order, ascending=order == "without", kind="stable") if order in table else table


def show_list(rows: pd.DataFrame, kind: str, effects: dict | None) -> int | None:
    """A page of the list; returns the number of the chosen query."""
    columns = [column("No."), column("Prompt", "excerpt"), column("Completion", "excerpt")]
    if effects:
        columns += [
            column("Along", note="Cosine of this query's own direction with the whole one, −1 to 1: how typical it is"),
            column("Without it", note="Cosine of the direction with and without this query: 1 means no change"),
        ]
    lines = []
    for row in rows.itertuples():
        cells = [count(row.Index + 1), [[row.prompt, False]], [[row.completion, True]]]
        if effects:
            cells += [number(finite(row.along)), number(finite(row.without), 5)]
        lines.append({"key": str(row.Index), "cells": cells})
    key = f"query_{kind}"
    linked = st.session_state.get(key, st.query_params.get("query"))
    label, none = "Queries", "No query contains this text."
    picked = components.record_table(
        columns, lines, key="queries", label=label, chosen=linked, pickable=True, empty=none
    )
    if picked is not None:
        linked = picked
        st.session_state[key] = st.query_params["query"] = picked
    return int(linked) if linked and linked.isdecimal() else None


def show_query(loaded: Loaded, kind: str, chosen: int, effects: dict | None) -> None:
    table = loaded.queries(kind)
    if chosen >= len(table):
        return
    st.subheader(f"{KINDS[kind]} query {count(chosen + 1)}", anchor=False)
    if not effects:
        return
    along, without = effects[kind]["along"][chosen], effects[kind]["without"][chosen]
    change = "the only one of its set" if without is None else f"cosine; a change of {number(1 - without, 5)}"
    agrees = "How closely this query's own direction agrees with that of all queries."
    with st.grid(2, min_column_width=260):
        for title, value, below, note in (
            ("Along the direction", number(along), "cosine, −1 to 1", agrees),
            ("The direction without it", number(without, 5), change, "1: leaving this query out changes nothing."),
        ):
            st.metric(title, value, below, delta_color="off", delta_arrow="off", border=True, help=note)
    st.caption(
        f"Documents whose scores it raises most, of the {count_of(effects['candidates'], 'best-ranked document')}. The"
        " contribution is the part of the score that comes from this query."
    )
    lines = [{"key": id, "cells": [id, score(value)]} for id, value in effects[kind]["pulls"][chosen]]
    columns, label = [column("Document", "text"), column("Contribution")], "Documents it raises most"
    picked = components.record_table(columns, lines, key="pulled", label=label, pickable=True)
    if picked is not None:
        layout.open_document(loaded, picked)


def offer_job(loaded: Loaded) -> None:
    if job_panel.refuse_recorded(loaded.study.root):
        return
    if not needs_direction(loaded.study.config.scores):
        st.caption(
            "Only influence scores have parts of each query. Set scores.own_loss = true and run the study again."
        )
        return
    if any(stage_state(loaded.study, stage).state == "missing" for stage in ("direction", "scores", "selection")):
        st.caption("Each query's effect can be computed once the study has scores and a selection.")
        return
    if job_panel.is_pending(loaded.study.root, "explain", loaded.name):
        return
    st.write(
        "For every query: how closely it agrees with the direction, how the direction changes without it, and the"
        " documents whose scores it raises most."
    )
    queries = sum(len(loaded.queries(kind)) for kind in KINDS)
    st.caption(
        f"One gradient for each query and checkpoint: {count_of(queries, 'query', 'queries')},"
        f" {count_of(len(loaded.study.checkpoint_names()), 'checkpoint')}."
    )
    if st.button("Compute each query's effect", icon=":material/play_arrow:", type="primary"):
        job_panel.start(loaded.study.root, ["explain", loaded.name])
