"""A study's name and folder, and the paths in its settings."""

import dataclasses
import json
import os

import pytest

from ifguide.config.io import read_config
from ifguide.config.names import check_name
from ifguide.config.schema import StudyConfig
from ifguide.errors import ConfigError, InputError, StaleError, StudyNotFound
from ifguide.storage import artifacts
from ifguide.study.folder import list_studies
from ifguide.study.freshness import inputs_of
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stages.select import open_index, save_selection
from tests.small_study import changed, make_study, rebuild


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path)


class TestNames:
    def test_plain_names_are_taken(self):
        for name in ("demo", "a", "7B", "x" * 64, "a.b_c-d", "a..b", "own_loss-q0.99-w1-m0"):
            assert check_name(name) == name

    def test_names_that_could_leave_or_break_their_folder_are_refused(self, tmp_path, study):
        bad = ["", ".", "..", "../demo", "a/b", "a\\b", "/etc", ".hidden", "-rf", "_a", "a b", "a\n", "é", "x" * 65]
        for name in [*bad, "a\0b", "~", "a;b", None, 5, "default.partial-12", "default.old-12"]:
            for attempt in (
                lambda name=name: Study.open(name, tmp_path),
                lambda name=name: Study.create(name, study.config, tmp_path),
                lambda name=name: Study.at(name, study.config, tmp_path),
                lambda name=name: study.selection(name),
                lambda name=name: save_selection(study, name, {}),
                lambda name=name: study.metrics(name),
                lambda name=name: study.scores(checkpoint=name if name is not None else ""),
            ):
                with pytest.raises(ConfigError, match="name has 1 to 64 letters"):
                    attempt()
        assert sorted(p.name for p in tmp_path.iterdir()) == ["inputs", "small"]

    def test_a_missing_study_names_the_ones_there_are(self, tmp_path, study):
        with pytest.raises(
            StudyNotFound, match=r"no study 'big' in .* \(there: small\); make it with `ifguide new big`"
        ):
            Study.open("big", tmp_path)

    def test_only_folders_with_settings_are_studies(self, tmp_path, study):
        (tmp_path / "models").mkdir()
        (tmp_path / ".hidden").mkdir()
        (tmp_path / ".hidden" / "study.toml").write_text("")
        assert list_studies(tmp_path) == ["small"]

    def test_a_study_is_not_overwritten(self, tmp_path, study):
        with pytest.raises(ConfigError, match="a study 'small' exists already"):
            Study.create("small", StudyConfig(), tmp_path)
        assert read_config(study.root / "study.toml") == study.config

    def test_an_unknown_stage_lists_the_stages(self, study):
        with pytest.raises(ConfigError, match="unknown stage 'dinner'; stages: corpus, queries"):
            study.units("dinner")

    def test_kinds_are_checked_before_a_file_is_opened(self, study):
        with pytest.raises(
            ConfigError, match=r"expected one of own_loss, position, probe, combined, tfidf, token_loss, got '\.\./x'"
        ):
            study.scores("../x")
        with pytest.raises(ConfigError, match=r"expected toxic or safe, got '\.\./toxic'"):
            study.queries("../toxic")

    def test_what_is_not_built_names_the_command(self, study):
        with pytest.raises(StaleError, match="has no index yet; build it with `ifguide run small --until index`"):
            open_index(study)
        assert study.metrics("base") is None


class TestPaths:
    @pytest.fixture
    def place(self, tmp_path, monkeypatch):
        """A study that is not written; the current folder is another one."""
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        study = Study.at("small", StudyConfig(), tmp_path)
        (study.root / "inputs").mkdir(parents=True)
        (study.root / "inputs" / "a.jsonl").write_text('{"text": "a b"}\n')
        return study

    def test_relative_paths_belong_to_the_study(self, place):
        assert place.resolve("inputs/a.jsonl") == str(place.root / "inputs" / "a.jsonl")
        (place.root.parent / "elsewhere" / "b.jsonl").write_text("")
        assert place.resolve("b.jsonl") == "b.jsonl"  # not the current folder's

    def test_absolute_and_home_paths_stay(self, place, monkeypatch):
        absolute = str(place.root / "inputs" / "a.jsonl")
        assert place.resolve(absolute) == absolute
        monkeypatch.setenv("HOME", str(place.root))
        assert place.resolve("~/inputs/a.jsonl") == absolute

    def test_globs_become_absolute(self, place):
        assert place.resolve("inputs/*.jsonl") == str(place.root / "inputs" / "*.jsonl")
        assert place.resolve("/data/[ab].jsonl") == "/data/[ab].jsonl"

    def test_a_folder_with_a_split(self, place):
        assert place.resolve("inputs#train") == f"{place.root / 'inputs'}#train"
        assert place.resolve(f"{place.root}/inputs#train[:10%]") == f"{place.root / 'inputs'}#train[:10%]"

    def test_hub_ids_stay(self, place):
        for name in ("gpt2", "org/name", "org/name@step10", "org/name:config@main#train[:10%]", ""):
            assert place.resolve(name) == name

    def test_a_hash_or_bracket_in_a_real_name_is_neither_split_nor_glob(self, place):
        for name in ("C# posts.jsonl", "data[1].jsonl"):
            (place.root / "inputs" / name).write_text("x")
            assert place.resolve(f"inputs/{name}") == str(place.root / "inputs" / name)
            study = changed(place, f"corpus.path=inputs/{name}")
            first = inputs_of(study, Unit("corpus"))["file corpus"]
            (place.root / "inputs" / name).write_text("other")
            assert inputs_of(changed(place, f"corpus.path=inputs/{name}"), Unit("corpus"))["file corpus"] != first

    def test_every_form_is_hashed_by_content(self, place):
        def digest(path):
            study = changed(place, f"corpus.path={path}")
            return inputs_of(Study.at("small", study.config, place.root.parent), Unit("corpus"))["file corpus"]

        forms = ("inputs/*.jsonl", "inputs", "inputs#train", "inputs/a.jsonl")
        before = [digest(path) for path in forms]
        (place.root / "inputs" / "a.jsonl").write_text('{"text": "other words"}\n')
        for path, first in zip(forms, before, strict=True):
            assert digest(path) != first, path

    def test_hub_ids_stand_for_themselves(self, place):
        study = changed(place, "corpus.path=org/name#train", "model.source=gpt2")
        assert inputs_of(study, Unit("corpus"))["file corpus"] == "hub:org/name#train"
        assert inputs_of(study, Unit("corpus"))["file tokenizer"] == "hub:gpt2"

    def test_an_absolute_path_without_a_file_is_an_input_error(self, place):
        with pytest.raises(InputError, match="is not there any more"):
            inputs_of(changed(place, "corpus.path=/no/such/file.jsonl"), Unit("corpus"))

    def test_resolved_gives_a_section_with_absolute_paths(self, place):
        study = changed(place, "corpus.path=inputs/a.jsonl", "corpus.text_field=body")
        assert study.resolved("corpus") == dataclasses.replace(
            study.config.corpus, path=str(place.root / "inputs" / "a.jsonl")
        )


def test_models_resolves_folders_of_its_own_and_leaves_hub_ids(study):
    entries = {
        "base": {"source": "final"},
        "checkpoints": [
            {"name": "step-1", "source": "checkpoints/step-1"},
            {"name": "hub", "source": "org/name", "revision": "r"},
        ],
    }

    def write(folder):
        (folder / "final").mkdir()
        (folder / "checkpoints" / "step-1").mkdir(parents=True)
        (folder / "models.json").write_text(json.dumps(entries))

    rebuild(study, Unit("model"), write)
    folder = study.folder(Unit("model"))
    found = study.models()
    assert found["base"]["source"] == str(folder / "final")
    assert [c["source"] for c in found["checkpoints"]] == [str(folder / "checkpoints" / "step-1"), "org/name"]
    assert study.checkpoint_names() == ["step-1", "hub"]


def test_headline_calls_the_default_selections_model_suppressed(study):
    for name in ("default", "base"):
        unit = Unit("evaluate", name)
        with artifacts.building(study.folder(unit), stage="evaluate", inputs={}, config={}) as partial:
            artifacts.write_json(partial / "metrics.json", {"emt": 0.5, "name": name})
    assert {k: v["name"] for k, v in study.headline().items()} == {"base": "base", "suppressed": "default"}
    assert list(study.headline()) == ["base", "suppressed"]


def test_the_cache_is_where_the_environment_says(tmp_path, study, monkeypatch):
    monkeypatch.setenv("IFGUIDE_CACHE", str(tmp_path))
    assert Study.open("small").root == tmp_path / "small"
    monkeypatch.delenv("IFGUIDE_CACHE")
    monkeypatch.chdir(tmp_path)
    assert list_studies() == []
    os.symlink(tmp_path, tmp_path / "cache")
    assert list_studies() == ["small"]
