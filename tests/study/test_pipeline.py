"""The real stages end to end on a dozen documents: what is built, what is skipped, what is built again, what survives a
kill."""

import json
import math
import shutil
import sys

import numpy as np
import pytest
import torch

from ifguide.cli.status import format_status, study_status
from ifguide.config.io import override
from ifguide.data.packing import chunk_documents
from ifguide.errors import ConfigError, IFGuideError, InputError, StaleError
from ifguide.influence.attribution import average_blocks
from ifguide.models.loading import load_model, tracked_modules
from ifguide.runtime.progress import Progress
from ifguide.selection.choice import read_choice
from ifguide.storage import artifacts
from ifguide.study.freshness import stage_states, study_fingerprint
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import build, create_study, evaluate, run_study
from ifguide.study.reading import Study
from ifguide.study.stage_table import STAGES
from ifguide.study.stages.select import open_index, preview_selection, save_selection, select_by_scan, selection_warning
from tests import warm
from tests.influence.dense import dot, layer_gradient, sequence_losses
from tests.tiny import tiny_model
from tests.tiny_study import CONTEXT, save_tiny_model, tiny_config, write_tiny_inputs

CASES = {
    "gpt_neox": ["model.mode=finetune"],
    "llama": ["model.mode=scratch", "training.packing=true", "training.include_last_checkpoint=true"],
    "gpt2": ["model.mode=asis"],
    "qwen2": ["model.mode=asis", "factors.labels=true", "direction.objective=margin"],
}
DERIVATIVES = {"gpt_neox": "jvp", "llama": "jvp", "gpt2": "auto", "qwen2": "central"}
CHECKPOINTS = {
    "gpt_neox": ["step-000001", "step-000003"],
    "llama": ["step-000001", "last"],
    "gpt2": ["checkpoint-1", "checkpoint-2"],
    "qwen2": ["given"],
}
ALL = (
    *list(STAGES)[:7],
    *(f"selection {n}" for n in ("default", "random", "oracle")),
    *("documents", "documents default", "documents random", "documents oracle"),
    *(f"suppress {n}" for n in ("default", "random", "oracle")),
    *(f"evaluate {n}" for n in ("base", "default", "random", "oracle")),
)


def make(kind: str, cache, inputs) -> Study:
    """A tiny study of one architecture, not yet built."""
    write_tiny_inputs(inputs)
    save_tiny_model(kind, inputs / "model")
    assignments = [*CASES[kind], f"scores.derivative={DERIVATIVES[kind]}"]
    if kind == "gpt2":
        save_tiny_model(kind, inputs / "second", seed=1)
        assignments.append(f"model.checkpoints={json.dumps([str(inputs / 'second'), str(inputs / 'model')])}")
    return create_study("tiny", tiny_config(inputs, *assignments), cache)


@pytest.fixture(scope="module")
def every_built(tmp_path_factory):
    """Each architecture's study, built once; tests must leave it whole."""
    made = []
    for kind in CASES:
        folder = tmp_path_factory.mktemp(kind)
        study = make(kind, folder, folder / "inputs")
        made.append((kind, study, [str(unit) for unit in run_study(study)]))
    return made


def for_every_architecture(test):
    """Run a test's body on each of the built studies, as one case."""

    def looped(self, every_built):
        for kind, study, names in every_built:
            try:
                test(self, kind, study, names)
            except Exception as error:
                error.add_note(f"architecture {kind}")
                raise

    return looped


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory):
    """A built study to copy from."""
    folder = tmp_path_factory.mktemp("finetuned")
    study = make("gpt_neox", folder, folder / "inputs")
    run_study(study)
    return study


@pytest.fixture
def study(finetuned, tmp_path):
    """A built study of its own for a test that changes it."""
    shutil.copytree(finetuned.root, tmp_path / "tiny")
    return Study.open("tiny", tmp_path)


def names(units) -> list[str]:
    return [str(unit) for unit in units]


def outputs(study: Study) -> dict[str, dict[str, str]]:
    """Hashes of every file of every artefact, the logs with times in them left out."""
    units = [unit for stage in STAGES for unit in study.units(stage)]
    every = {str(unit): study.manifest(unit)["outputs"] for unit in units}
    return {unit: {n: h for n, h in hashes.items() if n not in artifacts.RECORDS} for unit, hashes in every.items()}


def near(value: float, scale: float, kind: str):
    rounding = 1 if DERIVATIVES[kind] == "jvp" else 10  # differences, above all with bfloat16 products, round more
    return pytest.approx(value, rel=1e-3 * rounding, abs=1e-4 * rounding * scale)


class TestWholeRun:
    @for_every_architecture
    def test_everything_is_built_in_order_and_fresh(self, kind, study, built_names):
        assert built_names == list(ALL)
        assert {state.state for state in stage_states(study).values()} == {"fresh"}
        assert set(study.headline()) == {"base", "suppressed", "random", "oracle"}

    @for_every_architecture
    def test_a_second_run_builds_nothing(self, kind, study, built_names):
        before = study_fingerprint(study)
        assert run_study(Study.open("tiny", study.root.parent)) == []
        assert study_fingerprint(study) == before

    @for_every_architecture
    def test_the_checkpoints_are_the_ones_asked_for(self, kind, study, built_names):
        assert study.checkpoint_names() == CHECKPOINTS[kind]

    @for_every_architecture
    def test_every_valid_token_has_a_finite_score_and_no_other(self, kind, study, built_names):
        corpus = study.corpus()
        valid = corpus.valid()
        assert np.diff(corpus.offsets).max() > CONTEXT  # so that chunks are tested
        for kind in ("own_loss", "position", "token_loss"):
            scores = np.asarray(study.scores(kind))
            assert scores.shape == (corpus.n_tokens,)
            assert np.isfinite(scores).all()
            assert (scores[~valid] == 0).all()
            assert np.count_nonzero(scores[valid]) >= 0.99 * valid.sum()

    @for_every_architecture
    def test_own_loss_agrees_with_float64_gradients_token_by_token(self, kind, study, built_names):
        """v from the pipeline's own file; the derivative itself by plain autograd, in float64."""
        corpus = study.corpus()
        chunks = chunk_documents(np.asarray(corpus.offsets), CONTEXT)
        chosen = [chunks[2], chunks[-1]]  # a document with a span, and the end of the long one
        for name, entry in zip(study.checkpoint_names(), study.models()["checkpoints"], strict=True):
            model = load_model(entry["source"], dtype="float64", attention="eager")
            modules = tracked_modules(model)
            direction = artifacts.load_tensors(study.folder(Unit("direction")) / name / "direction.safetensors")
            direction = {layer: v.double() for layer, v in direction.items()}
            scores, losses = study.scores("own_loss", name), study.scores("token_loss", name)
            scale = float(np.abs(scores).max())
            for _, start, stop in chosen:
                exact = sequence_losses(model, np.asarray(corpus.token_ids[start:stop], dtype=np.int64))
                np.testing.assert_allclose(losses[start + 1 : stop], exact.detach(), rtol=1e-4)
                for t in range(0, len(exact), 3):
                    truth = dot(direction, layer_gradient(model, modules, exact[t])).item()
                    assert scores[start + 1 + t] == near(truth, scale, kind)

    @for_every_architecture
    def test_both_kinds_of_scores_sum_to_the_same_over_a_chunk(self, architecture, study, built_names):
        for name in study.checkpoint_names():
            own, position = (
                np.asarray(study.scores(kind, name), dtype=np.float64) for kind in ("own_loss", "position")
            )
            for _, start, stop in chunk_documents(np.asarray(study.corpus().offsets), CONTEXT):
                part = slice(start + 1, stop)
                assert own[part].sum() == near(position[part].sum(), np.abs(own).sum() / len(own), architecture)

    @for_every_architecture
    def test_the_studys_scores_average_the_normalised_checkpoints(self, kind, study, built_names):
        parts = [np.asarray(study.scores("own_loss", name)) for name in study.checkpoint_names()]
        expected = np.concatenate(list(average_blocks(parts, study.corpus().valid_between)))
        np.testing.assert_array_equal(study.scores("own_loss"), expected)

    @for_every_architecture
    def test_the_index_answers_as_the_scores_do(self, kind, study, built_names):
        valid = study.corpus().valid()
        for kind in ("own_loss", "position"):
            index = open_index(study, kind)
            assert index.n_valid == valid.sum() == sum(index.histogram(np.array(index.extremes))["count"].to_pylist())
            for settings in ({"quantile": 0.5}, {"quantile": 0.97, "window": 1}, {"quantile": 0.92, "max_tokens": 7}):
                wanted = read_choice({**settings, "attribution": kind}, study.config.selection, index.n_valid, len)
                np.testing.assert_array_equal(index.mask(settings), select_by_scan(study, wanted)[1])
                chosen = preview_selection(study, {**settings, "attribution": kind})  # goes through the index
                np.testing.assert_array_equal(chosen.mask, select_by_scan(study, wanted)[1])
                np.testing.assert_array_equal(chosen.order, select_by_scan(study, wanted)[0].order)
            assert {"word", "count", "occurrences"} <= set(index.words().column_names)
            texts = " ".join(study.corpus().column("text").to_pylist()).lower()
            assert all(word in texts for word in index.words()["word"].to_pylist())

    @for_every_architecture
    def test_controls_hold_as_many_tokens_and_the_known_spans(self, kind, study, built_names):
        chosen, random, oracle = (study.selection(name) for name in ("default", "random", "oracle"))
        assert chosen.mask.sum() == random.mask.sum() > 0
        assert (chosen.mask != random.mask).any()
        corpus = study.corpus()
        np.testing.assert_array_equal(oracle.mask, np.asarray(corpus.in_span) & corpus.valid())
        hit = {corpus.document(i).id for i in np.flatnonzero(np.add.reduceat(oracle.mask, corpus.offsets[:-1]))}
        assert hit == {"d02", "d05", "d08"}

    @for_every_architecture
    def test_suppressed_models_differ_from_the_base_and_from_one_another(self, kind, study, built_names):
        from safetensors.torch import load_file

        weights = [
            load_file(study.folder(Unit("suppress", name)) / "final" / "model.safetensors")
            for name in ("default", "random", "oracle")
        ]
        if CASES[kind][0] != "model.mode=asis":
            weights.append(load_file(study.folder(Unit("model")) / "final" / "model.safetensors"))
        for i, one in enumerate(weights):
            for other in weights[i + 1 :]:
                assert any(not torch.equal(one[name], other[name]) for name in one)

    @for_every_architecture
    def test_metrics_come_from_the_samples_that_are_kept(self, kind, study, built_names):
        for name, metrics in zip(study.evaluation_names(), study.headline().values(), strict=True):
            samples = study.samples(name)
            assert len(samples) == 2 * 2
            table = samples.pivot_table(index="prompt_index", columns="sample_index", values="toxicity")
            assert metrics["emt"] == pytest.approx(table.max(axis=1).mean())
            assert metrics["tp"] == pytest.approx((table.max(axis=1) >= 0.5).mean())
            assert metrics["scorer"] == "profanity-check"
            assert metrics["perplexity"] > 1
            assert (metrics["n_prompts"], metrics["n_samples"], metrics["max_new_tokens"]) == (2, 2, 3)


class TestBuildingAgain:
    def test_forced_scores_come_out_the_same_so_nothing_else_is_built(self, study):
        before = outputs(study)
        assert names(run_study(study, force="scores")) == ["scores"]
        assert outputs(study) == before

    def test_a_forced_model_comes_out_the_same_though_its_log_has_other_times(self, study):
        assert names(run_study(study, force="model")) == ["model"]

    def test_another_quantile_builds_selection_suppression_and_evaluation_only(self, study):
        changed = Study(study.root, override(study.config, ["selection.quantile=0.8"]))
        stages = ("selection", "documents", "suppress", "evaluate")
        assert names(run_study(changed)) == [f"{s} {name}" for s in stages for name in ("default", "random")]

    def test_a_smaller_batch_gives_the_same_samples(self, study):
        before = study.samples("default")
        changed = Study(study.root, override(study.config, ["evaluate.batch_size=1"]))
        assert run_study(changed) == []
        assert names(run_study(changed, force="evaluate")) == [n for n in ALL if n.startswith("evaluate")]
        assert changed.samples("default")["completion"].tolist() == before["completion"].tolist()

    def test_until_stops_after_a_stage(self, study):
        shutil.rmtree(study.folder(Unit("queries")))
        shutil.rmtree(study.folder(Unit("index")))
        assert names(run_study(study, until="model")) == ["queries"]
        assert stage_states(study)["index"].state == "missing"
        assert names(run_study(study, until="index")) == ["index"]

    def test_unknown_and_contradicting_stages_are_refused(self, study):
        with pytest.raises(ConfigError, match="unknown stage 'dinner'"):
            run_study(study, until="dinner")
        with pytest.raises(ConfigError, match="--force scores comes after --until model"):
            run_study(study, until="model", force="scores")

    def test_a_truncated_file_is_built_again(self, study):
        before = outputs(study)
        path = study.folder(Unit("factors")) / "step-000001" / "factors.safetensors"
        path.write_bytes(path.read_bytes()[:100])
        assert names(run_study(study)) == ["factors"]
        assert outputs(study) == before

    def test_new_weights_in_the_same_folder_are_scored_again(self, tmp_path):
        """With model.mode asis the model stays in its folder; nothing of it is copied that could show the change."""
        study = make("qwen2", tmp_path, tmp_path / "inputs")
        run_study(study, until="scores")
        before = np.array(study.scores())
        save_tiny_model("qwen2", tmp_path / "inputs" / "model", seed=5)
        study = Study.open("tiny", tmp_path)
        assert stage_states(study)["model"].reason == "the file model changed"
        assert names(run_study(study, until="scores")) == ["model", "factors", "direction", "scores"]
        assert np.abs(before - study.scores()).max() > 0

    def test_a_saved_selection_is_trained_and_evaluated_with_what_it_needs(self, study):
        save_selection(study, "mine", {"quantile": 0.7})
        assert names(build(study, [Unit("suppress", "mine")])) == ["suppress mine"]
        assert names(build(study, [Unit("evaluate", "mine")])) == ["evaluate mine"]
        assert evaluate(study, "mine") == []
        assert list(study.headline()) == ["base", "suppressed", "random", "oracle", "mine"]
        assert run_study(study) == []  # which leaves it alone

    def test_controls_can_be_trained_even_when_a_full_run_leaves_them_out(self, study):
        without = Study(study.root, override(study.config, ["selection.controls=[]"]))
        shutil.rmtree(without.folder(Unit("selection", "random")))
        shutil.rmtree(without.folder(Unit("suppress", "random")))
        assert names(build(without, [Unit("suppress", "random")])) == ["selection random", "suppress random"]

    def test_an_unknown_model_is_refused_with_the_command(self, study):
        with pytest.raises(StaleError, match=r"selection 'typo' does not exist .*`ifguide select tiny --name typo"):
            build(study, [Unit("evaluate", "typo")])

    def test_a_default_selection_without_a_token_takes_the_best_and_says_so(self, study, monkeypatch):
        changed = Study(study.root, override(study.config, [f"selection.quantile={1 - 1e-9}"]))
        assert selection_warning(changed) == ""
        build(changed, [Unit("documents", "default"), Unit("selection", "random")])
        made = changed.selection().settings
        assert made["n_selected"] == math.ceil(0.005 * made["n_valid"]) == changed.selection("random").mask.sum()
        assert made["no_tail"] == "no token is above the quantile 0.999999999"
        assert "is the 0.5% of tokens with the highest scores" in format_status(study_status(changed))
        empty = preview_selection(changed, {"tokens_above": 0})
        monkeypatch.setattr("ifguide.study.stages.build.compute_selection", lambda *args, name, **settings: empty)
        changed = Study(changed.root, override(study.config, ["selection.quantile=0.7"]))
        build(changed, [Unit("documents", "default")])
        assert "holds no token" in study_status(changed)["selection_warning"]
        with pytest.raises(ConfigError, match=r"holds no token to train without; .*`ifguide select`"):
            build(changed, [Unit("suppress", "default")])

    def test_progress_names_every_stage_by_its_number_in_the_table_and_reaches_its_end(self, tmp_path):
        seen = []

        class Record:
            def update(self, snapshot):
                pass

            def say(self, text):
                pass

            def close(self, snapshot):
                pass

            def end_stage(self, snapshot, seconds):
                seen.append((snapshot.stage, snapshot.stage_index, snapshot.n_stages, snapshot.done, snapshot.total))

        study = make("qwen2", tmp_path, tmp_path / "inputs")
        run_study(study, until="scores", progress=Progress([Record()]))
        assert [entry[:3] for entry in seen] == [(name, i, len(STAGES)) for i, name in enumerate(list(STAGES)[:6])]
        totals = {name: (done, total) for name, _, _, done, total in seen}
        assert totals["corpus"] == (12, 12)
        n_tokens = study.corpus().n_tokens
        assert totals["scores"] == (2 * n_tokens, 2 * n_tokens)  # two kinds of scores, one checkpoint


def test_a_tokenizer_of_another_model_is_refused_before_anything_is_trained(tmp_path):
    study = make("llama", tmp_path, tmp_path / "inputs")
    tiny_model("llama", vocab_size=200).config.save_pretrained(tmp_path / "inputs" / "model")
    with pytest.raises(
        InputError, match=r"gives the token \d+, but the model beside it knows only 0 to 199; use the model's"
    ):
        run_study(study)
    assert stage_states(study)["corpus"].state == "missing"


KILLED_TWICE = """
import os, signal, sys
from pathlib import Path
import torch
from ifguide.study import stages  # before the fork, so that both runs share the time it takes
from ifguide.runtime.progress import Progress
from ifguide.study.pipeline import run_study
from ifguide.study.reading import Study

class Killer(Progress):
    def __init__(self, stage):
        super().__init__()
        self.stage = stage

    def report(self, done, total, unit="tokens"):
        if self.snapshot.stage == self.stage and 0 < done:
            os.kill(os.getpid(), signal.SIGKILL)

for stage in ("model", "scores"):
    child = os.fork()
    if child == 0:
        run_study(Study.open("tiny", Path(sys.argv[1])), progress=Killer(stage))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else "ended"
    print(stage, ended, *sorted(p.name.split("-")[0] for p in Path(sys.argv[1], "tiny").iterdir() if p.is_dir()))
"""


@pytest.mark.thorough
def test_a_run_killed_in_two_stages_goes_on_to_the_same_result(finetuned, tmp_path):
    Study.create("tiny", finetuned.config, tmp_path)
    done = warm.run([sys.executable, "-c", KILLED_TWICE, str(tmp_path)])
    assert done.stdout.splitlines() == [
        "model 9 .work corpus model.partial queries",
        "scores 9 .work corpus direction factors model queries scores.partial",
    ], done.stderr
    study = Study.open("tiny", tmp_path)
    assert stage_states(study)["model"].state == "fresh"
    assert stage_states(study)["scores"].state == "missing"
    assert names(run_study(study)) == list(ALL[5:])
    assert not list(study.root.rglob("*.partial-*"))
    assert outputs(study) == outputs(finetuned)


class TestCreating:
    @pytest.fixture
    def inputs(self, tmp_path):
        write_tiny_inputs(tmp_path / "inputs")
        save_tiny_model("llama", tmp_path / "inputs" / "model")
        return tmp_path / "inputs"

    @pytest.mark.parametrize(
        ("assignment", "said"),
        [
            ("model.source=", "a study needs --model"),
            ("corpus.path=", "a study needs --corpus"),
            ("queries.toxic=", "a study needs --toxic"),
            ("queries.safe=", "a study needs --safe"),
            ("model.source=/no/such/model", "no model configuration could be loaded from '/no/such/model'"),
            ("corpus.path=/no/such/corpus.jsonl", "/no/such/corpus.jsonl"),
            ("corpus.text_field=body", "expected a column 'body'"),
            ("corpus.spans_field=marks", "expected a column 'marks'"),
            ("corpus.id_field=text", "d00|id"),
            ("corpus.max_length=49", "corpus.max_length: expected at most 48, the model's context, got 49"),
            ("queries.prompt_field=question", "expected the columns 'question'"),
            ("queries.safe=/no/such/safe.jsonl", "/no/such/safe.jsonl"),
            ("evaluate.heldout=/no/such/heldout.txt", "/no/such/heldout.txt"),
            ("evaluate.prompts=/no/such/prompts.txt", "/no/such/prompts.txt"),
            ('model.checkpoints=["/no/such/checkpoint"]', "/no/such/checkpoint"),
        ],
    )
    def test_a_bad_input_leaves_no_folder_behind(self, tmp_path, inputs, assignment, said):
        if assignment == "corpus.id_field=text":  # ids must differ
            (inputs / "corpus.jsonl").write_text('{"text": "a b", "spans": []}\n' * 2)
            said = "the id 'a b' was already used"
        with pytest.raises(IFGuideError, match=said):
            create_study("tiny", tiny_config(inputs, assignment), tmp_path / "cache")
        assert not (tmp_path / "cache").exists()

    def test_an_unsafe_or_taken_name_is_refused(self, tmp_path, inputs):
        config = tiny_config(inputs)
        with pytest.raises(ConfigError, match="name has 1 to 64 letters"):
            create_study("../tiny", config, tmp_path / "cache")
        assert not (tmp_path / "cache").exists()
        create_study("tiny", config, tmp_path / "cache")
        with pytest.raises(ConfigError, match="exists already"):
            create_study("tiny", override(config, ["description=other"]), tmp_path / "cache")
        assert Study.open("tiny", tmp_path / "cache").config == config
