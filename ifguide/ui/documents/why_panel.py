"""Why this document: the queries that pull it most, and the documents with the nearest influence; computed by a job on
demand."""

import numpy as np
import streamlit as st

from ifguide.errors import BusyError, IFGuideError
from ifguide.runtime.jobs import active_job, start_job
from ifguide.study.analysis import explain
from ifguide.study.on_demand import read_result
from ifguide.ui import components, layout
from ifguide.ui.documents import reader
from ifguide.ui.format import count_of, score, sentence
from ifguide.ui.loaders import Loaded

SHOWN = 5


def show_why(loaded: Loaded, document: str, span: list[int] | None) -> None:
    """The panel about a document, or about its marked tokens; redrawn with the reader."""
    with st.expander("Why these tokens?" if span else "Why this document?", key="why"):
        try:
            path = explain.document_path(loaded.study, document, *(span or (None, None)))
            if found := read_result(path):
                _show_found(loaded, found)
            else:
                _offer(loaded, document, span)
        except IFGuideError as error:
            st.error(sentence(str(error)), icon=":material/error:")


def _offer(loaded: Loaded, document: str, span: list[int] | None) -> None:
    st.write("Splits the score into one part a query, and looks for documents with the nearest influence.")
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
        try:
            start_job(loaded.name, arguments, loaded.study.root.parent)
        except BusyError as error:
            st.error(sentence(str(error)), icon=":material/error:")
        else:
            st.rerun(scope="fragment")


def _show_found(loaded: Loaded, found: dict) -> None:
    columns = [
        {"label": "Contribution", "kind": "number"},
        {"label": "Prompt", "kind": "excerpt"},
        {"label": "Completion", "kind": "excerpt"},
    ]
    st.caption(
        f"The score is {score(found['total'])}: the sum of one contribution a query. Positive ones say that training on"
        " it makes toxic completions likelier."
    )
    with st.grid(2, min_column_width=380):
        for kind, title in (("toxic", "Toxic queries that pull it most"), ("safe", "Safe queries that pull it most")):
            values = np.array(found[kind])
            if not values.size:
                continue
            with st.container():
                st.markdown(f"**{title}** · {score(float(values.sum()))} together")
                table = loaded.study.queries(kind)
                best = np.argsort(-np.abs(values), kind="stable")[:SHOWN]
                rows = [
                    {
                        "key": str(i),
                        "cells": [score(values[i]), [[table["prompt"][i], False]], [[table["completion"][i], True]]],
                    }
                    for i in best.tolist()
                ]
                components.record_table(columns, rows, key=f"why_{kind}", label=title, veil=layout.veiled())
    st.markdown(f"**Nearest influence** among the {count_of(found['candidates'], 'best-ranked document')}")
    rows = [{"key": id, "cells": [id, f"{alike:.2f}".replace("-", "−")]} for id, alike in found["neighbours"][:SHOWN]]
    picked = components.record_table(
        [
            {"label": "Document", "kind": "text"},
            {
                "label": "Alike",
                "kind": "number",
                "help": "Cosine of the two documents' gradients in the curvature's metric, −1 to 1",
            },
        ],
        rows,
        key="why_near",
        label="Documents with the nearest influence",
        pickable=True,
    )
    if picked is not None:
        reader.open_document(picked)
        st.rerun()
