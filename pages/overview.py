"""What the study is, its progress and its results."""

import contextlib

import streamlit as st

from ifguide.errors import IFGuideError
from ifguide.storage.lock import read_record
from ifguide.study.freshness import stage_states
from ifguide.study.planning.model_facts import known_facts
from ifguide.study.reading import Study
from ifguide.study.stage_table import STAGES
from ifguide.ui import components, frame, job_panel, layout
from ifguide.ui.format import STATE_WORDS, column, count_of, duration, job_title, plain, sentence
from ifguide.ui.loaders import Loaded
from ifguide.ui.overview import curve_panel
from ifguide.ui.palette import variant_colours
from ifguide.ui.report.slides import FIRST_MODELS
from ifguide.ui.report.summary import what_was_done
from ifguide.ui.results import pins
from ifguide.ui.results import tables as comparison
from ifguide.ui.results.judge_menu import ask_judge
from ifguide.ui.stage.panel import show_stage

DEMO = "demo"
FEW_MODELS = 6
"""More models than this are not all shown here."""


def show_result(loaded: Loaded) -> None:
    metrics = loaded.metrics(loaded.study.evaluation_names())
    if not metrics:
        return
    colours = variant_colours(metrics)
    if {"base", "default"} <= metrics.keys():
        difference = None
        with contextlib.suppress(IFGuideError):  # the models completed different prompts
            difference = loaded.difference("base", "default")
        claim, *more = comparison.headline({"base": metrics["base"]} | metrics, "default", difference)
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.header(plain(claim), anchor=False)
            pair = pins.pinned_pair(loaded.study, loaded.samples)
            if pair:
                with st.container(width="content"):
                    show_stage(loaded, pair)
        st.markdown(plain(" ".join(more)))
        if pair:
            components.completions(
                pair, key="pair", names=pair["models"], colours=colours, hollow=loaded.edited, memory=loaded.name
            )
    shown = {name: values for name, values in metrics.items() if name in FIRST_MODELS or len(metrics) <= FEW_MODELS}
    columns, rows = comparison.metric_table(shown, comparison.HEADLINE, notes=False)
    columns.insert(1, column("Worst-case toxicity, 0 to 1", "range"))
    for row in rows:
        values = shown[row["key"]]
        ends = [values.get(f"emt_{end}", values["emt"]) for end in ("low", "high")]
        row["cells"].insert(1, [values["emt"], *ends, colours[row["key"]], row["key"] in loaded.edited])
    components.record_table(columns, rows, key="headline", label="Metrics of every model")
    st.caption(plain(comparison.facts_text(next(iter(metrics.values())))))
    if n_others := len(metrics) - len(shown):
        label = f"Compare with {count_of(n_others, 'other model')}"
        st.page_link("pages/compare.py", label=label, icon=":material/arrow_forward:")


def show_next(fresh: set[str]) -> None:
    steps = (
        ("scores", "documents", "1. Read the most toxic documents", ":material/article:"),
        ("index", "threshold", "2. Choose which tokens to suppress", ":material/tune:"),
        ("evaluate", "compare", "3. Compare the models", ":material/compare:"),
    )
    with st.container(horizontal=True):
        for stage, page, label, icon in steps:
            if stage in fresh:
                st.page_link(f"pages/{page}.py", label=label, icon=icon, width="content")


def show_stages(study: Study, states: dict, running: str | None) -> None:
    columns = [column("Step", "titled"), column("State", "state"), column("Duration")]
    rows = []
    for place, stage in enumerate(STAGES, 1):
        state = states[stage]
        reason = "" if state.state == "missing" else layout.explain(state)
        shown = ["running", "Running now", ""] if stage == running else [state.state, STATE_WORDS[state.state], reason]
        if not study.units(stage):
            shown = ["missing", "Skipped", "With these settings, nothing needs it."]
        cells = [[f"{place}. {job_title(stage)}", STAGES[stage].note, ""], shown, duration(state.seconds)]
        rows.append({"key": stage, "cells": cells})
    components.record_table(columns, rows, key="stages", label="Steps of the study")


def show_run(study: Study, states: dict) -> None:
    if job_panel.show_job(study.root):
        return
    waiting = [stage for stage in STAGES if states[stage].state != "fresh"]
    if not waiting or read_record(study.root):
        return
    stale = [stage for stage in waiting if states[stage].state == "stale"]
    if stale:
        st.warning(
            f"{count_of(len(stale), 'step')} out of date, starting with “{job_title(stale[0])}”."
            f" {sentence(layout.explain(states[stale[0]]))} The results below are older.",
            icon=":material/update:",
        )
    label = "Run the study"
    if len(waiting) < len(STAGES):
        label = "Run the open step" if len(waiting) == 1 else f"Run the {len(waiting)} open steps"
    if st.button(label, type="primary", icon=":material/play_arrow:", help="You can close this page while it runs."):
        job_panel.start(study.root, ["demo"] if study.name == DEMO else ["run", study.name])


frame.need_frame()
if not st.session_state.get("study"):
    st.switch_page("pages/studies.py")

loaded = frame.open_page("Overview")
with layout.guard():
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        about = "Training documents that teach this model to be toxic, and the model without them."
        others = "A sample of shards of scores." if loaded.is_sample else "Training documents, by others' scores."
        st.caption(about if loaded.study.units("model") else others, width="content")
        loaded = ask_judge(loaded)
    states = stage_states(loaded.study)
    skipped = {stage for stage in states if not loaded.study.units(stage)} - {"scores"}  # others' are read, too
    fresh = {stage for stage, state in states.items() if state.state != "missing"} - skipped
    layout.note_no_model(loaded)
    show_run(loaded.study, states)
    layout.warn_of_selection(loaded)
    show_result(loaded)
    show_next(fresh)
    done = sum(state.state == "fresh" for state in states.values())
    with st.expander(f"Steps: {done} of {len(STAGES)} up to date", expanded=done < len(STAGES)):
        show_stages(loaded.study, states, job_panel.running_stage(loaded.study.root))
    with st.expander("This study"):
        if loaded.study.config.description:
            st.text(loaded.study.config.description)
        with layout.guard(go_on=True):
            st.markdown(plain(" ".join(what_was_done(loaded.study, fresh))))
        if facts := known_facts(loaded.study):
            rows = [{"key": fact, "cells": [fact, value]} for fact, value in facts.rows()]
            columns = [column("Model", "text"), column("Value", "text")]
            components.record_table(columns, rows, key="model", label="Facts of the model")
    curve_panel.show_curves(loaded)
