"""Choosing tokens: where the threshold is, what it selects, what that would do, and whether it is right."""

import dataclasses
from functools import partial

import numpy as np
import streamlit as st

from ifguide.config.attributions import describe_kind
from ifguide.errors import InputError
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
    """Which kind of score the threshold is for, and whether such scores are noise, or the command that finds out."""
    kinds, chosen = loaded.study.kinds(selecting=True), loaded.study.config.selection.attribution
    chosen = chosen if chosen in kinds else kinds[0]
    with st.container(horizontal=True, vertical_alignment="center"):
        if len(kinds) > 1:
            titles = {kind: describe_kind(kind).title for kind in kinds}
            chosen = layout.switch("Score", titles, key="attribution", default=chosen, label_visibility="collapsed")
            st.caption(describe_kind(chosen).note, width="content")
        if chosen in KINDS:
            found = describe_reliability(read_reliability(loaded.study), chosen)
            if not found and not read_record(loaded.study.root):
                found = f"Are these scores noise? `ifguide reliability {loaded.name}` finds out."
            st.caption(found, width="content")
    return chosen


def current_tuning(loaded: Loaded, kind: str) -> Tuning:
    """The controls as the address says, so that Back returns to an earlier choice; for a reader who comes from another
    page with an address that says nothing, as they were left."""
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
    """Remember the controls, here and in the address; all parameters change at once, as one step of the history. What
    is `undone` cannot be undone again."""
    above = loaded.resolved(tuning.settings(kind)).n_above  # fewer than asked for where scores tie
    tuning = dataclasses.replace(tuning, tokens_above=above)
    before = st.session_state["tuning"][1]
    if not undone and before.settings(kind) != tuning.settings(kind):
        st.session_state["undo"].append(before)
    st.session_state["tuning"] = (loaded.name, tuning)
    written = {**write_address(tuning, default_tuning(loaded, kind)), "study": loaded.name}
    changed = {key: value or [] for key, value in written.items() if st.query_params.get(key, "") != (value or "")}
    if changed:
        st.query_params.update(changed)


def undo(loaded: Loaded, kind: str) -> None:
    """Go back to the controls before the last change of the selection."""
    keep_tuning(loaded, kind, st.session_state["undo"].pop(), undone=True)


def answer_choice(loaded: Loaded, kind: str) -> None:
    """The reader let go of a control of the board."""
    choice = st.session_state["board"]["choice"]
    if isinstance(choice, dict):
        st.session_state["board_seq"] = choice.get("seq", 0)
        keep_tuning(loaded, kind, apply_choice(st.session_state["tuning"][1], choice, loaded.index(kind)))


def hear_audit(loaded: Loaded, kind: str, tuning: Tuning) -> dict:
    """Do what the reader did in the blind audit; returns what the board shows of it."""
    log, by, of = open_log(str(loaded.study.root)), reviewer(), (loaded.name, kind)
    for deed in (st.session_state.get("board") or {}).get("audit") or ():
        if deed["n"] > st.session_state.get("audit_ack", 0):
            st.session_state["audit_ack"] = deed["n"]  # before the writing: a bad one is refused once, not for ever
            if deed["do"] in ("open", "close"):
                st.session_state["auditing"] = of if deed["do"] == "open" else None
            with layout.guard(go_on=True):
                blind_audit.act(loaded, kind, log, deed, tuning.tokens_above, by)
    more = {"open": st.session_state.get("auditing") == of, "ack": st.session_state.get("audit_ack", 0)}
    more["readOnly"] = read_record(loaded.study.root) is not None
    return blind_audit.describe(loaded, kind, log, by) | more


def find_chosen(loaded: Loaded) -> int | None:
    """The document chosen in the list below, or named by the address."""
    picked = (st.session_state.get("listed") or {}).get("pick")
    if picked is not None:
        st.session_state["doc"] = picked
        layout.set_parameter("doc", picked)
    wanted = st.query_params.get("doc", st.session_state.get("doc"))
    if wanted is None:
        return None
    try:
        return loaded.corpus().index_of(wanted)
    except InputError:
        layout.drop_document_link(wanted)
        return None


def show_board(loaded: Loaded, kind: str, tuning: Tuning, found, chosen: int | None, audit: dict) -> None:
    """The distribution with its handle, and everything that follows the handle."""
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
        "views": {"all": parts["whole"], "tail": board.tail_bins(index, parts, found.threshold)},
        "range": tuning.range,
        "low": tuning.low,
        "high": tuning.high,
        "inside": inside,
        "exact": board.exact_result(found, st.session_state.get("board_seq", 0)),
        "rank": board.rank_line(found),
        "marks": [] if own is None else board.document_marks(own),
        "boundary": board.boundary(corpus, index, scores, found),
        "audit": audit,
        "effect": board.effect_text(
            index.n_valid, loaded.study.config.suppress.penalty, predicts=describe_kind(kind).curvature
        ),
    }
    components.threshold_board(payload, key="board", on_choice=partial(answer_choice, loaded, kind))


def brushed_range(loaded: Loaded, kind: str, tuning: Tuning) -> tuple[float, str]:
    """The lower end of the brushed scores, which may have none, and what documents in them have."""
    low = -np.inf if tuning.low <= board_parts(loaded, kind)["lowest"] else tuning.low
    return low, f"scores from {score(tuning.low)} to {score(tuning.high)}"


def show_map(loaded: Loaded, kind: str, tuning: Tuning, found, chosen: int | None) -> None:
    """The map, on which the documents of the list stand out, and the documents in a box drawn on it."""
    marked, what = found.taken > 0, "selected tokens"
    if tuning.low is not None:
        low, what = brushed_range(loaded, kind, tuning)
        marked = np.zeros(len(found.taken), dtype=bool)
        marked[loaded.in_range(kind, low, tuning.high)["document"].to_numpy()] = True
    places = map_panel.show_map(loaded, found, marked, what)
    if places is not None:
        show_documents(loaded, kind, tuning, found, chosen, places)


def show_documents(loaded: Loaded, kind: str, tuning: Tuning, found, chosen: int | None, boxed=None) -> None:
    """The selection's documents by rank, those of the brushed range, or those at `boxed` places of the rank list."""
    corpus, scores = loaded.corpus(), loaded.scores(kind)
    named = None if chosen is None else corpus.document(chosen).id
    brushed, title, n_items = tuning.low is not None and boxed is None, PARTS[0], found.n_documents
    if boxed is not None:
        title, n_items = "Documents in the box", len(boxed)
    if brushed:
        low, what = brushed_range(loaded, kind, tuning)
        hits = loaded.in_range(kind, low, tuning.high)
        title, n_items = f"Documents with {what}", len(hits)
    place = st.container()
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        of = (loaded.name, kind, tuning, None if boxed is None else boxed.tobytes())
        rows = layout.pager("page", n_items=n_items, page_size=PAGE_SIZE, noun="documents", of=of)
        if named is not None:
            label, query = f"Read {plain(named)} token by token", {"study": loaded.name, "doc": named}
            st.page_link("pages/documents.py", label=label, icon=":material/article:", query_params=query)
    if brushed:
        columns = selection_tables.RANGE_COLUMNS
        lines = selection_tables.range_rows(corpus, scores, found, hits, rows, low, tuning.high)
    else:
        shown = rows if boxed is None else boxed[rows]
        columns, lines = selection_tables.RANKED_COLUMNS, selection_tables.ranked_rows(corpus, scores, found, shown)
    with place:
        st.caption(
            (f"{title}. " if title != PARTS[0] else "")
            + (
                "Choose one to mark its tokens as diamonds below the distribution."
                if named is None
                else f"The diamonds below the distribution are the tokens of {plain(named)}."
            )
        )
        look: dict = {"compact": True, "empty": "No document has a token with such a score."}
        components.record_table(columns, lines, key="listed", label=title, chosen=named, pickable=True, **look)


def remember_sort() -> None:
    """The reader sorted the words: the address says by what."""
    layout.set_parameter("words_by", "lift" if st.session_state["words"]["sort"] == "Lift" else "")


def show_words(loaded: Loaded, kind: str, tuning: Tuning) -> None:
    """The words selected most, and how much more often than the average word."""
    words = loaded.ranked_words(tuning.settings(kind))
    rows, sort = selection_tables.word_rows(words), (4 if st.query_params.get("words_by") == "lift" else 1, True)
    look: dict = {"label": "Most selected words", "most": WORDS_SHOWN, "empty": "No selected token belongs to a word."}
    components.record_table(selection_tables.WORD_COLUMNS, rows, key="words", sort=sort, on_sort=remember_sort, **look)
    small = loaded.index(kind).n_valid <= COUNT_WORDS_UP_TO
    noun = ["selected word"] if small else ["selected vocabulary entry", "selected vocabulary entries"]
    st.caption(f"{count_of(len(words), *noun)}, upper and lower case counted together.")


def show_sources(loaded: Loaded, kind: str, found) -> None:
    """The sources selected most, and how much more often than the average token."""
    index = loaded.index(kind)
    rows = selection_tables.source_rows(index.sources, index.source_tokens, found.by_source)
    look: dict = {"label": "Selected tokens by source", "most": SOURCES_SHOWN, "sort": (1, True)}
    components.record_table(selection_tables.SOURCE_COLUMNS, rows, key="sources_table", **look)
    st.caption(f"{count(found.n_selected)} selected tokens of {count(index.n_valid)}.")


@st.fragment
def tune(loaded: Loaded) -> None:
    """All that follows the controls; letting one go draws this part again and nothing else."""
    with layout.guard():
        kind = ask_attribution(loaded)
        tuning = current_tuning(loaded, kind)
        chosen = find_chosen(loaded)
        found = loaded.resolved(tuning.settings(kind))
        audit = hear_audit(loaded, kind, tuning)
        show_board(loaded, kind, tuning, found, chosen, audit)
        job_panel.show_job(loaded.study.root)
        if not audit["open"]:  # the tables would say which words are selected
            show_parts(loaded, kind, tuning, found, chosen)
        settings, default = tuning.settings(kind), default_tuning(loaded, kind)
        steps = {
            "Undo": partial(undo, loaded, kind) if st.session_state["undo"] else None,
            "Reset": partial(keep_tuning, loaded, kind, default) if settings != default.settings(kind) else None,
        }
        selection_panel.show_bar(loaded, settings, keep_tuning, steps)


def show_parts(loaded: Loaded, kind: str, tuning: Tuning, found, chosen: int | None) -> None:
    """What the selection holds, a tab each; only the open one is computed."""
    shown = (
        partial(show_documents, loaded, kind, tuning, found, chosen),
        partial(show_map, loaded, kind, tuning, found, chosen),
        partial(show_words, loaded, kind, tuning),
        partial(show_sources, loaded, kind, found),
        partial(show_saved, loaded, kind, tuning),
    )
    for tab, show in zip(st.tabs(PARTS, key="part", bind="query-params"), shown, strict=True):
        if tab.open:
            with tab:
                show()


def show_saved(loaded: Loaded, kind: str, tuning: Tuning) -> None:
    """The saved selections, and any two of them compared."""
    selection_panel.show_saved(loaded, keep_tuning)
    overlap_panel.show(loaded, kind, tuning.settings(kind))


loaded = frame.open_page("Threshold", wide=True)
with layout.guard():
    layout.need_stage(loaded, "index", "The threshold needs the tokens' sorted scores.")
    layout.note_changes(loaded)
    tune(loaded)
