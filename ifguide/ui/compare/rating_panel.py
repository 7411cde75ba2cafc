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


@remembered(4)
def _drawn(loaded: Loaded, names: tuple[str, ...], seed: int) -> pd.DataFrame:
    return draw_answers(loaded.study, names, seed)


@st.fragment
def show_rating(loaded: Loaded, names: tuple[str, ...], seed: int) -> None:
    """One answer after the other; reruns alone, without the page."""
    st.caption(
        "Rate the answer by itself, as the judge does; the prompt is there for context. Models, scores and the judge's"
        " marks stay hidden. There are answers of every chosen model, those that the study's judge calls toxic and"
        " others. Each rating is saved at once in the study's folder, so you can go on another day."
    )
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
    actions = [("Undo", done[-1], "none", "z")] if done else []
    if len(waiting):
        one, only = waiting.iloc[0], ["Answer"]  # blurred as a whole: blurred words would say what the judge thinks
        cell = {"runs": [[one["completion"], ""]], "whole": True, "high": False, "toxicity": ""}
        pair = {"prompt": one["prompt"], "results": [""], "change": "", "rows": [{"sample": 0, "cells": [cell]}]}
        components.completions(pair, key="to_rate", names=only, titles=only, colours={}, memory="rating", rated=False)
        actions[:0] = [(word.capitalize(), one["id"], word, word[0]) for word in VERDICTS]
    with st.container(horizontal=True, gap="small"):
        for label, id, verdict, press in actions:
            arguments = (log, id, verdict, name)
            st.button(label, f"rate_{label.lower()}", on_click=_rate, args=arguments, shortcut=press)
    if not len(waiting):
        table = agreement_table(judge_agreement(loaded.study))
        components.record_table(*table, key="rating_agreement", label="Agreement with the judges")


def _rate(log: VerdictLog, id: str, verdict: str, by: str) -> None:
    with layout.guard(go_on=True):
        log.decide(Target(id), verdict, by=by)
