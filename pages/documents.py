"""The ranked documents, the tokens of the chosen one, and people's verdicts on them."""

import streamlit as st

from ifguide.config.names import DEFAULT
from ifguide.errors import InputError
from ifguide.selection.verdicts import VerdictLog
from ifguide.ui import frame, layout
from ifguide.ui.documents import lines as document_list
from ifguide.ui.documents import loaders as document_data
from ifguide.ui.documents import meaning, reader, verdict_panel
from ifguide.ui.documents import why_panel as why
from ifguide.ui.documents.condition import EXAMPLE
from ifguide.ui.documents.store import ALIKE, DocumentFilter, DocumentStore
from ifguide.ui.documents.token_view import Layer
from ifguide.ui.format import count, plain, selection_title
from ifguide.ui.loaders import Loaded

VERDICTS = {"toxic": "Toxic", "fine": "Fine", "unsure": "Unsure", "none": "No verdict yet", "disputed": "Disputed"}
SPANS = {"any": "With or without", "with": "With human labels", "without": "Without"}
FILTERS: dict[str, tuple[object, str]] = {
    "selection": (DEFAULT, "selection: {}"),
    "regex": (False, "regular expression"),
    "only": (False, "with selected tokens"),
    "copies": (False, "every near-duplicate"),
    "like": ("", "like: {}"),
    "box": ("", "in a box of the map"),
    "verdicts": ([], "verdict: {}"),
    "spans": ("any", "human labels: {}"),
    "lowest": (None, "sum ≥ {}"),
    "highest": (None, "sum ≤ {}"),
    "shortest": (None, "tokens ≥ {}"),
    "longest": (None, "tokens ≤ {}"),
}
"""Control behind the Filter button -> its value when it filters nothing, and the text of its chip otherwise."""


def ask_more(loaded: Loaded) -> dict:
    more: dict = {}
    titles = {name: selection_title(name) for name in loaded.study.selection_names()}
    note = "The selection that ranks documents and underlines tokens. Selections are made on the Threshold page."
    more["selection"] = layout.choose("Selection", titles, key="selection", help=note)
    note = "Reads the search text as a regular expression (RE2 syntax)."
    more["regex"] = st.toggle("Regular expression", key="regex", bind="query-params", help=note)
    more["only"] = st.toggle("Only documents with selected tokens", key="only", bind="query-params")
    note = "If off, nearly identical documents are listed once, and a verdict applies to all of them."
    more["copies"] = st.toggle("Show every near-duplicate", key="copies", bind="query-params", help=note)
    more["verdicts"] = st.multiselect(
        "Verdict", list(VERDICTS), None, VERDICTS.__getitem__, "verdicts", placeholder="Any", bind="query-params"
    )
    if loaded.corpus().in_span is not None:
        more["spans"] = layout.choose("Human labels", SPANS, key="spans")
    note = f"Lists the {ALIKE} documents that the base model reads most like it, of those that pass the other filters."
    more["like"] = st.text_input("Like the document", key="like", help=note, bind="query-params").strip()
    note = "A part of the map of documents, as its link “Open the box in Documents” on the Threshold page gives it."
    more["box"] = st.text_input("Box of the map", key="box", max_chars=500, help=note, bind="query-params").strip()
    low, high = st.columns(2)
    for side, key, label in ((low, "lowest", "Lowest sum of scores"), (high, "highest", "Highest sum of scores")):
        more[key] = side.number_input(label, value=None, placeholder="no limit", key=key, bind="query-params")
    for side, key, label in ((low, "shortest", "Fewest tokens"), (high, "longest", "Most tokens")):
        more[key] = side.number_input(
            label, min_value=0, value=None, step=1, placeholder="no limit", key=key, bind="query-params"
        )
    return more


def show_chips(asked: dict) -> None:
    for key, (unset, words) in FILTERS.items():
        if (value := asked.get(key, unset)) != unset:
            if isinstance(value, list):
                value = ", ".join(VERDICTS[verdict].lower() for verdict in value)
            label = plain(words.format(selection_title(value) if key == "selection" else value))
            name, note, change = f"drop_{key}", "Remove this filter", st.session_state.update
            st.button(label, name, note, change, ({key: unset},), icon=":material/close:", icon_position="right")


def find_near(loaded: Loaded, asked: dict) -> tuple[int, ...]:
    """Documents by likeness to one or to a text, the nearest first; none without either, or until they are there."""
    if not (asked["meant"] and asked["search"]):
        return document_data.find_alike(loaded, asked["like"]) if asked["like"] else ()
    if asked["like"]:
        raise InputError("the list is by likeness to a document or by meaning, not both; remove one of them")
    return meaning.find_meant(loaded, asked["search"])


def build_filter(loaded: Loaded, asked: dict, store: DocumentStore, log: VerdictLog) -> DocumentFilter:
    spans = asked.get("spans", "any")
    criteria = DocumentFilter(
        lowest=asked["lowest"],
        highest=asked["highest"],
        shortest=asked["shortest"],
        longest=asked["longest"],
        sources=tuple(sorted(asked["sources"])),
        where=asked["where"].strip(),
        like=find_near(loaded, asked),
        only_selected=asked["only"],
        spans="" if spans == "any" else spans,
        collapse=not asked["copies"] and store.has_copies,
    )
    criteria = document_data.filter_verdicts(criteria, asked["verdicts"], log, store)
    if asked["box"]:
        criteria = document_data.narrow(criteria, document_data.find_boxed(loaded, asked["box"]))
    if asked["search"] and not asked["meant"]:
        matches = document_data.search_text(loaded, asked["search"], asked["regex"])
        criteria = document_data.narrow(criteria, matches)
    return criteria


def offer_list(loaded: Loaded, store: DocumentStore, criteria: DocumentFilter, log: VerdictLog) -> None:
    order = store.order(criteria)
    if not len(order):
        unset = {"search": "", "sources": [], "where": ""} | {
            key: FILTERS[key][0] for key in FILTERS if key != "selection"
        }
        layout.button("Clear filters", "clear", "filter_alt_off", st.session_state.update, unset)
    st.caption(
        f"{count(len(order))} of {count(store.n_documents)}{loaded.sampled}",
        width="content",
        help="Documents in the list",
    )
    for form, mime in (("csv", "text/csv"), ("json", "application/json")):

        def write(form: str = form) -> str:
            return document_list.write_list(store.rows(order), log.reviewers(), loaded.corpus(), form, log.finals())

        texts = " with texts" * (len(order) <= document_list.MOST_TEXTS)
        note = f"Download the list{texts} by rank, a row for each verdict and reviewer ({form.upper()})"
        layout.offer_download(form.upper(), write, f"{loaded.name}-documents.{form}", mime, key=form, help=note)


loaded = frame.open_page("Documents", wide=True)
with layout.guard():
    document_data.need_selection(loaded)
    layout.need_stage(loaded, "selection", "Documents are ranked by the selected tokens.")
    document_data.need_table(loaded)
    document_data.warm_up(loaded)
    reader.follow_likeness()
    layout.note_changes(loaded)
    with st.container(key="filters", horizontal=True, vertical_alignment="center", gap="small"):
        asked: dict = dict(zip(("search", "meant"), meaning.search_box(), strict=True))
        names, hint = loaded.source_names(), "All sources"
        asked["sources"] = st.multiselect(
            "Sources",
            names,
            key="sources",
            placeholder=hint,
            label_visibility="collapsed",
            width=180,
            bind="query-params",
        )
        asked["where"] = layout.search_box("Condition", key="where", placeholder=EXAMPLE, width=260, icon="function")
        asked["id"] = ""
        if loaded.sketch():
            asked["id"] = layout.search_box(
                "Id in all shards", key="outside", placeholder="id in all shards", width=180, icon="tag"
            )
        with st.popover("Filter", icon=":material/add:"):
            asked |= ask_more(loaded)
        show_chips(asked)
        name = asked["selection"]
        store, log = document_data.open_store(loaded, name), document_data.open_log(str(loaded.study.root))
        criteria = build_filter(loaded, asked, store, log)
        st.space("stretch")
        offer_list(loaded, store, criteria, log)
    if asked["like"] and not criteria.like:
        meaning.offer_map(loaded, "The map of documents tells which are alike")
    elif asked["meant"] and asked["search"] and not criteria.like:
        meaning.show_progress(loaded)
    reader.follow_address()
    linked, sketch = st.query_params.get("doc"), loaded.sketch()
    unlisted = linked if linked and store.find(linked) is None else None
    if sketch and (asked_id := asked["id"] or unlisted):
        document_data.show_outside(loaded, sketch, asked_id)
    elif unlisted:
        layout.drop_document_link(unlisted)
    kinds = sorted(loaded.study.kinds(), key=lambda kind: kind != store.kind)  # the selection's own first
    tops = store.notes["tops"]
    layers = {kind: Layer(kind, loaded.scores(kind), tops[kind], loaded.middle(kind)) for kind in kinds}

    def show_below(document: str | None, span: list[int] | None) -> None:
        if document is not None:
            why.show_why(loaded, store, document, span)
        verdict_panel.show_team(loaded, log)
        if picked := verdict_panel.show_panel(loaded, name, log):
            reader.open_document(picked)
            st.rerun()

    terms = (asked["search"], asked["regex"]) if asked["search"] and not asked["meant"] else None
    reader.show_reader(reader.Request(loaded, store, loaded.selection(name), criteria, layers, log, terms, show_below))
