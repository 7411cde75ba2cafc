"""A study's jobs: the running one with a button to stop it, those that wait in line, and how the last one ended."""

from pathlib import Path

import streamlit as st

from ifguide.runtime import jobs
from ifguide.runtime.jobs import Job, JobStatus, active_job, waiting_jobs
from ifguide.runtime.progress import numbers
from ifguide.storage.lock import read_record
from ifguide.ui.format import ago, command_title, job_title, plain, sentence
from ifguide.ui.layout import button, guard

ENDINGS = {"failed": "stopped with an error", "dead": "crashed unexpectedly", "cancelled": "was stopped"}


def start(root: Path, arguments: list[str]) -> None:
    """Start or queue a job of the study in a folder, and redraw the page to show it."""
    with guard(go_on=True):
        jobs.enqueue_job(root.name, arguments, root.parent)
        st.rerun()


def is_pending(root: Path, *command: str) -> bool:
    """Whether a job whose command starts with these words runs or waits."""
    job = active_job(root)
    commands = [*waiting_jobs(root), *([job.status().command] if job else [])]
    return any(other[: len(command)] == command for other in commands)


def offer_map(root: Path, why: str) -> None:
    """Say what the map of documents is for, and offer to draw it where that can be."""
    if is_pending(root, "map"):
        st.caption("The map of documents is being drawn; this page then shows it.")
    elif refuse_recorded(root):
        st.caption("This study was packed without its map of documents, and none can be drawn in it.")
    else:
        st.write(why)
        if st.button("Draw the map", icon=":material/play_arrow:", key="map_start"):
            start(root, ["map", root.name])


def refuse_recorded(root: Path) -> bool:
    """Whether the study in a folder is recorded, so that nothing can be computed in it and nothing is offered."""
    return read_record(root) is not None


def show_job(root: Path, *, brief: bool = False) -> bool:
    """Show the running job of the study in a folder and its queue or, unless `brief`, how the last one ended if it did
    not succeed. Returns whether one is running."""
    with guard():
        if active_job(root):
            st.fragment(_follow, run_every=1.0)(root, brief)
            return True
        if not brief and (last := jobs.latest_job(root)):
            _show_ending(last)
    return False


def _follow(root: Path, brief: bool) -> None:
    job, waiting = active_job(root), waiting_jobs(root)
    status = job.status() if job else None
    at = status and (status.job, status.stage, waiting)
    before = st.session_state.pop(f"job_at_{root.name}", at)
    if not status or not status.running or at != before:
        st.rerun()  # the rest of the page shows which steps are done
    st.session_state[f"job_at_{root.name}"] = at
    with st.container(border=True, gap="xsmall"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            now = ": ".join(filter(None, (step(status).lower(), stage_title(status))))
            st.markdown(f"**{plain(command_title(status.command))}** · {now}", width="content")
            st.space("stretch")
            if waiting:
                with st.popover(f"{len(waiting)} waiting", icon=":material/list:", key=f"queue_{root.name}"):
                    _show_queue(root, waiting)
            note = "Finished steps are kept, and the next run continues from there. The next job in line starts."
            button("Stop", f"stop_{status.job}", "stop", jobs.cancel_job, job, help=note)
        st.progress(share_done(status), text=_detail(status))
    if not brief:
        st.caption("Jobs continue if you close this page.")


def _show_queue(root: Path, waiting: list[tuple[str, ...]]) -> None:
    for place, command in enumerate(waiting):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.text(f"{place + 1}. {command_title(command)}", width=280)
            moves = (("Move up", -1, place == 0), ("Move down", 1, place == len(waiting) - 1))
            for label, move, off in moves:
                icon, key = f"arrow_{label[5:]}ward", f"{label} {root.name} {place}"
                button("", key, icon, jobs.move_waiting, root, command, place + move, help=label, disabled=off)
            button("", f"cancel_{root.name}_{place}", "close", jobs.drop_waiting, root, command, help="Cancel")


def share_done(status: JobStatus) -> float:
    """How much of the run is done, from 0 to 1; all steps count equally."""
    inside = status.done / status.total if status.total else 0.0
    steps = status.stage_index + (status.part + inside) / max(status.n_parts, 1)
    return min(1.0, max(0.0, steps / status.n_stages)) if status.n_stages else 0.0


def running_stage(root: Path) -> str | None:
    job = active_job(root)
    return job.status().stage.partition(" ")[0] if job else None


def stage_title(status: JobStatus) -> str:
    """The running step in words, with the model it is for."""
    stage, _, name = status.stage.partition(" ")
    title = job_title(stage, stage or "Starting")
    return plain(f"{title} ({name})" if name else title)


def step(status: JobStatus) -> str:
    return f"Step {status.stage_index + 1} of {status.n_stages}" if status.n_stages > 1 else ""


def _detail(status: JobStatus) -> str:
    parts = [*numbers(status), status.message]
    return " · ".join(plain(part) for part in parts if part) or "Waiting for the first progress report…"


def _show_ending(job: Job) -> None:
    status = job.status()
    if status.state == "done":
        return
    ending = ENDINGS.get(status.state, "ended")
    title = plain(command_title(status.command))
    text = f"“{title}” {ending} ({ago(status.updated)}, at the step “{stage_title(status)}”)."
    if status.state == "cancelled":
        st.info(text, icon=":material/stop_circle:")
        return
    st.error(f"{text} {sentence(status.error)}", icon=":material/error:")
    if log := job.log().strip():
        with st.expander("What it printed"):
            st.code(log, language=None, wrap_lines=True)
