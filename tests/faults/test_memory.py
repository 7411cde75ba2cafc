"""A GPU whose memory is too small: the batch is halved, stage by stage, and what is done stays done."""

import pytest
import torch
from transformers import GPTNeoXModel

from ifguide.runtime.progress import Progress
from ifguide.storage.artifacts import load_tensors
from ifguide.study.freshness import stage_states
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import run_study
from ifguide.study.reading import Study
from ifguide.study.stages.scoring import open_scoring
from ifguide.training import record
from tests.faults.conftest import NAME
from tests.influence.dense import relative_error
from tests.small_study import changed


class Told(Progress):
    """Keeps what a run says, and in which stage it is."""

    def __init__(self):
        super().__init__()
        self.halved: list[str] = []
        self.artefact = ""

    def begin_stage(self, name: str, *rest) -> None:
        super().begin_stage(name, *rest)
        self.artefact = name

    def message(self, text: str) -> None:
        if "the GPU's memory is too small; trying again with" in text:
            self.halved.append(text.partition(":")[0])


@pytest.fixture
def memory(monkeypatch):
    """`memory(fits)`: the model takes no batch of token ids for which `fits` is false."""
    forward = GPTNeoXModel.forward

    def limit(fits) -> None:
        def checked(self, input_ids=None, **given):
            if not fits(input_ids):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return forward(self, input_ids=input_ids, **given)

        monkeypatch.setattr(GPTNeoXModel, "forward", checked)

    return limit


def check_same_weights(study: Study, undisturbed: Study) -> None:
    """Up to rounding, which Adam's first steps enlarge; with half the rows a step the difference would be 0.06."""
    a, b = (load_tensors(s.root / "model" / "final" / "model.safetensors") for s in (study, undisturbed))
    assert max(relative_error(a[name], b[name]) for name in a) < 0.005


@pytest.mark.slow
def test_every_stage_that_runs_the_model_halves_its_batch_and_says_so(undisturbed, tmp_path, memory):
    study, told, failed = Study.create(NAME, undisturbed.config, tmp_path), Told(), set()

    def fits(_) -> bool:
        first = told.artefact not in failed
        failed.add(told.artefact)
        return not first

    memory(fits)
    run_study(study, progress=told, unchecked=True)
    models = [str(unit) for stage in ("suppress", "evaluate") for unit in study.units(stage)]
    assert told.halved == ["model", "factors", "direction", "scores", *models]
    check_same_weights(study, undisturbed)
    assert {state.state for state in stage_states(study).values()} == {"fresh"}


def test_a_training_that_halved_its_batch_goes_on_after_a_kill(undisturbed, tmp_path, memory, monkeypatch):
    class Killed(Exception):
        pass

    study, told, saved, save = Study.create(NAME, undisturbed.config, tmp_path), Told(), [], record.save_state

    def save_and_die(trainer, *rest):
        save(trainer, *rest)
        saved.append(trainer.state.global_step)
        if saved == [1, 2, 3]:
            raise Killed

    monkeypatch.setattr(record, "save_state", save_and_die)
    memory(lambda input_ids: len(input_ids) <= 2)
    with pytest.raises(Killed):
        run_study(study, until="model", progress=told, unchecked=True)
    run_study(study, until="model", progress=told, unchecked=True)
    assert told.halved == ["model", "model"] and saved == [1, 2, 3, 4, 5, 6, 7]
    check_same_weights(study, undisturbed)


def test_scores_of_a_larger_batch_are_kept(study):
    smaller = changed(study, "compute.tokens_per_batch=64")
    assert open_scoring(study, Unit("scores")) == open_scoring(smaller, Unit("scores"))
