"""Choosing tokens: the threshold, what it selects, the predicted effect, and whether the selection is right."""

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np
import pyarrow as pa
import streamlit as st

from ifguide.config.attributions import describe_kind
from ifguide.errors import InputError
from ifguide.selection.index import Resolved
from ifguide.storage.lock import read_record
from ifguide.study.analysis.reliability import KINDS, describe_reliability, read_reliability
from ifguide.ui import components, frame, job_panel, layout
from ifguide.ui.documents.loaders import open_log, reviewer
from ifguide.ui.format import count, count_of, plain, score
from ifguide.ui.loaders import COUNT_WORDS_UP_TO, Loaded
from ifguide.ui.threshold import blind_audit, board, map_panel, overlap_panel, selection_panel
from ifguide.ui.threshold import tables as selection_tables
from ifguide.ui.threshold.loaders import board_parts, default_tuning
from ifguide.ui.threshold.tuning import CONTROLS, Tuning, apply_choice, read_address, write_address

PAGE_SIZE = 8
WORDS_SHOWN, SOURCES_SHOWN = 12, 12
PARTS = ["Affected documents", "Map", "Words", "Sources", "Saved & compare"]


def ask_attribution(loaded: Loaded) -> str:
    """The kind of score to select by, and whether such scores are noise or how to find out."""
    kinds, chosen = loaded.study.kinds(selecting=True), loaded.study.config.selection.attribution
    chosen = chosen if chosen in kinds else kinds[0]
    with st.container(horizontal=True, vertical_alignment="center"):
        if len(kinds) > 1:
            titles = {kind: describe_kind(kind).title for kind in kinds}
            chosen = layout.switch("Score", titles, key="attribution", default=chosen)
            st.caption(describe_kind(chosen).note, width="content")
        if chosen in KINDS:
            note = describe_reliability(read_reliability(loaded.study), chosen)
            if not note and not read_record(loaded.study.root):
                note = f"Are these scores noise? `ifguide reliability {loaded.name}` finds out."
            st.caption(note, width="content")
    return chosen


def current_tuning(loaded: Loaded, kind: str) -> Tuning:
    """The controls in the address, so that Back returns to an earlier choice; if the reader comes from another page and
    the address has none, as the reader left them."""
    name, kept = st.session_state.get("tuning", (None, None))
    if name != loaded.name:
        st.session_state["undo"] = []
    elif "board" not in st.session_state and not CONTROLS & set(st.query_params):
        keep_tuning(loaded, kind, kept, undone=True)
        return kept
    tuning = read_address(st.query_params, default_tuning(loaded, kind), loaded.index(kind))
    st.session_state["tuning"] = (loaded.name, tuning)
    return tuning


def keep_tuning(loaded: Loaded, kind: str, tuning: Tuning, *, undone: bool = False) -> None:
    """Remember the controls, here and in the address; all parameters change at once, as one step of the history. An
    undo, `undone`, cannot itself be undone."""
    above = loaded.resolved(tuning.settings(kind)).n_above  # fewer than asked for if scores tie
    tuning = dataclasses.replace(tuning, tokens_above=above)
    before = st.session_state["tuning"][1]
    if not undone and before.settings(kind) != tuning.settings(kind):
        st.session_state["undo"].append(before)
    st.session_state["tuning"] = (loaded.name, tuning)
    written = {**write_address(tuning, default_tuning(loaded, kind)), "study": loaded.name}
    changed: dict[str, str | list[str]] = {
        key: value or [] for key, value in written.items() if st.query_params.get(key, "") != (value or "")
    }
    if changed:
        st.query_params.update(changed)


def undo(loaded: Loaded, kind: str) -> None:
    keep_tuning(loaded, kind, st.session_state["undo"].pop(), undone=True)


def apply_board_choice(loaded: Loaded, kind: str) -> None:
    """Apply the change when the reader releases a control of the board."""
    choice = st.session_state["board"]["choice"]
    if isinstance(choice, dict):
        st.session_state["board_seq"] = choice.get("seq", 0)
        keep_tuning(loaded, kind, apply_choice(st.session_state["tuning"][1], choice, loaded.index(kind)))


def update_audit(loaded: Loaded, kind: str, tuning: Tuning) -> dict:
    """Do what the reader did in the blind audit; returns what the board shows of it."""
    log, by, of = open_log(str(loaded.study.root)), reviewer(), (loaded.name, kind)
    for action in (st.session_state.get("board") or {}).get("audit") or ():
        if action["n"] > st.session_state.get("audit_ack", 0):
            st.session_state["audit_ack"] = action["n"]  # before it is written: a bad one is refused only once
            if action["do"] in ("open", "close"):
                st.session_state["auditing"] = of if action["do"] == "open" else None
            with layout.guard(go_on=True):
                blind_audit.act(loaded, kind, log, action, tuning.tokens_above, by)
    return blind_audit.describe(loaded, kind, log, by) | {
        "open": st.session_state.get("auditing") == of,
        "ack": st.session_state.get("audit_ack", 0),
        "readOnly": read_record(loaded.study.root) is not None,
    }


def chosen_document(loaded: Loaded) -> int | None:
    """The number of the document chosen in the list below or in the address."""
    picked = (st.session_state.get("listed") or {}).get("pick")
    if picked is not None:
        st.session_state["doc"] = picked
        layout.set_parameter("doc", picked)
    document = st.query_params.get("doc", st.session_state.get("doc"))
    if document is None:
        return None
    try:
        return loaded.corpus().index_of(document)
    except InputError:
        layout.drop_document_link(document)
        return None


def show_board(loaded: Loaded, kind: str, tuning: Tuning, exact: Resolved, chosen: int | None, audit: dict) -> None:
    index, parts, corpus, scores = loaded.index(kind), board_parts(loaded, kind), loaded.corpus(), loaded.scores(kind)
    own = None if chosen is None or audit["open"] else selection_tables.values_of(corpus, scores, chosen)
    inside = None if tuning.low is None else index.tokens_above(tuning.low) - index.tokens_above(tuning.high)
    payload = {
        **{key: parts[key] for key in ("unit", "lowest", "highest", "knots", "words")},
        "id": f"{loaded.name} {kind}",
        "nTokens": index.n_valid,
        "nDocuments": corpus.n_documents,
        "nTail": index.n_tail,
        "nSpan": index.n_span,
        "views": {"all": parts["whole"], "tail": board.tail_bins(index, parts, exact.threshold)},
        "range": tuning.range,
        "low": tuning.low,
        "high": tuning.high,
        "inside": inside,
        "exact": board.exact_result(exact, st.session_state.get("board_seq", 0)),
        "rank": board.rank_line(exact),
        "marks": [] if own is None else board.document_marks(own),
        "boundary": board.boundary(corpus, index, scores, exact),
        "audit": audit,
        "effect": board.effect_text(
            index.n_valid, loaded.study.config.suppress.penalty, predicts=describe_kind(kind).curvature
        ),
    }
    components.threshold_board(payload, key="board", on_choice=partial(apply_board_choice, loaded, kind))


@dataclasses.dataclass(frozen=True)
class Brush:
    """The scores that the reader brushed, and the documents that have such scores."""

    low: float
    """Lower end, excluded; -inf if the brush reaches the lowest score."""
    high: float
    """Upper end, included."""
    what: str
    documents: pa.Table
    """From `ScoreIndex.documents_in_range`."""


def read_brush(loaded: Loaded, kind: str, tuning: Tuning) -> Brush | None:
    if tuning.low is None or tuning.high is None:
        return None
    low = -np.inf if tuning.low <= board_parts(loaded, kind)["lowest"] else tuning.low
    what = f"scores from {score(tuning.low)} to {score(tuning.high)}"
    return Brush(low, tuning.high, what, loaded.in_range(kind, low, tuning.high))


def show_map(loaded: Loaded, kind: str, tuning: Tuning, exact: Resolved, chosen: int | None) -> None:
    marked, what = exact.taken > 0, "selected tokens"
    if brush := read_brush(loaded, kind, tuning):
        marked, what = np.zeros(len(exact.taken), dtype=bool), brush.what
        marked[brush.documents["document"].to_numpy()] = True
    places = map_panel.show_map(loaded, exact, marked, what)
    if places is not None:
        show_documents(loaded, kind, tuning, exact, chosen, places)


def show_documents(
    loaded: Loaded, kind: str, tuning: Tuning, exact: Resolved, chosen: int | None, boxed: np.ndarray | None = None
) -> None:
    """The selection's documents by rank, those of the brushed range, or those at `boxed` places of the rank list."""
    corpus, scores = loaded.corpus(), loaded.scores(kind)
    named = None if chosen is None else corpus.document(chosen).id
    brush, title, n_items = None, PARTS[0], exact.n_documents
    if boxed is not None:
        title, n_items = "Documents in the box", len(boxed)
    elif brush := read_brush(loaded, kind, tuning):
        title, n_items = f"Documents with {brush.what}", len(brush.documents)
    place = st.container()
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        of = (loaded.name, kind, tuning, None if boxed is None else boxed.tobytes())
        rows = layout.pager("page", n_items=n_items, page_size=PAGE_SIZE, noun="documents", of=of)
        if named is not None:
            label, query = f"Read {plain(named)} token by token", {"study": loaded.name, "doc": named}
            st.page_link("pages/documents.py", label=label, icon=":material/article:", query_params=query)
    if brush:
        columns = selection_tables.RANGE_COLUMNS
        lines = selection_tables.range_rows(corpus, scores, exact, brush.documents, rows, brush.low, brush.high)
    else:
        shown = rows if boxed is None else boxed[rows]
        columns, lines = selection_tables.RANKED_COLUMNS, selection_tables.ranked_rows(corpus, scores, exact, shown)
    with place:
        st.caption(
            (f"{title}. " if title != PARTS[0] else "")
            + (
                "Choose one to mark its tokens as diamonds below the distribution."
                if named is None
                else f"The diamonds below the distribution are the tokens of {plain(named)}."
            )
        )
        components.record_table(
            columns,
            lines,
            key="listed",
            label=title,
            chosen=named,
            pickable=True,
            compact=True,
            empty="No document has a token with such a score.",
        )


def remember_sort() -> None:
    layout.set_parameter("words_by", "lift" if st.session_state["words"]["sort"] == "Lift" else "")


def show_words(loaded: Loaded, kind: str, tuning: Tuning) -> None:
    words = loaded.ranked_words(tuning.settings(kind))
    components.record_table(
        selection_tables.WORD_COLUMNS,
        selection_tables.word_rows(words),
        key="words",
        label="Most selected words",
        empty="No selected token belongs to a word.",
        sort=(4 if st.query_params.get("words_by") == "lift" else 1, True),
        most=WORDS_SHOWN,
        on_sort=remember_sort,
    )
    small = loaded.index(kind).n_valid <= COUNT_WORDS_UP_TO
    noun = ["selected word"] if small else ["selected vocabulary entry", "selected vocabulary entries"]
    st.caption(f"{count_of(len(words), *noun)}, upper and lower case counted together.")


def show_sources(loaded: Loaded, kind: str, exact: Resolved) -> None:
    index = loaded.index(kind)
    components.record_table(
        selection_tables.SOURCE_COLUMNS,
        selection_tables.source_rows(index.sources, index.source_tokens, exact.by_source),
        key="sources_table",
        label="Selected tokens by source",
        sort=(1, True),
        most=SOURCES_SHOWN,
    )
    st.caption(f"{count(exact.n_selected)} selected tokens of {count(index.n_valid)}.")


@st.fragment
def tune(loaded: Loaded) -> None:
    """Everything that follows the controls; releasing one redraws only this part."""
    with layout.guard():
        kind = ask_attribution(loaded)
        tuning = current_tuning(loaded, kind)
        chosen = chosen_document(loaded)
        exact = loaded.resolved(tuning.settings(kind))
        audit = update_audit(loaded, kind, tuning)
        show_board(loaded, kind, tuning, exact, chosen, audit)
        job_panel.show_job(loaded.study.root)
        if not audit["open"]:  # the tables would give away which words are selected
            show_parts(loaded, kind, tuning, exact, chosen)
        settings, default = tuning.settings(kind), default_tuning(loaded, kind)
        steps: dict[str, Callable[[], None] | None] = {
            "Undo": partial(undo, loaded, kind) if st.session_state["undo"] else None,
            "Reset": partial(keep_tuning, loaded, kind, default) if settings != default.settings(kind) else None,
        }
        selection_panel.show_bar(loaded, settings, keep_tuning, steps)


def show_parts(loaded: Loaded, kind: str, tuning: Tuning, exact: Resolved, chosen: int | None) -> None:
    shown = (
        partial(show_documents, loaded, kind, tuning, exact, chosen),
        partial(show_map, loaded, kind, tuning, exact, chosen),
        partial(show_words, loaded, kind, tuning),
        partial(show_sources, loaded, kind, exact),
        partial(show_saved, loaded, kind, tuning),
    )
    for tab, show in zip(st.tabs(PARTS, key="part", bind="query-params"), shown, strict=True):
        if tab.open:
            with tab:
                show()


def show_saved(loaded: Loaded, kind: str, tuning: Tuning) -> None:
    selection_panel.show_saved(loaded, keep_tuning)
    overlap_panel.show(loaded, kind, tuning.settings(kind))


loaded = frame.open_page("Threshold", wide=True)
with layout.guard():
    layout.need_stage(loaded, "index", "The threshold needs the sorted scores.")
    layout.note_changes(loaded)
    tune(loaded)
