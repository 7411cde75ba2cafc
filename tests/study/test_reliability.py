"""Split-half reliability: halves are fair, their directions average to the whole one, and noise does not repeat."""

import json
import random

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ifguide.cli.main import app
from ifguide.errors import ConfigError, StaleError
from ifguide.storage import artifacts
from ifguide.study.analysis import reliability
from ifguide.study.pipeline import create_study, run_study
from ifguide.study.stages.checkpoints import compute_direction, load_checkpoint, read_factors
from tests.one_case import for_each
from tests.small_study import changed, make_study, rebuild, reverse_scores
from tests.tiny_study import save_tiny_model, tiny_config, write_tiny_inputs

pytestmark = pytest.mark.slow

STARTS = ("You are", "The dog is", "They were", "It was", "The fox is", "A line is", "We are", "He is")
ENDINGS = {"toxic": (" a stupid fool", " an idiot", " a moron"), "safe": (" kind", " at home", " clever")}


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """One study whose queries are toxic and safe, and one whose labels are drawn at random."""
    folder, made = tmp_path_factory.mktemp("reliability"), {}
    queries = {kind: [(start, end) for start in STARTS for end in ends] for kind, ends in ENDINGS.items()}
    every = [query for pairs in queries.values() for query in pairs]
    random.Random(1).shuffle(every)
    drawn = {"toxic": every[::2], "safe": every[1::2]}
    for name, sets in (("real", queries), ("drawn", drawn)):
        inputs = folder / name
        write_tiny_inputs(inputs)
        for kind, pairs in sets.items():
            rows = (json.dumps({"prompt": prompt, "completion": end}) for prompt, end in pairs)
            (inputs / f"{kind}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
        save_tiny_model("gpt_neox", inputs / "model")
        sets = ("training.checkpoint_steps=[1,3]", "scores.probe=true", "scores.combined=true", "scores.pooling=1.0")
        made[name] = create_study(name, tiny_config(inputs, *sets, "scores.position=false"), folder / "cache")
        run_study(made[name], until="scores")
    return made


def test_halves_share_no_prompt_and_no_query_and_are_alike_in_size():
    prompts = {"toxic": [f"p{i % 30}" for i in range(60)], "safe": [f"p{i}" for i in range(30)] + ["q"] * 3}
    for seed in range(5):
        first, second = reliability.split_halves(prompts, seed).values()
        for kind, texts in prompts.items():
            assert sorted([*first[kind], *second[kind]]) == list(range(len(texts)))
            assert abs(len(first[kind]) - len(second[kind])) <= 3
        used = [{prompts[kind][i] for kind in prompts for i in half[kind]} for half in (first, second)]
        assert not used[0] & used[1]
    again = reliability.split_halves(prompts, 4)
    assert all(np.array_equal(again["first-half"][kind], first[kind]) for kind in prompts)


def test_queries_with_one_prompt_for_all_are_divided_and_a_single_one_is_refused():
    first, second = reliability.split_halves({"toxic": ["p"] * 4, "safe": ["p"] * 6}).values()
    assert [len(half[kind]) for half in (first, second) for kind in ("toxic", "safe")] == [2, 3, 2, 3]
    with pytest.raises(ConfigError, match="expected safe queries with at least two prompts"):
        reliability.split_halves({"toxic": ["a", "b", "c"], "safe": ["a", "a"]})


@for_each("first, second, expected", [([1, 2, 4], [2, 4, 8], 1.0), ([1, 2, 3], [3, 2, 1], -1.0)])
def test_what_agrees_fully_is_corrected_to_itself(first, second, expected):
    found = reliability.agreement(np.array(first), np.array(second))
    assert found == pytest.approx({"pearson": expected, "whole": expected})


def test_the_mean_of_two_equal_halves_is_the_whole_direction(studies):
    study = studies["real"]
    halves = reliability.split_halves({kind: study.queries(kind)["prompt"].tolist() for kind in ENDINGS})
    assert {len(half[kind]) for half in halves.values() for kind in half} == {12}
    halved = reliability._Halved(study.root, study.config, halves=halves)
    name = study.checkpoint_names()[0]
    model, modules, device = load_checkpoint(study, name)
    factors = read_factors(study, name, str(device))
    whole = compute_direction(study, model, modules, factors)
    first, second = (compute_direction(halved, model, modules, factors, half) for half in halves)
    for layer, v in whole.items():
        torch.testing.assert_close((first[layer] + second[layer]) / 2, v, rtol=1e-4, atol=1e-5 * float(v.abs().max()))


def test_scores_of_real_labels_repeat_and_those_of_random_labels_do_not(studies):
    found = {name: reliability.measure_reliability(study, tokens=150) for name, study in studies.items()}
    for kind in reliability.KINDS:
        real, drawn = (found[name]["kinds"][kind]["whole"] for name in ("real", "drawn"))
        assert real > 0.8 and drawn < real - 0.3, (kind, real, drawn)
    for name, study in studies.items():
        result = found[name]
        assert {kind: sum(sizes) for kind, sizes in result["queries"].items()} == {"toxic": 24, "safe": 24}
        assert result["tokens"] <= 150 and result == reliability.read_reliability(study)
    assert reliability.measure_reliability(studies["real"], tokens=150) == found["real"]


def test_a_result_belongs_to_its_scores_and_stale_scores_are_refused(tmp_path):
    study = make_study(tmp_path)
    path = reliability.reliability_path(study)
    path.parent.mkdir()
    artifacts.write_json(path, {"kinds": {}})
    assert reliability.read_reliability(study) == {"kinds": {}}
    with pytest.raises(StaleError, match=r"scores is stale .*ifguide run small"):
        reliability.measure_reliability(changed(study, "direction.damping=3"))
    rebuild(study, reliability.Unit("scores"), reverse_scores)
    assert reliability.read_reliability(study) is None


@for_each(
    "r, said",
    [(0.9, "repeat: two halves"), (0.5, "repeat in part"), (0.2, "mostly noise: two halves"), (-0.3, "noise")],
)
def test_a_sentence_says_whether_they_are_noise(r, said):
    values = {"pearson": r, "whole": 2 * r / (1 + r) if r > 0 else r}
    text = reliability.describe_reliability({"kinds": {"probe": values}}, "probe")
    assert said in text and f"r = {r:.2f}" in text
    assert (
        reliability.describe_reliability({"kinds": {}}, "probe")
        == reliability.describe_reliability(None, "probe")
        == ""
    )


def test_the_command_prints_a_line_a_kind_and_computes_once(studies, monkeypatch):
    study = studies["real"]
    monkeypatch.setenv("IFGUIDE_CACHE", str(study.root.parent))
    run = lambda *words: CliRunner().invoke(app, [*words, "real"], catch_exceptions=False).stdout  # noqa: E731
    first = run("reliability")
    assert all(kind in first for kind in reliability.KINDS)
    monkeypatch.setattr(reliability, "measure_reliability", None)
    assert run("reliability") == first
    sentence = reliability.describe_reliability(reliability.read_reliability(study), "own_loss")
    assert sentence in first and sentence in run("status")
