"""The Threshold page's "Measure this range": a job that makes and measures models at several thresholds."""

import streamlit as st

from ifguide.errors import IFGuideError
from ifguide.study.analysis.dose import EDITED, TRAINED
from ifguide.study.sweep import sweep_models, sweep_tokens
from ifguide.ui import job_panel, layout
from ifguide.ui.format import count_of, duration
from ifguide.ui.loaders import Loaded
from ifguide.ui.threshold.selection_panel import making_seconds

METHODS = {EDITED: "Edit", TRAINED: "Retrain"}
POINTS_MOST = 20


def ask_sweep(loaded: Loaded, kind: str, above: int) -> None:
    """Ask for a range of thresholds, at first around the handle with its tokens `above`, and start the sweep."""
    study, most = loaded.study, loaded.index(kind).n_valid - 1
    pending = job_panel.is_pending(study.root, "sweep", study.name)
    note = "Makes and measures a model at each of several thresholds, in the background."
    with st.popover("Measure this range", help=note, icon=":material/stacked_line_chart:"):
        method = layout.switch("Method", METHODS, key="sweep_method", default=EDITED)
        points = int(st.number_input("Thresholds", 1, POINTS_MOST, 5, 1, key="sweep_points"))
        with st.container(horizontal=True):
            first = st.number_input("From tokens", 1, most, max(1, above // 2), key=f"sweep_from_{above}", width=140)
            last = st.number_input("To tokens", 1, most, min(most, 2 * above), key=f"sweep_to_{above}", width=140)
        try:
            models = sweep_models(study, sweep_tokens(study, points, kind, int(first), int(last)), kind, method)
        except IFGuideError as error:
            st.caption(str(error))
            return
        waiting, each = set(models) - set(study.evaluation_names()), making_seconds(study, None, method)
        about = "" if each is None or not waiting else f", about {duration(each * len(waiting))}"
        rest = "Neighbours, token and perplexity budget are those of study.toml."
        st.caption(f"{count_of(len(waiting), 'model')} to make{about}. {rest}")
        if st.button("Start", "sweep", icon=":material/play_arrow:", disabled=not waiting or pending):
            span = ["--from", str(int(first)), "--to", str(int(last))]
            options = ["--points", str(points), "--method", method, "--attribution", kind, *span]
            job_panel.start(study.root, ["sweep", study.name, *options])
