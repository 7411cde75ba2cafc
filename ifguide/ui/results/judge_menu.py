"""Whose ratings a page shows: the evaluation's own judge, or another one that rated the same completions."""

import streamlit as st

from ifguide.ui import job_panel, layout
from ifguide.ui.format import plain
from ifguide.ui.loaders import Loaded

KEY = "judge"
OWN = ""
"""The judge of the evaluation itself."""
_NOTE = "Who rates the completions. The figures, the chart, the report and links follow."


def ask_judge(loaded: Loaded, *, again: bool = False) -> Loaded:
    """The study with the figures of the chosen judge. Nothing is shown where there is no choice; with `again` the
    reader may have all models rated by a further judge."""
    study = loaded.study
    titles = {OWN: study.judge_title()} | {key: other.title for key, other in study.judgements().items()}
    again = again and not job_panel.refuse_recorded(study.root)
    if len(titles) < 2 and not again:
        return loaded
    if st.session_state.get(KEY, OWN) not in titles:  # of another study
        st.session_state[KEY] = OWN
    with st.popover("Judge", icon=":material/balance:", type="tertiary", width="content"):
        chosen = layout.choose("Rated by", titles, key=KEY, help=_NOTE)
        if again:
            job_panel.show_job(study.root, brief=True)
            note = (
                "`profanity-check`, `judge:FOLDER` of `ifguide judge fit`, or `classifier:ID` of the Hugging Face hub."
            )
            setting = st.text_input("Rate all models by another judge", key="rate_by", help=note).strip()
            if st.button("Rate", disabled=not setting, help="The stored completions are rated; nothing is generated."):
                job_panel.start(study.root, ["judge", study.name, "--with", setting])
    return loaded.judged(chosen)


def show_disagreement(sentences: list[str]) -> None:
    for sentence in sentences:
        st.warning(f"Judges disagree: {plain(sentence)}.", icon=":material/balance:")
