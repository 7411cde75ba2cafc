"""Choosing tokens: where the threshold is, what it selects, and what that would do."""

import dataclasses
from functools import partial

import numpy as np
import streamlit as st

from ifguide.config.attributions import KINDS
from ifguide.errors import InputError
from ifguide.ui import components, layout
from ifguide.ui.format import ATTRIBUTION_NOTES, ATTRIBUTION_TITLES, count, count_of, plain, score
from ifguide.ui.loaders import COUNT_WORDS_UP_TO, Loaded
from ifguide.ui.threshold import board, overlap_panel, selection_panel
from ifguide.ui.threshold import tables as selection_tables
from ifguide.ui.threshold.loaders import board_parts, default_tuning, source_knots
from ifguide.ui.threshold.tuning import Tuning, apply_choice, read_address, write_address

PAGE_SIZE = 8
WORDS_SHOWN, SOURCES_SHOWN = 12, 12


def ask_attribution(loaded: Loaded) -> str:
    """Which kind of score the threshold is for."""
    kinds = [kind for kind in loaded.kinds() if KINDS[kind].selects]
    if len(kinds) == 1:
        return kinds[0]
    default = loaded.study.config.selection.attribution
    with st.container(horizontal=True, vertical_alignment="center"):
        chosen = st.segmented_control(
            "Score",
            kinds,
            default=default if default in kinds else kinds[0],
            required=True,
            key="attribution",
            bind="query-params",
            format_func=lambda kind: ATTRIBUTION_TITLES[kind],
            label_visibility="collapsed",
        )
        st.caption(ATTRIBUTION_NOTES[chosen], width="content")
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
    if picked is not None and picked != st.query_params.get("doc"):
        st.session_state["doc"] = st.query_params["doc"] = picked
    wanted = st.query_params.get("doc", st.session_state.get("doc"))
    if wanted is None:
        return None
    try:
        return loaded.corpus().index_of(wanted)
    except InputError:
        st.warning(f"This corpus has no document “{plain(wanted)}”, which the link names.", icon=":material/link_off:")
        st.query_params.pop("doc", None)
        st.session_state.pop("doc", None)
        return None


def show_board(loaded: Loaded, kind: str, tuning: Tuning, found, chosen: int | None) -> None:
    """The distribution with its handle, and everything that follows the handle."""
    index, parts, corpus = loaded.index(kind), board_parts(loaded, kind), loaded.corpus()
    marks = (
        []
        if chosen is None
        else board.document_marks(loaded.scores(kind)[int(corpus.offsets[chosen]) : int(corpus.offsets[chosen + 1])])
    )
    inside = None if tuning.low is None else index.tokens_above(tuning.low) - index.tokens_above(tuning.high)
    payload = {
        **{key: parts[key] for key in ("unit", "lowest", "highest", "knots", "words")},
        "id": f"{loaded.name} {kind}",
        "nTokens": index.n_valid,
        "nDocuments": corpus.n_documents,
        "nTail": index.n_tail,
        "nSpan": index.n_span,
        "sources": list(index.sources),
        "sourceTokens": np.asarray(index.source_tokens).tolist(),
        "sourceKnots": source_knots(loaded, kind, tuning.window),
        "views": {"all": parts["whole"], "tail": board.tail_bins(index, parts, found.threshold)},
        "range": tuning.range,
        "low": tuning.low,
        "high": tuning.high,
        "inside": inside,
        "exact": board.exact_result(found, st.session_state.get("board_seq", 0)),
        "rank": board.rank_line(found),
        "marks": marks,
        "effect": board.effect_text(index.n_valid, loaded.study.config.suppress.penalty, loaded.prediction()),
        "veil": layout.veiled(),
    }
    components.threshold_board(payload, key="board", on_choice=partial(answer_choice, loaded, kind))


def show_documents(loaded: Loaded, kind: str, tuning: Tuning, found, chosen: int | None) -> None:
    """The documents of the selection by rank, or those with scores in the brushed range."""
    corpus, scores = loaded.corpus(), loaded.scores(kind)
    brushed = tuning.low is not None
    if brushed:
        low = -np.inf if tuning.low <= board_parts(loaded, kind)["lowest"] else tuning.low
        hits = loaded.in_range(kind, low, tuning.high)
        title = f"Documents with scores from {score(tuning.low)} to {score(tuning.high)}"
        n_items = len(hits)
    else:
        title, n_items = "Affected documents", found.n_documents
    st.subheader(title, anchor=False)
    place = st.container()
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        rows = layout.pager(
            "page", n_items=n_items, page_size=PAGE_SIZE, noun="documents", of=(loaded.name, kind, tuning)
        )
        if chosen is not None:
            st.page_link(
                "pages/documents.py",
                label=f"Read {plain(corpus.document(chosen).id)} token by token",
                icon=":material/article:",
                query_params={"study": loaded.name, "doc": corpus.document(chosen).id},
            )
    columns = selection_tables.RANGE_COLUMNS if brushed else selection_tables.RANKED_COLUMNS
    if brushed:
        lines = selection_tables.range_rows(corpus, scores, found, hits, rows, low, tuning.high)
    else:
        lines = selection_tables.ranked_rows(corpus, scores, found, rows)
    with place:
        st.caption(
            "Choose one to mark its tokens as diamonds below the distribution."
            if chosen is None
            else f"The diamonds below the distribution are the tokens of {plain(corpus.document(chosen).id)}."
        )
        components.record_table(
            columns,
            lines,
            key="listed",
            label=title,
            chosen=None if chosen is None else corpus.document(chosen).id,
            pickable=True,
            veil=layout.veiled(),
            compact=True,
            empty="No document has a token with such a score.",
        )


def remember_sort() -> None:
    """The reader sorted the words: the address says by what."""
    by = st.session_state["words"]["sort"]
    if by == "Lift":
        st.query_params["words_by"] = "lift"
    else:
        st.query_params.pop("words_by", None)


def show_words_and_sources(loaded: Loaded, kind: str, tuning: Tuning, found) -> None:
    """What is selected most, and how much more often than its base rate."""
    index = loaded.index(kind)
    small = index.n_valid <= COUNT_WORDS_UP_TO
    words = loaded.ranked_words(tuning.settings(kind))
    by_lift = st.query_params.get("words_by") == "lift"
    with st.grid(2, min_column_width=430, gap="large"):
        with st.container():
            st.subheader("Words selected most", anchor=False)
            components.record_table(
                selection_tables.WORD_COLUMNS,
                selection_tables.word_rows(words),
                key="words",
                label="Most selected words",
                veil=layout.veiled(),
                empty="No selected token belongs to a word.",
                sort=(4 if by_lift else 1, True),
                most=WORDS_SHOWN,
                on_sort=remember_sort,
            )
            entries = count_of(
                len(words),
                *(["selected word"] if small else ["selected vocabulary entry", "selected vocabulary entries"]),
            )
            st.caption(f"{entries}, upper and lower case counted together.")
        with st.container():
            st.subheader("Sources selected most", anchor=False)
            rows = selection_tables.source_rows(
                index.sources, np.asarray(index.source_tokens), np.asarray(found.by_source)
            )
            components.record_table(
                selection_tables.SOURCE_COLUMNS,
                rows,
                key="sources_table",
                label="Selected tokens by source",
                most=SOURCES_SHOWN,
                sort=(1, True),
            )
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
        show_documents(loaded, kind, tuning, found, chosen)
        show_words_and_sources(loaded, kind, tuning, found)
        selection_panel.show(loaded, tuning.settings(kind), keep_tuning)
        overlap_panel.show(loaded, kind, tuning.settings(kind))


loaded = layout.open_page(
    "Threshold",
    "Choose which tokens to suppress: drag the threshold, see what it selects, and train a model against it.",
)
with layout.guard():
    layout.need_stage(loaded, "index", "The threshold needs the tokens' sorted scores.")
    tune(loaded)
