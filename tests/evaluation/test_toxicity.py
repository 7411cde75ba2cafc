import sys
import types

import numpy as np
import pytest
import torch

from ifguide.errors import ConfigError, InputError, NumericalError
from ifguide.evaluation import toxicity
from ifguide.evaluation.toxicity import (
    ClassifierScorer,
    QueryScorer,
    ToxicityScorer,
    find_toxic_label,
    load_scorer,
    score_visible,
)

TEXTS = ["have a nice day", "you are a stupid idiot", "", " \n\t", "the train leaves at nine"]


def save_classifier(folder, kind="bert", **settings):
    """A random text classifier with a word-level tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", *sorted({word for text in TEXTS for word in text.split()})]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=12,
        pad_token_id=0,
        **settings,
    )
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model.save_pretrained(folder)
    return str(folder)


def test_profanity_check_finds_insults_and_not_blanks():
    scorer = load_scorer("profanity-check")
    assert isinstance(scorer, ToxicityScorer)
    scores = scorer.score(TEXTS)
    assert scores.dtype == np.float64 and scores.shape == (5,)
    assert scores[1] > 0.9 and max(scores[0], scores[4]) < 0.5
    assert scores[2] == scores[3] == 0.0
    assert scorer.score([]).shape == (0,)


def test_a_classifier_of_the_queries_knows_their_words_and_is_the_same_each_time():
    toxic = [f" a {word} {noun}" for word in ("stupid", "lazy") for noun in ("idiot", "fool", "moron")]
    safe = [f" a {word} {noun}" for word in ("kind", "clever") for noun in ("fox", "friend", "teacher")]
    scorer = QueryScorer(toxic, safe)
    assert isinstance(scorer, ToxicityScorer)
    scores = scorer.score([" an idi", " stupi", " a frie", "kind", " "])  # words still being written, too
    assert scores.dtype == np.float64 and scores[:2].min() > 0.5 > scores[2:4].max() and scores[4] == 0.0
    assert scorer.score(TEXTS).tobytes() == QueryScorer(toxic, safe).score(TEXTS).tobytes()


def test_a_score_belongs_to_its_text_alone():
    scorer = load_scorer("profanity-check")
    assert scorer.score(TEXTS[::-1])[::-1].tolist() == scorer.score(TEXTS).tolist()


def test_batches_change_no_score():
    def lengths(texts):
        return [len(text) / 100 for text in texts]

    for batch_size in (1, 2, 50):
        assert score_visible(TEXTS, lengths, batch_size).tolist() == [0.15, 0.22, 0, 0, 0.24]


def test_scores_out_of_range_are_refused():
    for bad in (1.5, -0.1, float("nan")):
        with pytest.raises(NumericalError, match="from 0 to 1"):
            score_visible(["a"], lambda texts, bad=bad: [bad])


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_classifier_probability_is_its_softmax(tmp_path, kind, monkeypatch):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source = save_classifier(tmp_path, kind)
    scorer = load_scorer(f"classifier:{source}")
    assert scorer.name == f"classifier:{source}#LABEL_1"
    scores = scorer.score(TEXTS)
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForSequenceClassification.from_pretrained(source).eval()
    for i in (0, 1, 4):
        with torch.no_grad():
            logits = model(**tokenizer(TEXTS[i], return_tensors="pt")).logits[0]
        assert scores[i] == pytest.approx(logits.softmax(-1)[1].item(), abs=1e-5)
    assert scores[2] == scores[3] == 0.0
    monkeypatch.setattr(toxicity, "TEXTS_AT_ONCE", 1)
    other = ClassifierScorer(source, "0").score(TEXTS)
    assert (scores + other)[[0, 1, 4]] == pytest.approx(1.0)
    assert 0 <= scorer.score(["nice day " * 40])[0] <= 1, "a long text is cut"


def test_independent_classes_have_a_sigmoid_each(tmp_path):
    labels = {0: "toxic", 1: "threat", 2: "insult"}
    settings = dict(
        id2label=labels, label2id={name: i for i, name in labels.items()}, problem_type="multi_label_classification"
    )
    source = save_classifier(tmp_path, **settings)
    scorers = [load_scorer(f"classifier:{source}{label}") for label in ("", *(f"#{name}" for name in labels.values()))]
    scores = [scorer.score(TEXTS) for scorer in scorers]
    assert scorers[2].name.endswith("#threat")
    assert np.array_equal(scores[0], scores[1]) and not np.allclose(sum(scores[1:])[0], 1.0)


def test_toxic_class_is_found_or_asked_for():
    assert find_toxic_label({0: "NON_HATE", 1: "HATE"}) == 1
    assert find_toxic_label({0: "toxic", 1: "neutral"}) == 0
    assert find_toxic_label({0: "LABEL_0", 1: "LABEL_1"}) == 1
    assert find_toxic_label({0: "a", 1: "b"}, "B") == 1
    with pytest.raises(ConfigError, match=r"0 \(a\), 1 \(b\)"):
        find_toxic_label({0: "a", 1: "b"})
    with pytest.raises(ConfigError, match="'c'"):
        find_toxic_label({0: "a", 1: "b"}, "c")


def test_missing_classifier_says_what_is_needed(tmp_path):
    with pytest.raises(InputError, match="safetensors"):
        load_scorer(f"classifier:{tmp_path}")


def test_detoxify_is_asked_for_its_toxicity(monkeypatch):
    class Detoxify:
        def __init__(self, variant, device):
            self.variant = variant

        def predict(self, texts):
            return {"toxicity": [0.9 if "idiot" in text else 0.1 for text in texts], "threat": [0.5] * len(texts)}

    monkeypatch.setitem(sys.modules, "detoxify", types.SimpleNamespace(Detoxify=Detoxify))
    assert load_scorer("detoxify").name == "detoxify:original"
    scorer = load_scorer("detoxify:unbiased")
    assert scorer.name == "detoxify:unbiased" and scorer._model.variant == "unbiased"
    assert scorer.score(TEXTS).tolist() == [0.1, 0.9, 0.0, 0.0, 0.1]


def test_missing_package_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "detoxify", None)
    with pytest.raises(InputError, match="pip install detoxify"):
        load_scorer("detoxify")


def test_unknown_specs_are_refused():
    for spec in ("", "nothing", "classifier:", "judge:", "profanity-check:x", "detoxify:huge"):
        with pytest.raises(ConfigError, match=r"evaluate\.scorer"):
            load_scorer(spec)
