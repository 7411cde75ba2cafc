"""Loss curves of a study's trainings; that of a running one updates live."""

import streamlit as st

from ifguide.config.names import DEFAULT
from ifguide.runtime.jobs import active_job
from ifguide.study.analysis.training_curve import find_logs, read_curve
from ifguide.ui import chart_style
from ifguide.ui.format import count, plain, variant_title
from ifguide.ui.layout import choose, guard
from ifguide.ui.loaders import Loaded

REFRESH_SECONDS = 2.0


def show_curves(loaded: Loaded) -> None:
    """The losses of one model, which the reader chooses; nothing before any training."""
    names = list(find_logs(loaded.study))
    if not names:
        return
    working = active_job(loaded.study.root) is not None
    usual = DEFAULT if DEFAULT in names and not working else names[-1]  # the running one is the last
    with st.expander("Loss while training", expanded=working):
        st.caption(
            "Cross-entropy on the selected tokens and on all others, in nats: lower is better predicted. A suppressed"
            " model should stay high on the selected tokens and as low as the base model on the others."
        )
        titles = {name: variant_title(name) for name in names}
        name = choose("Model in training", titles, key="curve", index=names.index(usual))
        st.fragment(_show, run_every=REFRESH_SECONDS if working else None)(loaded, name)


def _show(loaded: Loaded, name: str) -> None:
    with guard():
        curve = read_curve(loaded.study, name)
        if curve is None or not curve.steps:
            st.caption("The first losses will appear in a moment.")
            return
        alt = "Loss of selected and of other tokens by training step"
        figure = chart_style.loss_chart(curve.steps, curve.selected, curve.other)
        st.plotly_chart(figure, key="losses", config=chart_style.CONFIG, alt=alt)
        state = "finished" if curve.finished else f"running, {curve.tokens_per_second:,.0f} tokens a second"
        text = f"{plain(variant_title(name))}: {count(curve.steps[-1])} steps, {state}."
        if all(value is None for value in curve.selected):
            text += " No token was selected in this training."
        st.caption(text)
