"""All studies in the cache, and what can be done with each."""

from typing import Literal

import streamlit as st

from ifguide.study.demo import NAME as DEMO
from ifguide.study.folder import cache_dir, list_studies
from ifguide.ui import frame, job_panel, layout
from ifguide.ui.format import count_of, plain
from ifguide.ui.studies import card

frame.start_page("Studies")
names = list_studies()
if not names:
    st.markdown(
        "#### Find the training tokens that make a language model toxic, retrain against them, and show the difference"
    )
    st.markdown(
        "A **study** is one corpus, one model, and everything computed from them. There is no study yet. The built-in"
        " demo creates a small corpus and a tiny model, and takes a few minutes on a laptop."
    )
with layout.guard():
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if names:
            st.markdown(f"#### {count_of(len(names), 'study', 'studies')}", width="content")
            st.space("stretch")
        building = DEMO not in names and job_panel.show_job(cache_dir() / DEMO)
        if DEMO not in names and not building:
            demo_type: Literal["primary", "secondary"] = "secondary" if names else "primary"
            if st.button("Build the demo study", icon=":material/play_arrow:", type=demo_type):
                job_panel.start(cache_dir() / DEMO, ["demo"])
        if st.button("New study", icon=":material/add:", type="primary" if names else "secondary"):
            st.switch_page("pages/new_study.py")
    for name in names:
        card.show_card(name)
st.caption(f"Studies are stored in {plain(cache_dir())}")
