"""Choosing tokens: where the threshold is, what it selects, and what that would do."""

import dataclasses
from functools import partial

import numpy as np
import streamlit as st

from ifguide.config.attributions import describe_kind
from ifguide.errors import InputError
from ifguide.study.analysis.prediction import read_prediction
from ifguide.study.analysis.reliability import KINDS, describe_reliability, read_reliability
from ifguide.ui import components, frame, layout
from ifguide.ui.format import count, count_of, plain, score
from ifguide.ui.loaders import COUNT_WORDS_UP_TO, Loaded
from ifguide.ui.threshold import board, overlap_panel, selection_panel
from ifguide.ui.threshold import tables as selection_tables
from ifguide.ui.threshold.loaders import board_parts, default_tuning, source_knots
from ifguide.ui.threshold.tuning import Tuning, apply_choice, read_address, write_address

PAGE_SIZE = 8
WORDS_SHOWN, SOURCES_SHOWN = 12, 12


def ask_attribution(loaded: Loaded) -> str:
    """Which kind of score the threshold is for."""
    kinds = loaded.study.kinds(selecting=True)
    if len(kinds) == 1:
        return kinds[0]
    default = loaded.study.config.selection.attribution
    with st.container(horizontal=True, vertical_alignment="center"):
        chosen = layout.switch(
            "Score",
            {kind: describe_kind(kind).title for kind in kinds},
            key="attribution",
            default=default if default in kinds else kinds[0],
            label_visibility="collapsed",
        )
        st.caption(describe_kind(chosen).note, width="content")
    return chosen


def current_tuning(loaded: Loaded, kind: str) -> Tuning:
    """The controls: from the address, else as they were left, else from study.toml."""
    name, kept = st.session_state.get("tuning", (None, None))
    start = kept if name == loaded.name else default_tuning(loaded, kind)
    tuning = read_address(st.query_params, start, loaded.index(kind))
    st.session_state["tuning"] = (loaded.name, tuning)
    return tuning


def keep_tuning(loaded: Loaded, kind: str, tuning: Tuning) -> None:
    """Remember the controls, here and in the address; all parameters change at once, as one step of the history."""
    above = loaded.resolved(tuning.settings(kind)).n_above  # fewer than asked for where scores tie
    tuning = dataclasses.replace(tuning, tokens_above=above)
    st.session_state["tuning"] = (loaded.name, tuning)
    written = write_address(tuning, default_tuning(loaded, kind))
    changed = {key: value or [] for key, value in written.items() if st.query_params.get(key, "") != (value or "")}
    if changed:
        st.query_params.update(changed)


def answer_choice(loaded: Loaded, kind: str) -> None:
    """The reader let go of a control of the board."""
    choice = st.session_state["board"]["choice"]
    if isinstance(choice, dict):
        st.session_state["board_seq"] = choice.get("seq", 0)
        keep_tuning(loaded, kind, apply_choice(st.session_state["tuning"][1], choice, loaded.index(kind)))


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


def show_board(loaded: Loaded, kind: str, tuning: Tuning, found, chosen: int | None) -> None:
    """The distribution with its handle, and everything that follows the handle."""
    index, parts, corpus = loaded.index(kind), board_parts(loaded, kind), loaded.corpus()
    own = None if chosen is None else selection_tables.values_of(corpus, loaded.scores(kind), chosen)
    inside = None if tuning.low is None else index.tokens_above(tuning.low) - index.tokens_above(tuning.high)
    payload = {
        **{key: parts[key] for key in ("unit", "lowest", "highest", "knots", "words")},
        "id": f"{loaded.name} {kind}",
        "nTokens": index.n_valid,
        "nDocuments": corpus.n_documents,
        "nTail": index.n_tail,
        "nSpan": index.n_span,
        "sources": list(index.sources),
        "sourceTokens": index.source_tokens.tolist(),
        "sourceKnots": source_knots(loaded, kind, tuning.window),
        "views": {"all": parts["whole"], "tail": board.tail_bins(index, parts, found.threshold)},
        "range": tuning.range,
        "low": tuning.low,
        "high": tuning.high,
        "inside": inside,
        "exact": board.exact_result(found, st.session_state.get("board_seq", 0)),
        "rank": board.rank_line(found),
        "marks": [] if own is None else board.document_marks(own),
        "effect": board.effect_text(
            index.n_valid,
            loaded.study.config.suppress.penalty,
            read_prediction(loaded.study),
            predicts=describe_kind(kind).curvature,
        ),
    }
    components.threshold_board(payload, key="board", on_choice=partial(answer_choice, loaded, kind))


def show_reliability(loaded: Loaded, kind: str) -> None:
    """Whether the scores are noise, or the command that finds out."""
    if kind in KINDS:
        ask = f"Are these scores noise? `ifguide reliability {loaded.name}` finds out."
        st.caption(describe_reliability(read_reliability(loaded.study), kind) or ask)


def show_documents(loaded: Loaded, kind: str, tuning: Tuning, found, chosen: int | None) -> None:
    """The documents of the selection by rank, or those with scores in the brushed range."""
    corpus, scores = loaded.corpus(), loaded.scores(kind)
    named = None if chosen is None else corpus.document(chosen).id
    brushed, title, n_items = tuning.low is not None, "Affected documents", found.n_documents
    if brushed:
        low = -np.inf if tuning.low <= board_parts(loaded, kind)["lowest"] else tuning.low
        hits = loaded.in_range(kind, low, tuning.high)
        title, n_items = f"Documents with scores from {score(tuning.low)} to {score(tuning.high)}", len(hits)
    st.subheader(title, anchor=False)
    place = st.container()
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        of = (loaded.name, kind, tuning)
        rows = layout.pager("page", n_items=n_items, page_size=PAGE_SIZE, noun="documents", of=of)
        if named is not None:
            label, query = f"Read {plain(named)} token by token", {"study": loaded.name, "doc": named}
            st.page_link("pages/documents.py", label=label, icon=":material/article:", query_params=query)
    if brushed:
        columns = selection_tables.RANGE_COLUMNS
        lines = selection_tables.range_rows(corpus, scores, found, hits, rows, low, tuning.high)
    else:
        columns, lines = selection_tables.RANKED_COLUMNS, selection_tables.ranked_rows(corpus, scores, found, rows)
    with place:
        st.caption(
            "Choose one to mark its tokens as diamonds below the distribution."
            if named is None
            else f"The diamonds below the distribution are the tokens of {plain(named)}."
        )
        look: dict = {"compact": True, "empty": "No document has a token with such a score."}
        components.record_table(columns, lines, key="listed", label=title, chosen=named, pickable=True, **look)


def remember_sort() -> None:
    """The reader sorted the words: the address says by what."""
    layout.set_parameter("words_by", "lift" if st.session_state["words"]["sort"] == "Lift" else "")


def show_words(loaded: Loaded, kind: str, tuning: Tuning) -> None:
    """The words selected most, and how much more often than the average word."""
    st.subheader("Words selected most", anchor=False)
    words = loaded.ranked_words(tuning.settings(kind))
    rows, sort = selection_tables.word_rows(words), (4 if st.query_params.get("words_by") == "lift" else 1, True)
    look: dict = {"label": "Most selected words", "most": WORDS_SHOWN, "empty": "No selected token belongs to a word."}
    components.record_table(selection_tables.WORD_COLUMNS, rows, key="words", sort=sort, on_sort=remember_sort, **look)
    small = loaded.index(kind).n_valid <= COUNT_WORDS_UP_TO
    noun = ["selected word"] if small else ["selected vocabulary entry", "selected vocabulary entries"]
    st.caption(f"{count_of(len(words), *noun)}, upper and lower case counted together.")


def show_sources(loaded: Loaded, kind: str, found) -> None:
    """The sources selected most, and how much more often than the average token."""
    st.subheader("Sources selected most", anchor=False)
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
        show_board(loaded, kind, tuning, found, chosen)
        show_reliability(loaded, kind)
        show_documents(loaded, kind, tuning, found, chosen)
        with st.grid(2, min_column_width=430, gap="large"):
            with st.container():
                show_words(loaded, kind, tuning)
            with st.container():
                show_sources(loaded, kind, found)
        selection_panel.show(loaded, tuning.settings(kind), keep_tuning)
        overlap_panel.show(loaded, kind, tuning.settings(kind))


loaded = frame.open_page("Threshold", wide=True)
with layout.guard():
    layout.need_stage(loaded, "index", "The threshold needs the tokens' sorted scores.")
    tune(loaded)
