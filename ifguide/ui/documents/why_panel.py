"""Why a document scores as it does: the queries with the largest share in it, and the documents with the nearest
influence. A job computes both."""

import numpy as np
import streamlit as st

from ifguide.config.attributions import describe_kind, needs_direction
from ifguide.config.names import BASE
from ifguide.study.analysis import explain
from ifguide.study.analysis.trace import find_obstacle
from ifguide.study.on_demand import read_result
from ifguide.ui import components, job_panel, layout
from ifguide.ui.documents import reader
from ifguide.ui.documents.store import DocumentStore
from ifguide.ui.excerpts import excerpt_around
from ifguide.ui.format import column, count_of, number, score, share
from ifguide.ui.loaders import Loaded
from ifguide.ui.models_process import ENDED, POLL_SECONDS, ask, explain_failure, read
from ifguide.ui.results.side_by_side import cut_runs, offensive_spans

SHOWN = 5


def show_why(loaded: Loaded, store: DocumentStore, document: str, span: list[int] | None) -> None:
    """The panel about a document, or about its marked tokens: open if there is an answer."""
    title = "Why these tokens?" if span else "Why this document?"
    if layout.note_no_model(loaded):
        return
    explained = needs_direction(loaded.study.config.scores)
    with layout.guard(go_on=True):
        answer = explained and read_result(explain.document_path(loaded.study, document, *(span or (None, None))))
        if not answer and job_panel.refuse_recorded(loaded.study.root):
            return
        if not explained and (span or find_obstacle(loaded.study)):
            return  # only the answers that a document pushed toward are known without influence scores
        panel = st.expander(title, expanded=bool(answer), key="answer" if answer else "why", bind="query-params")
        with panel:
            if answer and panel.open:
                _show_answer(loaded, store, answer)
            elif panel.open:
                if explained:
                    _offer(loaded, document, span)
                if not span:
                    _show_pushed(loaded, document)


def _offer(loaded: Loaded, document: str, span: list[int] | None) -> None:
    root = loaded.study.root
    if job_panel.running_stage(root) == "explain" or job_panel.is_pending(root, "explain"):
        job_panel.show_job(root, brief=True)
    st.write("Splits the score into the parts that add up to it, and finds documents with the nearest influence.")
    part = ["--document", document] + (["--start", str(span[0]), "--stop", str(span[1])] if span else [])
    offers = {f"Explain the top {explain.TOP}": ["--top", str(explain.TOP)]}
    offers["Explain these tokens" if span else "Explain this document"] = part
    with st.container(horizontal=True):
        for place, (title, arguments) in enumerate(offers.items()):
            command = ["explain", loaded.name, *arguments]
            off, icon = job_panel.is_pending(root, *command), ":material/play_arrow:"
            if st.button(title, icon=icon, key=f"why_start_{place}", disabled=off):
                job_panel.start(root, command)


def _show_answer(loaded: Loaded, store: DocumentStore, answer: dict) -> None:
    picked = None
    if answer["start"] is None and store.kind == answer["kind"] and store.settings["kind"] == "influence":
        _show_phrases(loaded, store, answer["document"])
    if answer["start"] is None:
        _show_pushed(loaded, answer["document"])
    with st.grid(2, min_column_width=380):
        with st.container():
            _show_parts(store, answer)
        with st.container():
            picked = _show_nearest(answer)
        for kind, title in (("toxic", "Toxic queries that add most"), ("safe", "Safe queries that add most")):
            if (values := np.array(answer[kind])).size:
                with st.container():
                    _show_queries(loaded, kind, title, values)
    if picked is not None:
        reader.open_document(picked)
        st.rerun()


def _show_phrases(loaded: Loaded, store: DocumentStore, document: str) -> None:
    """The phrases above the threshold, which add up to the sum that the list shows."""
    corpus, mask, index = loaded.corpus(), loaded.selection(store.settings["name"]).mask, store.find(document) or 0
    here = slice(int(corpus.offsets[index]), int(corpus.offsets[index + 1]))
    scores, taken = (np.asarray(array[here]) for array in (loaded.scores(store.kind), mask))
    hits = (scores > store.settings["threshold"]) & corpus.valid_between(here.start, here.stop)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], hits, [0]]).astype(int))).reshape(-1, 2)
    phrases = sorted(((float(scores[start:stop].sum()), start, stop) for start, stop in edges.tolist()), reverse=True)
    total, rows = sum(value for value, *_ in phrases), []
    for value, start, stop in phrases[:SHOWN]:
        phrase = (np.arange(len(hits)) >= start) & (np.arange(len(hits)) < stop)
        text = excerpt_around(corpus, index, marked=phrase, scores=scores, taken=taken)
        rows.append({"key": str(start), "cells": [text, score(value), share(value, total)]})
    st.write(f"Its sum of {score(total)} comes from {count_of(len(phrases), 'phrase')} above the threshold. Strongest:")
    columns = [column("Phrase", "excerpt"), column("Adds"), column("Share of the sum")]
    components.record_table(columns, rows, key="why_phrases", label="Phrases that add most", compact=True)


def _show_parts(store: DocumentStore, answer: dict) -> None:
    parts, whole = [*answer["parts"].items(), ("sum of all scores", answer["total"])], answer["start"] is None
    if whole and store.kind == answer["kind"]:
        above = store.rows(np.array([store.find(answer["document"])]))[0]["hit_sum"]
        parts += [("scores up to the threshold, left out", above - answer["total"]), ("sum above the threshold", above)]
    lines = [{"key": part, "cells": [part[:1].upper() + part[1:], score(value)]} for part, value in parts]
    columns = [column(f"Part of the score ({describe_kind(answer['kind']).title.lower()})", "text"), column("Value")]
    st.caption("A positive part makes toxic completions likelier when the model trains on this text.")
    components.record_table(columns, lines, key="why_parts", label="What adds up to the score")


def _show_queries(loaded: Loaded, kind: str, title: str, values: np.ndarray) -> None:
    columns = [column("Contribution"), column("Prompt", "excerpt"), column("Completion", "excerpt")]
    st.markdown(f"**{title}** · {score(float(values.sum()))} together")
    table, rows = loaded.queries(kind), []
    for i in np.argsort(-np.abs(values), kind="stable")[:SHOWN].tolist():
        texts = [[table["prompt"][i], False]], [[table["completion"][i], True]]
        rows.append({"key": str(i), "cells": [score(values[i]), *texts]})
    components.record_table(columns, rows, key=f"why_{kind}", label=title)


def _show_pushed(loaded: Loaded, document: str) -> None:
    """Recorded answers that the document pushed toward, through the models' process."""
    if find_obstacle(loaded.study) or BASE not in loaded.study.evaluation_names():
        return
    of, asked = [str(loaded.study.root), layout.link_state(loaded), document], st.session_state.get("answers_asked", {})
    if asked.get("of") != of or asked["state"] == "cancelled":
        if asked and asked["state"] not in ENDED:
            read(asked, cancel=True)
        st.session_state["answers_asked"] = {}
        if not st.button("Show answers it pushed toward", key="why_answers", icon=":material/play_arrow:"):
            return
        asked = st.session_state["answers_asked"] = {"of": of} | ask(loaded, models=[], document=document)
    if asked["state"] not in ENDED:
        st.fragment(_wait_for_answers, run_every=POLL_SECONDS)(asked)
        return
    if asked["state"] == "failed":
        st.error(explain_failure(asked["message"]), icon=":material/error:")
        return
    samples, rows = loaded.samples(BASE).set_index(["prompt_index", "sample_index"]), []
    for cell in asked["cells"][:SHOWN]:
        place = cell["prompt_index"], cell["sample_index"]
        row = samples.loc[place]
        runs = cut_runs(row["completion"], offensive_spans(row))
        texts = [[row["prompt"], False]], [[text, bool(span)] for text, span in runs]
        rows.append({"key": "{}.{}.base".format(*place), "cells": [score(cell["score"]), *texts]})
    columns = [column("Pushed"), column("Prompt", "excerpt"), column("Completion", "excerpt")]
    st.markdown("**Toxic answers it pushed toward**")
    label = "Recorded answers that the document pushed toward"
    if picked := components.record_table(columns, rows, key="why_pushed", label=label, pickable=True):
        st.session_state["picked"] = picked  # a click, so that Compare traces it
        query = {"study": loaded.name, "prompt": picked.split(".")[0], "pick": picked}
        st.switch_page("pages/compare.py", query_params=query)
    st.caption(
        f"How much likelier training on this document made an answer, to first order: the {len(asked['cells'])} most"
        " toxic ones of the base model, the furthest pushed first. Click one for all the documents behind it."
    )


def _wait_for_answers(asked: dict) -> None:
    if st.session_state["answers_asked"] is not asked:
        return  # the reader has gone on: a rerun would have the old address
    read(asked)
    if asked["state"] in ENDED:
        st.rerun()
    st.caption("Measuring what this document made likelier…")


def _show_nearest(answer: dict) -> str | None:
    st.caption(f"Nearest influence, of the {count_of(answer['candidates'], 'best-ranked document')}")
    rows = [{"key": id, "cells": [id, number(cosine, 2)]} for id, cosine in answer["neighbours"][:SHOWN]]
    note = "Cosine of the two documents' gradients in the curvature's metric, −1 to 1"
    columns = [column("Document", "text"), column("Similarity", note=note)]
    return components.record_table(columns, rows, key="why_near", label="Nearest influence", pickable=True)
