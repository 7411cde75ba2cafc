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


def show_step(root: Path | None, cache: Path) -> bool:
    """A link with the running step and its time left: of the study in `root`, or else of any other in the cache. It
    redraws itself, and the page when a job ends. Returns whether a job is running."""
    _note_ends(cache)
    busy = next(filter(active_job, sorted(_roots(cache), key=lambda other: other != root)), None)
    if busy:
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
    """Note the jobs that ended since the session last asked, and start what waits behind a job that was killed.
    Returns whether there are any."""
    first, news = "jobs_seen" not in st.session_state, st.session_state.setdefault("news", [])
    seen, before = st.session_state.setdefault("jobs_seen", {}), len(news)
    for root in _roots(cache):
        with contextlib.suppress(IFGuideError, OSError):
            start_waiting(root)
            new = [job for job in reversed(list_jobs(root)) if job.id > seen.get(root.name, "")]
            for status in (job.status() for job in new):
                if status.running:
                    break
                seen[root.name] = status.job
                if not first and status.state != "cancelled":
                    news.append(status)
    return len(news) > before


def show_news() -> None:
    """The notices that the reader has not closed."""
    news: list[JobStatus] = st.session_state.get("news", [])
    if not news:
        return
    with st.container(key="news", gap="small"):
        for status in news[-3:]:
            page, label, query = _result(status)
            with st.container(border=True, horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
                icon = ":material/check_circle:" if status.state == "done" else ":material/error:"
                ending = ENDINGS.get(status.state, "done")
                st.markdown(f"{icon} **{plain(status.study)}** · {plain(command_title(status.command))}: {ending}")
                query = {"study": status.study, **query}
                st.page_link(f"pages/{page}.py", label=f"**{label}**", width="content", query_params=query)
                key, icon = f"read_{status.job}", ":material/close:"
                st.button("", key, "Close", news.remove, (status,), icon=icon, type="tertiary")


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
