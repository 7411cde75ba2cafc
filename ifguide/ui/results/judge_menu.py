"""Whose ratings a page shows: the evaluation's own judge, or another one that rated the same completions."""

import streamlit as st

from ifguide.study.reading import Study
from ifguide.ui import job_panel
from ifguide.ui.format import plain
from ifguide.ui.loaders import Loaded

OWN = ""
"""The judge of the evaluation itself."""


def judge_titles(study: Study) -> dict[str, str]:
    """Key -> name and hash of every judge, the evaluation's own first."""
    own = study.judged(OWN)
    return {OWN: own.judge_title()} | {key: other.title for key, other in own.judgements().items()}


def chosen_judge(study: Study) -> str:
    """The key of the judge that the reader, or the address, has chosen on a page."""
    linked = [key for key, title in judge_titles(study).items() if title == st.query_params.get("judge")]
    return st.session_state.get("judge", linked[0] if linked else OWN)


def ask_judge(loaded: Loaded, *, again: bool = False) -> Loaded:
    """The study with the figures of the chosen judge. Nothing is shown where there is no choice; with `again` the
    reader may have all models rated by a further judge."""
    study, titles = loaded.study, judge_titles(loaded.study)
    again = again and not job_panel.refuse_recorded(study.root)
    if len(titles) < 2 and not again:
        return loaded
    if st.session_state.get("judge", OWN) not in titles:  # one of another study
        st.session_state["judge"] = OWN
    chosen = chosen_judge(study)
    label = f"Judge: {plain(study.judgements()[chosen].judge)}" if chosen else "Judge"
    with st.popover(label, key="judge_menu", icon=":material/balance:", type="tertiary", width="content"):
        note = "Who rates the completions. Figures, charts and the report follow."
        title = titles.__getitem__
        chosen = st.selectbox(
            "Rated by", [*titles], 0, title, "judge", note, bind="query-params", persist_state="session"
        )
        if again:
            job_panel.show_job(study.root, brief=True)
            note = (
                "`profanity-check`, `judge:FOLDER` of `ifguide judge fit`, or `classifier:ID` of the Hugging Face Hub."
            )
            setting = st.text_input("Rate all models by another judge", key="rate_by", help=note).strip()
            if st.button("Rate", disabled=not setting, help="The stored completions are rated; nothing is generated."):
                job_panel.start(study.root, ["judge", study.name, "--with", setting])
    return loaded.judged(chosen)


def show_disagreement(sentences: list[str]) -> None:
    for sentence in sentences:
        st.warning(f"Judges disagree: {plain(sentence)}.", icon=":material/balance:")
