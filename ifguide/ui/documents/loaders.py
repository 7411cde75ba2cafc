"""What the Documents page reads, cached by the study's folder and fingerprint. Scores and masks stay memory-mapped."""

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import streamlit as st
from streamlit.runtime.scriptrunner import add_script_run_ctx

from ifguide.config.names import BASE, DEFAULT
from ifguide.errors import IFGuideError, InputError, StaleError
from ifguide.selection.verdicts import VerdictLog
from ifguide.study.analysis.document_map import STATES, in_boxes, rank_alike, read_map
from ifguide.study.freshness import find_change, unit_state
from ifguide.study.lineage import scores_unit
from ifguide.study.sharing.shard_sample import Sketch
from ifguide.study.stages.document_table import CORPUS
from ifguide.study.stages.select import select_default
from ifguide.ui import components, job_panel, layout, veil
from ifguide.ui.documents import lines as document_list
from ifguide.ui.documents.described import read_document
from ifguide.ui.documents.store import DocumentFilter, DocumentStore, open_documents
from ifguide.ui.format import column, count, score
from ifguide.ui.loaders import Loaded, remembered

SEARCHED_HERE = 5_000_000
"""Documents in shards that are looked through for an id while a reader waits, some seconds."""
TOKENS_WRITTEN_HERE = 20_000_000
"""For a larger corpus a job writes the tables, not the page."""


def need_table(loaded: Loaded, *, was: str = "not listed yet") -> None:
    """If the documents of a large corpus are not listed, offer to start the job that lists them, and stop the page.
    `was` tells the reader why they are not."""
    if not find_change(loaded.study, CORPUS) or loaded.corpus().n_tokens <= TOKENS_WRITTEN_HERE:
        return
    st.info(
        f"The documents of this study are {was}. Listing {count(loaded.corpus().n_tokens)} tokens takes a few minutes,"
        " once.",
        icon=":material/hourglass_empty:",
    )
    job_panel.show_job(loaded.study.root)
    pending = job_panel.is_pending(loaded.study.root, "documents")
    if not pending and st.button("List the documents", type="primary", icon=":material/play_arrow:"):
        job_panel.start(loaded.study.root, ["documents", loaded.name])
    st.stop()


def need_selection(loaded: Loaded) -> None:
    """If there are scores and no selection yet, and the corpus is not large, make the default one."""
    usual = scores_unit(loaded.study.config, loaded.study.config.selection.attribution)
    due = not loaded.study.selection_names() and unit_state(loaded.study, usual).state == "fresh"
    if due and loaded.corpus().n_tokens <= TOKENS_WRITTEN_HERE:
        select_default(loaded.study)
        st.rerun()


def open_store(loaded: Loaded, selection: str) -> DocumentStore:
    """The documents under one selection; if their table is damaged and large, stops the page as `need_table` does."""
    try:
        return _store(loaded, selection)
    except StaleError:
        need_table(loaded, was="no longer listed: their table was damaged and has been removed")
        raise


@remembered(6)
def _store(loaded: Loaded, selection: str) -> DocumentStore:
    return open_documents(loaded.study, selection, most_tokens=TOKENS_WRITTEN_HERE)


def warm_up(loaded: Loaded) -> None:
    """Start reading what the list needs while the page draws its controls."""
    key = ("warm", loaded.name, loaded.fingerprint)
    if st.session_state.get("warmed") == key or "selection" in st.query_params:
        return
    st.session_state["warmed"] = key

    def read() -> None:
        with contextlib.suppress(IFGuideError):  # the page meets the same error and shows it
            _store(loaded, DEFAULT).order(DocumentFilter())

    thread = threading.Thread(target=read, daemon=True)
    add_script_run_ctx(thread)
    thread.start()


@remembered(16, "Searching the text of every document…")
def search_text(loaded: Loaded, search: str, regex: bool) -> tuple[int, ...]:
    return tuple(document_list.find_text(loaded.corpus().batches, search, regex=regex).tolist())


def find_alike(loaded: Loaded, document: str) -> tuple[int, ...]:
    """All documents, those most like one first; none where there is no map, which `offer_map` then draws."""
    return _rank_alike(loaded, document) if read_map(loaded.study, STATES) is not None else ()


@remembered(8, "Looking for the document in the shards…")
def _read_outside(loaded: Loaded, document: str) -> dict:
    return read_document(loaded.study, document, DEFAULT, unveil=True)


def show_outside(loaded: Loaded, sketch: Sketch, document: str) -> None:
    """Show a document by its id, in the sample or read from its shard."""
    if sketch.n_documents > SEARCHED_HERE:
        st.caption(f"For a document outside the sample, run `ifguide documents {loaded.name} --read ID`.")
        return
    with layout.guard(go_on=True):
        read = _read_outside(loaded, document)
        best = max(token["score"] for token in read["tokens"])
        texts, marked = [token["text"] for token in read["tokens"]], [token["selected"] for token in read["tokens"]]
        veiled = veil.veil_pieces(texts, np.array(marked), marked_words(loaded))
        runs = [
            [text, 1 if mark else 2 * (text != shown)] for text, mark, shown in zip(texts, marked, veiled, strict=True)
        ]
        columns = [column("Document", "text"), column("Shard", "text"), column("Tokens"), column("Highest score")]
        cells = [document, read["shard"], count(read["n_tokens"]), score(best), runs]
        inside = "in the sample" if read["sampled"] else "outside the sample"
        components.record_table(
            [*columns, column(f"Text, {inside}", "excerpt", whole=True)],
            [{"key": document, "cells": cells}],
            key="outside_text",
            label="Document by its id",
        )


@remembered(4)
def _rank_alike(loaded: Loaded, document: str) -> tuple[int, ...]:
    return tuple(rank_alike(loaded.study, document).tolist())


@st.cache_resource(max_entries=4, show_spinner=False)
def open_log(root: str) -> VerdictLog:
    """The study's verdicts, one object shared by all readers."""
    return VerdictLog(Path(root))


def reviewer() -> str:
    """The reader's name, if given; verdicts are shown from that reader's point of view."""
    return st.session_state.get("reviewer", "")


@remembered(4)
def marked_words(loaded: Loaded) -> frozenset[str]:
    """The classifier's words, hidden when only offensive words are."""
    return veil.marked_words(loaded.samples(BASE)) if BASE in loaded.study.evaluation_names() else frozenset()


def filter_verdicts(
    criteria: DocumentFilter, kept: Sequence[str], log: VerdictLog, store: DocumentStore
) -> DocumentFilter:
    """The same filter, limited to documents with one of some verdicts; `none` stands for no verdict, `disputed` for
    reviewers who disagree."""
    if not kept:
        return criteria
    verdicts, without = log.of_documents(reviewer()), "none" in kept
    disputed = log.disputed() if "disputed" in kept else set()
    passes = {id: verdicts.get(id) in kept or id in disputed for id in {*verdicts, *disputed}}
    numbers = store.numbers(id for id, passed in passes.items() if passed != without)
    chosen = tuple(sorted(numbers.values()))
    return replace(criteria, without=chosen) if without else replace(criteria, only=chosen)


def find_boxed(loaded: Loaded, boxes: str) -> tuple[int, ...]:
    """Numbers of the documents in boxes of the map. An InputError: there is no map, or no such box."""
    if (places := read_map(loaded.study)) is None:
        raise InputError("this study has no map of documents, so no box of it; draw the map, or remove the filter")
    return tuple(np.flatnonzero(in_boxes(places, boxes)).tolist())


def narrow(criteria: DocumentFilter, only: tuple[int, ...]) -> DocumentFilter:
    both = only if criteria.only is None else tuple(sorted(set(only) & set(criteria.only)))
    return replace(criteria, only=both)
