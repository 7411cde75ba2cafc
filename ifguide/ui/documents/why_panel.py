"""Why this document: the queries that pull it most, and the documents with the nearest influence; computed by a job."""

from pathlib import Path

import numpy as np
import streamlit as st

from ifguide.config.attributions import describe_kind
from ifguide.runtime.jobs import active_job
from ifguide.study.analysis import explain
from ifguide.study.on_demand import read_result
from ifguide.ui import components, job_panel, layout
from ifguide.ui.documents import reader
from ifguide.ui.documents.store import DocumentStore
from ifguide.ui.format import column, count_of, score
from ifguide.ui.loaders import Loaded

SHOWN = 5


def show_why(loaded: Loaded, store: DocumentStore, document: str, span: list[int] | None) -> None:
    """The panel about a document of the list, or about its marked tokens: open where there is, or comes, an answer."""
    title = "Why these tokens?" if span else "Why this document?"
    with layout.guard(go_on=True):
        path = explain.document_path(loaded.study, document, *(span or (None, None)))
        found = read_result(path)
        panel = st.expander(title, expanded=bool(found), key="answer" if found else "why", bind="query-params")
        with panel:
            if found and panel.open:
                _show_found(loaded, store, found)
            elif not found and active_job(loaded.study.root):
                rank = store.rows(np.array([store.find(document)]))[0]["rank"]
                st.fragment(_wait, run_every=1.5)(loaded.study.root, path, best=rank <= explain.TOP and not span)
            elif panel.open:
                _offer(loaded, document, span)


def _wait(root: Path, path: Path, *, best: bool) -> None:
    """Follow the running job; the answer takes this place when it is there. A run ends with the best documents."""
    job = active_job(root)
    if job is None or path.is_file():
        st.rerun()
    status = job.status()
    comes = best or status.command[:1] == ("explain",)
    then = "the answer appears here when it is done" if comes else "after it this can be explained"
    note = f"{job_panel.progress_line(status)}; {then}."
    st.progress(job_panel.share_done(status), text=note[:1].upper() + note[1:])


def _offer(loaded: Loaded, document: str, span: list[int] | None) -> None:
    if job_panel.refuse_recorded(loaded.study.root):
        return
    st.write("Splits the score into the parts that add up to it, and looks for documents with the nearest influence.")
    part = ["--document", document] + (["--start", str(span[0]), "--stop", str(span[1])] if span else [])
    offers = {f"Explain the top {explain.TOP}": ["--top", str(explain.TOP)]}
    offers["Explain these tokens" if span else "Explain this document"] = part
    with st.container(horizontal=True):
        for place, (title, arguments) in enumerate(offers.items()):
            if st.button(title, icon=":material/play_arrow:", key=f"why_start_{place}"):
                job_panel.start(loaded.study.root, ["explain", loaded.name, *arguments], scope="fragment")


def _show_found(loaded: Loaded, store: DocumentStore, found: dict) -> None:
    picked = None
    with st.grid(2, min_column_width=380):
        with st.container():
            _show_parts(store, found)
        with st.container():
            picked = _show_nearest(found)
        for kind, title in (("toxic", "Toxic queries that pull it most"), ("safe", "Safe queries that pull it most")):
            if (values := np.array(found[kind])).size:
                with st.container():
                    _show_queries(loaded, kind, title, values)
    if picked is not None:
        reader.open_document(picked)
        st.rerun()


def _show_parts(store: DocumentStore, found: dict) -> None:
    parts, whole = [*found["parts"].items(), ("sum of all scores", found["total"])], found["start"] is None
    if whole and store.kind == found["kind"]:
        above = store.rows(np.array([store.find(found["document"])]))[0]["hit_sum"]
        parts += [("scores up to the threshold, left out", above - found["total"]), ("sum above the threshold", above)]
    lines = [{"key": part, "cells": [part[:1].upper() + part[1:], score(value)]} for part, value in parts]
    columns = [column(f"Part of the score ({describe_kind(found['kind']).title.lower()})", "text"), column("Value")]
    st.caption("Positive parts say that training on it makes toxic completions likelier.")
    components.record_table(columns, lines, key="why_parts", label="What adds up to the score")


def _show_queries(loaded: Loaded, kind: str, title: str, values: np.ndarray) -> None:
    columns = [column("Contribution"), column("Prompt", "excerpt"), column("Completion", "excerpt")]
    st.markdown(f"**{title}** · {score(float(values.sum()))} together")
    table, rows = loaded.queries(kind), []
    for i in np.argsort(-np.abs(values), kind="stable")[:SHOWN].tolist():
        texts = [[table["prompt"][i], False]], [[table["completion"][i], True]]
        rows.append({"key": str(i), "cells": [score(values[i]), *texts]})
    components.record_table(columns, rows, key=f"why_{kind}", label=title)


def _show_nearest(found: dict) -> str | None:
    st.caption(f"Nearest influence among the {count_of(found['candidates'], 'best-ranked document')}")
    rows = [{"key": id, "cells": [id, f"{alike:.2f}".replace("-", "−")]} for id, alike in found["neighbours"][:SHOWN]]
    note = "Cosine of the two documents' gradients in the curvature's metric, −1 to 1"
    columns = [column("Document", "text"), column("Similarity", note=note)]
    return components.record_table(columns, rows, key="why_near", label="Nearest influence", pickable=True)
