"""What of a study is fresh, what is stale and in which words; its names, its paths, its saved selections."""

import dataclasses
import json
import os
import shutil

import pytest

from ifguide.config.io import config_from_dict, read_config
from ifguide.config.names import BASE, check_name
from ifguide.errors import ConfigError, InputError, StaleError, StudyNotFound
from ifguide.storage import artifacts
from ifguide.study.folder import list_studies
from ifguide.study.freshness import (
    StageState,
    inputs_of,
    settings_of,
    stage_state,
    stage_states,
    study_fingerprint,
    unit_state,
)
from ifguide.study.lineage import STAGES, Unit, read_units
from ifguide.study.pipeline import run_study
from ifguide.study.reading import Study
from ifguide.study.select import open_index, save_selection
from ifguide.study.variants import BASELINES, PREFERENCE, RETRAINED, STEERED
from tests.small_study import changed, make_study, make_up, rebuild, reverse_scores

BUILT = ("corpus", "queries", "model", "factors", "direction", "scores", "selection")


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path)


def states(study: Study) -> dict[str, str]:
    return {stage: state.state for stage, state in stage_states(study).items()}


def stale(study: Study) -> set[str]:
    return {stage for stage, state in states(study).items() if state == "stale"}


class TestNames:
    @pytest.mark.parametrize("name", ["demo", "a", "7B", "x" * 64, "a.b_c-d", "a..b", "own_loss-q0.99-w1-m0"])
    def test_plain_names_are_taken(self, name):
        assert check_name(name) == name

    @pytest.mark.parametrize(
        "name",
        [
            "",
            ".",
            "..",
            "../demo",
            "a/b",
            "a\\b",
            "/etc",
            ".hidden",
            "-rf",
            "_a",
            "a b",
            "a\n",
            "é",
            "x" * 65,
            "a\0b",
            "~",
            "a;b",
            None,
            5,
            "default.partial-12",
            "default.old-12",
        ],
    )
    def test_names_that_could_leave_or_break_their_folder_are_refused(self, tmp_path, study, name):
        for attempt in (
            lambda: Study.open(name, tmp_path),
            lambda: Study.create(name, study.config, tmp_path),
            lambda: Study.at(name, study.config, tmp_path),
            lambda: study.selection(name),
            lambda: save_selection(study, name, {}),
            lambda: study.metrics(name),
            lambda: study.scores(checkpoint=name if name is not None else ""),
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
            Study.create("small", config_from_dict({}), tmp_path)
        assert read_config(study.root / "study.toml") == study.config

    def test_an_unknown_stage_lists_the_stages(self, study):
        with pytest.raises(ConfigError, match="unknown stage 'dinner'; stages: corpus, queries"):
            study.units("dinner")

    def test_kinds_are_checked_before_a_file_is_opened(self, study):
        with pytest.raises(ConfigError, match=r"expected one of own_loss, position, token_loss, got '\.\./x'"):
            study.scores("../x")
        with pytest.raises(ConfigError, match=r"expected toxic or safe, got '\.\./toxic'"):
            study.queries("../toxic")

    def test_what_is_not_built_names_the_command(self, study):
        with pytest.raises(StaleError, match="has no index yet; build it with `ifguide run small --until index`"):
            open_index(study)
        assert study.metrics("base") is None


class TestFreshness:
    def test_what_was_built_is_fresh_and_the_rest_missing(self, study):
        assert states(study) == {stage: "fresh" if stage in BUILT else "missing" for stage in STAGES}
        assert stage_states(study)["index"] == StageState("missing", "not built yet", None)
        assert stage_states(study)["scores"].seconds >= 0

    @pytest.mark.parametrize(
        ("assignment", "expected", "stage", "reason"),
        [
            (
                "corpus.max_documents=2",
                set(BUILT) - {"queries"},
                "corpus",
                "setting corpus.max_documents is now 2, was 0",
            ),
            (
                "queries.split_share=0.4",
                {"queries", "direction", "scores", "selection"},
                "queries",
                "setting queries.split_share is now 0.4, was 0.5",
            ),
            (
                "training.epochs=9",
                {"model", "factors", "direction", "scores", "selection"},
                "model",
                "setting training.epochs is now 9.0, was 3.0",
            ),
            (
                "training.early_checkpoints=1",
                {"model", "factors", "direction", "scores", "selection"},
                "factors",
                "model is stale",
            ),
            (
                "model.dtype=bfloat16",
                {"factors", "direction", "scores", "selection"},
                "factors",
                "setting model.dtype is now 'bfloat16', was 'float32'",
            ),
            ("model.modules=mlp", {"factors", "direction", "scores", "selection"}, "direction", "factors is stale"),
            ("factors.seed=1", {"factors", "direction", "scores", "selection"}, "scores", "direction is stale"),
            (
                "direction.damping=1",
                {"direction", "scores", "selection"},
                "direction",
                "setting direction.damping is now 1.0, was 10.0",
            ),
            ("scores.position=false", {"scores", "selection"}, "selection", "default: scores is stale"),
            (
                "selection.quantile=0.5",
                {"selection"},
                "selection",
                "default: setting selection.quantile is now 0.5, was 0.8",
            ),
            ("selection.seed=1", {"selection"}, "selection", "random: setting selection.seed is now 1, was 0"),
        ],
    )
    def test_a_changed_setting_makes_stale_what_hangs_on_it(self, study, assignment, expected, stage, reason):
        after = changed(study, assignment)
        assert stale(after) == expected
        assert stage_states(after)[stage].reason == reason

    @pytest.mark.parametrize(
        "assignment",
        [
            "compute.device=cuda",
            "compute.tokens_per_batch=64",
            "compute.threads=3",
            "evaluate.batch_size=1",
            "description=other words",
        ],
    )
    def test_where_and_in_which_portions_work_is_done_makes_nothing_stale(self, study, assignment):
        for unit in (Unit("index"), Unit("suppress", "default"), Unit("evaluate", "base")):
            make_up(study, unit)
        before = states(study)
        assert before["index"] == "fresh"
        assert states(changed(study, assignment)) == before
        assert unit_state(changed(study, assignment), Unit("evaluate", "base")).state == "fresh"

    def test_training_settings_matter_only_where_something_is_trained(self, study):
        asis = changed(study, "model.mode=asis")
        rebuild(asis, Unit("model"), lambda folder: None)
        assert unit_state(asis, Unit("model")).state == "fresh"
        assert unit_state(changed(asis, "training.epochs=9"), Unit("model")).state == "fresh"

    def test_early_checkpoints_do_not_matter_to_the_suppressed_model(self, study):
        make_up(study, Unit("suppress", "default"))
        settings = settings_of(study, Unit("suppress", "default"))
        assert settings == settings_of(
            changed(study, "training.early_checkpoints=1", "training.checkpoint_steps=[3]"), Unit("suppress", "default")
        )

    def test_a_changed_file_is_named(self, tmp_path, study):
        corpus = tmp_path / "inputs" / "corpus.jsonl"
        corpus.write_text(corpus.read_text() + "\n")
        after = Study.open("small", tmp_path)
        assert stage_states(after)["corpus"].reason == "the file corpus changed"
        assert stage_states(after)["model"].reason == "corpus is stale"
        assert states(after)["queries"] == "fresh"

    def test_a_file_that_is_gone_is_named(self, tmp_path, study):
        gone = tmp_path / "inputs" / "safe.jsonl"
        gone.unlink()
        after = Study.open("small", tmp_path)
        assert (
            stage_states(after)["queries"].reason == f"{gone} is not there any more; put it back or change study.toml"
        )
        with pytest.raises(InputError, match="is not there any more"):
            run_study(after, until="queries")
        assert after.folder(Unit("queries")).is_dir()

    def test_the_tokenizer_counts_for_the_corpus_and_the_weights_only_for_the_model(self, tmp_path, study):
        (tmp_path / "inputs" / "model.safetensors").write_text("weights")
        after = Study.open("small", tmp_path)
        assert states(after)["corpus"] == "fresh"
        assert stage_states(after)["model"].reason == "the file model changed"
        tokenizer = tmp_path / "inputs" / "tokenizer.json"
        tokenizer.write_text(tokenizer.read_text() + " ")
        assert stage_states(Study.open("small", tmp_path))["corpus"].reason == "the file tokenizer changed"

    def test_another_revision_on_the_hub_is_another_tokenizer(self, study):
        one, other = (changed(study, "model.source=org/name", f"model.revision={r}") for r in ("step1", "step2"))
        assert inputs_of(one, Unit("corpus")) != inputs_of(other, Unit("corpus"))

    def test_a_rebuilt_artefact_makes_its_readers_stale_only_if_it_changed(self, study):
        rebuild(study, Unit("scores"), lambda folder: None)
        assert stale(study) == set()
        rebuild(study, Unit("scores"), reverse_scores)
        assert stale(study) == {"selection"}
        assert stage_states(study)["selection"].reason == "default: scores was rebuilt"
        assert unit_state(study, Unit("selection", "oracle")).state == "fresh"  # it reads no scores

    def test_the_direction_reads_the_corpus_for_its_length_and_tokenizer(self, study):
        """The factors in between may come out the same, as those without curvature do."""
        rebuild(study, Unit("corpus"), lambda folder: (folder / "layout.json").write_text('{"max_length": 9}'))
        for name in ("model", "factors"):
            rebuild(study, Unit(name), lambda folder: None)
        assert stage_states(study)["direction"] == StageState(
            "stale", "corpus was rebuilt", stage_states(study)["direction"].seconds
        )

    @pytest.mark.parametrize("damage", ["cut", "removed"])
    def test_a_damaged_file_is_named(self, study, damage):
        path = study.folder(Unit("scores")) / "own_loss.npy"
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:-4])
            said = f"damaged: own_loss.npy has {path.stat().st_size} bytes, expected {path.stat().st_size + 4}"
        else:
            path.unlink()
            said = "damaged: own_loss.npy is missing"
        assert stage_states(study)["scores"].reason == said
        assert stale(study) == {"scores", "selection"}

    def test_another_version_of_the_layout_is_stale(self, study, monkeypatch):
        monkeypatch.setattr(artifacts, "SCHEMA", artifacts.SCHEMA + 1)
        assert stale(study) == set(BUILT)
        assert stage_states(study)["corpus"].reason == "made by another version of ifguide"

    def test_a_stage_of_several_artefacts_is_as_good_as_its_worst(self, study):
        shutil.rmtree(study.folder(Unit("selection", "random")))
        assert stage_states(study)["selection"].state == "stale"
        assert stage_states(study)["selection"].reason == "random: not built yet"
        make_up(study, Unit("suppress", "default"))
        assert stage_state(study, "suppress").reason == "random: not built yet"
        for name in ("default", "oracle"):
            shutil.rmtree(study.folder(Unit("selection", name)))
        assert stage_states(study)["selection"] == StageState("missing", "default: not built yet", None)
        assert unit_state(study, Unit("suppress", "default")).reason == "selection default is missing"

    def test_reading_states_changes_nothing_on_disk(self, study):
        """A reader may look while a build moves its folders about."""
        folder = study.folder(Unit("scores"))
        folder.rename(folder.with_name("scores.old-1"))
        folder.with_name("scores.partial-1").mkdir()
        assert stage_states(study)["scores"].state == "missing"
        assert folder.with_name("scores.partial-1").is_dir()
        assert folder.with_name("scores.old-1").is_dir()

    def test_oracle_belongs_to_a_corpus_with_spans(self, tmp_path):
        without = make_study(tmp_path, spans=False)
        assert [unit.name for unit in without.units("selection")] == ["default", "random"]
        assert [unit.name for unit in without.units("evaluate")] == ["base", "default", "random"]


class TestBaselineClassifier:
    """The folder that `baselines.scorer` names is an input of what its classifier judges, and of nothing else."""

    WITH = ("words", "classifier-tokens", "classifier-documents")

    def units(self, study: Study) -> list[Unit]:
        """Everything that a comparison of all methods makes, in running order, beyond what `make_study` makes."""
        parts = [
            Unit("evaluate", BASE),
            Unit("suppress", PREFERENCE),
            *(Unit("evaluate", n) for n in (PREFERENCE, STEERED)),
        ]
        for name in BASELINES:
            parts += [Unit("baseline", name), Unit("selection", name)]
        return parts + [Unit(stage, name) for name in ("default", *RETRAINED) for stage in ("suppress", "evaluate")]

    @pytest.fixture
    def judge(self, tmp_path):
        folder = tmp_path / "judge"
        folder.mkdir()
        (folder / "config.json").write_text('{"labels": 2}')
        return folder

    def build(self, study: Study) -> Study:
        for unit in self.units(study):
            if not study.folder(unit).exists():
                make_up(study, unit)
        return study

    def stale(self, study: Study) -> set[Unit]:
        known: dict = {}
        every = [*(unit for stage in BUILT for unit in study.units(stage)), *self.units(study)]
        return {unit for unit in every if unit_state(study, unit, known).state != "fresh"}

    def test_a_changed_folder_makes_exactly_what_it_judged_stale(self, tmp_path, study, judge):
        settings = f"baselines.scorer=classifier:{judge}#TOXIC"
        study = self.build(changed(study, settings))
        assert self.stale(study) == set()
        (judge / "config.json").write_text('{"labels": 3}')
        after = changed(Study.open("small", tmp_path), settings)
        expected = {
            Unit(stage, name) for name in self.WITH for stage in ("baseline", "selection", "suppress", "evaluate")
        }
        assert self.stale(after) == expected | {Unit("evaluate", STEERED)}
        assert unit_state(after, Unit("baseline", "words")).reason == "the file baselines' classifier changed"
        assert unit_state(after, Unit("evaluate", STEERED)).reason == "the file baselines' classifier changed"
        (judge / "config.json").write_text('{"labels": 2}')
        assert self.stale(changed(Study.open("small", tmp_path), settings)) == set()

    def test_a_folder_that_is_gone_is_named(self, tmp_path, study, judge):
        study = self.build(changed(study, f"baselines.scorer=classifier:{judge}"))
        shutil.rmtree(judge)
        reason = unit_state(
            changed(Study.open("small", tmp_path), f"baselines.scorer=classifier:{judge}"), Unit("baseline", "words")
        ).reason
        assert str(judge) in reason

    def test_a_relative_folder_belongs_to_the_study(self, study):
        (study.root / "judge").mkdir()
        (study.root / "judge" / "config.json").write_text("{}")
        study = changed(study, "baselines.scorer=classifier:judge")
        before = inputs_of(study, Unit("baseline", "words"))
        (study.root / "judge" / "config.json").write_text("{ }")
        assert inputs_of(changed(study), Unit("baseline", "words")) != before

    @pytest.mark.parametrize("scorer", ["profanity-check", "detoxify:unbiased"])
    def test_another_scorer_adds_no_input_so_that_what_was_built_stays_fresh(self, study, scorer):
        study = self.build(changed(study, f"baselines.scorer={scorer}"))
        for unit in self.units(study):
            upstream = {str(source) for source in read_units(study.config, unit)}
            assert inputs_of(study, unit).keys() == {"schema", *upstream}, unit

    def test_the_classifier_of_the_evaluation_is_another_matter(self, tmp_path, study, judge):
        study = self.build(changed(study, f"evaluate.scorer=classifier:{judge}"))
        (judge / "config.json").write_text('{"labels": 3}')
        after = changed(Study.open("small", tmp_path), f"evaluate.scorer=classifier:{judge}")
        assert {unit.stage for unit in self.stale(after)} == {"evaluate"}


class TestFingerprint:
    def test_it_changes_with_every_artefact_and_setting(self, tmp_path, study):
        seen = [study_fingerprint(study)]
        assert study_fingerprint(Study.open("small", tmp_path)) == seen[0]
        rebuild(study, Unit("scores"), lambda folder: None)
        seen.append(study_fingerprint(study))
        save_selection(study, "mine", {"quantile": 0.5})
        seen.append(study_fingerprint(study))
        make_up(study, Unit("evaluate", "base"))
        seen.append(study_fingerprint(study))
        seen.append(study_fingerprint(changed(study, "selection.quantile=0.3")))
        assert len(set(seen)) == len(seen)

    def test_a_build_that_is_under_way_does_not_change_it(self, study):
        before = study_fingerprint(study)
        with artifacts.building(study.folder(Unit("scores")), stage="scores", inputs={}, config={}) as partial:
            (partial / "manifest.json").write_text("{}")
            assert study_fingerprint(study) == before


class TestPaths:
    @pytest.fixture
    def place(self, tmp_path, monkeypatch):
        """A study that is not written; the current folder is another one."""
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        study = Study.at("small", config_from_dict({}), tmp_path)
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

    @pytest.mark.parametrize("name", ["gpt2", "org/name", "org/name@step10", "org/name:config@main#train[:10%]", ""])
    def test_hub_ids_stay(self, place, name):
        assert place.resolve(name) == name

    def test_a_hash_or_bracket_in_a_real_name_is_neither_split_nor_glob(self, place):
        for name in ("C# posts.jsonl", "data[1].jsonl"):
            (place.root / "inputs" / name).write_text("x")
            assert place.resolve(f"inputs/{name}") == str(place.root / "inputs" / name)
            study = changed(place, f"corpus.path=inputs/{name}")
            first = inputs_of(study, Unit("corpus"))["file corpus"]
            (place.root / "inputs" / name).write_text("other")
            assert inputs_of(changed(place, f"corpus.path=inputs/{name}"), Unit("corpus"))["file corpus"] != first

    @pytest.mark.parametrize("path", ["inputs/*.jsonl", "inputs", "inputs#train", "inputs/a.jsonl"])
    def test_every_form_is_hashed_by_content(self, place, path):
        study = changed(place, f"corpus.path={path}")
        first = inputs_of(study, Unit("corpus"))["file corpus"]
        (place.root / "inputs" / "a.jsonl").write_text('{"text": "other words"}\n')
        assert inputs_of(Study.at("small", study.config, place.root.parent), Unit("corpus"))["file corpus"] != first

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


def test_a_setting_that_a_later_version_added_makes_nothing_stale_at_its_default(tmp_path):
    study = make_study(tmp_path)
    unit = Unit("selection", "default")
    folder = study.folder(unit)
    manifest = json.loads((folder / artifacts.MANIFEST).read_text())
    assert manifest["config"].pop("selection.window") == 0
    (folder / artifacts.MANIFEST).write_text(json.dumps(manifest))
    assert unit_state(study, unit).state == "fresh"
    state = unit_state(changed(study, "selection.window=2"), unit)
    assert state.state == "stale" and "selection.window is now 2, was None" in state.reason
