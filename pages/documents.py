"""The ranked documents, the tokens of the chosen one, and what people decide about them."""

import numpy as np
import streamlit as st

from ifguide.selection import audit
from ifguide.ui import frame, layout
from ifguide.ui.documents import loaders as document_data
from ifguide.ui.documents import reader, verdict_panel
from ifguide.ui.documents import why_panel as why
from ifguide.ui.documents.store import DocumentFilter
from ifguide.ui.format import selection_title
from ifguide.ui.loaders import Loaded

REVIEWS = {"all": "All documents", "40": "Audit of 40 spans", "100": "Audit of 100 spans", "200": "Audit of 200 spans"}
VERDICTS = {"toxic": "Toxic", "fine": "Fine", "unsure": "Unsure", "none": "No verdict yet"}
SPANS = {"any": "With or without", "with": "With marked spans", "without": "Without"}


def ask_filter(loaded: Loaded) -> dict:
    """The controls above the list."""
    asked: dict = {}
    with st.grid(5, min_column_width=170, vertical_alignment="bottom"):
        titles = {name: selection_title(name) for name in loaded.study.selection_names()}
        note = "Which choice of tokens ranks and underlines. Choices are made on the Threshold page."
        asked["selection"] = layout.choose("Selection", titles, key="selection", help=note)
        asked["sources"] = st.multiselect(
            "Sources", loaded.source_names(), key="sources", bind="query-params", placeholder="All sources"
        )
        asked["search"] = layout.search_box("Text contains", key="search")
        note = (
            "An audit shows selected spans drawn at random, to be called toxic or fine one by one, and tells how many"
            " of all selected spans are toxic."
        )
        asked["review"] = layout.choose("Review", REVIEWS, key="review", help=note)
        with st.popover("More filters", icon=":material/filter_list:", width="stretch"):
            asked |= ask_more(loaded)
    return asked


def ask_more(loaded: Loaded) -> dict:
    """Filters that are needed less often."""
    more: dict = {}
    note = "Read the searched text as a regular expression (RE2 syntax)."
    more["regex"] = st.toggle("Regular expression", key="regex", bind="query-params", help=note)
    more["only"] = st.toggle("Only documents with selected tokens", key="only", bind="query-params")
    note = "Otherwise documents that are nearly the same text are shown once, and a verdict holds for all of them."
    more["copies"] = st.toggle("Show every near-duplicate", key="copies", bind="query-params", help=note)
    more["verdicts"] = st.multiselect(
        "Verdict", list(VERDICTS), key="verdicts", bind="query-params", format_func=VERDICTS.get, placeholder="Any"
    )
    if loaded.corpus().in_span is not None:
        more["spans"] = layout.choose("Spans marked by people", SPANS, key="spans")
    low, high = st.columns(2)
    look: dict = {"value": None, "bind": "query-params", "placeholder": "no limit"}
    whole = look | {"step": 1, "min_value": 0}
    more["lowest"] = low.number_input("Lowest sum of scores", key="lowest", **look)
    more["highest"] = high.number_input("Highest sum of scores", key="highest", **look)
    more["shortest"] = low.number_input("Fewest tokens", key="shortest", **whole)
    more["longest"] = high.number_input("Most tokens", key="longest", **whole)
    runs = document_data.runs(loaded)
    if len(runs) > 1:
        names = {"": "None", **{name: name for name in runs}}
        with low:
            note = (
                "Colours tokens by the influence in one run minus that in another: checkpoints, or other studies of the"
                " same corpus, say with another model or other queries."
            )
            left = layout.choose("Difference of", names, key="left", help=note)
        with high:
            right = layout.choose("minus", names, key="right")
        pair = runs.get(left), runs.get(right)
        more["pair"] = pair if all(pair) and left != right else None
    return more


def build_filter(loaded: Loaded, asked: dict, store, log) -> DocumentFilter:
    """The filter that the controls ask for."""
    spans = asked.get("spans", "any")
    wanted = DocumentFilter(
        **{limit: asked[limit] for limit in ("lowest", "highest", "shortest", "longest")},
        sources=tuple(sorted(asked["sources"])),
        only_selected=asked["only"],
        spans="" if spans == "any" else spans,
        collapse=not asked["copies"] and store.has_copies(),
        **document_data.filter_verdicts(tuple(asked["verdicts"]), log, store),
    )
    if asked["search"]:
        wanted = document_data.narrow(wanted, document_data.search_text(loaded, asked["search"], asked["regex"]))
    return wanted


loaded = frame.open_page("Documents", wide=True)
with layout.guard():
    layout.need_stage(loaded, "selection", "Documents are ranked by the selected tokens.")
    document_data.need_table(loaded)
    document_data.warm_up(loaded)
    asked = ask_filter(loaded)
    name = asked["selection"]
    store, log = document_data.open_store(loaded, name), document_data.open_log(str(loaded.study.root))
    linked = st.query_params.get("doc")
    if linked and store.find(linked) is None:
        layout.drop_document_link(linked)
    layout.note_changes(loaded)
    wanted = build_filter(loaded, asked, store, log)
    layers = document_data.build_layers(loaded, store, asked.get("pair"))
    audited, targets = None, {}
    if asked["review"] != "all":
        spans = document_data.selected_spans(loaded, name)
        drawn = audit.draw_audit(spans, int(asked["review"]))
        audited = verdict_panel.Audit(spans, drawn, np.asarray(loaded.corpus().offsets))
        targets = audited.targets()
        wanted = document_data.narrow(wanted, tuple(sorted(targets)))

    def show_below(document: str | None, span: list[int] | None) -> None:
        if document is not None:
            why.show_why(loaded, store, document, span)
        verdict_panel.show_panel(loaded, store, name, log, audited)

    selected = loaded.selection(name)
    reader.show_reader(reader.Request(loaded, store, selected, wanted, layers, log, targets, show_below))
