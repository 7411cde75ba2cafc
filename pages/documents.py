"""The ranked documents, the tokens of the chosen one, and what people decide about them."""

import streamlit as st

from ifguide.config.names import DEFAULT
from ifguide.selection.verdicts import VerdictLog
from ifguide.ui import frame, layout
from ifguide.ui.documents import lines as document_list
from ifguide.ui.documents import loaders as document_data
from ifguide.ui.documents import reader, verdict_panel
from ifguide.ui.documents import why_panel as why
from ifguide.ui.documents.store import DocumentFilter, DocumentStore
from ifguide.ui.format import count, plain, selection_title
from ifguide.ui.loaders import Loaded

COMPACT: dict = {"label_visibility": "collapsed", "width": 220}
VERDICTS = {"toxic": "Toxic", "fine": "Fine", "unsure": "Unsure", "none": "No verdict yet"}
SPANS = {"any": "With or without", "with": "With human labels", "without": "Without"}
FILTERS: dict[str, tuple[object, str]] = {
    "selection": (DEFAULT, "selection: {}"),
    "regex": (False, "regular expression"),
    "only": (False, "with selected tokens"),
    "copies": (False, "every near-duplicate"),
    "verdicts": ([], "verdict: {}"),
    "spans": ("any", "human labels: {}"),
    "lowest": (None, "sum ≥ {}"),
    "highest": (None, "sum ≤ {}"),
    "shortest": (None, "tokens ≥ {}"),
    "longest": (None, "tokens ≤ {}"),
    "left": ("", "colours: {}"),
    "right": ("", "minus {}"),
}
"""Control behind the button -> its value where it filters nothing, and what its chip says otherwise."""


def ask_more(loaded: Loaded) -> dict:
    """Filters that are needed less often."""
    more: dict = {}
    titles = {name: selection_title(name) for name in loaded.study.selection_names()}
    note = "Which choice of tokens ranks and underlines. Choices are made on the Threshold page."
    more["selection"] = layout.choose("Selection", titles, key="selection", help=note)
    note = "Read the searched text as a regular expression (RE2 syntax)."
    more["regex"] = st.toggle("Regular expression", key="regex", bind="query-params", help=note)
    more["only"] = st.toggle("Only documents with selected tokens", key="only", bind="query-params")
    note = "Otherwise documents that are nearly the same text are shown once, and a verdict holds for all of them."
    more["copies"] = st.toggle("Show every near-duplicate", key="copies", bind="query-params", help=note)
    more["verdicts"] = st.multiselect(
        "Verdict", list(VERDICTS), key="verdicts", bind="query-params", format_func=VERDICTS.get, placeholder="Any"
    )
    if loaded.corpus().in_span is not None:
        more["spans"] = layout.choose("Human labels", SPANS, key="spans")
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
            more["left"] = layout.choose("Difference of", names, key="left", help=note)
        with high:
            more["right"] = layout.choose("minus", names, key="right")
        pair = runs.get(more["left"]), runs.get(more["right"])
        more["pair"] = pair if all(pair) and pair[0] != pair[1] else None
    return more


def show_chips(asked: dict) -> None:
    """A button for each filter that is set, which removes it."""
    for key, (unset, words) in FILTERS.items():
        if (value := asked.get(key, unset)) != unset:
            if isinstance(value, list):
                value = ", ".join(VERDICTS[verdict].lower() for verdict in value)
            label = plain(words.format(selection_title(value) if key == "selection" else value))
            look: dict = {"icon": ":material/close:", "icon_position": "right", "help": "Remove this filter"}
            st.button(label, key=f"drop_{key}", on_click=st.session_state.update, args=({key: unset},), **look)


def build_filter(loaded: Loaded, asked: dict, store: DocumentStore, log: VerdictLog) -> DocumentFilter:
    """The filter that the controls ask for."""
    spans = asked.get("spans", "any")
    wanted = DocumentFilter(
        **{limit: asked[limit] for limit in ("lowest", "highest", "shortest", "longest")},
        sources=tuple(sorted(asked["sources"])),
        only_selected=asked["only"],
        spans="" if spans == "any" else spans,
        collapse=not asked["copies"] and store.has_copies,
        **document_data.filter_verdicts(tuple(asked["verdicts"]), log, store),
    )
    if asked["search"]:
        wanted = document_data.narrow(wanted, document_data.search_text(loaded, asked["search"], asked["regex"]))
    return wanted


def offer_list(loaded: Loaded, store: DocumentStore, wanted: DocumentFilter, log: VerdictLog) -> None:
    """How many documents are listed, and the list as a file."""
    order = store.order(wanted)
    st.caption(f"{count(len(order))} of {count(store.n_documents)}", width="content", help="Documents in the list")
    for form, mime in (("csv", "text/csv"), ("json", "application/json")):

        def write(form: str = form) -> str:
            return document_list.write_list(store.rows(order), log.entries(document_data.reviewer()), form)

        note = f"Download the list with its verdicts, by rank ({form.upper()})"
        layout.offer_download(
            form.upper(), write, file=f"{loaded.name}-documents.{form}", mime=mime, key=form, type="tertiary", help=note
        )


loaded = frame.open_page("Documents", wide=True)
with layout.guard():
    layout.need_stage(loaded, "selection", "Documents are ranked by the selected tokens.")
    document_data.need_table(loaded)
    document_data.warm_up(loaded)
    layout.note_changes(loaded)
    with st.container(key="filters", horizontal=True, vertical_alignment="center", gap="small"):
        asked: dict = {"search": layout.search_box("Text contains", key="search", **COMPACT)}
        sources: dict = {"key": "sources", "bind": "query-params", "placeholder": "All sources"}
        asked["sources"] = st.multiselect("Sources", loaded.source_names(), **sources, **COMPACT)
        with st.popover("Filter", icon=":material/add:"):
            asked |= ask_more(loaded)
        show_chips(asked)
        name = asked["selection"]
        store, log = document_data.open_store(loaded, name), document_data.open_log(str(loaded.study.root))
        wanted = build_filter(loaded, asked, store, log)
        st.space("stretch")
        offer_list(loaded, store, wanted, log)
    reader.follow_address()
    linked = st.query_params.get("doc")
    if linked and store.find(linked) is None:
        layout.drop_document_link(linked)
    layers = document_data.build_layers(loaded, store, asked.get("pair"))

    def show_below(document: str | None, span: list[int] | None) -> None:
        if document is not None:
            why.show_why(loaded, store, document, span)
        if picked := verdict_panel.show_panel(loaded, name, log):
            reader.open_document(picked)
            st.rerun()

    search = (asked["search"], asked["regex"]) if asked["search"] else None
    selected = loaded.selection(name)
    reader.show_reader(reader.Request(loaded, store, selected, wanted, layers, log, search, show_below))
