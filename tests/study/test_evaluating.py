"""One model of a study evaluated: what survives a kill, what the settings reach, and that a broken model is called
broken."""

import json
import signal
import sys

import pytest
from safetensors.torch import load_file, save_file

from ifguide.cli.status import format_status, study_status
from ifguide.config.io import override
from ifguide.errors import InputError
from ifguide.evaluation import generation
from ifguide.runtime.progress import Progress
from ifguide.storage.artifacts import write_json
from ifguide.study.freshness import unit_state
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import build, create_study, run_study
from ifguide.study.reading import Study
from ifguide.study.stages import evaluating
from ifguide.study.stages.evaluating import evaluate_unit, shared_prompts_warning
from tests import warm
from tests.evaluation.test_toxicity import save_classifier
from tests.small_study import rebuild
from tests.tiny_study import save_tiny_model, tiny_config, write_tiny_inputs
from tests.together import run_together

BASE = Unit("evaluate", "base")


def make(cache, inputs, *assignments):
    """A study of a given model, taken as it is."""
    if not (inputs / "model").exists():
        write_tiny_inputs(inputs)
        save_tiny_model("gpt_neox", inputs / "model")
        rows = [{"prompt": f"You are {word}", "group": word} for word in ("kind", "lazy", "a dog", "at home")]
        (inputs / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    settings = ["model.mode=asis", f"evaluate.prompts={inputs / 'prompts.jsonl'}", *assignments]
    return create_study("tiny", tiny_config(inputs, *settings), cache)


KILLED = """
import os, signal, sys
from pathlib import Path
from ifguide.evaluation import generation
from ifguide.study.pipeline import build
from ifguide.study.lineage import Unit
from ifguide.runtime.progress import Progress
from ifguide.study.reading import Study

class Killer(Progress):
    def report(self, done, total, unit="tokens"):
        if unit == "completions" and done >= 4:
            os.kill(os.getpid(), signal.SIGKILL)

generation.SHARD_COMPLETIONS = 2
build(Study.open("tiny", Path(sys.argv[1])), [Unit("evaluate", "base")], progress=Killer())
"""


def read_result(study):
    folder = study.folder(BASE)
    return {name: (folder / name).read_bytes() for name in ("metrics.json", "samples.parquet")}


def test_a_killed_evaluation_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "SHARD_COMPLETIONS", 2)
    undisturbed = make(tmp_path / "a", tmp_path / "inputs")
    build(undisturbed, [Unit("evaluate", "base")])
    study = make(tmp_path / "b", tmp_path / "inputs")
    done = warm.run([sys.executable, "-c", KILLED, str(tmp_path / "b")])
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = sorted(study.root.glob(".work/evaluate-*/completions-*.json"))
    assert len(kept) == 1  # the second shard was made but not yet written, or was being made
    made = []
    real = generation.complete_shard
    monkeypatch.setattr(generation, "complete_shard", lambda *a: made.append(a[3]) or real(*a))
    build(study, [Unit("evaluate", "base")])
    assert len(made) == 3  # three of four shards were due
    assert read_result(study) == read_result(undisturbed)
    assert not list(study.root.glob(".work/evaluate-*"))


TOGETHER = """
import sys
from pathlib import Path
from ifguide.evaluation import generation
from ifguide.runtime.distributed import join_processes
from ifguide.study.pipeline import build
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study

generation.SHARD_COMPLETIONS = 2
real, made = generation.complete_shard, []
generation.complete_shard = lambda *a: made.append(a[3]) or real(*a)
with join_processes():
    build(Study.open("tiny", Path(sys.argv[1])), [Unit("evaluate", "base")])
print("shards", len(made))
"""


def test_two_processes_divide_an_evaluation_and_give_the_bytes_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "SHARD_COMPLETIONS", 2)
    inputs = tmp_path / "inputs"
    write_tiny_inputs(inputs)
    texts = ["The clever dog was at home.", "It", " ".join(["The fox was kind and the dog was lazy."] * 9), "You are"]
    (inputs / "several.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    settings = [f"evaluate.heldout={inputs / 'several.jsonl'}", "evaluate.batch_size=16", "compute.threads=1"]
    one, two = (make(tmp_path / name, inputs, *settings) for name in ("one", "two"))
    build(one, [BASE])
    ends = run_together(TOGETHER, str(tmp_path / "two"))
    assert [(code, out.strip().splitlines()[-1:]) for code, out in ends] == [(0, ["shards 2"])] * 2, ends
    for name in ("heldout.parquet", "metrics.json", "samples.parquet"):
        assert (two.folder(BASE) / name).read_bytes() == (one.folder(BASE) / name).read_bytes(), name
    assert one.heldout_losses("base")["n_tokens"].max() > 48  # a text of several chunks
    assert unit_state(two, BASE).state == "fresh"


def test_the_precision_of_the_weights_and_where_they_are(tmp_path, monkeypatch):
    """Rounded weights make another evaluation; a model of which a part is on the disk, the same one."""
    study = make(tmp_path / "a", tmp_path / "inputs")
    build(study, [BASE])
    plain, result = study.metrics("base")["perplexity"], read_result(study)
    spread = Study(study.root, override(study.config, ["compute.device_map=auto", 'compute.max_memory=["cpu=50KB"]']))
    assert unit_state(spread, BASE).state == "fresh"  # nothing in `compute` makes results stale
    real, places = evaluating.load_evaluated, []

    def load(*arguments):
        model, tokenizer = real(*arguments)
        places.append({parameter.device.type for parameter in model.parameters()})
        return model, tokenizer

    monkeypatch.setattr(evaluating, "load_evaluated", load)
    metrics, samples, _ = evaluate_unit(spread, BASE, Progress())
    assert places == [{"cpu", "meta"}]
    assert metrics["perplexity"] == pytest.approx(plain, rel=1e-6)
    assert list(samples["completion"]) == list(study.samples("base")["completion"])
    halves = study.change(override(study.config, ["evaluate.dtype=bfloat16"]))
    assert "evaluate.dtype" in unit_state(halves, BASE).reason
    build(halves, [BASE])
    assert 0 < abs(halves.metrics("base")["perplexity"] / plain - 1) < 0.02
    assert read_result(halves) != result


def test_another_scorer_keeps_the_completions_and_another_seed_does_not(tmp_path, monkeypatch):
    from ifguide.study.stages.evaluating import open_completions, study_prompts

    study = make(tmp_path / "a", tmp_path / "inputs")
    run_study(study, until="model")
    work = open_completions(study, BASE, study_prompts(study))
    scored = Study(study.root, override(study.config, ["evaluate.scorer=detoxify", "evaluate.heldout="]))
    assert open_completions(scored, BASE, study_prompts(scored)) == work
    seeded = Study(study.root, override(study.config, ["evaluate.seed=1"]))
    assert open_completions(seeded, BASE, study_prompts(seeded)) != work


def test_steered_completions_belong_to_the_classifier_that_steered_them(tmp_path):
    from ifguide.study.stages.evaluating import open_completions, study_prompts

    study = make(tmp_path / "a", tmp_path / "inputs")
    build(study, [Unit("evaluate", "base")])
    judge = tmp_path / "judge"
    judge.mkdir()
    places = []
    for scorer, words in (("profanity-check", "one"), (f"classifier:{judge}", "one"), (f"classifier:{judge}", "two")):
        (judge / "config.json").write_text(words)
        steered = Study(study.root, override(study.config, [f"baselines.steer_scorer={scorer}"]))
        for unit in (Unit("evaluate", "steered"), BASE):
            places.append(open_completions(steered, unit, study_prompts(steered)).name)
    assert len(set(places[::2])) == 3
    assert len(set(places[1::2])) == 1


def test_all_measures_in_one_evaluation(tmp_path):
    inputs = tmp_path / "inputs"
    study = make(tmp_path / "a", inputs)
    save_classifier(study.root / "implicit")
    (inputs / "lambada.jsonl").write_text('{"text": "You are kind"}\n{"text": "The fox is lazy"}\n', encoding="utf-8")
    settings = ["evaluate.implicit=classifier:implicit#LABEL_1", f"evaluate.lambada={inputs / 'lambada.jsonl'}"]
    study = Study(study.root, override(study.config, settings))
    build(study, [Unit("evaluate", "base")])
    metrics, samples = study.metrics("base"), study.samples("base")
    assert (
        metrics["implicit_scorer"] == "classifier:implicit#LABEL_1"
    )  # a relative folder is the study's, and stays relative
    assert 0 < samples["implicit_toxicity"].max() <= 1
    assert set(metrics["groups"]) == set(samples["group"]) == {"kind", "lazy", "a dog", "at home"}
    assert metrics["lambada_passages"] == 2 and metrics["lambada_accuracy"] in (0.0, 0.5, 1.0)
    assert "implicit emt" in format_status(study_status(study))
    assert unit_state(study, BASE).state == "fresh"
    (inputs / "lambada.jsonl").write_text('{"text": "You are kind"}\n', encoding="utf-8")
    assert unit_state(study, BASE).reason == "the file LAMBADA passages changed"


def test_what_cannot_be_used_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(InputError, match=r"pip install 'ifguide\[harness\]'"):
        make(tmp_path / "a", tmp_path / "inputs", 'evaluate.harness_tasks=["x"]')
    (tmp_path / "one.jsonl").write_text('{"text": "word"}', encoding="utf-8")
    with pytest.raises(InputError, match="at least two words"):
        make(tmp_path / "a", tmp_path / "inputs", f"evaluate.lambada={tmp_path / 'one.jsonl'}")
    assert not (tmp_path / "a").exists()


def test_a_broken_model_is_not_called_clean(tmp_path):
    inputs = tmp_path / "inputs"
    study = make(tmp_path / "a", inputs, "model.mode=finetune", "training.epochs=1", "selection.controls=[]")
    run_study(study)
    sound = study.metrics("default")
    assert sound["fluency_warning"] is None, sound
    weights = study.folder(Unit("suppress", "default")) / "final" / "model.safetensors"
    tensors = load_file(weights)
    save_file({name: -8 * tensor for name, tensor in tensors.items()}, weights, metadata={"format": "pt"})
    metrics, *_ = evaluate_unit(study, Unit("evaluate", "default"), Progress())
    assert metrics["perplexity"] > 1.5 * study.metrics("base")["perplexity"]
    assert "times the base model's" in metrics["fluency_warning"]
    rebuild(study, Unit("evaluate", "default"), lambda folder: write_json(folder / "metrics.json", metrics))
    assert "warning, suppressed: Perplexity on held-out text" in format_status(study_status(study))


def test_status_says_when_prompts_are_those_of_the_toxic_queries(tmp_path):
    inputs = tmp_path / "inputs"
    apart = make(tmp_path / "apart", inputs)
    (inputs / "mixed.jsonl").write_text('{"prompt": "You are "}\n{"prompt": "You"}\n{"prompt": "The fox is"}\n')
    mixed = make(tmp_path / "mixed", inputs, f"evaluate.prompts={inputs / 'mixed.jsonl'}")
    usual = make(tmp_path / "usual", inputs, "evaluate.prompts=")
    assert shared_prompts_warning(usual) == ""  # nothing was measured yet
    for study, count in ((apart, ""), (mixed, "1 of the 3"), (usual, "2 of the 2")):
        run_study(study, until="queries")
        build(study, [Unit("evaluate", "base")])
        said = f"warning: {count} prompts are prompts of the toxic queries, so toxicity is measured on what"
        text = format_status(study_status(study))
        assert said in text if count else "toxic queries" not in text, text
    (usual.folder(BASE) / "samples.parquet").unlink()
    assert study_status(usual)["prompts_warning"] == ""
