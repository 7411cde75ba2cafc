"""Edited models of a whole study: made, measured on text that chose nothing, stale when what they read changes."""

import json
import shutil

import numpy as np
import pytest
import torch

from ifguide.errors import ConfigError, InputError, StaleError
from ifguide.evaluation.fluency import heldout_losses
from ifguide.models.loading import load_model, load_tokenizer
from ifguide.study.freshness import unit_state
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import build, create_study, edit_model, run_study
from ifguide.study.reading import Study
from ifguide.study.sharing.adapter import write_adapter
from ifguide.study.stages.editing import edited_tokens, token_sequences
from ifguide.study.stages.select import save_mask, save_selection
from ifguide.study.variants import edit_name, edit_recipe, possible_models
from tests.small_study import changed
from tests.tiny_study import HELDOUT, build_to_edit, save_tiny_model, tiny_config, write_tiny_inputs


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A study with its base model evaluated, to copy from."""
    return build_to_edit(tmp_path_factory.mktemp("edits"))


@pytest.fixture
def study(built, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(built.root, tmp_path / "tiny")
    return Study.open("tiny", tmp_path)


def weights(study: Study, model: str) -> dict:
    unit = Unit("model") if model == "base" else Unit("suppress", model)
    return load_model(str(study.folder(unit) / "final")).state_dict()


def test_an_edit_is_made_measured_on_the_other_half_and_kept(study):
    study = edit_model(study, "cut", edit_recipe(study.config, "default", {"perplexity_budget": 0.05}))
    notes = study.manifest(Unit("suppress", "cut"))["notes"]["edit"]
    assert 0 < notes["perplexity_rise"] <= 0.05 and notes["chosen_on"] == "heldout"
    assert notes["n_tokens"] == study.selection().settings["n_selected"]
    base, cut = study.heldout_losses("base"), study.heldout_losses("cut")
    assert list(cut["n_tokens"] > 0) == [False, True, False, True]
    assert list(cut["n_tokens"][1::2]) == list(base["n_tokens"][1::2])
    assert study.metrics("cut")["heldout_tokens"] == cut["n_tokens"].sum()
    before, after = weights(study, "base"), weights(study, "cut")
    moved = {name for name in before if not before[name].equal(after[name])}
    assert moved and not any("embed" in name or "norm" in name for name in moved)
    assert build(study, [Unit("evaluate", "cut")]) == []


def test_what_an_edit_reads_makes_it_stale_and_training_settings_do_not(study):
    study = edit_model(study, "cut", edit_recipe(study.config, "default", {}))
    assert unit_state(study, Unit("suppress", "cut")).state == "fresh"
    heldout = study.root.parent / "heldout.jsonl"
    heldout.write_text("\n".join(json.dumps({"text": text}) for text in HELDOUT[:3]))
    moved = changed(study, f"evaluate.heldout={heldout}")
    assert unit_state(moved, Unit("suppress", "cut")).reason == "the file held-out text changed"
    assert unit_state(changed(study, "suppress.penalty=0.3"), Unit("suppress", "cut")).state == "fresh"


@pytest.mark.parametrize(
    "changes",
    [{"curvature": "final"}, {"weighted_share": 0.2}, {"damping": 10.0}, {"perplexity_budget": 0.1}],
    ids=lambda changes: next(iter(changes)),
)
def test_every_setting_changes_the_weights(study, changes):
    study = edit_model(study, "plain", edit_recipe(study.config, "default", {}))
    study = edit_model(study, "other", edit_recipe(study.config, "default", changes))
    one, other = weights(study, "plain"), weights(study, "other")
    assert any(not one[name].equal(other[name]) for name in one)
    assert study.folder(Unit("curvature", "final")).exists() == ("curvature" in changes)


def test_weights_by_score_are_above_the_median_and_of_the_asked_share(study):
    tokens = edited_tokens(study, edit_recipe(study.config, "default", {"weighted_share": 0.1}))
    scores, valid = np.asarray(study.scores()), study.corpus().valid()
    assert tokens.weights is not None and tokens.mask.sum() == pytest.approx(0.1 * valid.sum(), abs=2)
    assert np.allclose(tokens.weights[tokens.mask], (scores - np.median(scores[valid]))[tokens.mask])


def test_chunks_end_with_their_last_chosen_token_and_hold_all_of_them(study):
    mask = np.asarray(study.selection("random").mask)
    sequences = token_sequences(study, mask)
    places = np.concatenate([sequences[i].index for i in range(len(sequences))])
    assert sorted(places[places >= 0]) == sorted(np.flatnonzero(mask))
    assert all(sequences[i].index[-1] >= 0 for i in range(len(sequences)))


def test_it_is_added_to_a_trained_models_weights(study):
    study = edit_model(study, "cut", edit_recipe(study.config, "default", {}))
    study = edit_model(study, "both", edit_recipe(study.config, "default", {"onto": "default"}))
    base, cut, trained, both = (weights(study, name) for name in ("base", "cut", "default", "both"))
    for name in base:
        assert (both[name] - trained[name]).allclose(cut[name] - base[name], atol=1e-5)


def test_a_model_as_it_is_needs_no_training_here(tmp_path):
    write_tiny_inputs(tmp_path / "inputs")
    save_tiny_model("llama", tmp_path / "inputs" / "model")
    study = create_study("given", tiny_config(tmp_path / "inputs", "model.mode=asis"), tmp_path / "cache")
    run_study(study, until="selection")
    study = edit_model(study, "cut", edit_recipe(study.config, "default", {}))
    assert study.metrics("cut")["emt"] >= 0 and not (study.root / "model" / "final").exists()
    notes = study.manifest(Unit("suppress", "cut"))["notes"]["edit"]
    assert notes["chosen_on"] == "corpus"  # one held-out text cannot be halved
    assert study.metrics("cut")["heldout_tokens"] == study.metrics("base")["heldout_tokens"]


def test_a_run_edits_and_measures_before_it_trains(study):
    run = changed(study, "suppress.edit_first=true")
    built = [str(unit) for unit in run_study(run)]
    assert built.index("evaluate edited") < built.index("suppress random")
    assert run.names_of("evaluate")[:3] == ["base", "default", "edited"]
    assert run_study(run) == []


def test_an_edit_is_named_after_its_selection_as_a_table_can_be(study):
    save_selection(study, "top-1.5", {"tokens_above": 30})
    for name in (edit_name("top-1.5"), edit_name("top-1.5", "2.5")):
        study = edit_model(study, name, edit_recipe(study.config, "top-1.5", {}))
    assert {"top-1-5-edited", "top-1-5-edited-2-5"} <= set(Study.open("tiny", study.root.parent).evaluation_names())


def test_what_cannot_be_edited_is_refused_and_the_settings_stay(study):
    config = study.config
    with pytest.raises(ConfigError, match="taken"):
        edit_model(study, "random", edit_recipe(config, "default", {}))
    marks = study.root.parent / "marks.npy"
    mask = np.zeros(study.corpus().n_tokens, dtype=bool)
    mask[np.flatnonzero(study.corpus().valid())[:3]] = True
    np.save(marks, mask)
    save_mask(study, "mine", str(marks))
    with pytest.raises(ConfigError, match="weighted_share"):
        edit_model(study, "cut", edit_recipe(config, "mine", {"weighted_share": 0.1}))
    with pytest.raises(StaleError, match="ifguide select"):
        edit_model(study, "cut", edit_recipe(config, "nothing-like-it", {}))
    assert Study.open("tiny", study.root.parent).config == config


def test_an_adapter_of_full_rank_is_the_edited_model_and_a_lower_one_is_closer_than_the_base(study, tmp_path):
    peft = pytest.importorskip("peft")
    study = edit_model(study, "cut", edit_recipe(study.config, "default", {"perplexity_budget": 0.05}))
    place = str(study.folder(Unit("model")) / "final")
    ids = torch.arange(2, 12).unsqueeze(0)
    plain, edited = (
        load_model(path)(ids).logits for path in (place, str(study.folder(Unit("suppress", "cut")) / "final"))
    )
    errors = []
    for rank in (2, 64):
        kept = write_adapter(study, "cut", tmp_path / f"rank-{rank}", rank)
        assert (0 < kept < 1) if rank == 2 else kept == pytest.approx(1)
        adapted = peft.PeftModel.from_pretrained(load_model(place), str(tmp_path / f"rank-{rank}"))
        errors.append(float((adapted(ids).logits.detach() - edited).abs().max()))
    assert errors[1] < 1e-4 < errors[0] < float((plain - edited).abs().max())
    with pytest.raises(InputError, match="new folder"):
        write_adapter(study, "cut", tmp_path / "rank-2")
    with pytest.raises(ConfigError, match="base model"):
        write_adapter(study, "base", tmp_path / "other")


def test_the_untouched_model_is_what_the_base_was_made_from(study):
    assert study.config.model.mode == "finetune" and "untouched" in possible_models(study.config, has_spans=False)
    build(study, [Unit("evaluate", "untouched")])
    source = study.resolve(study.config.model.source)
    losses = heldout_losses(load_model(source), load_tokenizer(source), HELDOUT)
    before, after = (study.metrics(name)["perplexity"] for name in ("untouched", "base"))
    assert before == pytest.approx(float(np.exp(losses.nats.sum() / losses.tokens.sum()))) != after
    scratch = changed(study, "model.mode=scratch")
    assert "untouched" not in possible_models(scratch.config, has_spans=False)
