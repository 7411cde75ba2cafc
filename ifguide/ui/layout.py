"""What pages share: errors in plain words, notices of missing stages, choices in the address, paging."""

import contextlib
import logging
import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Literal, NoReturn

import streamlit as st

from ifguide.errors import IFGuideError
from ifguide.runtime.jobs import active_job
from ifguide.storage import artifacts
from ifguide.study.folder import NO_MODEL
from ifguide.study.freshness import NOT_BUILT, StageState, stage_state
from ifguide.study.lineage import Unit
from ifguide.study.stages.select import selection_warning
from ifguide.ui.format import count, job_title, plain, sentence
from ifguide.ui.loaders import Loaded

Width = int | Literal["stretch"]


@contextlib.contextmanager
def guard(*, go_on: bool = False) -> Iterator[None]:
    """Show an error as a sentence, never as a traceback, and stop the page unless it may `go_on`."""
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
    """A short hash of what the numbers in a link depend on: the corpus and its scores, not what is saved or trained
    later."""
    manifests = [artifacts.read_manifest(loaded.study.folder(Unit(stage))) for stage in ("corpus", "scores")]
    return artifacts.hash_json([manifest and artifacts.digest_of(manifest) for manifest in manifests])[:8]


def note_changes(loaded: Loaded) -> None:
    """Tell the reader when a link was made from other scores than the study has now."""
    if st.query_params.get("state") not in (None, link_state(loaded)):
        st.info(
            "This study has changed since the link was made, so numbers and ranks may differ from what the sender saw.",
            icon=":material/history:",
        )


def need_stage(loaded: Loaded, stage: str, then: str) -> None:
    """Stop the page if a stage is missing; warn if it is out of date, and not only unfinished."""
    if note_no_model(loaded, stage):
        st.stop()
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
    if state.state == "stale" and not state.reason.endswith(NOT_BUILT):
        st.warning(
            f"These results are out of date: {sentence(explain(state))} To update them, run the study again on the"
            " Overview page.",
            icon=":material/update:",
        )


def note_no_model(loaded: Loaded, stage: str = "model") -> bool:
    """Whether the study has scores of others alone, and so nothing of this stage, which the reader is told."""
    if missing := not loaded.study.units(stage):
        note = NO_MODEL
        if loaded.is_sample:
            held = count(loaded.corpus().n_documents)
            if sketch := loaded.sketch():
                held += f" of the {count(sketch.n_documents)} documents in shards of {plain(sketch.folder)}"
            note = f"is a sample: it holds {held}, and no model. Numbers here are of the sample, except where they name"
            note += " all shards"
        st.info(f"“{plain(loaded.name)}” {note}.", icon=":material/info:")
    return missing


def warn_of_selection(loaded: Loaded) -> None:
    """Say that the default selection holds nothing, or what it is instead."""
    if warning := selection_warning(loaded.study):
        st.warning(plain(warning).replace("\\`", "`"), icon=":material/rule:")  # its command as code


def explain(state: StageState) -> str:
    if state.source:
        why = "is out of date" if state.source_state == "stale" else "has not run"
        return f"It depends on “{job_title(state.source.stage)}”, which {why}."
    reason = state.reason.strip().replace("_", " ")
    return reason[:1].upper() + reason[1:].rstrip(".") + "." if reason else ""


def button(
    label: str, key: str, icon: str, act: Callable | None, *arguments, help: str | None = None, disabled: bool = False
) -> None:
    st.button(label, key, help, act, arguments, icon=f":material/{icon}:", disabled=disabled)


def choose(
    label: str,
    options: Mapping[str, str],
    *,
    key: str,
    index: int = 0,
    help: str | None = None,
    width: Width = "stretch",
):
    """A select box over option -> title; the choice is in the address."""
    titles = options.__getitem__
    return st.selectbox(label, list(options), index, titles, key, help, width=width, bind="query-params")


def switch(label: str, options: Mapping[str, str], *, key: str, default: str) -> str:
    """Options side by side without a visible label; the choice is in the address."""
    titles = options.__getitem__
    return st.segmented_control(
        label,
        list(options),
        default=default,
        required=True,
        format_func=titles,
        key=key,
        label_visibility="collapsed",
        bind="query-params",
    )


def search_box(
    label: str, *, key: str, placeholder: str = "word or phrase", width: Width = "stretch", icon: str = "search"
) -> str:
    """The text to search for, without a visible label; it is in the address."""
    text = st.text_input(
        label,
        key=key,
        placeholder=placeholder,
        icon=f":material/{icon}:",
        label_visibility="collapsed",
        width=width,
        bind="query-params",
    )
    return text or ""


def offer_download(
    label: str, content: str | Callable[[], str | bytes], file: str, mime: str, *, key: str, help: str | None = None
) -> None:
    """A button that downloads a file without rerunning the page."""
    st.download_button(label, content, file, mime, key, help, on_click="ignore", icon=":material/download:")


def drop_document_link(document: str) -> None:
    """Say that the address names a document that is not in this corpus, and remove it from the address."""
    st.warning(f"This corpus has no document “{plain(document)}”, which the link names.", icon=":material/link_off:")
    st.query_params.pop("doc", None)
    st.session_state.pop("doc", None)


def open_study(name: str) -> NoReturn:
    st.session_state["open_study"] = name
    st.switch_page("pages/overview.py", query_params={"study": name})


def open_document(loaded: Loaded, id: str) -> None:
    st.session_state["doc"] = id
    st.switch_page("pages/documents.py", query_params={"study": loaded.name, "doc": id})


def pager(key: str, *, n_items: int, page_size: int, noun: str, of: Hashable = None, keys: bool = False) -> slice:
    """Previous and Next buttons; the page number is in the address as `key`. Returns the slice of items to show. `noun`
    is plural, or singular for one item a page. When `of`, which the items depend on, changes, the first page is
    shown. With `keys`, j and k turn the pages."""
    if st.session_state.get(f"{key}_of", of) != of:
        turn_to(key, 1)
    st.session_state[f"{key}_of"] = of
    n_pages = max(1, math.ceil(n_items / page_size))
    linked = st.query_params.get(key, "")
    at = int(linked) if linked.isdecimal() and len(linked) < 9 else st.session_state.get(f"{key}_at", 1)
    current = min(max(1, at), n_pages)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        (k, j), icon = ("k", "j") if keys else (None, None), ":material/chevron_left:"
        back = st.button("Previous", key=f"{key}_back", icon=icon, disabled=current <= 1, shortcut=k)
        last, icon = current >= n_pages, ":material/chevron_right:"
        forward = st.button("Next", key=f"{key}_forward", icon=icon, icon_position="right", disabled=last, shortcut=j)
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
    """Keep a page number in the session and in the address."""
    st.session_state[f"{key}_at"] = page
    set_parameter(key, "" if page == 1 else str(page))


def set_parameter(key: str, value: str) -> None:
    """Write a parameter of the address; an empty value removes it."""
    if not value:
        st.query_params.pop(key, None)
    elif st.query_params.get(key) != value:
        st.query_params[key] = value
