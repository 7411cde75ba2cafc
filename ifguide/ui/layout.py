"""What pages share: errors in plain words, notices of missing stages, choices in the address, paging."""

import contextlib
import logging
import math
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import NoReturn

import streamlit as st

from ifguide.errors import IFGuideError
from ifguide.runtime.jobs import active_job
from ifguide.storage import artifacts
from ifguide.study.freshness import StageState, stage_state
from ifguide.study.lineage import Unit
from ifguide.ui.format import count, job_title, plain, sentence
from ifguide.ui.loaders import Loaded


@contextlib.contextmanager
def guard(*, go_on: bool = False) -> Iterator[None]:
    """Show errors as plain sentences, never as tracebacks; the rest of the page follows an error with `go_on` only."""
    try:
        yield
    except Exception as error:
        text = sentence(str(error))
        if not isinstance(error, IFGuideError):
            logging.getLogger(__name__).exception("a page failed")
            text = (
                f"Something unexpected went wrong ({plain(type(error).__name__)}). Reload the page; if it happens"
                " again, see the terminal that runs the app."
            )
        st.error(text, icon=":material/error:")
        if not go_on:
            st.stop()


def link_state(loaded: Loaded) -> str:
    """What the numbers in a link depend on, as a short hash: the corpus and its scores, and nothing that is saved or
    trained later."""
    manifests = [artifacts.read_manifest(loaded.study.folder(Unit(stage))) for stage in ("corpus", "scores")]
    return artifacts.hash_json([found and artifacts.digest_of(found) for found in manifests])[:8]


def note_changes(loaded: Loaded) -> None:
    """Tell the reader when the link was made from other scores; the Share button writes what it was made from."""
    if st.query_params.get("state") not in (None, link_state(loaded)):
        st.info(
            "This study has changed since the link was made, so numbers and ranks may differ from what the sender saw.",
            icon=":material/history:",
        )


def need_stage(loaded: Loaded, stage: str, then: str) -> None:
    """Stop the page with a plain sentence when a stage is missing; warn when it is out of date."""
    state = stage_state(loaded.study, stage)
    if state.state == "missing":
        running = active_job(loaded.study.root) is not None
        st.info(
            f"Nothing to show yet: the step “{job_title(stage)}” has not {'finished' if running else 'run'}. {then}",
            icon=":material/hourglass_empty:",
        )
        label = "See its progress on the Overview page" if running else "Go to the Overview page and run the study"
        st.page_link("pages/overview.py", label=label, icon=":material/play_arrow:")
        st.stop()
    if state.state == "stale":
        st.warning(
            f"These results are out of date: {sentence(explain(state))} To update them, run the study again on the"
            " Overview page.",
            icon=":material/update:",
        )


def explain(state: StageState) -> str:
    """A state's reason as a sentence."""
    if state.source:
        why = "is out of date" if state.source_state == "stale" else "has not run"
        return f"It depends on “{job_title(state.source.stage)}”, which {why}."
    reason = state.reason.strip().replace("_", " ")
    return reason[:1].upper() + reason[1:].rstrip(".") + "." if reason else ""


def choose(label: str, options: Iterable[str], *, key: str, **more):
    """A select box whose choice is in the page's address; where `options` is a dict, its values are the titles."""
    return st.selectbox(label, list(options), key=key, bind="query-params", **_titles(options), **more)


def switch(label: str, options: Iterable[str], *, key: str, **more):
    """Options side by side, one of them chosen; as `choose` otherwise."""
    return st.segmented_control(
        label, list(options), required=True, key=key, bind="query-params", **_titles(options), **more
    )


def _titles(options: Iterable[str]) -> dict:
    return {"format_func": options.get} if isinstance(options, dict) else {}


def search_box(label: str, *, key: str, **more) -> str:
    """The text to search for, which is in the page's address too."""
    icon = ":material/search:"
    return st.text_input(label, key=key, bind="query-params", placeholder="word or phrase", icon=icon, **more) or ""


def offer_download(label: str, content: str | Callable[[], str | bytes], *, file: str, mime: str, key: str, **more):
    """A button that downloads a file, without running the page again."""
    icon = ":material/download:"
    st.download_button(label, content, file_name=file, mime=mime, icon=icon, on_click="ignore", key=key, **more)


def drop_document_link(document: str) -> None:
    """Say that the address names a document that is not here, and forget it."""
    st.warning(f"This corpus has no document “{plain(document)}”, which the link names.", icon=":material/link_off:")
    st.query_params.pop("doc", None)
    st.session_state.pop("doc", None)


def open_study(name: str) -> NoReturn:
    """Leave for the overview of a study."""
    st.session_state["open_study"] = name
    st.switch_page("pages/overview.py", query_params={"study": name})


def open_document(loaded: Loaded, id: str) -> None:
    """Leave for the Documents page, at one document."""
    st.session_state["doc"] = id
    st.switch_page("pages/documents.py", query_params={"study": loaded.name, "doc": id})


def pager(key: str, *, n_items: int, page_size: int, noun: str, of: Hashable = None) -> slice:
    """Previous and next buttons; the page number is in the address, called `key`. Returns the slice of items to show.
    `noun` is in the plural, or in the singular when they are shown one at a time; when what they depend on, `of`,
    changes, the first page is shown."""
    if st.session_state.get(f"{key}_of", of) != of:
        turn_to(key, 1)
    st.session_state[f"{key}_of"] = of
    n_pages = max(1, math.ceil(n_items / page_size))
    linked = st.query_params.get(key, "")
    at = int(linked) if linked.isdecimal() and len(linked) < 9 else st.session_state.get(f"{key}_at", 1)
    current = min(max(1, at), n_pages)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        back = st.button("Previous", key=f"{key}_back", icon=":material/chevron_left:", disabled=current <= 1)
        look: dict = {"icon": ":material/chevron_right:", "icon_position": "right"}
        forward = st.button("Next", key=f"{key}_forward", disabled=current >= n_pages, **look)
        place = st.empty()
    if back or forward:
        turn_to(key, current + (1 if forward else -1))
        st.rerun()
    st.session_state[f"{key}_at"] = current
    start = (current - 1) * page_size
    stop = min(start + page_size, n_items)
    where = (
        f"{count(start + 1)}–{count(stop)} of {count(n_items)} {noun}"
        if page_size > 1
        else f"{noun.capitalize()} {count(current)} of {count(n_pages)}"
    )
    place.caption(where if n_items else f"No {noun}")
    return slice(start, stop)


def turn_to(key: str, page: int) -> None:
    """Remember a page number, in the session and in the address."""
    st.session_state[f"{key}_at"] = page
    set_parameter(key, "" if page == 1 else str(page))


def set_parameter(key: str, value: str) -> None:
    """Write a parameter of the page's address, or with an empty value remove it."""
    if not value:
        st.query_params.pop(key, None)
    elif st.query_params.get(key) != value:
        st.query_params[key] = value
