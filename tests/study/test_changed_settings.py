"""Commands that name something new in study.toml do so when it is built, and lose no setting of another."""

import os
import signal
import threading

import numpy as np
import pytest

from ifguide.config.schema import BorrowedConfig
from ifguide.errors import BusyError
from ifguide.runtime.progress import Progress
from ifguide.study.freshness import unit_state
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import borrow, build, edit_model, import_scores, run_study
from ifguide.study.reading import Study
from ifguide.study.variants import edit_recipe
from tests.small_study import make_study


class StopAt(Progress):
    """Calls `stop` when the artefact of this name begins."""

    def __init__(self, artefact: str, stop):
        super().__init__()
        self._artefact, self._stop = artefact, stop

    def begin_stage(self, name: str, *place) -> None:
        if name == self._artefact:
            self._stop()


def write_scores(study: Study, name: str):
    path = study.root.parent / f"{name}.npy"
    np.save(path, np.linspace(-1, 1, study.corpus().n_tokens, dtype=np.float32))
    return path


def commands(study: Study) -> dict:
    """Each command, called with its progress, by the artefact at which it is stopped."""
    scores, lent = write_scores(study, "theirs"), BorrowedConfig(study="other", selection="default")
    edit = edit_recipe(study.config, "default", {})
    return {
        "baseline theirs": lambda progress: import_scores(study, "theirs", scores, progress=progress),
        "index": lambda progress: import_scores(study, "theirs", scores, progress=progress),
        "documents": lambda progress: import_scores(study, "theirs", scores, progress=progress),
        "selection lent": lambda progress: borrow(study, "lent", lent, progress=progress),
        "suppress cut": lambda progress: edit_model(study, "cut", edit, progress=progress),
    }


def interrupt():
    raise KeyboardInterrupt


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(command, progress) -> int:
    child = os.fork()
    if child == 0:
        command(progress)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_command_that_is_interrupted_or_killed_leaves_the_settings_as_they_were(tmp_path):
    study = make_study(tmp_path)
    make_study(tmp_path, name="other")
    before = (study.root / "study.toml").read_bytes()
    for artefact, command in commands(study).items():
        with pytest.raises(KeyboardInterrupt):
            command(StopAt(artefact, interrupt))
        assert (study.root / "study.toml").read_bytes() == before, artefact
        assert in_child(command, StopAt(artefact, kill)) == -signal.SIGKILL
        assert (study.root / "study.toml").read_bytes() == before, artefact
    build(study, [Unit("index"), Unit("documents")])
    assert unit_state(study, Unit("index")).state == "fresh"
    for artefact in ("index", "selection lent"):
        commands(study)[artefact](None)
    after = Study.open(study.name, tmp_path)
    assert {*after.config.imported} == {"theirs"} and {*after.config.borrowed} == {"lent"}
    assert {"theirs"} <= {*after.kinds()} and {"lent"} <= {*after.selection_names()}


def test_of_two_at_once_one_is_refused_and_the_others_setting_stays(tmp_path):
    study = make_study(tmp_path)
    files = {name: write_scores(study, name) for name in ("first", "second")}
    begun, end = threading.Event(), threading.Event()

    def wait():
        begun.set()
        assert end.wait(60)

    slow = threading.Thread(
        target=import_scores, args=(study, "first", files["first"]), kwargs={"progress": StopAt("index", wait)}
    )
    slow.start()
    assert begun.wait(60)
    try:
        with pytest.raises(BusyError, match="in use by process"):
            import_scores(study, "second", files["second"])
        with pytest.raises(BusyError, match="study 'small' is in use"):
            run_study(study, unchecked=True)
    finally:
        end.set()
        slow.join()
    assert {*Study.open(study.name, tmp_path).config.imported} == {"first"}
    import_scores(study, "second", files["second"])  # opened before the first one was there
    assert {*Study.open(study.name, tmp_path).config.imported} == {"first", "second"}
