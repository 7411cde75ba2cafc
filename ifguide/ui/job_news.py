"""What every page says of jobs: the running step in the header, and a notice with a link when a job has ended."""

import contextlib
from itertools import pairwise
from operator import attrgetter
from pathlib import Path

import streamlit as st

from ifguide.errors import IFGuideError
from ifguide.runtime.jobs import JOBS, JobStatus, active_job, list_jobs, start_waiting, waiting_jobs
from ifguide.runtime.progress import numbers
from ifguide.ui.format import command_title, plain
from ifguide.ui.job_panel import ENDINGS, stage_title, step
from ifguide.ui.layout import button

MOST = 3
"""Notices at once."""


def show_step(root: Path | None, cache: Path) -> bool:
    """A link with the running step and its time left: of the study in `root`, or else of any other in the cache. It
    redraws itself, and the page when a job ends. Returns whether a job is running."""
    st.session_state["news"] = _news(cache)
    roots = sorted((folder.parent for folder in cache.glob(f"*/{JOBS}")), key=lambda other: other != root)
    busy = next(filter(active_job, roots), None)
    if busy:
        st.fragment(_follow, run_every=2.0)(busy, cache, busy == root)
    return busy is not None


def _follow(root: Path, cache: Path, chosen: bool) -> None:
    if _news(cache) != st.session_state["news"] or not (job := active_job(root)):
        st.rerun()
    status, waiting = job.status(), len(waiting_jobs(root))
    label = f"{plain(root.name)}: " * (not chosen) + (step(status) or stage_title(status))
    label += "".join(f":gray[ · {plain(part)}]" for part in numbers(status) if part.endswith(" left"))
    note = f"{plain(command_title(status.command))}: {stage_title(status)}" + f", {waiting} waiting" * bool(waiting)
    icon, query = ":material/progress_activity:", {"study": root.name}
    with st.container(key="step", width="content"):
        st.page_link("pages/overview.py", label=label, icon=icon, width="content", query_params=query, help=note)


def _news(cache: Path) -> list[JobStatus]:
    """The last jobs that ended since the session began, without those that the reader stopped or whose notices are
    closed. Starts what waits behind a job that was killed."""
    ended: list[JobStatus] = []
    for root in [folder.parent for folder in cache.glob(f"*/{JOBS}")]:
        with contextlib.suppress(IFGuideError, OSError):
            start_waiting(root)
            ended += [status for job in list_jobs(root)[: MOST + 1] if not (status := job.status()).running]
    closed = st.session_state.setdefault("closed", [status.job for status in ended])
    new = [status for status in ended if status.job not in closed and status.state != "cancelled"]
    return sorted(new, key=attrgetter("updated"))[-MOST:]


def show_news() -> None:
    """The notices that the reader has not closed."""
    if not st.session_state["news"]:
        return
    with st.container(key="news", gap="small"):
        for status in st.session_state["news"]:
            page, label, query = _result(status)
            with st.container(border=True, horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
                icon = ":material/check_circle:" if status.state == "done" else ":material/error:"
                ending = ENDINGS.get(status.state, "done")
                st.markdown(f"{icon} **{plain(status.study)}** · {plain(command_title(status.command))}: {ending}")
                query = {"study": status.study, **query}
                st.page_link(f"pages/{page}.py", label=f"**{label}**", width="content", query_params=query)
                close = st.session_state["closed"].append
                button("", f"read_{status.job}", "close", close, status.job, help="Close")


def _result(status: JobStatus) -> tuple[str, str, dict[str, str]]:
    """The page that has a job's result, or its error; what the link says; and the rest of its address."""
    if status.state != "done":
        return "overview", "See why", {}
    name, options = (status.command or ("",))[0], dict(pairwise(status.command))
    if name in ("evaluate", "compare"):
        return "compare", "See the comparison", {"models": f"base,{options.get('--model') or options.get('--with')}"}
    if name == "map":
        return "threshold", "See the map", {"part": "Map"}
    if document := options.get("--document"):
        return "documents", "See why", {"doc": document}
    if name == "documents" or "--top" in options:
        return "documents", "Read them", {}
    return "queries" if name in ("explain", "mechanism") else "overview", "See the result", {}
