"""The list and the viewer: acts on what the reader does, keeps the address, sends what the browser lacks.

The browser reports in one value what it shows, which documents it has, and which verdicts the server has not confirmed.
So every verdict is written once, and every document is sent once.
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
from ifguide.study.analysis.audit_sample import read_team
from ifguide.study.stages.document_table import Column
from ifguide.ui import components
from ifguide.ui.documents import lines as document_list
from ifguide.ui.documents import loaders as document_data
from ifguide.ui.documents.meaning import sort_nearest_first
from ifguide.ui.documents.store import DocumentFilter, DocumentStore
from ifguide.ui.documents.token_view import Layer, mark_table, place_turns, token_table, viewer_settings
from ifguide.ui.excerpts import excerpt
from ifguide.ui.format import count, count_of, plain, selection_title, sentence
from ifguide.ui.layout import set_parameter
from ifguide.ui.loaders import Loaded

KEY = "reader"
PAGE_SIZE = 25
BEHIND, AHEAD = 1, 3
"""Documents sent before and after the shown one, so that the reader need not wait for them."""
LONG = 4_000
"""Documents of more tokens are sent only when they are shown."""
MOST_AT_ONCE = 10_000
"""Most documents that get a verdict at once."""

_RANGE = re.compile(r"(\d{1,9})-(\d{1,9})")


@dataclass(frozen=True)
class Request:
    """What the page asks the reader to show."""

    loaded: Loaded
    store: DocumentStore
    selection: Selection
    criteria: DocumentFilter
    layers: dict[str, Layer]
    log: VerdictLog
    search: tuple[str, bool] | None
    """The searched text, and whether it is a regular expression."""
    below: Callable[[str | None, list[int] | None], None]
    """Draws the part below the reader, which depends on the verdicts, given the shown document's id and the marked
    tokens."""


def open_document(document: str) -> None:
    st.session_state["doc"] = st.query_params["doc"] = document
    st.query_params.pop("token", None)
    _forget_place()


def follow_address() -> None:
    """Go where the address points if the browser went back or forward."""
    linked = st.query_params.get("doc")
    if KEY in st.session_state and linked != st.session_state.get("reader_address"):
        st.session_state["doc"] = linked
        _forget_place()


def follow_likeness() -> None:
    """Filter by likeness to the document for which the reader just asked it; before the filters are drawn."""
    if asked := _asked_like():
        st.session_state.update(like=asked["id"], reader_liked=asked["stamp"])
        if st.session_state.get("meant_text"):
            st.session_state["search"] = ""
        sort_nearest_first()


def _asked_like() -> dict:
    """`id` and `stamp` of a click on “More like this” that is not followed yet, or nothing."""
    asked = _browser_state().get("like")
    if not isinstance(asked, dict) or not isinstance(asked.get("id"), str):
        return {}
    return asked if asked.get("stamp") != st.session_state.get("reader_liked") else {}


def _forget_place() -> None:
    """Ignore the browser's own place in the list."""
    st.session_state["reader_turn"] = st.session_state.get("reader_turn", 0) + 1


@st.fragment
def show_reader(request: Request) -> None:
    """The list and the viewer; reruns alone, without the page."""
    browser = _browser_state()
    name = browser.get("reviewer")
    if isinstance(name, str) and (name := name.strip()[:60]) != st.session_state.get("named_here"):
        st.session_state["reviewer"] = st.session_state["named_here"] = name  # another page may ask for it, too
        if st.session_state.get("verdicts"):  # filters by verdict are this reviewer's
            st.rerun()
    if _asked_like():
        st.rerun()
    sorts = request.store.sorts(request.criteria)
    sort, falling, just_sorted = _sort_now(sorts, browser)
    column = sorts[sort]
    order = request.store.order(request.criteria, sort=sort, descending=falling)
    digest = hash((request.criteria, request.search, sort, falling)) & 0xFFFFFFFF
    turn = st.session_state.get("reader_turn", 0)
    name = f"{request.loaded.fingerprint}:{request.selection.name}:{digest:x}:{turn}"
    try:
        _write_verdicts(request, browser.get("events"), order, name)
    except (IFGuideError, OSError) as error:
        st.error(sentence(f"this verdict was not saved: {error}"), icon=":material/error:")
    at, span = (0, None) if just_sorted else _place_now(request, browser, order, name)
    if len(order):
        id = request.loaded.corpus().document(int(order[at])).id
        st.session_state["doc"] = id
        set_parameter("token", f"{span[0]}-{span[1] - 1}" if span else "")
        if at or "doc" in st.query_params:  # an address without choices stays as it is
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
        "colour": _colour_now(browser, list(request.layers)),
        "gamma": _gamma_now(browser),
        "veil": components.veiled(),
        "empty": "No document passes these filters.",
        "figure": column.title if column.note else "Sum",
        "searched": request.search is not None,
        "likes": bool(request.loaded.study.units("model")),
        "liked": st.session_state.get("reader_liked"),
        "reviewer": st.session_state.get("reviewer"),
        "guideline": read_team(request.loaded.study).guideline,
        "most": MOST_AT_ONCE,
        "sorts": [{"name": key, "title": other.title, "falls": not other.rising} for key, other in sorts.items()],
        "viewer": viewer_settings(request.layers, corpus, f"“{selection_title(request.selection.name)}”"),
        "serial": st.session_state.get("reader_serial", 0) + 1,
        **_progress(request, order, at),
    }
    st.session_state["reader_serial"] = view["serial"]
    components.reader(_fill(request, view, order, column, at, browser), key=KEY)
    request.below(st.session_state.get("doc") if len(order) else None, span)


def _browser_state() -> dict:
    state = (st.session_state.get(KEY) or {}).get("state")
    return state if isinstance(state, dict) else {}


def _progress(request: Request, order: np.ndarray, at: int) -> dict:
    """How many of the listed documents with selected tokens are reviewed, or in the queue of disagreements settled, and
    the first place after this page of the list that is not."""
    log, queue = request.log, "disputed" in st.session_state.get("verdicts", ())
    judged = np.full(request.store.n_documents, queue)
    marked = log.disputed() if queue else log.of_documents(document_data.reviewer())
    judged[[*request.store.numbers(marked).values()]] = not queue
    listed = replace(request.criteria, only=tuple(order.tolist())) if request.criteria.like else request.criteria
    counted = order if queue else request.store.order(replace(listed, only_selected=True))
    counted, later = counted if len(counted) else order, (at // PAGE_SIZE + 1) * PAGE_SIZE
    following = np.flatnonzero(~judged[order[later:]])[:1] + later
    return {
        "queue": queue,
        "reviewed": [int(judged[counted].sum()), len(counted)],
        "open": [*following.tolist(), None][0],
    }


def _write_verdicts(request: Request, events, order: np.ndarray, name: str) -> None:
    by = document_data.reviewer()
    for event in events if isinstance(events, list) else ():
        if type(number := event.get("n")) is not int or number <= st.session_state.get("reader_ack", 0):
            continue
        st.session_state["reader_ack"] = number  # before it is written: a bad event is refused only once
        if event.get("kind") == "undo":
            request.log.undo(by)
        elif event.get("kind") == "all":
            if event.get("order") != name or not 0 < len(order) <= MOST_AT_ONCE:
                raise ConfigError("expected a verdict on the list as shown, but it has changed; judge it again")
            first, *others = request.store.ids(order, copies=request.criteria.collapse)
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
            together = request.criteria.collapse and not target.is_span and row["group_size"] > 1
            copies = request.store.ids(np.array([index]), copies=True) if together else ()
            note = str(event.get("note") or "")[:1000]
            request.log.decide(target, event.get("verdict"), copies=copies, by=by, note=note)


def _sort_now(sorts: dict[str, Column], browser: dict) -> tuple[str, bool, bool]:
    """The order of the list (sort, falling) as chosen, or else from the address; and whether it was chosen just
    now."""
    just_sorted, usual = False, next(iter(sorts))
    chosen = browser["sort"] if isinstance(browser.get("sort"), dict) else {}
    if chosen.get("name") in sorts and chosen.get("stamp") != st.session_state.get("reader_sorted_at"):
        sort, falling, just_sorted = chosen["name"], bool(chosen.get("descending")), True
        st.session_state["reader_sorted_at"] = chosen.get("stamp")
        st.session_state["reader_sort"] = (sort, falling)
    elif "reader_sort" in st.session_state:
        sort, falling = st.session_state["reader_sort"]
    else:
        sort = st.query_params.get("sort", usual)
        sort = sort if sort in sorts else usual
        falling = st.query_params.get("falling", str(int(not sorts[sort].rising))) == "1"
    sort = sort if sort in sorts else usual
    set_parameter("sort", sort if sort != usual else "")
    set_parameter("falling", "" if falling == (not sorts[sort].rising) else str(int(falling)))
    return sort, falling, just_sorted


def _place_now(request: Request, browser: dict, order: np.ndarray, name: str) -> tuple[int, list[int] | None]:
    """Place of the shown document in the order, and the marked tokens: from the browser, or else from the address."""
    if not len(order):
        return 0, None
    at, span = browser.get("at"), browser.get("range")
    if browser.get("order") == name and type(at) is int and 0 <= at < len(order):
        return at, span if _is_range(span) else None
    linked = st.query_params.get("doc") or st.session_state.get("doc")
    if not linked or (index := request.store.find(linked)) is None:
        return 0, None
    if not (place := np.flatnonzero(order == index)).size:
        st.caption(f"The filters exclude document {plain(linked)}; the list starts at its first document.")
        return 0, None
    match, corpus = _RANGE.fullmatch(st.query_params.get("token", "")), request.loaded.corpus()
    span = [int(match[1]), int(match[2]) + 1] if match else None
    length = int(corpus.offsets[index + 1] - corpus.offsets[index])
    return int(place[0]), span if span and _is_range(span) and span[1] <= length else None


def _is_range(span) -> bool:
    return isinstance(span, list) and len(span) == 2 and all(type(v) is int for v in span) and 0 <= span[0] < span[1]


def _colour_now(browser: dict, layers: list[str]) -> str:
    choices = browser.get("colour"), st.query_params.get("colour")
    colour = next((name for name in choices if name in layers), layers[0])
    set_parameter("colour", colour if colour != layers[0] else "")
    return colour


def _gamma_now(browser: dict) -> float:
    text = browser.get("gamma", st.query_params.get("gamma", 1.0))
    try:
        gamma = min(1.5, max(0.3, float(text)))
    except (TypeError, ValueError):
        gamma = 1.0
    set_parameter("gamma", "" if gamma == 1.0 else f"{gamma:g}")
    return gamma


def _in_transit(browser: dict, serial: int, keys: list[str]) -> set[str]:
    """Documents sent in answers that the browser had not received when it reported; `keys` are recorded as sent."""
    seen, sent = browser.get("seen"), st.session_state.get("reader_sent", {})
    in_transit = {key: number for key, number in sent.items() if type(seen) is int and number > seen}
    st.session_state["reader_sent"] = dict.fromkeys(keys, serial) | in_transit
    return set(in_transit)


def _fill(request: Request, view: dict, order: np.ndarray, column: Column, at: int, browser: dict) -> dict:
    """Add the lines of the page and the documents around the shown one; tokens only of those the browser lacks. A
    browser that has not reported yet gets only the shown document, which is faster, and asks for the others later."""
    corpus, mask, total = request.loaded.corpus(), request.selection.mask, len(order)
    start = at // PAGE_SIZE * PAGE_SIZE
    cached = {*browser["have"]} if isinstance(browser.get("have"), list) else set()
    near = range(max(0, at - BEHIND), min(total, at + AHEAD + 1)) if cached else range(at, min(total, at + 1))
    places = sorted({*range(start, min(total, start + PAGE_SIZE)), *near})
    rows = dict(zip(places, request.store.rows(order[places]), strict=True)) if places else {}
    by, words = (
        document_data.reviewer(),
        document_data.marked_words(request.loaded) if view["veil"] == "words" else None,
    )
    given, spans = request.log.entries(by), request.log.spans(by)
    document_list.read_ahead(corpus, [row["document"] for row in rows.values()], mask)
    view["lines"] = []
    for place, row in rows.items():
        snippet = excerpt(corpus, row["document"], centre=row["strongest"], mask=mask, words=words)
        verdict, n_spans = given.get(Target(row["id"]), ("",))[0], len(spans.get(row["id"], ()))
        view["lines"].append(document_list.describe_row(row, place, column, snippet, verdict, n_spans))
    tag = f"{request.loaded.fingerprint}:{'|'.join(request.layers)}"
    shown = [place for place in near if place == at or rows[place]["n_tokens"] <= LONG]
    keys = {place: f"{tag}:{rows[place]['document']}" for place in shown}
    lacking = [place for place in shown if keys[place] not in cached]
    in_transit = _in_transit(browser, view["serial"], [keys[place] for place in lacking])
    missing = [place for place in lacking if keys[place] not in in_transit]
    ranked = request.layers[request.store.kind].values
    settings = request.selection.settings
    threshold = settings["threshold"] if settings.get("kind", "influence") == "influence" else None
    listed, matches = [rows[place]["document"] for place in shown], None
    if request.search:
        texts = [corpus.document(document).text for document in listed]
        matches = document_list.find_matches(texts, request.search[0], regex=request.search[1])
    marks = mark_table(corpus, listed, mask=mask, scores=ranked, threshold=threshold, matches=matches, words=words)
    rank, new = None, [rows[place]["document"] for place in missing]
    with contextlib.suppress(StaleError):  # the study has no index of these scores
        rank = request.loaded.index(request.store.kind).ranks
    tokens = token_table(corpus, new, list(request.layers.values()), rank=rank, ranked=ranked)
    entries, from_token, from_mark = [], 0, 0
    for number, place in enumerate(shown):
        row, length = rows[place], rows[place]["n_tokens"]
        entry = {"key": keys[place], "place": place, "marks": [from_mark, from_mark + length]}
        from_mark += length
        if place in missing:
            entry["tokens"] = [from_token, from_token + length]
            from_token += length
        about = _describe(request, row, given.get(Target(row["id"]), ("", "", "")), spans.get(row["id"], []))
        entries.append(entry | {"about": about | {"matches": len(matches[number]) if matches else 0}})
    return {"tokens": tokens, "marks": marks, "view": view | {"documents": entries, "places": keys}}


def _describe(request: Request, row: dict, given: tuple[str, str, str], spans: list) -> dict:
    rank = f"rank {count(row['rank'])} of {count(request.store.n_documents)}{request.loaded.sampled}"
    facts = [row["source"], rank, count_of(row["selected"], "selected token")]
    if row["group_size"] > 1:
        facts.append(f"{count(row['group_size'])} near-duplicates")
    by, opinions = document_data.reviewer(), request.log.opinions(Target(row["id"]))
    if by in opinions:  # the others' verdicts would sway one who has not judged yet
        facts += [f"{who}: {verdict}" for who, (verdict, _) in opinions.items() if who not in ("", by)]
        if final := request.log.finals().get(Target(row["id"])):
            facts.append(f"decided: {final[0]}")
    return {
        "id": row["id"],
        "facts": facts,
        "verdict": given[0],
        "note": given[1] if given[2] == document_data.reviewer() else "",
        "spans": [list(span) for span in spans],
        "copies": row["group_size"] if request.criteria.collapse else 1,
        "turns": place_turns(request.loaded.corpus(), row["document"]),
    }
