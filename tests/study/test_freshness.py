"""What of a study is fresh, what is stale, and in which words."""

import json
import shutil
import threading

import pytest

from ifguide.config.attributions import attributions
from ifguide.config.names import BASE
from ifguide.errors import InputError
from ifguide.storage import artifacts
from ifguide.study import stage_table
from ifguide.study.freshness import (
    Freshness,
    StageState,
    inputs_of,
    settings_of,
    stage_state,
    stage_states,
    study_fingerprint,
    unit_state,
)
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import run_study
from ifguide.study.reading import Study
from ifguide.study.stage_table import BASELINE_CLASSIFIER, CLASSIFIERS, STAGES
from ifguide.study.stages.select import save_selection
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


class TestFreshness:
    def test_what_was_built_is_fresh_and_the_rest_missing(self, study):
        assert states(study) == {stage: "fresh" if stage in BUILT else "missing" for stage in STAGES}
        assert stage_states(study)["index"] == StageState("missing", "not built yet", None)
        assert stage_states(study)["scores"].seconds >= 0

    def test_a_changed_setting_makes_stale_what_depends_on_it(self, study):
        direction = {"direction", "scores", "selection"}
        factors = direction | {"factors"}
        for assignment, expected, stage, reason in (
            ("corpus.max_documents=2", {*BUILT} - {"queries"}, "corpus", "corpus.max_documents is now 2, was 0"),
            ("queries.split_share=0.4", direction | {"queries"}, "queries", "queries.split_share is now 0.4, was 0.5"),
            ("training.epochs=9", factors | {"model"}, "model", "training.epochs is now 9.0, was 2.0"),
            ("training.early_checkpoints=1", factors | {"model"}, "factors", "model is stale"),
            ("model.dtype=bfloat16", factors, "factors", "model.dtype is now 'bfloat16', was 'float32'"),
            ("model.modules=mlp", factors, "direction", "factors is stale"),
            ("factors.seed=1", factors, "scores", "direction is stale"),
            ("direction.damping=1", direction, "direction", "direction.damping is now 1.0, was 10.0"),
            ("scores.position=false", {"scores", "selection"}, "selection", "default: scores is stale"),
            ("selection.quantile=0.5", {"selection"}, "selection", "selection.quantile is now 0.5, was 0.8"),
            ("selection.seed=1", {"selection"}, "selection", "selection.seed is now 1, was 0"),
        ):
            after = changed(study, assignment)
            assert stale(after) == expected, assignment
            whose = {"selection.quantile": "default: ", "selection.seed": "random: "}.get(assignment.split("=")[0], "")
            full = f"{whose}setting {reason}" if " is now " in reason else reason
            assert stage_states(after)[stage].reason == full, assignment

    def test_where_and_in_which_portions_work_is_done_makes_nothing_stale(self, study):
        for unit in (Unit("index"), Unit("suppress", "default"), Unit("evaluate", "base")):
            make_up(study, unit)
        before = states(study)
        assert before["index"] == "fresh"
        for assignment in (
            "compute.device=cuda",
            "compute.tokens_per_batch=64",
            "compute.threads=3",
            "evaluate.batch_size=1",
            "description=other words",
        ):
            after = changed(study, assignment)
            assert states(after) == before, assignment
            assert unit_state(after, Unit("evaluate", "base")).state == "fresh", assignment

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
        found = stage_states(study)["direction"]
        assert (found.state, found.reason) == ("stale", "corpus was rebuilt")

    def test_a_damaged_file_is_named(self, study):
        path = study.folder(Unit("scores")) / "own_loss.npy"
        size = path.stat().st_size
        path.write_bytes(path.read_bytes()[:-4])
        for said in (f"own_loss.npy has {size - 4} bytes, expected {size}", "own_loss.npy is missing"):
            assert stage_states(study)["scores"].reason == f"damaged: {said}"
            assert stale(study) == {"scores", "selection"}
            path.unlink(missing_ok=True)

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
        parts += [Unit("baseline", name) for name in BASELINES]
        parts += [Unit("selection", name) for name in (*attributions(), *BASELINES)]
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
        freshness = Freshness(study)
        every = [*(unit for stage in BUILT for unit in study.units(stage)), *self.units(study)]
        return {unit for unit in every if freshness.state(unit).state != "fresh"}

    def test_a_changed_folder_makes_exactly_what_it_judged_stale(self, tmp_path, study, judge):
        settings = [f"baselines.{key}=classifier:{judge}#TOXIC" for key in ("scorer", "steer_scorer")]
        study = self.build(changed(study, *settings))
        assert self.stale(study) == set()
        (judge / "config.json").write_text('{"labels": 3}')
        after = changed(Study.open("small", tmp_path), *settings)
        expected = {
            Unit(stage, name) for name in self.WITH for stage in ("baseline", "selection", "suppress", "evaluate")
        }
        assert self.stale(after) == expected | {Unit("evaluate", STEERED)}
        assert unit_state(after, Unit("baseline", "words")).reason == "the file baselines' classifier changed"
        assert unit_state(after, Unit("evaluate", STEERED)).reason == "the file baselines' classifier changed"
        (judge / "config.json").write_text('{"labels": 2}')
        assert self.stale(changed(Study.open("small", tmp_path), *settings)) == set()

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

    def test_a_scorer_without_files_adds_no_input(self, study):
        after = self.build(changed(study, "baselines.scorer=detoxify:unbiased"))
        for unit in self.units(after):
            files = {key for key in inputs_of(after, unit) if key.startswith("file ")}
            assert files <= {f"file {CLASSIFIERS[0]}"}, unit

    def test_the_judge_in_the_package_is_an_input_and_what_was_made_before_it_was_one_stays_fresh(self, study):
        unit, key = Unit("baseline", "words"), f"file {BASELINE_CLASSIFIER}"
        study = self.build(changed(study, "baselines.scorer=profanity-check"))
        path = study.folder(unit) / "manifest.json"
        manifest = json.loads(path.read_text())
        assert manifest["inputs"].pop(key) == inputs_of(study, unit)[key]
        path.write_text(json.dumps(manifest))
        assert unit_state(study, unit).state == "fresh"
        path.write_text(json.dumps(manifest | {"inputs": manifest["inputs"] | {key: "another"}}))
        assert key in unit_state(study, unit).reason

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


def test_scores_made_before_there_was_a_probe_are_out_of_date_unless_it_is_off(tmp_path):
    study = make_study(tmp_path)
    path = study.folder(Unit("scores")) / artifacts.MANIFEST
    manifest = json.loads(path.read_text())
    for key in ("scores.probe", "scores.combined", "scores.tfidf", "scores.own_loss"):
        manifest["config"].pop(key)
    path.write_text(json.dumps(manifest))
    assert unit_state(Study.open("small", tmp_path), Unit("scores")).state == "fresh"  # as `small` has neither
    later = changed(Study.open("small", tmp_path), "scores.probe=true")
    assert unit_state(later, Unit("scores")).reason == "setting scores.probe is now True, was None"


def test_a_selection_by_the_tail_follows_the_tails_definition(study, monkeypatch):
    both = (study, changed(study, "selection.quantile=0.0"))
    before = [settings_of(one, Unit("selection", "default")) for one in both]
    monkeypatch.setattr(stage_table, "TAIL", 9.0)
    after = [settings_of(one, Unit("selection", "default")) for one in both]
    assert after[0] == before[0] and after[1] != before[1]


def test_what_is_moved_into_place_while_folders_are_listed_stops_no_reader(study):
    """What a new study's first page asks for, while a run puts artefacts into their places."""
    moved, end = [Unit("scores"), Unit("selection", "default")], threading.Event()

    def build_again():
        for _ in range(60):
            for unit in moved:
                with artifacts.building(study.folder(unit), stage=unit.stage, inputs={}, config={}) as folder:
                    for n in range(10):
                        (folder / f"{n}.npy").write_bytes(b"1")
        end.set()

    run, prints = threading.Thread(target=build_again), set()
    run.start()
    while not end.is_set():
        prints.add(study_fingerprint(study))
        stage_states(study)
    run.join()
    assert len(prints) > 3
