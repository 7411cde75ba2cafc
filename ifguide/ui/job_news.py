"""What every page says of jobs: the running step in the header, and a notice with a link when a job has ended."""

import contextlib
from itertools import pairwise
from pathlib import Path

import streamlit as st

from ifguide.errors import IFGuideError
from ifguide.runtime.jobs import JOBS, JobStatus, active_job, list_jobs, start_waiting, waiting_jobs
from ifguide.runtime.progress import numbers
from ifguide.ui.format import command_title, plain
from ifguide.ui.job_panel import ENDINGS, stage_title, step

REFRESH_SECONDS = 2.0
_ICONS = {"done": ":material/check_circle:"}


def show_step(root: Path | None, cache: Path) -> bool:
    """A link with the running step and its time left: of the study in `root`, or else of any other in the cache. It
    redraws itself, and the page when a job ends. Returns whether a job is running."""
    _note_ends(cache)
    roots = [*filter(None, [root]), *(other for other in _roots(cache) if other != root)]
    if busy := next(filter(active_job, roots), None):
        st.fragment(_follow, run_every=REFRESH_SECONDS)(busy, cache, busy == root)
    return busy is not None


def _follow(root: Path, cache: Path, chosen: bool) -> None:
    if _note_ends(cache) or not (job := active_job(root)):
        st.rerun()
    status, waiting = job.status(), len(waiting_jobs(root))
    label = f"{plain(root.name)}: " * (not chosen) + (step(status) if status.n_stages > 1 else stage_title(status))
    label += "".join(f":gray[ · {plain(part)}]" for part in numbers(status) if part.endswith(" left"))
    note = f"{plain(command_title(status.command))}: {stage_title(status)}" + f", {waiting} waiting" * bool(waiting)
    icon, query = ":material/progress_activity:", {"study": root.name}
    with st.container(key="step", width="content"):
        st.page_link("pages/overview.py", label=label, icon=icon, width="content", query_params=query, help=note)


def _roots(cache: Path) -> list[Path]:
    return sorted(folder.parent for folder in cache.glob(f"*/{JOBS}"))


def _note_ends(cache: Path) -> bool:
    """Note the jobs that ended since the session's last look, and start what waits behind a job that was killed.
    Returns whether there are any."""
    first, found = "jobs_seen" not in st.session_state, False
    seen: dict[str, str] = st.session_state.setdefault("jobs_seen", {})
    for root in _roots(cache):
        with contextlib.suppress(IFGuideError, OSError):
            start_waiting(root)
            new = [job for job in reversed(list_jobs(root)) if job.id > seen.get(root.name, "")]
            for status in (job.status() for job in new):
                if status.running:
                    break
                seen[root.name] = status.job
                if not first and status.state != "cancelled":
                    st.session_state.setdefault("news", []).append(status)
                    found = True
    return found


def show_news() -> None:
    """The notices that the reader has not closed."""
    news: list[JobStatus] = st.session_state.get("news", [])
    if not news:
        return
    with st.container(key="news", gap="small"):
        for status in news[-3:]:
            ending, (page, label, query) = ENDINGS.get(status.state, "is done"), _result(status)
            with st.container(border=True, horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
                icon = _ICONS.get(status.state, ":material/error:")
                st.markdown(f"{icon} **{plain(status.study)}** · {plain(command_title(status.command))} {ending}.")
                query = {"study": status.study, **query}
                st.page_link(f"pages/{page}.py", label=f"**{label}**", width="content", query_params=query)
                key, icon = f"read_{status.job}", ":material/close:"
                st.button("", key, "Close", news.remove, (status,), icon=icon, type="tertiary")


def _result(status: JobStatus) -> tuple[str, str, dict[str, str]]:
    """The page that has a job's result, or its error; what the link says; and the rest of its address."""
    name, after = (status.command or ("",))[0], dict(pairwise(status.command))
    if status.state != "done":
        return "overview", "See why", {}
    if model := after.get("--model" if name == "evaluate" else "--with"):
        return "compare", "See the comparison", {"models": f"base,{model}"}
    if document := after.get("--document"):
        return "documents", "See why", {"doc": document}
    if name in ("documents", "map") or "--top" in after:
        return ("threshold", "See the map", {"part": "Map"}) if name == "map" else ("documents", "Read them", {})
    return ("queries", "See the result", {}) if name in ("explain", "mechanism") else ("overview", "See the result", {})
