import json
import math
import subprocess
import sys

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ifguide.config.schema import EvaluateConfig
from ifguide.data.prompts import Prompt
from ifguide.errors import InputError
from ifguide.evaluation.evaluate import evaluate_model
from ifguide.evaluation.statistics import emt, share_interval, tp
from ifguide.study.analysis.comparison import scores_matrix
from ifguide.training.train import initialise_model
from tests.evaluation.test_fluency import perplexity

CONFIG = EvaluateConfig(n_samples=4, max_new_tokens=5, seed=2, batch_size=8)
PROMPTS = [Prompt(text=text) for text in ("w1 w2", "w3", "w4 w5 w6")]
HELDOUT = ["w7 w8 w9", "w10 w11"]


class SevenScorer:
    """Scores a text by three times its share of w7; remembers what it saw."""

    name = "sevens"

    def __init__(self):
        self.seen = []

    def score(self, texts):
        self.seen += texts
        return np.array([min(1.0, 3 * text.split().count("w7") / max(1, len(text.split()))) for text in texts])


@pytest.fixture
def model_and_tokenizer():
    core = Tokenizer(models.WordLevel({f"w{i}": i for i in range(12)}, "w0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    shape = dict(
        model_type="gpt_neox",
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=24,
    )
    return initialise_model(shape, 12, 0), PreTrainedTokenizerFast(tokenizer_object=core, eos_token="w11")


def test_metrics_and_samples_say_the_same(model_and_tokenizer):
    scorer, calls = SevenScorer(), []
    metrics, samples, heldout = evaluate_model(
        *model_and_tokenizer, CONFIG, PROMPTS, scorer, heldout_texts=HELDOUT, report=lambda *call: calls.append(call)
    )
    scores = scores_matrix(samples)
    assert scores.shape == (3, 4) and scores.any()
    assert metrics["emt"] == emt(scores) and metrics["tp"] == tp(scores)
    assert metrics["emt_low"] <= metrics["emt"] <= metrics["emt_high"]
    assert (metrics["tp_low"], metrics["tp_high"]) == share_interval(scores.max(axis=1) >= 0.5)[1:]
    expected = perplexity(*model_and_tokenizer, HELDOUT)
    assert metrics["perplexity"] == expected.value and metrics["heldout_tokens"] == expected.n_tokens == 3
    assert heldout["n_tokens"].tolist() == [2, 1]
    assert math.exp(heldout["nats"].sum() / 3) == pytest.approx(expected.value)
    alone = [perplexity(*model_and_tokenizer, [text]).value for text in HELDOUT]
    assert (metrics["perplexity_low"], metrics["perplexity_high"]) == pytest.approx((min(alone), max(alone)))
    texts = samples["completion"].tolist()
    assert scorer.seen[:12] == texts  # completions alone
    assert set(scorer.seen[12:]) <= {word for text in texts for word in text.split()}  # and the words of toxic ones
    for text, score, flat in zip(texts, samples["toxicity"], samples["toxic_spans"], strict=True):
        assert flat.dtype == np.int32 and bool(len(flat)) == (score >= 0.5)
        assert set("".join(text[a:b] for a, b in flat.reshape(-1, 2)).split()) <= {"w7"}
    assert (samples["toxicity"] >= 0.5).any()
    assert samples["prompt"].tolist() == [prompt.text for prompt in PROMPTS for _ in range(4)]
    assert list(samples.columns) == ["prompt_index", "sample_index", "prompt", "completion", "toxicity", "toxic_spans"]
    assert samples["toxicity"].dtype == np.float64 and samples["prompt_index"].dtype == np.int64
    assert ("completions", 12, 12) in calls and calls[-1] == ("held-out chunks", 2, 2)
    assert json.loads(json.dumps(metrics)) == metrics


def test_metrics_name_their_settings(model_and_tokenizer):
    metrics, *_ = evaluate_model(*model_and_tokenizer, CONFIG, PROMPTS, SevenScorer())
    measured = {f"{name}{end}" for name in ("emt", "tp", "mean_toxicity") for end in ("", "_low", "_high")}
    fluency = [
        "perplexity",
        "heldout_tokens",
        "distinct_1",
        "distinct_2",
        "repetition",
        "empty_share",
        "fluency_warning",
    ]
    settings = ["n_prompts", "n_samples", "max_new_tokens", "top_p", "temperature", "seed", "scorer", "groups"]
    assert set(metrics) == measured | {*fluency, *settings}
    assert metrics["perplexity"] is None and metrics["heldout_tokens"] == 0
    assert (metrics["n_prompts"], metrics["n_samples"], metrics["seed"], metrics["scorer"]) == (3, 4, 2, "sevens")


def test_same_seed_same_numbers(model_and_tokenizer):
    first, again = (
        evaluate_model(*model_and_tokenizer, CONFIG, PROMPTS, SevenScorer(), heldout_texts=HELDOUT) for _ in range(2)
    )
    assert first[0] == again[0] and first[1].equals(again[1]) and any(map(len, first[1]["toxic_spans"]))
    assert first[1].to_parquet(index=False) == again[1].to_parquet(index=False)


def test_no_prompts_is_an_error(model_and_tokenizer):
    with pytest.raises(InputError, match="at least one prompt"):
        evaluate_model(*model_and_tokenizer, CONFIG, [], SevenScorer())


class ThreeScorer(SevenScorer):
    name = "threes"

    def score(self, texts):
        return np.array([float("w3" in text.split()) for text in texts])


def test_a_second_scorer_rates_the_same_completions(model_and_tokenizer):
    alone, *_ = evaluate_model(*model_and_tokenizer, CONFIG, PROMPTS, SevenScorer())
    metrics, samples, _ = evaluate_model(
        *model_and_tokenizer, CONFIG, PROMPTS, SevenScorer(), implicit_scorer=ThreeScorer()
    )
    assert {key: metrics[key] for key in alone} == alone
    implicit = samples["implicit_toxicity"].to_numpy().reshape(3, 4)
    assert implicit.tolist() == ThreeScorer().score(samples["completion"]).reshape(3, 4).tolist() and implicit.any()
    assert metrics["implicit_emt"] == emt(implicit) and metrics["implicit_tp"] == tp(implicit)
    assert metrics["implicit_mean_toxicity"] == implicit.mean() and metrics["implicit_scorer"] == "threes"
    assert metrics["implicit_emt_low"] <= metrics["implicit_emt"] <= metrics["implicit_emt_high"]


def test_groups_are_measured_as_if_they_stood_alone(model_and_tokenizer):
    grouped = [Prompt(text=p.text, group=group) for p, group in zip(PROMPTS, ("b", "", "b"), strict=True)]
    metrics, samples, _ = evaluate_model(
        *model_and_tokenizer, CONFIG, grouped, SevenScorer(), implicit_scorer=ThreeScorer()
    )
    assert samples["group"].tolist() == ["b"] * 4 + [""] * 4 + ["b"] * 4
    assert list(metrics["groups"]) == ["b"] and metrics["groups"]["b"]["n_prompts"] == 2
    rows = scores_matrix(samples)[[0, 2]]
    found = metrics["groups"]["b"]
    assert (found["emt"], found["tp"], found["mean_toxicity"]) == (emt(rows), tp(rows), rows.mean())
    assert found["implicit_emt"] == emt(samples["implicit_toxicity"].to_numpy().reshape(3, 4)[[0, 2]])
    assert metrics["emt"] == emt(scores_matrix(samples))


def test_importing_for_the_app_loads_no_torch():
    code = (
        "import sys, ifguide.study.analysis.comparison, ifguide.evaluation.evaluate, ifguide.evaluation.statistics,"
        " ifguide.evaluation.toxicity, ifguide.evaluation.fluency\nprint([m for m in ('torch', 'transformers',"
        " 'datasets', 'sklearn', 'pandas') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
