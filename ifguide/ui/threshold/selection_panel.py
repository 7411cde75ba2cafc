"""What can be done with a selection: save it, load it, rename it, download it, train a model against it."""

import dataclasses
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal

import streamlit as st

from ifguide.config.attributions import describe_kind
from ifguide.config.names import DEFAULT
from ifguide.storage import artifacts
from ifguide.storage.lock import read_record
from ifguide.study.analysis.dose import EDITED, TRAINED
from ifguide.study.freshness import unit_state
from ifguide.study.lineage import BUILT_IN_SELECTIONS, Unit
from ifguide.study.planning.plan import known_plan
from ifguide.study.reading import Study
from ifguide.study.sharing.export import export_study
from ifguide.study.stages.select import delete_selection, rename_selection, save_selection, trained_parts
from ifguide.study.variants import BASELINES, edit_name, edit_recipe, is_edit, recipe
from ifguide.ui import components, job_panel, layout
from ifguide.ui.format import column, count, count_of, duration, plain, score, selection_title, share
from ifguide.ui.loaders import Loaded
from ifguide.ui.threshold import groups_panel
from ifguide.ui.threshold.tuning import Tuning

TRAIN_HELP = (
    "Saves the selection if it is not saved, trains a new model against these tokens, lets it complete the prompts and"
    " rates the answers. It runs in the background, after the jobs that wait already; you can close this page."
)
EDIT_HELP = (
    "Saves the selection if it is not saved, takes its tokens out of the finished base model by one step of its"
    " weights, and measures the result. Nothing is trained."
)
RECORDED = "A recorded study is read-only: save and train in a study built here."
EMPTY = "The selection holds no token, so there is nothing to train without: lower its threshold."
PENDING = "It is being made, or waits in line."
MODEL_WORDS = {"fresh": "Measured", "stale": "Out of date", "missing": "Not trained"}
WAYS = {
    TRAINED: ("Train", "Compare with base", TRAIN_HELP, ":material/model_training:"),
    EDITED: ("Edit now", "Compare the edit", EDIT_HELP, ":material/ink_eraser:"),
}
"""How a model is made -> its button's label, the link to the result, help and icon."""
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
    **{name: what[0].upper() + what[1:] for name, (_, what) in BASELINES.items()},
}
"""Kind of a selection without a threshold -> what it is."""

Keep = Callable[[Loaded, str, Tuning], None]
"""Remembers controls and writes them to the address."""


def show_bar(
    loaded: Loaded, settings: dict, budget: float, keep: Keep, steps: dict[str, Callable[[], None] | None]
) -> None:
    """The bar at the bottom, which undoes changes, saves the current selection (of `settings`), edits it out of the
    base model within a perplexity `budget`, and trains against it. `steps` are what Undo and Reset do, None if there is
    nothing to undo."""
    bar = st.container(key="actions", gap="small")
    with bar:
        job_panel.show_job(loaded.study.root, brief=True)
    with bar, st.container(horizontal=True, vertical_alignment="center", gap="small"):
        name = saved_as(loaded, settings)
        state = f"Saved as “{plain(selection_title(name))}”" if name else "Not saved"
        if notice := st.session_state.pop("notice", None):
            st.session_state["noticed"] = [notice, settings]
        notice, of = st.session_state.get("noticed", ("", None))  # stays until a control moves
        st.caption(notice if of == settings else state, width="content")
        if warning := groups_panel.warn_of_groups(loaded, settings):
            st.caption(f":orange[:material/groups:] {plain(warning)}", width="content")
        st.space("stretch")
        for label, icon in (("Undo", "undo"), ("Reset", "restart_alt")):
            layout.button(label, f"step_{label}", icon, steps[label], disabled=steps[label] is None)
        usual = _free_name(loaded, settings)
        with st.form("save", border=False, width="content"), st.container(horizontal=True, gap="small"):
            label, recorded = "Name of the selection", read_record(loaded.study.root) is not None
            typed = st.text_input(
                label, key="new_selection", placeholder=usual, width=150, label_visibility="collapsed"
            )
            note = RECORDED if recorded else None
            save = st.form_submit_button("Save", note, icon=":material/save:", disabled=recorded)
            if save and _save(loaded, settings, typed.strip() or usual, keep):
                st.rerun()
        size, save_it = loaded.resolved(settings).n_selected, partial(_save, loaded, settings, usual, keep)
        if loaded.study.config.suppress.method != "edit":
            _ask_edit(loaded, name, size, budget, save_it)
        _ask_training(loaded, name, size, "train", save_it, primary=True)


def saved_as(loaded: Loaded, settings: dict) -> str | None:
    """The name of the saved selection with the same tokens and settings, if there is one; of several, the one saved or
    chosen last."""
    expected = {**settings, "tokens_above": loaded.resolved(settings).n_above, "kind": "influence", "corrected": None}
    names = loaded.study.selection_names()
    for name in sorted(names, key=lambda name: name != st.session_state.get("saved_selection")):
        saved = loaded.selection(name).settings
        same = all(saved.get(key) == value for key, value in expected.items())
        if same and unit_state(loaded.study, Unit("selection", name)).state == "fresh":
            return name
    return None


def _free_name(loaded: Loaded, settings: dict) -> str:
    above, taken = loaded.resolved(settings).n_above, loaded.study.selection_names()
    name = f"top-{100 * above / loaded.index(settings['attribution']).n_valid:.3g}"
    return next(free for free in (name, *(f"{name}-{n}" for n in range(2, len(taken) + 3))) if free not in taken)


def _save(loaded: Loaded, settings: dict, name: str, keep: Keep) -> str | None:
    """Save the current selection, and set the controls to what was saved. Returns its name."""
    with layout.guard(go_on=True):
        saved = save_selection(loaded.study, name, settings)
        st.session_state["saved_selection"] = saved.name
        _apply(loaded, keep, saved.settings)
        n_tokens = count_of(saved.settings["n_selected"], "token")
        st.session_state["notice"] = f"Saved “{plain(saved.name)}”: {n_tokens}"
        return saved.name
    return None


def _ask_training(
    loaded: Loaded, name: str | None, size: int, key: str, save: Callable[[], str | None], *, primary: bool = False
) -> None:
    """A button that trains against a selection of `size` tokens, off without any, or a link to the result. `save` saves
    it first if it has no name."""
    study = loaded.study
    made = name if name and unit_state(study, Unit("evaluate", name)).state == "fresh" else None
    obstacle = _obstacle(study, size, "evaluate", study.name, "--model", name or "")
    method = EDITED if study.config.suppress.method == "edit" else TRAINED
    if _offer(study, method, made, name, key, obstacle, primary=primary) and (name := name or save()):
        job_panel.start(study.root, ["evaluate", study.name, "--model", name])


def _ask_edit(loaded: Loaded, name: str | None, size: int, budget: float, save: Callable[[], str | None]) -> None:
    """The same for an edit of the base model."""
    study, percent = loaded.study, f"{100 * budget:g}"
    asked = edit_recipe(study.config, name or DEFAULT, {"perplexity_budget": budget})
    measured = study.evaluation_names() if name else []
    made = next((model for model in measured if recipe(study.config, model) == asked), None)
    obstacle = _obstacle(study, size, "edit", study.name, "--selection", name or "")
    if _offer(study, EDITED, made, name, "edit", obstacle) and (name := name or save()):
        usual = budget == study.config.suppress.perplexity_budget
        model = edit_name(name, "" if usual else percent)
        options = ["--selection", name, "--perplexity", f"{percent}%", "--name", model]
        job_panel.start(study.root, ["edit", study.name, *options])


def _obstacle(study: Study, size: int, *command: str) -> str:
    """Why no model can be made without a selection of `size` tokens by a command; empty: it can."""
    if read_record(study.root) is not None:
        return RECORDED
    return PENDING if job_panel.is_pending(study.root, *command) else "" if size else EMPTY


def _offer(
    study: Study, method: str, made: str | None, name: str | None, key: str, obstacle: str, *, primary: bool = False
) -> bool:
    """A link to the measured model `made`, or a button that makes one, off with an `obstacle`; whether it was
    clicked."""
    label, link, note, icon = WAYS[method]
    if not study.units("suppress"):
        return False
    if made:
        query = {"study": study.name, "models": f"base,{made}"}
        st.page_link("pages/compare.py", label=link, icon=":material/compare:", query_params=query)
        return False
    seconds = making_seconds(study, name, method)
    label += "" if seconds is None else f" ~{duration(seconds)}"
    kind: Literal["primary", "secondary"] = "primary" if primary else "secondary"
    return st.button(label, key, obstacle or note, type=kind, icon=icon, disabled=bool(obstacle))


def making_seconds(study: Study, name: str | None, method: str) -> float | None:
    """How long it takes to train against a saved selection, or to edit it out, and to measure the model: as long as the
    study's other models took, or else as planned; None if neither is known."""
    plan, total, edits = (known_plan(study) or {"stages": {}})["stages"], 0.0, method == EDITED
    for stage in ("suppress", "evaluate"):
        units = [u for u in study.units(stage) if stage == "evaluate" or is_edit(study.config, u.name) == edits]
        made = [artifacts.read_manifest(study.folder(unit)) for unit in units]
        took = [manifest["seconds"] for manifest in made if manifest and "seconds" in manifest]
        if not took and (edits or stage not in plan):
            return None
        if edits or not name or unit_state(study, Unit(stage, name)).state != "fresh":
            total += median(took) if took else plan[stage]["seconds"] / max(1, len(units))
    return total


def show_saved(loaded: Loaded, keep: Keep) -> None:
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
        settings = loaded.selection(chosen).settings
        note = "Sets the score, the threshold, the neighbours and the budget to those of this selection."
        other = settings["kind"] != "influence" or settings["attribution"] not in loaded.study.kinds()
        layout.button("Load", "load", "tune", _load, loaded, keep, settings, help=note, disabled=other)
        _ask_training(loaded, chosen, settings["n_selected"], "train_saved", lambda: None)
        _download(loaded, chosen)
        if chosen not in BUILT_IN_SELECTIONS:
            _rename(loaded, chosen)
            _delete(loaded, chosen)


def settings_line(settings: dict) -> str:
    if settings.get("answer"):
        return "Documents that pushed toward an answer"
    if settings["tokens_above"] is None:
        return CHOSEN_OTHERWISE.get(settings["kind"], "The best by scores from a file")
    top = f"top {share(settings['tokens_above'], settings['n_valid'], digits=2)}"
    at_random = f"As many tokens as the {top}, drawn at random"
    line = at_random if settings["kind"] == "random" else f"{describe_kind(settings['attribution']).title}, {top}"
    if settings["window"]:
        line += f", {count_of(settings['window'], 'neighbour')} on each side"
    return line + (f", budget {count(settings['max_tokens'])}" if settings["max_tokens"] else "")


def _row(loaded: Loaded, name: str) -> dict:
    settings, state = loaded.selection(name).settings, unit_state(loaded.study, Unit("evaluate", name)).state
    threshold = None if settings["tokens_above"] is None or settings["kind"] == "random" else settings["threshold"]
    counts = [settings["n_selected"], settings["n_documents_hit"]]
    title = [selection_title(name), settings_line(settings), ""]
    shown = "–" if threshold is None else score(threshold)
    return {
        "key": name,
        "cells": [title, shown, *map(count, counts), [state, MODEL_WORDS[state], ""]],
        "sort": [name, threshold, *counts, state],
    }


def _load(loaded: Loaded, keep: Keep, settings: dict) -> None:
    st.session_state["attribution"] = settings["attribution"]
    st.session_state["saved_selection"] = settings["name"]
    _apply(loaded, keep, settings)
    st.session_state["notice"] = f"Loaded “{plain(selection_title(settings['name']))}”"


def _apply(loaded: Loaded, keep: Keep, settings: dict) -> None:
    """Set the controls to those of a selection; the brushed range stays."""
    before, after = st.session_state["tuning"][1], Tuning.of(settings)
    after = dataclasses.replace(after, range=before.range, low=before.low, high=before.high)
    keep(loaded, settings["attribution"], after)


def _download(loaded: Loaded, name: str) -> None:
    def export() -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mask.parquet"
            export_study(loaded.study, "spans", path, selection=name)
            return path.read_bytes()

    file, mime = f"{loaded.name}-{name}.parquet", "application/vnd.apache.parquet"
    note = "Parquet, one row for each document: the selected tokens, their characters, and the settings."
    layout.offer_download("Download the mask", export, file, mime, key="download_mask", help=note)


def _rename(loaded: Loaded, name: str) -> None:
    with st.popover("Rename", icon=":material/edit:"), st.form("rename", border=False):
        new = st.text_input("New name", value=name, key=f"rename_{name}").strip()
        if st.form_submit_button("Rename"):
            with layout.guard(go_on=True):
                rename_selection(loaded.study, name, new)
                st.session_state["saved_selection"] = new
                st.session_state["notice"] = f"Renamed “{plain(name)}” to “{plain(new)}”"
                st.rerun()


def _delete(loaded: Loaded, name: str) -> None:
    with st.popover("Delete", icon=":material/delete:"):
        trained = trained_parts(loaded.study, name)
        with_model = " The model trained with it and its measurements are deleted too." if trained else ""
        st.markdown(f"Delete “{plain(name)}”?{with_model} This cannot be undone.")
        if st.button("Delete permanently", key=f"delete_{name}"):
            with layout.guard(go_on=True):
                delete_selection(loaded.study, name)
                st.session_state["notice"] = f"Deleted “{plain(name)}”"
                st.rerun()
