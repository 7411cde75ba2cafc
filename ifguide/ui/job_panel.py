"""A study's running job: live progress, a button to stop it, and how the last one ended."""

from pathlib import Path
from typing import Literal

import streamlit as st

from ifguide.runtime.jobs import Job, JobStatus, active_job, cancel_job, latest_job, start_job
from ifguide.runtime.progress import numbers
from ifguide.storage.lock import read_record
from ifguide.study.stage_table import STAGES
from ifguide.ui.format import ago, job_title, plain, sentence
from ifguide.ui.layout import guard

_ENDINGS = {"failed": "stopped with an error", "dead": "crashed unexpectedly", "cancelled": "was stopped"}
_RUNS = ("run", "demo")
"""Commands that build the study's steps; other jobs are named when they end."""
_CHECKS = (("new",), ("plan",), ("suggest",))
"""Commands on the draft of a new study; they end when its page is closed."""


def start(root: Path, arguments: list[str], *, scope: Literal["app", "fragment"] = "app") -> None:
    """Start a job on the study in a folder, and redraw the page or the fragment to show it."""
    with guard(go_on=True):
        start_job(root.name, arguments, root.parent)
        st.rerun(scope=scope)


def refuse_recorded(root: Path) -> bool:
    """Whether the study in a folder is recorded, so that nothing can be computed in it and nothing is offered."""
    return read_record(root) is not None


def show_job(root: Path) -> bool:
    """Show the running job of the study in a folder, or how the last one ended unless it succeeded. Returns whether one
    is running."""
    with guard():
        job = active_job(root)
        if job:
            st.fragment(_follow, run_every=1.0)(job)
            return True
        if last := latest_job(root):
            _show_ending(last)
    return False


def _follow(job: Job) -> None:
    with guard():
        status = job.status()
    if not status.running or st.session_state.get("job_at", (job.id, status.stage)) != (job.id, status.stage):
        st.session_state.pop("job_at", None)
        st.rerun()  # the rest of the page shows which steps are done
    st.session_state["job_at"] = (job.id, status.stage)
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.markdown(f"**Running** · {progress_line(status)}")
            note = "Stops the run. Finished steps are kept, and the next run continues from there."
            if st.button("Stop", key=f"stop_{job.id}", icon=":material/stop:", help=note):
                with guard():
                    cancel_job(job)
                st.rerun()
        st.progress(share_done(status), text=_detail(status))
    if status.command[:1] not in _CHECKS:
        st.caption("The run continues if you close this page.")


def share_done(status: JobStatus) -> float:
    """How much of the run is done, from 0 to 1; all steps count equally."""
    inside = status.done / status.total if status.total else 0.0
    return min(1.0, max(0.0, (status.stage_index + inside) / status.n_stages)) if status.n_stages else 0.0


def running_stage(root: Path) -> str | None:
    job = active_job(root)
    return job.status().stage.partition(" ")[0] if job else None


def stage_title(status: JobStatus) -> str:
    """The running step in words, with the model it is for."""
    stage, _, name = status.stage.partition(" ")
    title = job_title(stage, stage or "Starting")
    return plain(f"{title} ({name})" if name else title)


def progress_line(status: JobStatus) -> str:
    """The running step and its number among those that the Overview page lists, or among the job's own."""
    stage = status.stage.partition(" ")[0]
    if not stage:
        return "starting"
    place, n_stages = status.stage_index + 1, status.n_stages
    if status.command and status.command[0] in _RUNS and stage in STAGES:
        place, n_stages = list(STAGES).index(stage) + 1, len(STAGES)
    return f"step {place} of {n_stages}: {stage_title(status)}" if n_stages > 1 else stage_title(status)


def _detail(status: JobStatus) -> str:
    parts = [*numbers(status), status.message]
    return " · ".join(plain(part) for part in parts if part) or "Waiting for the first progress report…"


def _show_ending(job: Job) -> None:
    status = job.status()
    if status.state == "done":
        return
    command = status.command[0] if status.command else "run"
    job_name = "The last run" if command in _RUNS else f"The last job, “{job_title(command, plain(command))}”,"
    ending = _ENDINGS.get(status.state, "ended")
    text = f"{job_name} {ending} ({ago(status.updated)}, at the step “{stage_title(status)}”)."
    if status.state == "cancelled":
        st.info(text, icon=":material/stop_circle:")
        return
    st.error(f"{text} {sentence(status.error)}", icon=":material/error:")
    if log := job.log().strip():
        with st.expander("What it printed"):
            st.code(log, language=None, wrap_lines=True)
