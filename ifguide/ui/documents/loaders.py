"""What the Documents page reads, remembered by the study's folder and fingerprint. Scores and masks stay
memory-mapped."""

import contextlib
import threading
from dataclasses import replace
from pathlib import Path

import streamlit as st
from streamlit.runtime.scriptrunner import add_script_run_ctx

from ifguide.config.names import BASE, DEFAULT
from ifguide.errors import IFGuideError, StaleError
from ifguide.selection.verdicts import VerdictLog
from ifguide.study.document_table import CORPUS
from ifguide.study.freshness import find_change
from ifguide.ui import job_panel, veil
from ifguide.ui.documents import lines as document_list
from ifguide.ui.documents.store import DocumentFilter, DocumentStore, open_documents
from ifguide.ui.documents.token_view import Layer
from ifguide.ui.format import count
from ifguide.ui.loaders import Loaded, remembered

TOKENS_WRITTEN_HERE = 20_000_000
"""The tables of a larger corpus are written by a job, not while a page opens."""


def need_table(loaded: Loaded, *, was: str = "not listed yet") -> None:
    """Stop the page with a button that starts the job when the documents of a large corpus are not listed; `was` tells
    the reader why not."""
    if not find_change(loaded.study, CORPUS) or loaded.corpus().n_tokens <= TOKENS_WRITTEN_HERE:
        return
    st.info(
        f"The documents of this study are {was}. It takes a few minutes for {count(loaded.corpus().n_tokens)} tokens,"
        " once.",
        icon=":material/hourglass_empty:",
    )
    if job_panel.show_job(loaded.study.root):
        st.stop()
    if st.button("List the documents", type="primary", icon=":material/play_arrow:"):
        job_panel.start(loaded.study.root, ["documents", loaded.name])
    st.stop()


def open_store(loaded: Loaded, selection: str) -> DocumentStore:
    """The documents under one selection; stops the page with the button when the list of a large corpus is damaged."""
    try:
        return _store(loaded, selection)
    except StaleError:
        need_table(loaded, was="no longer listed: their table was damaged, and was removed")
        raise


@remembered(6)
def _store(loaded: Loaded, selection: str) -> DocumentStore:
    return open_documents(loaded.study, selection, most_tokens=TOKENS_WRITTEN_HERE)


def warm_up(loaded: Loaded) -> None:
    """Begin to read what the list needs while the page draws its controls; whoever asks for it later gets the same."""
    key = ("warm", loaded.name, loaded.fingerprint)
    if st.session_state.get("warmed") == key or "selection" in st.query_params:
        return
    st.session_state["warmed"] = key

    def read() -> None:
        with contextlib.suppress(IFGuideError):  # the page meets the same error, and says it
            _store(loaded, DEFAULT).order(DocumentFilter())

    thread = threading.Thread(target=read, daemon=True)
    add_script_run_ctx(thread)
    thread.start()


@remembered(16, "Searching the text of every document…")
def search_text(loaded: Loaded, search: str, regex: bool) -> tuple[int, ...]:
    """Numbers of the documents that contain a text."""
    return tuple(document_list.find_text(loaded.corpus().batches, search, regex=regex).tolist())


@st.cache_resource(max_entries=4, show_spinner=False)
def open_log(root: str) -> VerdictLog:
    """The study's verdicts; one object for all readers, who see each other's."""
    return VerdictLog(Path(root))


def reviewer() -> str:
    """The name of who is reading, if it was given; verdicts are shown as they see them."""
    return st.session_state.get("reviewer", "")


@remembered(4)
def marked_words(loaded: Loaded) -> frozenset[str]:
    """The classifier's words, which are hidden where only offensive words are."""
    return veil.marked_words(loaded.samples(BASE)) if BASE in loaded.study.evaluation_names() else frozenset()


def filter_verdicts(wanted: tuple[str, ...], log: VerdictLog, store: DocumentStore) -> dict:
    """The fields of a `DocumentFilter` that keep documents with one of some verdicts; `none`: those without one."""
    if not wanted:
        return {}
    verdicts, without = log.of_documents(reviewer()), "none" in wanted
    numbers = store.numbers(id for id, verdict in verdicts.items() if (verdict in wanted) != without)
    return {"without" if without else "only": tuple(sorted(numbers.values()))}


def narrow(wanted: DocumentFilter, only: tuple[int, ...]) -> DocumentFilter:
    """The same filter, and only among some documents."""
    both = only if wanted.only is None else tuple(sorted(set(only) & set(wanted.only)))
    return replace(wanted, only=both)


def build_layers(loaded: Loaded, store: DocumentStore) -> dict[str, Layer]:
    """The layers that colour tokens, the selection's own first."""
    kinds = sorted(loaded.study.kinds(), key=lambda kind: kind != store.kind)
    return {kind: Layer(kind, loaded.scores(kind), store.notes["tops"][kind]) for kind in kinds}
