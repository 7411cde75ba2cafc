"""The drawer's column of the documents that pushed a model toward an answer, as the models' process scores them, and
what comes of leaving them out."""

import numpy as np
import streamlit as st

from ifguide.config.names import BASE
from ifguide.storage.lock import read_record
from ifguide.study.analysis.likelihood import MODELS_MOST, read_likelihoods
from ifguide.study.analysis.trace import ALIKE, INDEX, RANDOM, find_obstacle, name_answer
from ifguide.study.stages.gradients import explain_index
from ifguide.study.stages.select import save_documents
from ifguide.study.variants import recipe
from ifguide.ui import components, job_panel, layout
from ifguide.ui.compare import live
from ifguide.ui.compare.picks import PROMPT, Pick
from ifguide.ui.documents.loaders import marked_words
from ifguide.ui.excerpts import excerpt_coloured
from ifguide.ui.format import column, count, count_of, number, score, sentence, signed, variant_title, variant_titles
from ifguide.ui.loaders import Loaded
from ifguide.ui.models_process import ENDED, POLL_SECONDS, ask, explain_failure, read
from ifguide.ui.palette import TOKEN_BINS
from ifguide.ui.report.page import STEPS, colour_step

SHOWN, LISTED = 8, 40
"""Documents shown at first, and on demand."""
LEFT_OUT = 50
"""Documents that are proposed to be left out."""
TOP_QUANTILE = 0.98
"""The colour is strongest from this quantile of the absolute scores of all listed documents' tokens."""
_PAIRS = zip(TOKEN_BINS["light"]["signed"], TOKEN_BINS["dark"]["signed"], strict=True)
BINS = [f"light-dark({light}, {dark})" for light, dark in _PAIRS]
SOURCES = {INDEX: INDEX, ALIKE: "reads alike", RANDOM: "drawn at random"}


def show_pushed(loaded: Loaded, pick: Pick, chosen: np.ndarray | None) -> None:
    """The column; `chosen`, bool (N,), are tokens to hide with offensive words. A trace starts with the click that
    opened the drawer; a link starts nothing."""
    reason = find_obstacle(loaded.study)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown("**Pushed toward it**", width="content")
        st.space("stretch")
        contrast = "" if reason else _ask_contrast(loaded, pick)
    if reason:
        stop_trace()
        remedy = " Trace answers in a study that is built here." if read_record(loaded.study.root) else ""
        st.caption(f"Not possible here: {sentence(reason)}.{remedy}")
        return
    other = pick.rows[contrast]["completion"] if contrast in pick.rows else ""
    asked = pick.rows[pick.model]["prompt"]
    answer = {"prompt": asked, "completion": pick.text, "span": pick.span, "contrast": other}
    of = [str(loaded.study.root), layout.link_state(loaded), answer]
    again: dict = {"picked": st.query_params.get("pick"), "traced": {}}
    traced = st.session_state.get("traced") or {}
    if traced.get("of") != of:
        stop_trace()
        if st.session_state.get("picked") != again["picked"]:
            st.caption("Scores training documents by how much likelier training on them made this answer.")
            layout.button("Trace this answer", "trace", "play_arrow", st.session_state.update, again)
            return
        traced = st.session_state["traced"] = {"of": of} | ask(loaded, models=[], trace=answer)
    traced["shown"] = True
    if traced["state"] not in ENDED:
        st.fragment(_follow, run_every=POLL_SECONDS)(loaded, traced, chosen)
        return
    if traced["state"] != "done":
        if traced["state"] == "failed":
            st.error(explain_failure(traced["message"]), icon=":material/error:")
        layout.button("Trace it again", "trace", "replay", st.session_state.update, again)
    _show_documents(loaded, traced, chosen)
    if traced["state"] == "done" and traced["cells"]:
        _offer_without(loaded, pick, traced)
        job_panel.show_job(loaded.study.root, brief=True)
        _show_without(loaded, pick)


def stop_trace() -> bool:
    """The reader's trace is no longer shown: end it if it is running; returns whether it was."""
    traced = st.session_state.get("traced")
    if not traced:
        return False
    traced["shown"] = False
    if running := traced["state"] not in ENDED:
        read(traced, cancel=True)
        st.session_state["traced"] = {}
    return running


def _ask_contrast(loaded: Loaded, pick: Pick) -> str:
    """Another model, whose answer is subtracted; empty for none."""
    named = variant_titles(pick.rows, loaded.edited)
    others = {name: f"Minus the answer of {title}" for name, title in named.items() if name != pick.model}
    titles = {"": "This answer alone"} | others
    show = titles.__getitem__
    return st.selectbox(
        "Contrast", [*titles], 0, show, "contrast", label_visibility="collapsed", width=250, bind="query-params"
    )


def _follow(loaded: Loaded, traced: dict, chosen: np.ndarray | None) -> None:
    """The running trace: how far it is, a button to stop it, and the documents so far."""
    if not traced["shown"]:
        return  # asked for before the drawer was closed: a rerun would have the old address, and open it again
    if traced["state"] not in ENDED:
        read(traced)
    if traced["state"] in ENDED:
        st.rerun()
    share, text = 0.0, "Starting the models…"
    if traced["state"] == "loading":
        text = "Loading the base model and its curvature…"
    elif traced["state"] == "waiting" and traced["ahead"]:
        text = f"Waiting for {count_of(traced['ahead'], 'request')} before this one"
    elif traced["state"] == "running":
        done, total = map(int, traced["message"].split()[1:])
        share, text = done / total, f"Scored {count(done)} of {count_of(total, 'document')}"
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.progress(share, text=text)
        layout.button("Stop", "trace_stop", "stop", read, traced, True)
    _show_documents(loaded, traced, chosen)


def _show_documents(loaded: Loaded, traced: dict, chosen: np.ndarray | None) -> None:
    if not traced["cells"]:
        return
    cells, (low, high) = traced["cells"][:LISTED], traced["figures"]["noise"]
    corpus, words = loaded.corpus(), marked_words(loaded)
    scores = [np.array(cell["scores"], dtype=np.float64) for cell in cells]
    top = float(np.quantile(np.abs(np.concatenate([[0.0], *scores])), TOP_QUANTILE))
    first, last = min(low, 0.0), max(high, cells[0]["score"], 1e-12)
    rows = []
    for cell, values in zip(cells, scores, strict=True):
        index = corpus.index_of(cell["document"])
        here = slice(int(corpus.offsets[index]), int(corpus.offsets[index + 1]))
        taken = np.zeros(len(values), bool) if chosen is None else np.asarray(chosen[here])
        steps, centre = np.array([colour_step(value, top) for value in values]), int(np.argmax([*values, -np.inf]))
        excerpt = excerpt_coloured(corpus, index, steps=steps, centre=centre, taken=taken, words=words)
        origin = [title for source, title in SOURCES.items() if source in cell["sources"]]
        places = [(value - first) / (last - first) for value in (cell["score"], low, high)]
        scored = [cell["document"], " · ".join([score(cell["score"]), *origin]), *places]
        rows.append({"key": cell["document"], "cells": [scored, excerpt]})
    columns = [column("Document", "scored"), column("Where it pushed most", "tokens", bins=BINS, middle=STEPS)]
    label = "Training documents that pushed toward the answer"
    picked = components.record_table(columns, rows, key="pushed", label=label, pickable=True, most=SHOWN)
    if picked is not None:
        layout.open_document(loaded, picked)
    drawn = sum(RANDOM in cell["sources"] for cell in traced["cells"])
    near = "are nearest by gradient, " if any(INDEX in cell["sources"] for cell in traced["cells"]) else ""
    st.caption(
        "How much likelier training on each document made this answer, to first order. Orange tokens pushed toward it,"
        f" blue ones away. The grey bar is the range of {count_of(drawn, 'random document')}; a dot inside it may be"
        f" chance. Scored: {count_of(len(traced['cells']), 'document')} that {near}read alike, rank high or were drawn"
        f" at random. {sentence(explain_index(loaded.study))} On the demo, editing out what pushed made answers less"
        " likely than editing out what reads alike did; of the few answers tried, training without what reads alike did"
        " more. Both did more than random documents."
    )


def _offer_without(loaded: Loaded, pick: Pick, traced: dict) -> None:
    """Save the best documents as a selection, and edit or train a model without them."""
    study, pushed = loaded.study, [cell["document"] for cell in traced["cells"] if cell["score"] > 0]
    if not pushed:
        return
    taken, stem = study.selection_names(), f"without-{pick.prompt}-{pick.sample}"
    free = next(name for name in (stem, *(f"{stem}-{n}" for n in range(2, len(taken) + 3))) if name not in taken)
    with st.popover("Leave these out", icon=":material/playlist_remove:", key=f"leave_{free}"):
        n = st.number_input("Documents, best first", 1, len(pushed), min(LEFT_OUT, len(pushed)), key="without_n")
        name = st.text_input("Name of the selection", free, 64, key=free).strip()
        st.caption(
            "Saves all tokens of these documents as a selection. *Edit* takes one step of the base model's weights"
            " against them, and *Retrain* trains another model; the drawer then shows what that did to this answer."
        )
        ways = {"Edit": ["edit", study.name, "--selection", name], "Retrain": ["evaluate", study.name, "--model", name]}
        if name in taken:
            st.caption("This name is taken.")
        with st.container(horizontal=True):
            clicked = [way for way in ways if st.button(way, key=f"without_{way}", disabled=name in ("", *taken))]
        if clicked:
            with layout.guard(go_on=True):
                numbers = [loaded.corpus().index_of(document) for document in pushed[:n]]
                save_documents(study, name, numbers, name_answer(pick.rows[pick.model]["prompt"], pick.text))
                job_panel.start(study.root, ways[clicked[0]])


def _show_without(loaded: Loaded, pick: Pick) -> None:
    """The answer's log-probability under models made against documents that were traced for it."""
    study, answer = loaded.study, name_answer(pick.rows[pick.model]["prompt"], pick.text)
    saved = [name for name in study.selection_names() if loaded.selection(name).settings.get("answer") == answer]
    made = [name for name in study.evaluation_names() if recipe(study.config, name).selection in saved]
    if not made or pick.prompt == PROMPT:
        return
    models = [*dict.fromkeys([BASE, pick.model, *made])][:MODELS_MOST]
    st.markdown("**Without these documents**")
    likelihoods = read_likelihoods(study, int(pick.prompt), models)
    if likelihoods is None:
        live.compute_tokens(loaded, models, int(pick.prompt))
        return
    here = [c for c in likelihoods["completions"] if (c["model"], c["sample"]) == (pick.model, pick.sample)]
    sums = {name: sum(values) for one in here for name, values in one["log_probability"].items()}
    rows = []
    for name in (name for name in models if name in sums):
        way = "edited, not retrained" if recipe(study.config, name).method == "edit" else "retrained"
        cells = [[variant_title(name), way if name in made else "", ""], number(sums[name], 1)]
        rows.append({"key": name, "cells": [*cells, signed(sums[name] - sums[BASE], 1) if name in made else ""]})
    columns = [column("Model", "titled"), column("Log-probability", note="Of the whole answer"), column("Change")]
    components.record_table(columns, rows, key="without", label="Log-probability of this answer")
