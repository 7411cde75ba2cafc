"""The two query sets that define what is toxic and what is safe, and each query's effect."""

import streamlit as st

from ifguide.ui import frame, job_panel, layout
from ifguide.ui.queries import mechanism_view, query_view

PAGE_SIZE = 20

loaded = frame.open_page("Queries")
with layout.guard():
    layout.need_stage(loaded, "queries", "The queries are the examples you provided.")
    effects = query_view.read_effects(loaded)
    kind, search, order = query_view.ask(loaded, effects)
    rows = query_view.list_queries(loaded, kind, search, order, effects)
    place = st.container()
    part = layout.pager(
        "page", n_items=len(rows), page_size=PAGE_SIZE, noun="queries", of=(loaded.name, kind, search, order)
    )
    with place:
        chosen = query_view.show_list(rows[part], kind, effects)
    if chosen is not None:
        query_view.show_query(loaded, kind, chosen, effects)
    job_panel.show_job(loaded.study.root)
    if not effects:
        query_view.offer_job(loaded)
    mechanism_view.show_mechanism(loaded)
