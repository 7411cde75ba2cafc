"""The list and the viewer on the page: hears what the reader does, keeps the address, sends what the browser lacks.

The browser says in one value what it shows, which documents it has already, and which verdicts it gave that were not
answered yet; so a verdict is written once, and a document travels once.
"""

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import streamlit as st

from ifguide.errors import ConfigError, IFGuideError, StaleError
from ifguide.selection.saved import Selection
from ifguide.selection.verdicts import Target, VerdictLog
from ifguide.storage.lock import read_record
from ifguide.study.stages.document_table import Column
from ifguide.ui import components
from ifguide.ui.documents import lines as document_list
from ifguide.ui.documents import loaders as document_data
from ifguide.ui.documents.store import DocumentFilter, DocumentStore
from ifguide.ui.documents.token_view import Layer, mark_table, place_turns, token_table, viewer_settings
from ifguide.ui.excerpts import excerpt
from ifguide.ui.format import count, count_of, plain, selection_title, sentence
from ifguide.ui.layout import set_parameter
from ifguide.ui.loaders import Loaded

KEY = "reader"
PAGE_SIZE = 25
BEHIND, AHEAD = 1, 3
"""Documents sent beside the shown one, so that the next is there before it is asked for."""
LONG = 4_000
"""Documents of more tokens than this are sent only when they are shown."""
MOST_AT_ONCE = 10_000
"""More documents than this get no verdict in one go."""

_RANGE = re.compile(r"(\d{1,9})-(\d{1,9})")


@dataclass(frozen=True)
class Request:
    """What the page asked the reader to show."""

    loaded: Loaded
    store: DocumentStore
    selection: Selection
    wanted: DocumentFilter
    layers: dict[str, Layer]
    log: VerdictLog
    search: tuple[str, bool] | None
    """What is searched for, and whether it is a regular expression."""
    below: Callable[[str | None, list[int] | None], None]
    """Draws the part under the reader, which depends on the verdicts; gets the shown document's id and the marked
    tokens."""


def open_document(document: str) -> None:
    """Let the reader show another document, asked for outside of it."""
    st.session_state["doc"] = st.query_params["doc"] = document
    st.query_params.pop("token", None)
    _void_place()


def follow_address() -> None:
    """Go where the address points when the reader did not write it: the browser went back or forward."""
    linked = st.query_params.get("doc")
    if KEY in st.session_state and linked != st.session_state.get("reader_address"):
        st.session_state["doc"] = linked
        _void_place()


def _void_place() -> None:
    """The browser's own place in the list counts no longer."""
    st.session_state["reader_turn"] = st.session_state.get("reader_turn", 0) + 1


@st.fragment
def show_reader(request: Request) -> None:
    """The list and the viewer; reruns by itself, without the page."""
    said = _heard()
    if isinstance(said.get("reviewer"), str):
        st.session_state["reviewer"] = said["reviewer"].strip()[:60]
    sorts = request.store.sorts()
    sort, falling, turned = _sort_now(sorts, said)
    column = sorts[sort]
    order = request.store.order(request.wanted, sort=sort, descending=falling)
    digest = hash((request.wanted, request.search, sort, falling)) & 0xFFFFFFFF
    turn = st.session_state.get("reader_turn", 0)
    name = f"{request.loaded.fingerprint}:{request.selection.name}:{digest:x}:{turn}"
    try:
        _write_verdicts(request, said.get("events"), order, name)
    except (IFGuideError, OSError) as error:
        st.error(sentence(f"this verdict was not saved: {error}"), icon=":material/error:")
    at, span = (0, None) if turned else _place_now(request, said, order, name)
    colour = _remember("colour", said.get("colour"), list(request.layers))
    gamma = _gamma_now(said)
    if len(order):
        id = request.loaded.corpus().document(int(order[at])).id
        st.session_state["doc"] = id
        set_parameter("token", f"{span[0]}-{span[1] - 1}" if span else "")
        if at or "doc" in st.query_params:  # an address without choices stays as the reader left it
            set_parameter("doc", id)
    st.session_state["reader_address"] = st.query_params.get("doc")
    corpus = request.loaded.corpus()
    view = {
        "order": name,
        "total": len(order),
        "at": at,
        "range": span,
        "pageSize": PAGE_SIZE,
        "ack": st.session_state.get("reader_ack", 0),
        "sort": sort,
        "descending": falling,
        "colour": colour,
        "gamma": gamma,
        "veil": components.veiled(),
        "empty": "No document passes these filters.",
        "figure": column.title if column.note else "Sum",
        "searched": request.search is not None,
        "reviewer": st.session_state.get("reviewer"),
        "readOnly": read_record(request.loaded.study.root) is not None,
        "most": MOST_AT_ONCE,
        "sorts": [{"name": key, "title": other.title, "falls": not other.rising} for key, other in sorts.items()],
        "viewer": viewer_settings(
            request.layers,
            has_truth=corpus.in_span is not None,
            selection=f"“{selection_title(request.selection.name)}”",
            n_scored=corpus.n_valid,
        ),
    }
    view["serial"] = st.session_state["reader_serial"] = st.session_state.get("reader_serial", 0) + 1
    view |= _progress(request, order, at)
    components.reader(_fill(request, view, order, column, at, said), key=KEY)
    request.below(st.session_state.get("doc") if len(order) else None, span)


def _heard() -> dict:
    """What the browser said last."""
    state = st.session_state.get(KEY)
    said = state.get("said") if state else None
    return said if isinstance(said, dict) else {}


def _progress(request: Request, order: np.ndarray, at: int) -> dict:
    """How many of the listed documents with selected tokens are reviewed, and the first place after this page of the
    list without a verdict."""
    judged = np.zeros(request.store.n_documents, dtype=bool)
    judged[[*request.store.numbers(request.log.of_documents(document_data.reviewer())).values()]] = True
    counted = request.store.order(replace(request.wanted, only_selected=True))
    counted, later = counted if len(counted) else order, (at // PAGE_SIZE + 1) * PAGE_SIZE
    following = np.flatnonzero(~judged[order[later:]])[:1] + later
    return {"reviewed": [int(judged[counted].sum()), len(counted)], "open": [*following.tolist(), None][0]}


def _write_verdicts(request: Request, events, order: np.ndarray, name: str) -> None:
    """Write down what was not written yet."""
    ack, by = st.session_state.get("reader_ack", 0), document_data.reviewer()
    for event in events if isinstance(events, list) else ():
        number = event.get("n")
        if type(number) is not int or number <= ack:
            continue
        ack = number
        st.session_state["reader_ack"] = ack  # before the writing: a bad event is refused once, not for ever
        if event.get("kind") == "undo":
            request.log.undo(by)
        elif event.get("kind") == "all":
            if event.get("order") != name or not 0 < len(order) <= MOST_AT_ONCE:
                raise ConfigError("expected a verdict on the list as it is shown; it has changed meanwhile")
            first, *others = request.store.ids(order, copies=request.wanted.collapse)
            request.log.decide(Target(first), event.get("verdict"), copies=others, by=by)
        elif event.get("kind") == "decide":
            document = event.get("document")
            index = request.store.find(document) if isinstance(document, str) else None
            if index is None:
                raise ConfigError(f"expected a document of this corpus, got {document!r}")
            span = event.get("range") or (None, None)
            target = Target(document, *span)
            row = request.store.rows(np.array([index]))[0]
            if target.is_span and target.stop > row["n_tokens"]:
                raise ConfigError(f"expected a span of at most {row['n_tokens']} tokens, got one up to {target.stop}")
            together = request.wanted.collapse and not target.is_span and row["group_size"] > 1
            copies = request.store.ids(np.array([index]), copies=True) if together else ()
            note = str(event.get("note") or "")[:1000]
            request.log.decide(target, event.get("verdict"), copies=copies, by=by, note=note)


def _sort_now(known: dict[str, Column], said: dict) -> tuple[str, bool, bool]:
    """The order of the list (sort, falling), from what was chosen, else from the address; and whether it was chosen
    just now."""
    turned = False
    chosen = said["sort"] if isinstance(said.get("sort"), dict) else {}
    if chosen.get("name") in known and chosen.get("stamp") != st.session_state.get("reader_sorted_at"):
        sort, falling, turned = chosen["name"], bool(chosen.get("descending")), True
        st.session_state["reader_sorted_at"] = chosen.get("stamp")
        st.session_state["reader_sort"] = (sort, falling)
    elif "reader_sort" in st.session_state:
        sort, falling = st.session_state["reader_sort"]
    else:
        sort = st.query_params.get("sort", "rank")
        sort = sort if sort in known else "rank"
        falling = st.query_params.get("falling", str(int(not known[sort].rising))) == "1"
    sort = sort if sort in known else "rank"
    set_parameter("sort", sort if sort != "rank" else "")
    set_parameter("falling", "" if falling == (not known[sort].rising) else str(int(falling)))
    return sort, falling, turned


def _place_now(request: Request, said: dict, order: np.ndarray, name: str) -> tuple[int, list[int] | None]:
    """Place of the shown document in the order, and the marked tokens: as the browser says, else as the address
    says."""
    if not len(order):
        return 0, None
    at = said.get("at")
    if said.get("order") == name and type(at) is int and 0 <= at < len(order):
        span = said.get("range")
        return at, span if _is_range(span) else None
    linked = st.query_params.get("doc") or st.session_state.get("doc")
    index = request.store.find(linked) if linked else None
    place = np.flatnonzero(order == index) if index is not None else np.zeros(0, dtype=int)
    if index is None or not place.size:
        if index is not None and linked:
            st.caption(f"The filters leave document {plain(linked)} out; the list begins at its first document.")
        return 0, None
    found = _RANGE.fullmatch(st.query_params.get("token", ""))
    span = [int(found[1]), int(found[2]) + 1] if found else None
    corpus = request.loaded.corpus()
    length = int(corpus.offsets[index + 1] - corpus.offsets[index])
    return int(place[0]), span if span and _is_range(span) and span[1] <= length else None


def _is_range(span) -> bool:
    return isinstance(span, list) and len(span) == 2 and all(type(v) is int for v in span) and 0 <= span[0] < span[1]


def _remember(key: str, said, known: list[str]) -> str:
    """A choice among known names: said just now, or in the address, or the first."""
    value = said if said in known else st.query_params.get(key)
    value = value if value in known else known[0]
    set_parameter(key, value if value != known[0] else "")
    return value


def _gamma_now(said: dict) -> float:
    text = said.get("gamma", st.query_params.get("gamma", 1.0))
    try:
        gamma = min(1.5, max(0.3, float(text)))
    except (TypeError, ValueError):
        gamma = 1.0
    set_parameter("gamma", "" if gamma == 1.0 else f"{gamma:g}")
    return gamma


def _on_its_way(said: dict, serial: int, keys: list[str]) -> set[str]:
    """Documents that were sent in answers the browser had not seen when it spoke; and note that `keys` are sent now."""
    seen = said.get("seen")
    sent = st.session_state.setdefault("reader_sent", {})
    for key, number in list(sent.items()):
        if type(seen) is not int or number <= seen:
            del sent[key]
    waiting = set(sent)
    sent.update({key: serial for key in keys if key not in waiting})
    return waiting


def _fill(request: Request, view: dict, order: np.ndarray, column: Column, at: int, said: dict) -> dict:
    """Add the lines of the page and the documents around the shown one; tokens only of those the browser lacks.

    A browser that has not said yet what it has gets the shown document alone, which is faster, and asks for the others
    then.
    """
    corpus, mask, total = request.loaded.corpus(), request.selection.mask, len(order)
    start = at // PAGE_SIZE * PAGE_SIZE
    have = said.get("have")
    known = set(have) if isinstance(have, list) else set()
    near = range(max(0, at - BEHIND), min(total, at + AHEAD + 1)) if known else range(at, min(total, at + 1))
    places = sorted({*range(start, min(total, start + PAGE_SIZE)), *near})
    rows = dict(zip(places, request.store.rows(order[places]), strict=True)) if places else {}
    by, words = document_data.reviewer(), None
    if view["veil"] == "words":
        words = document_data.marked_words(request.loaded)
    given, spans = request.log.entries(by), request.log.spans(by)
    document_list.read_ahead(corpus, [row["document"] for row in rows.values()], mask)
    view["lines"] = []
    for place, row in rows.items():
        snippet = excerpt(corpus, row["document"], centre=row["strongest"], mask=mask, words=words)
        verdict = given.get(Target(row["id"]), ("",))[0]
        judged: dict = {"verdict": verdict, "n_spans": len(spans.get(row["id"], ()))}
        view["lines"].append(document_list.describe_row(row, place, column, snippet=snippet, **judged))
    layers = "|".join(f"{name}{layer.title}{layer.mark}" for name, layer in request.layers.items())
    tag = f"{request.loaded.fingerprint}:{layers}"
    shown = [place for place in near if place == at or rows[place]["n_tokens"] <= LONG]
    keys = {place: f"{tag}:{rows[place]['document']}" for place in shown}
    lacking = [place for place in shown if keys[place] not in known]
    waiting = _on_its_way(said, view["serial"], [keys[place] for place in lacking])
    missing = [place for place in lacking if keys[place] not in waiting]
    ranked = request.layers[request.store.kind].values
    assert isinstance(ranked, np.ndarray)  # no difference of two runs has the kind of a store
    settings = request.selection.settings
    by_score: dict = {"scores": None, "threshold": None}
    if settings.get("kind", "influence") == "influence":
        by_score = {"scores": ranked, "threshold": settings["threshold"]}
    listed, matches = [rows[place]["document"] for place in shown], None
    if request.search:
        texts = [corpus.document(document).text for document in listed]
        matches = document_list.find_matches(texts, request.search[0], regex=request.search[1])
    marks = mark_table(corpus, listed, mask=mask, matches=matches, words=words, **by_score)
    rank, new = None, [rows[place]["document"] for place in missing]
    with contextlib.suppress(StaleError):  # the study has no index of these scores
        rank = request.loaded.index(request.store.kind).ranks
    tokens = token_table(corpus, new, list(request.layers.values()), rank=rank, ranked=ranked)
    entries, from_token, from_mark = [], 0, 0
    for number, place in enumerate(shown):
        row = rows[place]
        length = row["n_tokens"]
        entry = {"key": keys[place], "place": place, "marks": [from_mark, from_mark + length]}
        from_mark += length
        if place in missing:
            entry["tokens"] = [from_token, from_token + length]
            from_token += length
        about = _describe(request, row, given.get(Target(row["id"]), ("", "", "")), spans.get(row["id"], []))
        entries.append(entry | {"about": about | {"matches": len(matches[number]) if matches else 0}})
    return {"tokens": tokens, "marks": marks, "view": view | {"documents": entries, "places": keys}}


def _describe(request: Request, row: dict, given: tuple[str, str, str], spans: list) -> dict:
    """What the viewer says about a document."""
    rank = f"rank {count(row['rank'])} of {count(request.store.n_documents)}"
    facts = [row["source"], rank, count_of(row["selected"], "selected token")]
    if row["group_size"] > 1:
        facts.append(f"{count(row['group_size'])} near-duplicates")
    return {
        "id": row["id"],
        "facts": facts,
        "verdict": given[0],
        "note": given[1] if given[2] == document_data.reviewer() else "",
        "spans": [list(span) for span in spans],
        "copies": row["group_size"] if request.wanted.collapse else 1,
        "turns": place_turns(request.loaded.corpus(), row["document"]),
    }
