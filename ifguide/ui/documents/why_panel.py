"""Why this document: the queries that pull it most, and the documents with the nearest influence; computed by a job on
demand."""

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
    """The panel about a document of the list, or about its marked tokens; redrawn with the reader."""
    with st.expander("Why these tokens?" if span else "Why this document?", key="why"), layout.guard(go_on=True):
        path = explain.document_path(loaded.study, document, *(span or (None, None)))
        if found := read_result(path):
            _show_found(loaded, store, found)
        else:
            _offer(loaded, document, span)


def _offer(loaded: Loaded, document: str, span: list[int] | None) -> None:
    st.write("Splits the score into the parts that add up to it, and looks for documents with the nearest influence.")
    if job := active_job(loaded.study.root):
        status = job.status()
        share = f" ({status.done / status.total:.0%})" if status.total else ""
        st.caption(f"A job is running{share}. The answer appears here when it is done.")
        st.button("Look again", icon=":material/refresh:", key="why_again")
        return
    if st.button("Compute", icon=":material/play_arrow:", key="why_start"):
        arguments = ["explain", loaded.name, "--document", document]
        if span:
            arguments += ["--start", str(span[0]), "--stop", str(span[1])]
        job_panel.start(loaded.study.root, arguments, scope="fragment")


def _show_found(loaded: Loaded, store: DocumentStore, found: dict) -> None:
    parts, whole = [*found["parts"].items(), ("sum of all scores", found["total"])], found["start"] is None
    if whole and store.kind == found["kind"]:
        above = store.rows(np.array([store.find(found["document"])]))[0]["hit_sum"]
        parts += [("scores up to the threshold, left out", above - found["total"]), ("sum above the threshold", above)]
    lines = [{"key": part, "cells": [part[:1].upper() + part[1:], score(value)]} for part, value in parts]
    columns = [column(f"Part of the score ({describe_kind(found['kind']).title.lower()})", "text"), column("Value")]
    st.caption("Positive parts say that training on it makes toxic completions likelier.")
    components.record_table(columns, lines, key="why_parts", label="What adds up to the score")
    columns = [column("Contribution"), column("Prompt", "excerpt"), column("Completion", "excerpt")]
    with st.grid(2, min_column_width=380):
        for kind, title in (("toxic", "Toxic queries that pull it most"), ("safe", "Safe queries that pull it most")):
            if not (values := np.array(found[kind])).size:
                continue
            with st.container():
                st.markdown(f"**{title}** · {score(float(values.sum()))} together")
                table = loaded.study.queries(kind)
                best = np.argsort(-np.abs(values), kind="stable")[:SHOWN]
                rows = []
                for i in best.tolist():
                    texts = [[table["prompt"][i], False]], [[table["completion"][i], True]]
                    rows.append({"key": str(i), "cells": [score(values[i]), *texts]})
                components.record_table(columns, rows, key=f"why_{kind}", label=title)
    st.markdown(f"**Nearest influence** among the {count_of(found['candidates'], 'best-ranked document')}")
    rows = [{"key": id, "cells": [id, f"{alike:.2f}".replace("-", "−")]} for id, alike in found["neighbours"][:SHOWN]]
    note = "Cosine of the two documents' gradients in the curvature's metric, −1 to 1"
    columns = [column("Document", "text"), column("Similarity", note=note)]
    picked = components.record_table(columns, rows, key="why_near", label="Nearest influence", pickable=True)
    if picked is not None:
        reader.open_document(picked)
        st.rerun()
