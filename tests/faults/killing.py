"""Runs a study again and again in processes that are killed, until each planned moment is used up; prints what happened
as JSON.

    python -m tests.faults.killing CACHE NAME count       # one undisturbed run: how many events each artefact has
    python -m tests.faults.killing CACHE NAME files PLAN  # PLAN: [[artefact, event to be killed at], …] as JSON
    python -m tests.faults.killing CACHE NAME clock PLAN  # PLAN: [[artefact, seconds after it begins], …] as JSON

An event is what Python tells its audit hooks of a file that is opened to be written, renamed, made or removed below the
study. Libraries that write in C++ tell nothing of it; the clock hits those. Each run is a child forked from this
process, which has imported everything and computed nothing, so that a run costs no more than its work.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ifguide.runtime.progress import Progress
from ifguide.study.pipeline import run_study
from ifguide.study.reading import Study

CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")
BEFORE = "the beginning"
AFTER = "listing the documents"


class Watch(Progress):
    """Counts the changes of files in each artefact's time, and kills its own process at the planned one.

    Args:
        root: the study's folder.
        at: (artefact, event) to die at; None: never. A run that goes on from an earlier kill may have fewer events
            left: it dies when the next artefact begins.
        tell: called with each artefact that begins.
    """

    def __init__(self, root: Path, at: tuple[str, int] | None, tell: Callable[[str], None] = lambda artefact: None):
        super().__init__()
        self._tell_starter = tell
        self.counts: dict[str, int] = {}
        self._root, self._at, self._artefact = str(root), at, BEFORE
        sys.addaudithook(self._hear)

    def begin_stage(self, name: str, *rest) -> None:
        super().begin_stage(name, *rest)
        self._go_to(name)

    def message(self, text: str) -> None:
        super().message(text)
        if text == AFTER:
            self._go_to(AFTER)

    def _go_to(self, artefact: str) -> None:
        if self._at and self._at[0] == self._artefact:
            os.kill(os.getpid(), signal.SIGKILL)
        self._artefact = artefact
        self._tell_starter(artefact)

    def _hear(self, event: str, arguments: tuple) -> None:
        if event not in CHANGES or not str(arguments[0]).startswith(self._root):
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        n = self.counts.get(self._artefact, 0)
        if self._at == (self._artefact, n):
            os.kill(os.getpid(), signal.SIGKILL)
        self.counts[self._artefact] = n + 1


def run_child(
    cache: Path, name: str, at: tuple[str, int] | None = None, after: tuple[str, float] | None = None
) -> tuple[int, dict]:
    """One run in a child: (how it ended: 0, or -9 when killed; its counts of events).

    Args:
        cache: the folder of studies.
        name: the study.
        at: (artefact, event) at which it kills itself.
        after: (artefact, seconds): it is killed so long after that artefact began.
    """
    read, write = os.pipe()
    read_begun, write_begun = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            study = Study.open(name, cache)
            tell = lambda artefact: after and artefact == after[0] and os.close(write_begun)  # noqa: E731
            watch = Watch(study.root, at, tell)
            run_study(study, progress=watch)
            os.write(write, json.dumps(watch.counts).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    os.close(write_begun)
    if after is not None:
        os.read(read_begun, 1)  # returns when the child closes its end: the artefact begins, or the child is gone
        time.sleep(after[1])
        os.kill(child, signal.SIGKILL)
    os.close(read_begun)
    with os.fdopen(read) as stream:
        said = stream.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), json.loads(said or "{}")


def unfinished(root: Path) -> list[str]:
    """What is left beside the finished artefacts: where the killed run was."""
    return sorted(p.name.partition(".partial-")[0] for p in root.rglob("*.partial-*"))


def damaged(study: Study) -> list[str]:
    """Artefacts under their own names that are not whole; there may never be one."""
    from ifguide.study.analysis.verify import check_unit, list_units

    return [
        part.artefact for part in (check_unit(study, unit) for unit in list_units(study)) if part.state == "damaged"
    ]


def main(cache: str, name: str, how: str, plan: str = "[]") -> None:
    import numpy  # noqa: F401
    import pandas  # noqa: F401
    import torch  # noqa: F401
    from transformers import AutoModelForCausalLM, Trainer  # noqa: F401

    import ifguide.selection.index
    import ifguide.study.stages.build
    import ifguide.study.stages.evaluating
    import ifguide.training.train  # noqa: F401

    place, kills = Path(cache), []
    if how == "count":
        code, counts = run_child(place, name)
        print(json.dumps({"code": code, "counts": counts}))
        return
    for moment in json.loads(plan):
        code, _ = run_child(place, name, **{"at" if how == "files" else "after": tuple(moment)})
        study = Study.open(name, place)
        kills.append({"at": moment, "code": code, "in": unfinished(study.root), "damaged": damaged(study)})
    code, _ = run_child(place, name)
    print(json.dumps({"code": code, "kills": kills}))


if __name__ == "__main__":
    main(*sys.argv[1:])
