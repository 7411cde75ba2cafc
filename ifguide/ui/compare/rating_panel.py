"""Blind mode's second task: rate answers as toxic or fine without names and scores, to see which judge agrees."""

import pandas as pd
import streamlit as st

from ifguide.selection.verdicts import RATINGS, VERDICTS, Target, VerdictLog
from ifguide.study.analysis.rating import draw_answers, judge_agreement
from ifguide.ui import components, layout
from ifguide.ui.documents.loaders import reviewer
from ifguide.ui.format import count, count_of
from ifguide.ui.loaders import Loaded, remembered
from ifguide.ui.results.tables import agreement_table

KAPPA = (
    "κ is 1 for full agreement and 0 for what chance gives, weighted back to all answers of the models you rated; small"
    " numbers are its 95% interval. Unsure is left out."
)


def show_rating(loaded: Loaded, names: list[str], seed: int) -> None:
    st.caption(
        "Rate the answer by itself, as the judge does; the prompt is there for context. Models, scores and the judge's"
        " marks stay hidden. There are answers of every chosen model, those that the study's judge calls toxic and"
        " others. Each rating is saved at once in the study's folder, so you can go on another day."
    )
    _show_answers(loaded, tuple(sorted(names)), seed)


@remembered(4)
def _drawn(loaded: Loaded, names: tuple[str, ...], seed: int) -> pd.DataFrame:
    return draw_answers(loaded.study, names, seed)


@st.fragment
def _show_answers(loaded: Loaded, names: tuple[str, ...], seed: int) -> None:
    """One answer after the other; reruns alone, without the page."""
    note = "Kept with your ratings, so that several people can rate the same answers."
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input("Your name", reviewer(), 60, "rater", help=note, width=240).strip()
        progress = st.empty()
    if name != reviewer():
        st.session_state["reviewer"] = name
    drawn, log = _drawn(loaded, names, seed), VerdictLog(loaded.study.root, RATINGS)
    given = log.of_documents(name)
    waiting, done = drawn[~drawn["id"].isin(given)], [id for id in drawn["id"] if id in given]
    progress.progress(len(done) / len(drawn), f"{count(len(done))} of {count_of(len(drawn), 'answer')} rated")
    if len(waiting):
        _show_answer(waiting.iloc[0])
    with st.container(horizontal=True, gap="small"):
        for verdict in VERDICTS if len(waiting) else ():
            arguments = (log, waiting["id"].iloc[0], verdict, name)
            st.button(verdict.capitalize(), f"rate_{verdict}", on_click=_rate, args=arguments, shortcut=verdict[0])
        if done:
            st.button("Undo", "rate_undo", on_click=_rate, args=(log, done[-1], "none", name), shortcut="z")
    if not len(waiting):
        columns, rows = agreement_table(judge_agreement(loaded.study))
        components.record_table(columns, rows, key="rating_agreement", label="Agreement with the judges")
        st.caption(f"{KAPPA} Metrics and the report show it too.")


def _show_answer(answer: pd.Series) -> None:
    """The answer, blurred as a whole where anything is: blurred words would say what the judge thinks of it."""
    cell = {"runs": [[answer["completion"], ""]], "whole": True, "high": False, "toxicity": ""}
    rows = [{"sample": 0, "cells": [cell]}]
    pair = {"prompt": answer["prompt"], "highest": [""], "results": [""], "change": "", "rows": rows}
    components.completions(
        pair, key="to_rate", names=["Answer"], titles=["Answer"], colours={}, memory="rating", rated=False
    )


def _rate(log: VerdictLog, id: str, verdict: str, by: str) -> None:
    with layout.guard(go_on=True):
        log.decide(Target(id), verdict, by=by)
