"""The ranked documents, and the tokens of the chosen one."""

import numpy as np
import streamlit as st

from ifguide.errors import InputError
from ifguide.ui import components, document_list, layout, token_view
from ifguide.ui.format import ATTRIBUTION_NOTES, ATTRIBUTION_TITLES, count, count_of, plain, score, selection_title
from ifguide.ui.loaders import Loaded

PAGE_SIZE = 10


def ask_filter(loaded: Loaded) -> tuple[str, document_list.DocumentFilter]:
    """The controls above the list."""
    names = loaded.study.selection_names()
    sources = loaded.source_names()
    with st.grid(4, min_column_width=190, vertical_alignment="bottom"):
        chosen = st.selectbox(
            "Selection", names, key="selection", bind="query-params", format_func=selection_title,
            help="Which choice of tokens ranks and underlines. Choices are made on the Threshold page.",
        )  # fmt: skip
        picked = st.multiselect("Sources", sources, key="sources", bind="query-params", placeholder="All sources")
        search = st.text_input(
            "Text contains", key="search", bind="query-params", placeholder="word or phrase", icon=":material/search:"
        )
        with st.popover("More filters", icon=":material/filter_list:", width="stretch"):
            regex = st.toggle(
                "Regular expression",
                key="regex",
                bind="query-params",
                help="Read the searched text as a regular expression (RE2 syntax).",
            )
            lowest = st.number_input(
                "Lowest sum of scores", value=None, key="lowest", bind="query-params", placeholder="no limit"
            )
            highest = st.number_input(
                "Highest sum of scores", value=None, key="highest", bind="query-params", placeholder="no limit"
            )
            only = st.toggle("Only documents with selected tokens", key="only", bind="query-params")
    wanted = document_list.DocumentFilter(
        sources=tuple(picked), only_selected=only, search=search or "", regex=regex, lowest=lowest, highest=highest
    )
    return chosen, wanted


def show_list(
    loaded: Loaded, selection, n_selected: np.ndarray, found: np.ndarray, rows: slice, chosen: int | None
) -> str | None:
    """The page of the ranked list; returns the id that was clicked."""
    corpus, ids, sources = loaded.corpus(), loaded.ids(), loaded.sources()
    ranks = np.empty(len(n_selected), dtype=np.int64)
    ranks[selection.order] = np.arange(1, len(n_selected) + 1)
    scores = loaded.scores(selection.settings.get("attribution") or "own_loss")
    top = float(np.max(selection.sum_above, initial=0.0)) or 1.0
    columns = [
        {
            "label": "Rank",
            "kind": "number",
            "help": "1 teaches toxicity most: many tokens above the threshold, and high ones",
        },
        {"label": "Document", "kind": "text"},
        {"label": "Source", "kind": "text"},
        {"label": "Hits", "kind": "number", "help": "Tokens above the threshold"},
        {"label": "Sum", "kind": "bar", "help": "Sum of the hits' scores"},
        {
            "label": "Selected",
            "kind": "number",
            "help": "Selected tokens: hits and their neighbours, within the budget",
        },
        {"label": "Around the highest selected token", "kind": "excerpt"},
    ]
    lines = []
    for index in found[rows]:
        total = float(selection.sum_above[index])
        cells = [
            count(ranks[index]), ids[index], str(sources[index]), count(selection.count_above[index]),
            [score(total), total / top], count(n_selected[index]), document_list.excerpt(corpus, int(index), mask=selection.mask, scores=scores),
        ]  # fmt: skip
        lines.append({"key": ids[index], "cells": cells})
    return components.record_table(
        columns, lines, key="ranked", label="Documents by rank", chosen=None if chosen is None else ids[chosen], pickable=True,
        veil=layout.veiled(), compact=True, empty="No document passes these filters.",
    )  # fmt: skip


def choose(document_id: str) -> None:
    """Remember the chosen document, here and in the address."""
    st.session_state["doc"] = st.query_params["doc"] = document_id
    layout.turn_to("part", 1)


def find_chosen(loaded: Loaded, found: np.ndarray) -> int | None:
    """The chosen document, or the first of the list."""
    wanted = st.query_params.get("doc", st.session_state.get("doc"))
    if wanted is not None:
        try:
            index = loaded.corpus().index_of(wanted)
        except InputError:
            st.warning(
                f"This corpus has no document “{plain(wanted)}”, which the link names.", icon=":material/link_off:"
            )
        else:
            st.session_state["doc"] = st.query_params["doc"] = wanted
            return index
        st.query_params.pop("doc", None)
        st.session_state.pop("doc", None)
    return int(found[0]) if len(found) else None


def show_document(loaded: Loaded, selection, n_selected: np.ndarray, found: np.ndarray, index: int) -> None:
    """The chosen document's tokens, with buttons to its neighbours in the list."""
    corpus, ids = loaded.corpus(), loaded.ids()
    place = np.flatnonzero(found == index)
    at = int(place[0]) if place.size else None
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader(f"Document {plain(ids[index])}", anchor=False, width="content")
        with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
            back = st.button(
                "Previous document", icon=":material/arrow_back:", disabled=at is None or at == 0, key="doc_back"
            )
            forward = st.button(
                "Next document",
                icon=":material/arrow_forward:",
                icon_position="right",
                disabled=at is None or at + 1 >= len(found),
                key="doc_forward",
            )
    where = (
        f"{count(at + 1)} of {count(len(found))} in the list"
        if at is not None
        else "not in the list: the filters leave it out"
    )
    st.caption(f"{plain(loaded.sources()[index])} · {count_of(int(n_selected[index]), 'selected token')} · {where}")
    if back or forward:
        step = at + (1 if forward else -1)
        choose(ids[int(found[step])])
        layout.turn_to("page", step // PAGE_SIZE + 1)
        st.rerun()
    kinds = loaded.kinds()
    with st.container(horizontal=True, vertical_alignment="center"):
        colour = st.segmented_control(
            "Colour by", kinds, default=kinds[0], required=True, key="colour", bind="query-params", label_visibility="collapsed",
            format_func=lambda kind: ATTRIBUTION_TITLES[kind],
        )  # fmt: skip
        st.caption(ATTRIBUTION_NOTES[colour], width="content")
    length = int(corpus.offsets[index + 1] - corpus.offsets[index])
    parts = token_view.n_parts(length)
    part = (
        layout.pager("part", n_items=parts, page_size=1, noun="part", of=(loaded.name, index)).start if parts > 1 else 0
    )
    payload = token_view.build_payload(
        corpus, index, layers={kind: (loaded.scores(kind), loaded.scale_top(kind)) for kind in kinds}, colour=colour,
        mask=selection.mask, part=part, veil=layout.veiled(),
    )  # fmt: skip
    components.token_viewer(payload, key="viewer")


loaded = layout.open_page(
    "Documents",
    "Training documents, ranked by how strongly they teach the model to be toxic. Click one to see which of its tokens do it.",
)
with layout.guard():
    layout.need_stage(loaded, "selection", "Documents are ranked by the selected tokens.")
    name, wanted = ask_filter(loaded)
    selection, n_selected = loaded.selection(name), loaded.n_selected(name)
    found = document_list.filter_documents(
        wanted, selection, n_selected=n_selected, sources=loaded.sources(), texts=loaded.texts()
    )
    chosen = find_chosen(loaded, found)
    place = st.container()
    rows = layout.pager(
        "page", n_items=len(found), page_size=PAGE_SIZE, noun="documents", of=(loaded.name, name, wanted)
    )
    with place:
        picked = show_list(loaded, selection, n_selected, found, rows, chosen)
    if picked is not None:
        choose(picked)
        st.rerun()
    if chosen is not None:
        show_document(loaded, selection, n_selected, found, chosen)
