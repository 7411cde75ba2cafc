"""Factors and direction of a study whose layers do not fit in memory together."""

import pytest
import torch
from typer.testing import CliRunner

from ifguide.cli.main import app
from ifguide.influence.ekfac import LayerFactors
from ifguide.runtime.progress import Progress
from ifguide.storage import artifacts
from ifguide.study.freshness import stage_states
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import run_study
from ifguide.study.planning.plan import find_problems, make_plan
from ifguide.study.reading import Study
from ifguide.study.stages import checkpoints
from tests.tiny_study import save_tiny_model, tiny_config, write_tiny_inputs


class Told(Progress):
    def __init__(self):
        super().__init__()
        self.said = []

    def message(self, text):
        self.said.append(text)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    write_tiny_inputs(cache / "inputs")
    save_tiny_model("llama", cache / "inputs" / "model")
    study = Study.create("whole", config_of(cache), cache)
    run_study(study, until="direction")
    return study


def config_of(cache, *settings):
    return tiny_config(cache / "inputs", "model.mode=asis", *settings)


def contents(study, stage):
    return {path.name: path.read_bytes() for path in study.folder(Unit(stage)).glob("*/*.safetensors")}


def test_too_little_memory_for_all_layers_changes_no_byte(study, monkeypatch):
    cache, told = study.root.parent, Told()
    monkeypatch.setattr(checkpoints, "PART", 1e-9)
    parted = Study.create("parted", config_of(cache), cache)
    run_study(parted, until="direction", progress=told)
    assert [text for text in told.said if "parts" in text] == [
        "factors: the layers are fitted in 8 parts, to fit in memory"
    ]
    for stage in ("factors", "direction"):
        assert contents(parted, stage) == contents(study, stage) != {}


def test_a_file_of_factors_is_what_was_written_all_at_once_before(study):
    (path,) = study.folder(Unit("factors")).glob("*/*.safetensors")
    artifacts.save_tensors(artifacts.load_tensors(path), again := path.with_name("again"))
    assert again.read_bytes() == path.read_bytes()
    again.unlink()


def test_another_number_of_parts_leaves_what_was_built_and_another_rank_does_not(study):
    cache = study.root.parent
    for setting, state in (("factors.partitions=3", "fresh"), ("factors.rank=4", "stale"), ("factors.rank=0", "fresh")):
        assert stage_states(study.change(config_of(cache, setting)))["factors"].state == state
    study.change(study.config)


def test_a_low_rank_is_stored_and_read_and_preconditions(study):
    low = Study.create("low", config_of(study.root.parent, "factors.rank=4"), study.root.parent)
    run_study(low, until="direction")
    found, full = (checkpoints.read_factors(one, "given", "cpu") for one in (low, study))
    for name, layer in found.items():
        assert isinstance(layer, LayerFactors) and layer.eigenvalues.shape == (4, 4)
        trace = layer.eigenvalues.sum() + layer.rest * (full[name].eigenvalues.numel() - 16)
        torch.testing.assert_close(trace, full[name].eigenvalues.sum().view(1), rtol=1e-4, atol=0)
    v, exact = (
        checkpoints.read_direction(one, "given", "", checkpoints.load_checkpoint(one, "given")[1])
        for one in (low, study)
    )
    cosines = [torch.cosine_similarity(v[name].flatten(), exact[name].flatten(), dim=0) for name in v]
    assert 0.9 < min(cosines) < 1 - 1e-6


def test_a_file_in_bfloat16_is_the_float32_one_rounded_and_gives_nearly_its_direction(study):
    cache = study.root.parent
    half = Study.create("half", config_of(cache, "factors.dtype=bfloat16-file"), cache)
    run_study(half, until="direction")
    (narrow,), (wide,) = (one.folder(Unit("factors")).glob("*/*.safetensors") for one in (half, study))
    exact = artifacts.load_tensors(wide)
    for name, tensor in artifacts.load_tensors(narrow).items():
        assert torch.equal(tensor, exact[name].to(torch.bfloat16))
    modules = checkpoints.load_checkpoint(study, "given")[1]
    v, whole = (checkpoints.read_direction(one, "given", "", modules) for one in (half, study))
    assert min(torch.cosine_similarity(v[name].flatten(), whole[name].flatten(), dim=0) for name in v) >= 0.9999


def test_factors_are_read_layer_by_layer(study, monkeypatch):
    asked, real = [], artifacts.load_tensors
    monkeypatch.setattr(artifacts, "load_tensors", lambda *given: asked.append(given[2]) or real(*given))
    factors = checkpoints.read_factors(study, "given", "cpu")
    assert len(factors) == 14 and not asked
    factors[next(iter(factors))]
    assert [sorted(name.split("|")[1] for name in names) for names in asked] == [
        ["eigenvalues", "input_vectors", "output_vectors"]
    ]


def test_the_plan_says_how_many_parts_there_are_and_writes_them(study, monkeypatch):
    monkeypatch.setenv("IFGUIDE_CACHE", str(study.root.parent))
    assert make_plan(study)["partitions"] == 1
    monkeypatch.setattr(checkpoints, "PART", 1e-9)
    planned = Study.create("planned", config_of(study.root.parent), study.root.parent)
    said = CliRunner().invoke(app, ["plan", "planned", "--fit"]).output
    assert "fitted in 8 parts" in said and "written: factors.partitions = 8" in said
    assert Study.open("planned", study.root.parent).config.factors.partitions == 8
    assert planned.config.factors.partitions == 0


def test_parts_that_are_too_few_are_doubled_before_layers_are_left_out(study):
    from ifguide.study.planning.plan import Need

    need = {"factors": Need(seconds=1.0, host=100)}
    for parts, wanted in ((3, {"factors.partitions": 6}), (100, {"model.modules": "mlp"})):
        settings = f"factors.partitions={parts}", "compute.tokens_per_batch=64"
        _, remedies = find_problems(study.change(config_of(study.root.parent, *settings)), need, {"host": 50})
        assert remedies == wanted
    study.change(study.config)
