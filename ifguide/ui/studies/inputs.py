"""An input of a new study: typed or uploaded, its first rows, its columns, and the jobs that read it.

The form keeps its content while the reader visits other pages. Uploads go into the draft's folder.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import streamlit as st

from ifguide.config.schema import StudyConfig
from ifguide.data.readers import FORMATS, PACKED, find_data_set, first_rows
from ifguide.errors import IFGuideError, InputError, explain_system_error
from ifguide.runtime.jobs import JobStatus, list_jobs
from ifguide.study.drafts import Draft
from ifguide.study.folder import StudyFolder
from ifguide.study.shelf import INPUTS
from ifguide.ui import components, job_panel
from ifguide.ui.format import column, plain, sentence
from ifguide.ui.veil import mark_offensive

COLUMNS_MOST = 8
_QUOTED = re.compile(r"""(['"]).*?\1(?=[ ,;(]|$)""")
_ENDINGS = [ending.removeprefix(".") for ending in (*FORMATS, *PACKED)]


def draft() -> Draft:
    """This session's draft, created when it is first needed."""
    if "draft" not in st.session_state:
        st.session_state["draft"] = Draft()
    return st.session_state["draft"]


def last_job(*command: str) -> JobStatus | None:
    """The status of the draft's latest job whose command starts with these words."""
    jobs = list_jobs(draft().root) if "draft" in st.session_state else ()
    return next((status for job in jobs if (status := job.status()).command[: len(command)] == command), None)


def offer_job(
    label: str, command: list[str], *, icon: str, ready: bool = True, primary: bool = False
) -> JobStatus | None:
    """A button that runs a command on the draft, or the progress of the run; returns the status of its last run, if it
    had the same options."""
    status = last_job(command[0])
    if status and status.running:
        job_panel.show_job(draft().root, brief=True)
        return None
    if st.button(label, icon=icon, type="primary" if primary else "secondary", disabled=not ready):
        job_panel.start(draft().root, command)
    return status if status and list(status.command) == command else None


def place(source: str) -> str:
    """The absolute path of a source; uploads are in the draft's folder. Hub ids stay as they are."""
    uploaded = "draft" in st.session_state and source.startswith(f"{INPUTS}/")
    return StudyFolder(draft().root if uploaded else Path.cwd(), StudyConfig()).resolve(source)


def ask_source(
    option: str, label: str, example: str, note: str | None = None, *, rows: bool = True
) -> tuple[list[str], dict[str, int]]:
    """Ask for an option of `ifguide new` or `ifguide suggest`: a path, an upload or a hub id. Shows its first rows and
    errors. Returns the option with its value, and column -> length of its first texts; both empty without a source."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        source = st.text_input(
            label,
            key=f"new_{option}",
            placeholder=example,
            help=note,
            on_change=st.session_state.pop,
            args=(f"{option}_refused", None),
            persist_state="session",
        ).strip()
        if rows:
            with st.popover("Upload", icon=":material/upload:", width="content"):
                key = f"{option}_file_{st.session_state.setdefault(f'{option}_turn', 0)}"
                st.file_uploader(f"{label}: a file", _ENDINGS, key=key, on_change=_keep, args=(option, key))
                st.caption("The file becomes part of the study. For a large file, give its path instead.")
    path = place(source)
    given, columns = [f"--{option}={path}"] if source else [], {}
    show_problem(st.session_state.get(f"{option}_refused") or problem_of(given))
    nested = option in ("prompts", "heldout") and path.endswith(".json")  # perhaps in the format of BOLD, without rows
    try:
        columns = _show_rows(option, path, f"First rows: {label}") if source and rows and not nested else {}
    except (InputError, OSError) as error:
        show_problem(explain_system_error(error) or str(error))
    return given, columns


def show_problem(text: str) -> None:
    """An error, if there is one, without the offensive words of the texts it quotes, unless text is shown."""
    if text:
        shown = _QUOTED.sub(_hide_words, text) if components.veiled() else text
        st.error(sentence(shown), icon=":material/error:")


def _hide_words(quoted: re.Match[str]) -> str:
    return "".join("‹hidden word›" if mark else run for run, mark in mark_offensive(quoted[0]))


def problem_of(given: list[str]) -> str:
    """The error of the last check that is about the input of this option."""
    for status in filter(None, map(last_job, ("new", "suggest"))):
        if {*given} & {*status.command} and given[0].partition("=")[2] in status.error:
            return status.error
    return ""


def _keep(option: str, key: str) -> None:
    """Store an upload, and empty the widget, which holds it in memory."""
    upload = st.session_state[key]
    st.session_state[f"{option}_turn"] += 1
    st.session_state.pop(f"{option}_refused", None)
    try:
        st.session_state[f"new_{option}"] = draft().keep(option, upload.name, upload)
    except (IFGuideError, OSError) as error:
        st.session_state[f"{option}_refused"] = f"{upload.name} cannot be used: {explain_system_error(error) or error}"


@st.cache_data(ttl=60, max_entries=64, show_spinner=False)
def _read_first(path: str, changed: float) -> list[dict[str, str]]:
    return first_rows(path)


@st.cache_data(ttl=3600, max_entries=16, show_spinner="Reading the first rows…")
def _fetch(path: str) -> list[dict[str, str]]:
    """The first rows of a data set, read by another process."""
    done = subprocess.run([sys.executable, "-m", "ifguide", "rows", path], capture_output=True, text=True)
    if done.returncode:
        raise InputError(done.stderr.strip().rpartition("error: ")[2])
    return [json.loads(line) for line in done.stdout.splitlines()]


def _show_rows(option: str, path: str, label: str) -> dict[str, int]:
    """The first rows as a table, their offensive words veiled; those of a data set only when the reader asks."""
    data_set = find_data_set(path)
    if not data_set or not (data_set[1] or Path(path).exists()):  # files, or nothing that can be read
        rows = _read_first(path, Path(path).stat().st_mtime if Path(path).exists() else 0.0)
    elif st.session_state.get(f"{option}_fetched") == path or st.button("Read its first rows", key=f"{option}_fetch"):
        st.session_state[f"{option}_fetched"] = path
        rows = _fetch(path)
    else:
        st.caption("A data set from the hub, or saved by the `datasets` library. Nothing is downloaded until you ask.")
        return {}
    columns = {name: sum(len(row.get(name, "")) for row in rows) for row in rows for name in row}
    shown = [*columns][:COLUMNS_MOST]
    heads = [column(name[:40], "excerpt", own=True, narrow=len(shown) > 2) for name in shown]
    cells = [
        {"key": str(n), "cells": [mark_offensive(row.get(name, "")) for name in shown]} for n, row in enumerate(rows)
    ]
    components.record_table(heads, cells, key=f"{option}_rows", label=label)
    if more := [*columns][COLUMNS_MOST:]:
        st.caption(plain(f"More columns: {', '.join(more)}"))
    return columns


def ask_column(option: str, label: str, columns: Iterable[str], likely: Iterable[str], none: str = "") -> str:
    """Choose a column, by default a `likely` one; `none` is the title of the option to have none."""
    options = ["", *columns] if none else [*columns]
    first = next((options.index(name) for name in likely if name in options), 0)
    key = f"new_{option}_{label}_{'|'.join(options)}"
    return st.selectbox(label, options, first, key=key, format_func=lambda name: name or none, persist_state="session")
