"""What is done with a selection: save it, load it, rename it, download it, train a model against it."""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import streamlit as st

from ifguide.config.attributions import describe_kind
from ifguide.runtime.jobs import active_job
from ifguide.storage import artifacts
from ifguide.storage.lock import read_record
from ifguide.study.analysis.export import export_study
from ifguide.study.freshness import unit_state
from ifguide.study.lineage import BUILT_IN_SELECTIONS, Unit
from ifguide.study.plan import known_plan
from ifguide.study.reading import Study
from ifguide.study.select import delete_selection, rename_selection, save_selection, trained_parts
from ifguide.study.variants import BASELINES
from ifguide.ui import components, job_panel, layout
from ifguide.ui.format import column, count, count_of, plain, score, selection_title, share
from ifguide.ui.loaders import Loaded
from ifguide.ui.threshold.tuning import Tuning

TRAIN_HELP = (
    "Trains a new model against these tokens, lets it complete the prompts and rates the answers. It runs in the"
    " background; you can close this page."
)
MODEL_WORDS = {"fresh": "Measured", "stale": "Out of date", "missing": "Not trained"}
COLUMNS = [
    column("Selection", "titled"),
    column("Threshold", note="Tokens that score higher are selected", sortable=True),
    column("Tokens", note="Selected tokens", sortable=True),
    column("Documents", note="Documents with at least one selected token", sortable=True),
    column("Model", "state", "Whether a model was trained against it and measured"),
]
CHOSEN_OTHERWISE = {
    "oracle": "The spans that people marked",
    "borrowed": "A selection of another study, carried over by characters",
    "mask": "Tokens that a file names",
    **{name: what[0].upper() + what[1:] for name, what in BASELINES.items()},
}
"""What a selection without a threshold is, by its kind."""

Keep = Callable[[Loaded, str, Tuning], None]
"""Remembers controls, and writes them to the address."""


def show_bar(
    loaded: Loaded, settings: dict, keep: Keep, *, undo: Callable[[], None] | None, reset: Callable[[], None] | None
) -> None:
    """The bar that stays at the bottom: take back, save and train the current selection, which is of `settings`. Steps
    that are None cannot be taken."""
    with st.container(key="actions", horizontal=True, vertical_alignment="center", gap="small"):
        name = saved_as(loaded, settings)
        saved = f"Saved as “{plain(selection_title(name))}”" if name else "Not saved"
        st.caption(st.session_state.pop("said", None) or saved, width="content")
        st.space("stretch")
        look: dict = {"on_click": undo, "disabled": undo is None, "help": "Take back the last change"}
        st.button("Undo", key="undo_step", icon=":material/undo:", **look)
        look = {"on_click": reset, "disabled": reset is None, "help": "Back to the settings of study.toml"}
        st.button("Reset", key="reset", icon=":material/restart_alt:", **look)
        usual = _free_name(loaded, settings)
        with st.form("save", border=False, width="content"), st.container(horizontal=True, gap="small"):
            look = {"placeholder": usual, "width": 150, "label_visibility": "collapsed"}
            wanted = st.text_input("Name of the selection", key="new_selection", **look).strip() or usual
            save = st.form_submit_button("Save", icon=":material/save:", disabled=bool(read_record(loaded.study.root)))
            if save and _save(loaded, settings, wanted, keep):
                st.rerun()
        _train(loaded, settings, name, usual, keep)


def saved_as(loaded: Loaded, settings: dict) -> str | None:
    """The name of the saved selection that holds the same tokens by the same settings, if there is one: of several, the
    one saved or chosen last."""
    wanted = {**settings, "tokens_above": loaded.resolved(settings).n_above, "kind": "influence", "corrected": None}
    names = loaded.study.selection_names()
    for name in sorted(names, key=lambda name: name != st.session_state.get("saved_selection")):
        found = loaded.selection(name).settings
        same = all(found.get(key) == value for key, value in wanted.items())
        if same and unit_state(loaded.study, Unit("selection", name)).state == "fresh":
            return name
    return None


def _free_name(loaded: Loaded, settings: dict) -> str:
    """A name for a selection that the reader gave none."""
    above, taken = loaded.resolved(settings).n_above, loaded.study.selection_names()
    name = f"top-{100 * above / loaded.index(settings['attribution']).n_valid:.3g}"
    return next(free for free in (name, *(f"{name}-{n}" for n in range(2, len(taken) + 3))) if free not in taken)


def _save(loaded: Loaded, settings: dict, name: str, keep: Keep) -> bool:
    """Save the current selection, and say so; the controls show what was saved."""
    with layout.guard(go_on=True):
        made = save_selection(loaded.study, name, settings)
        st.session_state["saved_selection"] = made.name
        _take(loaded, keep, made.settings)
        _tell(f"Saved “{plain(made.name)}”: {count_of(made.settings['n_selected'], 'token')}")
        return True
    return False


def _train(loaded: Loaded, settings: dict, name: str | None, usual: str, keep: Keep) -> None:
    """Train against the current selection and measure the model, or show where the result is."""
    study = loaded.study
    if name and unit_state(study, Unit("evaluate", name)).state == "fresh":
        query = {"study": study.name, "models": f"base,{name}"}
        st.page_link("pages/compare.py", label="Compare with base", icon=":material/compare:", query_params=query)
        return
    busy, note = active_job(study.root) is not None, TRAIN_HELP
    if read_record(study.root):
        busy, note = True, "This study is a recording: nothing in it can be trained."
    elif busy:
        note = "A job is running; train when it has ended."
    if not name and not busy:
        note = f"Saves the selection as “{plain(usual)}” first. {note}"
    look: dict = {"type": "primary", "icon": ":material/model_training:", "help": note, "disabled": busy}
    wanted = st.button(f"Train{_about(training_seconds(study, name))}", key="train", **look)
    if wanted and (name or _save(loaded, settings, usual, keep)):
        job_panel.start(study.root, ["evaluate", study.name, "--model", name or usual])


def training_seconds(study: Study, name: str | None) -> float | None:
    """How long training against a saved selection and measuring the model will take: as long as the study's other
    models took, else as its plan says; None where neither is known."""
    stages = [s for s in ("suppress", "evaluate") if not name or unit_state(study, Unit(s, name)).state != "fresh"]
    times = [_usual_seconds(study, stage) for stage in stages]
    return None if None in times else sum(filter(None, times))


def _usual_seconds(study: Study, stage: str) -> float | None:
    units = study.units(stage)
    manifests = [artifacts.read_manifest(study.folder(unit)) for unit in units]
    if measured := [found["seconds"] for found in manifests if found and found.get("seconds")]:
        return median(measured)
    plan = known_plan(study)
    return plan["stages"][stage]["seconds"] / len(units) if plan and stage in plan["stages"] else None


def _about(seconds: float | None) -> str:
    """25.2 -> ~25 s, 183 -> ~3 min."""
    if seconds is None:
        return ""
    size, unit = next(((s, u) for s, u in ((3600, "h"), (60, "min")) if seconds >= 1.5 * s), (1, "s"))
    return f" ~{max(1, round(seconds / size))} {unit}"


def show_saved(loaded: Loaded, keep: Keep) -> None:
    """The saved selections, and what can be done with the chosen one."""
    names = loaded.study.selection_names()
    if not names:
        return
    picked = (st.session_state.get("saved_table") or {}).get("pick")
    if picked in names:
        st.session_state["saved_selection"] = picked
    chosen = st.session_state.get("saved_selection")
    chosen = chosen if chosen in names else names[0]
    rows = [_row(loaded, name) for name in names]
    components.record_table(COLUMNS, rows, key="saved_table", label="Saved selections", chosen=chosen, pickable=True)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**{plain(selection_title(chosen))}**", width="content")
        found = loaded.selection(chosen).settings
        other = found["kind"] != "influence" or found["attribution"] not in loaded.study.kinds()
        note = "Sets the score, the threshold, the neighbours and the budget to those of this selection."
        look: dict = {"icon": ":material/tune:", "key": "load", "disabled": other, "help": note}
        st.button("Load", **look, on_click=_load, args=(loaded, keep, found))
        if unit_state(loaded.study, Unit("evaluate", chosen)).state != "fresh":
            label = f"Train against it{_about(training_seconds(loaded.study, chosen))}"
            look = {"icon": ":material/model_training:", "key": "train_saved", "help": TRAIN_HELP}
            if st.button(label, disabled=active_job(loaded.study.root) is not None, **look):
                job_panel.start(loaded.study.root, ["evaluate", loaded.name, "--model", chosen])
        _download(loaded, chosen)
        if chosen not in BUILT_IN_SELECTIONS:
            _rename(loaded, chosen)
            _delete(loaded, chosen)


def settings_line(found: dict) -> str:
    """The settings of a selection in one line."""
    if found["tokens_above"] is None:
        return CHOSEN_OTHERWISE.get(found["kind"], "The best by scores from a file")
    top = f"top {share(found['tokens_above'], found['n_valid'], digits=2)}"
    at_random = f"As many tokens as the {top}, drawn at random"
    line = at_random if found["kind"] == "random" else f"{describe_kind(found['attribution']).title}, {top}"
    if found["window"]:
        line += f", {count_of(found['window'], 'neighbour')} on each side"
    return line + (f", budget {count(found['max_tokens'])}" if found["max_tokens"] else "")


def _row(loaded: Loaded, name: str) -> dict:
    found, state = loaded.selection(name).settings, unit_state(loaded.study, Unit("evaluate", name)).state
    by_score = found["tokens_above"] is not None and found["kind"] != "random"
    counts = [found["n_selected"], found["n_documents_hit"]]
    title = [selection_title(name), settings_line(found), ""]
    threshold = score(found["threshold"]) if by_score else "–"
    return {
        "key": name,
        "cells": [title, threshold, *map(count, counts), [state, MODEL_WORDS[state], ""]],
        "sort": [name, found["threshold"] if by_score else None, *counts, state],
    }


def _tell(sentence: str) -> None:
    st.session_state["said"] = sentence


def _load(loaded: Loaded, keep: Keep, found: dict) -> None:
    st.session_state["attribution"] = found["attribution"]
    st.session_state["saved_selection"] = found["name"]
    _take(loaded, keep, found)
    _tell(f"Loaded “{plain(selection_title(found['name']))}”")


def _take(loaded: Loaded, keep: Keep, found: dict) -> None:
    """Set the controls to those of a selection."""
    before: Tuning = st.session_state["tuning"][1]
    loads = {key: found[key] for key in ("tokens_above", "window", "max_tokens")}
    keep(loaded, found["attribution"], dataclasses.replace(before, **loads))


def _download(loaded: Loaded, name: str) -> None:
    layout.offer_download(
        "Download the mask",
        lambda: _mask_file(loaded, name),
        file=f"{loaded.name}-{name}.parquet",
        mime="application/vnd.apache.parquet",
        key="download_mask",
        help="Parquet, one row a document: the selected tokens, their characters in the text, and the settings.",
    )


def _mask_file(loaded: Loaded, name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.parquet"
        export_study(loaded.study, "spans", path, selection=name)
        return path.read_bytes()


def _rename(loaded: Loaded, name: str) -> None:
    with st.popover("Rename", icon=":material/edit:"), st.form("rename", border=False):
        new = st.text_input("New name", value=name, key=f"rename_{name}").strip()
        if st.form_submit_button("Rename"):
            with layout.guard(go_on=True):
                rename_selection(loaded.study, name, new)
                st.session_state["saved_selection"] = new
                _tell(f"Renamed “{plain(name)}” to “{plain(new)}”")
                st.rerun()


def _delete(loaded: Loaded, name: str) -> None:
    with st.popover("Delete", icon=":material/delete:"):
        trained = trained_parts(loaded.study, name)
        with_model = " The model trained with it and its measurements are deleted too." if trained else ""
        st.markdown(f"Delete “{plain(name)}”?{with_model} This cannot be undone.")
        if st.button("Delete permanently", key=f"delete_{name}"):
            with layout.guard(go_on=True):
                delete_selection(loaded.study, name)
                _tell(f"Deleted “{plain(name)}”")
                st.rerun()
