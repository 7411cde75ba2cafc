"""Other methods to compare with: what each does, and a button that trains those that are not measured."""

import streamlit as st

from ifguide.study.variants import PREFERENCE, possible_models
from ifguide.training.preference import can_prefer
from ifguide.ui import job_panel
from ifguide.ui.format import count_of, plain, variant_note, variant_title
from ifguide.ui.loaders import Loaded


def show_methods(loaded: Loaded) -> None:
    study = loaded.study
    measured = set(study.evaluation_names())
    waiting = [name for name in possible_models(study.config, study.has_spans) if name not in measured]
    if PREFERENCE in waiting and not can_prefer(loaded.queries("toxic"), loaded.queries("safe")):
        waiting.remove(PREFERENCE)
    if not waiting:
        return
    st.caption(
        "Compare with other methods. Each trains a model on the same rows, against another selection or in another way,"
        " and measures it like the others."
    )
    job_panel.show_job(study.root)
    chosen = st.multiselect(
        "Train and measure", waiting, key="methods", format_func=variant_title, wrap=True, placeholder="Choose methods"
    )
    for name in chosen:
        st.caption(f"**{plain(variant_title(name))}**: {plain(variant_note(name))}")
    label = f"Train {count_of(len(chosen), 'model')}" if chosen else "Train"
    note = "Each takes about as long as the suppressed model did. You can close this page while it runs."
    if st.button(label, help=note, icon=":material/model_training:", disabled=not chosen):
        job_panel.start(study.root, ["compare", study.name, "--with", ",".join(chosen)])
