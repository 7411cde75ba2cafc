"""The demo's inputs and settings are written once, whole, and thrown away only when asked. Building it all is tested
elsewhere."""

import json
import os
import shutil

import pytest

from benchmarks.demo_corpus import inputs as generated
from ifguide.config.io import read_config
from ifguide.data.corpus_writer import check_documents
from ifguide.errors import BusyError, InputError
from ifguide.models.loading import load_config, load_tokenizer
from ifguide.storage.lock import LOCK, study_lock
from ifguide.study.demo import NAME, demo_config, prepare_demo, prepare_live, write_inputs
from ifguide.study.freshness import stage_states
from ifguide.study.planning.sizing import check_inputs
from ifguide.study.reading import Study
from ifguide.study.stage_table import STAGES
from tests.tiny_study import save_tiny_model


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """The demo's inputs, written once."""
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


@pytest.fixture
def quick(inputs, monkeypatch):
    """Copies the inputs instead of making them again; counts how often."""
    calls = []

    def copy(folder):
        calls.append(folder)
        shutil.copytree(inputs, folder, dirs_exist_ok=True)

    monkeypatch.setattr("ifguide.study.demo.write_inputs", copy)
    return calls


def contents(folder) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_input_that_the_settings_name_opens_and_parses(quick, tmp_path):
    study = prepare_demo(tmp_path)
    check_inputs(study)
    n_lines = len((study.root / "inputs" / "corpus.jsonl").read_text(encoding="utf-8").splitlines())
    assert check_documents(study.resolved("corpus"), None) == n_lines > 100
    assert study.has_spans
    for section, keys in (("corpus", ["path"]), ("queries", ["toxic", "safe"]), ("evaluate", ["prompts", "heldout"])):
        for key in keys:
            path = getattr(study.resolved(section), key)
            assert path.startswith(str(study.root)), f"{section}.{key}"  # the study can be moved as a whole


def test_the_app_can_open_it_before_anything_is_built(quick, tmp_path):
    study = prepare_demo(tmp_path)
    assert Study.open(NAME, tmp_path).config == study.config == demo_config()
    assert {stage: state.state for stage, state in stage_states(study).items()} == dict.fromkeys(STAGES, "missing")
    assert study.headline() == {}


def test_settings_survive_their_file(quick, tmp_path):
    assert read_config(prepare_demo(tmp_path).root / "study.toml") == demo_config()


def test_it_runs_offline_on_a_processor():
    config = demo_config()
    assert config.compute.device == "cpu"
    assert config.evaluate.scorer == "profanity-check"
    assert config.model.mode == "scratch"


def test_tokenizer_and_model_fit_each_other(inputs):
    tokenizer, config = load_tokenizer(str(inputs / "model")), load_config(str(inputs / "model"))
    assert config.vocab_size == len(tokenizer)
    lengths = [
        len(tokenizer(json.loads(line)["text"])["input_ids"])
        for line in (inputs / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert 1 < max(lengths) <= config.max_position_embeddings


def test_the_package_ships_what_the_generator_writes(inputs, tmp_path):
    generated.write_inputs(tmp_path)
    assert contents(tmp_path) == contents(inputs)


def test_a_second_call_writes_nothing(quick, tmp_path):
    study = prepare_demo(tmp_path)
    mark = study.root / "inputs" / "corpus.jsonl"
    before = (mark.stat().st_ino, mark.stat().st_mtime_ns)
    (study.root / "corpus").mkdir()
    prepare_demo(tmp_path)
    assert len(quick) == 1
    assert (mark.stat().st_ino, mark.stat().st_mtime_ns) == before
    assert (study.root / "corpus").is_dir()


def test_a_writing_that_was_killed_is_done_again(quick, tmp_path):
    (tmp_path / NAME / "inputs.partial").mkdir(parents=True)
    (tmp_path / NAME / "inputs.partial" / "stray").write_text("half")
    (tmp_path / NAME / "inputs").mkdir()
    (tmp_path / NAME / "inputs" / "stray").write_text("older")
    study = prepare_demo(tmp_path)
    assert sorted(p.name for p in study.root.iterdir()) == ["inputs", "study.toml"]
    assert not (study.root / "inputs" / "stray").exists()


def test_fresh_throws_all_away_but_jobs_and_the_lock(quick, tmp_path):
    study = prepare_demo(tmp_path)
    with study_lock(study.root):
        pass
    lock = (study.root / LOCK).stat().st_ino
    for name in ("jobs/j1", "scores", "scores.partial-12", "selections/mine"):
        (study.root / name).mkdir(parents=True)
        (study.root / name / "file").write_text("x")
    (study.root / ".fingerprints.json").write_text("{}")
    again = prepare_demo(tmp_path, fresh=True)
    assert len(quick) == 2
    assert sorted(p.name for p in again.root.iterdir()) == ["inputs", "jobs", "study.lock", "study.toml"]
    assert (again.root / "jobs" / "j1" / "file").read_text() == "x"
    assert (again.root / LOCK).stat().st_ino == lock  # the same file, or a second process could lock it too


def test_fresh_leaves_a_study_alone_that_somebody_is_building(quick, tmp_path):
    study = prepare_demo(tmp_path)
    with study_lock(study.root), pytest.raises(BusyError, match="study 'demo' is in use"):
        prepare_demo(tmp_path, fresh=True)
    assert (study.root / "study.toml").is_file()


def test_the_cache_is_the_usual_one_unless_named(quick, tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "IFGUIDE_CACHE", str(tmp_path / "usual"))
    assert prepare_demo().root == tmp_path / "usual" / NAME


def test_a_model_of_the_readers_is_studied_on_the_same_texts(tmp_path):
    save_tiny_model("llama", tmp_path / "model")
    study = prepare_live(str(tmp_path / "model"), tmp_path)
    assert study.config.model.source == str(tmp_path / "model") and study.config.suppress.method == "edit"
    assert study.config.corpus == demo_config().corpus and prepare_live(str(tmp_path / "model"), tmp_path) == study
    with pytest.raises(InputError, match="delete or rename it first"):
        prepare_live("another", tmp_path)
