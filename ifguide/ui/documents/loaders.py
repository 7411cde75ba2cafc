"""What the Documents page reads, remembered by the study's folder and fingerprint. Scores and masks stay
memory-mapped."""

import contextlib
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import streamlit as st
from streamlit.runtime.scriptrunner import add_script_run_ctx

from ifguide.config.attributions import describe_kind
from ifguide.config.names import BASE, DEFAULT
from ifguide.errors import IFGuideError, StaleError
from ifguide.selection.verdicts import VerdictLog
from ifguide.study.analysis.score_runs import Mark, Run, ScoredStudy, is_whole, mark_study, others, read_study
from ifguide.study.freshness import find_change
from ifguide.study.reading import Study
from ifguide.study.stages.document_table import CORPUS
from ifguide.ui import job_panel, veil
from ifguide.ui.documents import lines as document_list
from ifguide.ui.documents.store import DocumentFilter, DocumentStore, open_documents
from ifguide.ui.documents.token_view import DIFFERENCE, Difference, Layer, spread
from ifguide.ui.format import count, sentence
from ifguide.ui.loaders import Loaded, open_root, remembered

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


def runs(loaded: Loaded) -> dict[str, Run]:
    """The scores that can be subtracted from each other, by their name for readers: this study's, then those of other
    studies of the same tokens. What is broken, half built or of another corpus is left out."""
    root = loaded.study.root
    here = _scored(root)
    found = [] if here is None else [(root, here), *((other, _scored(other)) for other in others(root))]
    return {
        run.title(loaded.name): run
        for folder, scored in found
        if scored is not None and here is not None and scored.tokens == here.tokens
        for run, size in scored.sizes.items()
        if is_whole(folder, run, size)
    }


def _scored(root: Path) -> ScoredStudy | None:
    mark = mark_study(root)
    return None if mark is None else _read_scored(str(root), mark)


@st.cache_resource(max_entries=1000, show_spinner=False)
def _read_scored(root: str, mark: Mark) -> ScoredStudy | None:
    return read_study(Path(root))


def build_layers(loaded: Loaded, store: DocumentStore, pair: tuple[Run, Run] | None) -> dict[str, Layer]:
    """The layers that colour tokens, the selection's own first; the difference of two runs when a pair is given."""
    kinds = sorted(loaded.study.kinds(), key=lambda kind: kind != store.kind)
    layers = {kind: Layer(kind, loaded.scores(kind), store.notes["tops"][kind]) for kind in kinds}
    if pair:
        try:
            layers[DIFFERENCE] = _build_difference(loaded, *pair)
        except IFGuideError as error:  # the page is whole without it
            st.warning(f"The difference of these runs cannot be shown: {sentence(str(error))}", icon=":material/error:")
    return layers


def _build_difference(loaded: Loaded, left: Run, right: Run) -> Layer:
    cache = loaded.study.root.parent
    digests = [scored.digest if (scored := _scored(cache / run.study)) else "" for run in (left, right)]
    return _difference(str(loaded.study.root), left, right, *digests)


@st.cache_resource(max_entries=4, show_spinner="Reading both runs…")
def _difference(root: str, left: Run, right: Run, left_digest: str, right_digest: str) -> Layer:
    study = open_root(root)
    before, after = (_read_run(study, run) for run in (left, right))
    values = Difference(before, after, spread(before), spread(after))
    step = max(1, len(values) // 2_000_000)
    top = float(np.quantile(np.abs(values[::step]), 0.999))
    first, second = (run.title(study.name) for run in (left, right))
    note = f"{describe_kind('own_loss').title} by “{first}” minus that by “{second}”, each over its standard deviation."
    return Layer(DIFFERENCE, values, top, f"{first} − {second}", note, f"{left_digest[:8]}{right_digest[:8]}")


def _read_run(study: Study, run: Run) -> np.ndarray:
    """float32 (N,) of the study's tokens.

    Raises:
        StaleError: damaged, or of another length.
    """
    owner = study if run.study == study.name else open_root(str(study.root.parent / run.study))
    scores = owner.scores("own_loss", run.checkpoint or None, run.queries)
    n_tokens = study.corpus().n_tokens
    if scores.shape != (n_tokens,) or scores.dtype != np.float32:
        raise StaleError(
            f"{owner.root / 'scores' / run.file}: expected {n_tokens:,} scores, got {scores.dtype} {scores.shape}; "
            f"compute them again with `ifguide run {owner.name} --force scores`"
        )
    return scores
