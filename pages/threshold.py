"""Choosing tokens: the threshold, what it selects, the predicted effect, and whether the selection is right."""

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np
import pyarrow as pa
import streamlit as st

from ifguide.config.attributions import describe_kind
from ifguide.config.names import DEFAULT
from ifguide.errors import InputError
from ifguide.selection.index import Resolved
from ifguide.storage.lock import read_record
from ifguide.study.analysis.audit_sample import read_audit
from ifguide.study.analysis.document_map import read_map
from ifguide.study.analysis.dose import rank_agreement
from ifguide.study.analysis.reliability import KINDS, describe_reliability, read_reliability
from ifguide.study.freshness import unit_state
from ifguide.study.lineage import Unit
from ifguide.study.sharing.shard_sample import Sketch
from ifguide.ui import components, frame, job_panel, layout
from ifguide.ui.documents.loaders import open_log, reviewer
from ifguide.ui.documents.verdict_panel import show_team
from ifguide.ui.format import count, count_of, plain, score
from ifguide.ui.loaders import COUNT_WORDS_UP_TO, Loaded, remembered
from ifguide.ui.results.dose import dose_parts
from ifguide.ui.threshold import (
    blind_audit,
    board,
    groups_panel,
    map_panel,
    overlap_panel,
    preview_strip,
    selection_panel,
    sweep_panel,
)
from ifguide.ui.threshold import tables as selection_tables
from ifguide.ui.threshold.places import suggest
from ifguide.ui.threshold.tuning import CONTROLS, Tuning, apply_choice, read_address, write_address

PAGE_SIZE = 8
ROWS_SHOWN = 12
"""Words and sources shown until the reader asks for all."""
EFFECTS_UP_TO = 5_000_000
"""With more tokens in the highest tenth, the influence of tokens by other scores is added up on release only."""
PARTS = ["Affected documents", "Map", "Words", "Sources", "Groups", "Saved & compare"]


@remembered(4)
def default_tuning(loaded: Loaded, kind: str) -> Tuning:
    """The controls of the default selection, or of study.toml for another kind of scores."""
    settings = loaded.study.config.selection
    if kind == settings.attribution and unit_state(loaded.study, Unit("selection", DEFAULT)).state == "fresh":
        return Tuning.of(loaded.selection(DEFAULT).settings)  # its budget is smaller where it cuts no window
    above = loaded.index(kind).above_quantile(settings.quantile)
    return Tuning(tokens_above=above, window=settings.window, max_tokens=settings.max_tokens)


@remembered(4)
def board_parts(loaded: Loaded, kind: str) -> dict:
    index, influence = loaded.index(kind), loaded.influence(kind)
    return board.board_parts(index, influence if index.n_tail <= EFFECTS_UP_TO else None, loaded.sketch())


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
    if before.settings(kind) != tuning.settings(kind):
        preview_strip.want_preview()
        if not undone:
            st.session_state["undo"].append(before)
    st.session_state["tuning"] = (loaded.name, tuning)
    written = {**write_address(tuning, default_tuning(loaded, kind)), "study": loaded.name}
    changes: dict = {
        key: value or [] for key, value in written.items() if st.query_params.get(key, "") != (value or "")
    }
    if changes:
        st.query_params.update(changes)


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


@dataclasses.dataclass(frozen=True)
class View:
    """What the parts of the page show."""

    loaded: Loaded
    kind: str
    tuning: Tuning
    exact: Resolved
    chosen: int | None
    """Number of the chosen document."""

    @property
    def settings(self) -> dict:
        return self.tuning.settings(self.kind)

    def brushed(self) -> tuple[float, float, str, pa.Table] | None:
        """The brushed scores as (low, high], in words, and the documents that have some; None without a brush."""
        low, high = self.tuning.low, self.tuning.high
        if low is None or high is None:
            return None
        words = f"scores from {score(low)} to {score(high)}"
        low = -np.inf if low <= board_parts(self.loaded, self.kind)["lowest"] else low
        return low, high, words, self.loaded.in_range(self.kind, low, high)


def show_board(view: View, audit: dict, budget: float) -> None:
    loaded, kind, tuning, exact, corpus = view.loaded, view.kind, view.tuning, view.exact, view.loaded.corpus()
    index, parts, scores = loaded.index(kind), board_parts(loaded, kind), loaded.scores(kind)
    own = None if view.chosen is None or audit["open"] else selection_tables.values_of(corpus, scores, view.chosen)
    influence, penalty = loaded.influence(kind), loaded.study.config.suppress.penalty
    predicts = influence is not None or describe_kind(kind).curvature
    result, sketch = board.exact_result(exact, st.session_state.get("board_seq", 0)), loaded.sketch()
    if sketch:
        result["shards"] = board.shards_result(sketch, exact.threshold)
    if influence is not None:
        result["effect"] = index.total(exact, influence)
    measured = [] if audit["open"] else loaded.measured()
    of_kind, usual = [point for point in measured if point.kind == kind], default_tuning(loaded, kind).tokens_above
    payload = {
        **{key: parts[key] for key in ("unit", "lowest", "middle", "highest", "knots", "words")},
        "id": f"{loaded.name} {kind}",
        "nTokens": index.n_valid,
        "nDocuments": corpus.n_documents,
        "of": loaded.whole,
        "nShards": sketch and sketch.n_valid,
        "nTail": index.n_tail,
        "nSpan": index.n_span,
        "views": {"all": parts["whole"], "tail": board.tail_bins(index, parts, exact.threshold, sketch)},
        "range": tuning.range,
        "low": tuning.low,
        "high": tuning.high,
        "inside": None if tuning.low is None else index.tokens_above(tuning.low) - index.tokens_above(tuning.high),
        "exact": result,
        "rank": board.rank_line(exact),
        "marks": [] if own is None else board.document_marks(own),
        "boundary": board.boundary(corpus, index, scores, exact),
        "audit": audit,
        "kind": kind,
        "outcome": preview_strip.outcome() if loaded.study.units("model") else ["–", "no model here"],
        "dose": dose_parts(measured),
        "groups": groups_panel.board_groups(loaded, view.settings, parts["knots"])
        if not audit["open"]
        else {"rows": []},
        "places": [] if audit["open"] else suggest(of_kind, parts["knots"], audit["rows"], usual, budget),
        "effect": board.effect_text(index.n_valid, penalty, predicts=predicts, agreement=rank_agreement(measured)),
    }
    components.threshold_board(payload, key="board", on_choice=partial(apply_board_choice, loaded, kind))


def show_outcome(view: View) -> float:
    """What the base model answers without the selected tokens; returns how much perplexity may rise, as a share."""
    budget = view.loaded.study.config.suppress.perplexity_budget
    if layout.note_no_model(view.loaded):
        if sketch := view.loaded.sketch():
            show_shards(view, sketch)
        return budget
    with st.container(border=True, key="strip"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown("**Preview: edited, not retrained**", help=preview_strip.ABOUT, width="content")
            if read_record(view.loaded.study.root) is None:
                st.space("stretch")
                budget = preview_strip.ask_budget(view.loaded)
                sweep_panel.ask_sweep(view.loaded, view.kind, view.exact.n_above)
        preview_strip.show_strip(view.loaded, view.settings, view.exact.n_selected, budget)
    return budget


def show_shards(view: View, sketch: Sketch) -> None:
    """What the threshold selects in all shards, and the command that selects it there."""
    tokens, sure, documents, sure_too = board.shards_result(sketch, view.exact.threshold)
    words = f"{about(tokens, sure)} of {count(sketch.n_valid)} tokens score above {score(view.exact.threshold)}"
    words += f" ({sure}), in {about(documents, sure_too)} of {count(sketch.n_documents)} documents ({sure_too})."
    st.markdown(f"**In all {count_of(len(sketch.files), 'shard')}:** {words} To select them there, run:")
    st.code(sketch.command(view.loaded.name, view.exact.threshold, view.tuning.window), language="bash")
    if view.tuning.max_tokens:
        st.caption("The budget above is of the sample. For all shards, add `--max-tokens` with a number of tokens.")


def about(number: int, sure: str) -> str:
    return count(number) if sure == "exact" else f"≈ {count(number)}"


@st.fragment
def show_map(view: View) -> None:
    marked, what = view.exact.taken > 0, "selected tokens"
    if brushed := view.brushed():
        *_, what, documents = brushed
        marked = np.zeros(len(marked), dtype=bool)
        marked[documents["document"].to_numpy()] = True
    places = map_panel.show_map(view.loaded, view.kind, view.exact, marked, what)
    if places is not None:
        show_documents(view, places)


def show_documents(view: View, boxed: np.ndarray | None = None) -> None:
    """The selection's documents by rank, those of the brushed range, or those at `boxed` places of the rank list."""
    loaded, exact, corpus, scores = view.loaded, view.exact, view.loaded.corpus(), view.loaded.scores(view.kind)
    named = None if view.chosen is None else corpus.document(view.chosen).id
    brushed = view.brushed() if boxed is None else None
    title, n_items = PARTS[0], exact.n_documents
    if boxed is not None:
        title, n_items = "Documents in the box", len(boxed)
    elif brushed:
        title, n_items = f"Documents with {brushed[2]}", len(brushed[3])
    place = st.container()
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        of = (loaded.name, view.kind, view.tuning, None if boxed is None else boxed.tobytes())
        rows = layout.pager("page", n_items=n_items, page_size=PAGE_SIZE, noun="documents", of=of)
        if named is not None:
            label, query = f"Read {plain(named)} token by token", {"study": loaded.name, "doc": named}
            st.page_link("pages/documents.py", label=label, icon=":material/article:", query_params=query)
    if brushed:
        low, high, _, documents = brushed
        columns = selection_tables.RANGE_COLUMNS
        lines = selection_tables.range_rows(corpus, scores, exact, documents, rows, low, high)
    else:
        shown = rows if boxed is None else boxed[rows]
        columns, lines = selection_tables.RANKED_COLUMNS, selection_tables.ranked_rows(corpus, scores, exact, shown)
    with place:
        note = "Choose one to mark its tokens as diamonds below the distribution."
        if named is not None:
            note = f"The diamonds below the distribution are the tokens of {plain(named)}."
        st.caption(note if title == PARTS[0] else f"{title}. {note}")
        empty = "No document has a token with such a score."
        picked = components.record_table(
            columns, lines, key="listed", label=title, chosen=named, pickable=True, compact=True, empty=empty
        )
    if boxed is not None and picked is not None:
        chosen_document(loaded)
        st.rerun()  # the map is a fragment of its own, and the board marks the document's tokens


def show_words(view: View) -> None:
    words, by_lift = view.loaded.ranked_words(view.settings), st.query_params.get("words_by") == "lift"

    def remember_sort() -> None:
        layout.set_parameter("words_by", "lift" if st.session_state["words"]["sort"] == "Lift" else "")

    components.record_table(
        selection_tables.WORD_COLUMNS,
        selection_tables.word_rows(words),
        key="words",
        label="Most selected words",
        empty="No selected token belongs to a word.",
        sort=(4 if by_lift else 1, True),
        most=ROWS_SHOWN,
        on_sort=remember_sort,
    )
    small = view.loaded.index(view.kind).n_valid <= COUNT_WORDS_UP_TO
    noun = ["selected word"] if small else ["selected vocabulary entry", "selected vocabulary entries"]
    st.caption(f"{count_of(len(words), *noun)}, upper and lower case counted together.")


def show_sources(view: View) -> None:
    groups_panel.show_columns(view.loaded, view.settings, most=ROWS_SHOWN)
    index = view.loaded.index(view.kind)
    st.caption(f"{count(view.exact.n_selected)} selected tokens of {count(index.n_valid)}{view.loaded.sampled}.")


def show_groups(view: View) -> None:
    groups_panel.show_groups(view.loaded, view.settings)


def show_saved(view: View) -> None:
    selection_panel.show_saved(view.loaded, keep_tuning)
    overlap_panel.show(view.loaded, view.kind, view.settings)


@st.fragment
def tune(loaded: Loaded) -> None:
    """Everything that follows the controls; releasing one redraws only this part."""
    with layout.guard():
        kind = ask_attribution(loaded)
        tuning, chosen = current_tuning(loaded, kind), chosen_document(loaded)
        view = View(loaded, kind, tuning, loaded.resolved(tuning.settings(kind)), chosen)
        audit = update_audit(loaded, kind, tuning)
        board_place = st.container()
        budget = loaded.study.config.suppress.perplexity_budget
        if not audit["open"]:  # what follows would give away which words are selected
            budget = show_outcome(view)
        with board_place:
            show_board(view, audit, budget)
            show_team(loaded, open_log(str(loaded.study.root)), read_audit(loaded.study, kind))
        if not audit["open"]:
            parts = dict(
                zip(PARTS, (show_documents, show_map, show_words, show_sources, show_groups, show_saved), strict=True)
            )
            drawable = loaded.study.units("model") and not job_panel.refuse_recorded(loaded.study.root)
            if not drawable and read_map(loaded.study) is None:
                del parts["Map"]
            for tab, show in zip(st.tabs([*parts], key="part", bind="query-params"), parts.values(), strict=True):
                if tab.open:
                    with tab:
                        show(view)
        default, changes = default_tuning(loaded, kind), st.session_state["undo"]
        changed = view.settings != default.settings(kind)
        steps: dict[str, Callable[[], None] | None] = {
            "Undo": (lambda: keep_tuning(loaded, kind, changes.pop(), undone=True)) if changes else None,
            "Reset": (lambda: keep_tuning(loaded, kind, default)) if changed else None,
        }
        selection_panel.show_bar(loaded, view.settings, budget, keep_tuning, steps)


loaded = frame.open_page("Threshold", wide=True)
with layout.guard():
    layout.need_stage(loaded, "index", "The threshold needs the sorted scores.")
    layout.note_changes(loaded)
    layout.warn_of_selection(loaded)
    tune(loaded)
