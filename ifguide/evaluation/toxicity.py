"""Toxicity scorers: texts in, probabilities out.

A completion is scored without its prompt, so that a toxic prompt does not count against a clean completion. A text
without a visible character scores 0 with every scorer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from ifguide.errors import ConfigError, InputError
from ifguide.evaluation.judges.linear import DEFAULT, HASHED, LinearJudge, built_in, digest_folder, score_visible

TEXTS_AT_ONCE = 64
"""For scorers that are neural networks."""
DEFAULT_SCORER = "profanity-check"
"""The judge that comes with the package."""
SPECS = (
    f"{DEFAULT_SCORER}, judge:FOLDER, detoxify[:original|unbiased|multilingual] or"
    " classifier:PATH_OR_ID[@REVISION][#LABEL]"
)


@runtime_checkable
class ToxicityScorer(Protocol):
    """Anything with a name and a `score`; where what it computes with is in files, also a `digest` of them."""

    name: str
    """Recorded with every score."""

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """float64 (n,): the probability, 0 to 1, that each text is toxic."""
        ...


class QueryScorer:
    """Logistic regression over character n-grams of a study's toxic and safe completions, which influence knows too."""

    name = "queries"

    def __init__(self, toxic: Sequence[str], safe: Sequence[str]):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        n_grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5))
        self._model = make_pipeline(n_grams, LogisticRegression(class_weight="balanced", max_iter=1000))
        self._model.fit([*toxic, *safe], [True] * len(toxic) + [False] * len(safe))

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """float64 (n,): probability of the toxic completions' class."""
        return score_visible(texts, lambda part: self._model.predict_proba(part)[:, 1])


class DetoxifyScorer:
    """The Detoxify classifiers of toxic comments. An optional extra; downloads its weights on first use.

    Its weights are a torch checkpoint that torch reads by unpickling. The same model as safetensors is
    `classifier:unitary/toxic-bert#toxic`.
    """

    VARIANTS = ("original", "unbiased", "multilingual")

    def __init__(self, variant: str = "original", *, device: str = "cpu"):
        if variant not in self.VARIANTS:
            variants = ", ".join(self.VARIANTS)
            raise ConfigError(f"evaluate.scorer: expected detoxify with one of {variants}, got {variant!r}")
        try:
            from detoxify import Detoxify
        except ImportError as error:
            problem = "the package detoxify is not installed; run: pip install detoxify"
            raise InputError(f"scorer detoxify:{variant}: {problem}") from error
        self.name = f"detoxify:{variant}"
        try:
            self._model = Detoxify(variant, device=device)
        except Exception as error:
            problem = f"scorer {self.name}: its weights could not be loaded ({error})"
            raise InputError(f"{problem}; check the network, or use profanity-check") from error

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """float64 (n,): Detoxify's `toxicity`."""
        return score_visible(texts, lambda part: self._model.predict(list(part))["toxicity"], TEXTS_AT_ONCE)


class ClassifierScorer:
    """A Hugging Face text classifier from a folder or the hub, such as ToxiGen-RoBERTa, in safetensors. A hub id may
    name its revision: `ID@REVISION`. `label` is the name or number of the toxic class; None finds it, see
    `find_toxic_label`, whose errors this has as well. An InputError: nothing loadable there."""

    def __init__(self, source: str, label: str | None = None, *, device: str = "cpu"):
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # it would write into the middle of ours
        name, _, revision = (source, "", "") if Path(source).exists() else source.partition("@")
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(name, revision=revision or "main", trust_remote_code=False)
            model = AutoModelForSequenceClassification.from_pretrained(
                name, revision=revision or "main", use_safetensors=True, trust_remote_code=False
            )
        except Exception as error:
            expected = "a folder or hub id of a text classifier with safetensors weights"
            raise InputError(f"scorer classifier:{source}: expected {expected}, got {error}") from error
        self._model = model.to(device).eval()
        self._label = find_toxic_label(model.config.id2label, label)
        # exclusive classes share a softmax; a single class and independent ones have a sigmoid each
        self._independent = model.config.num_labels == 1 or model.config.problem_type == "multi_label_classification"
        self.name = f"classifier:{source}#{model.config.id2label[self._label]}"
        weights = sorted(path.name for path in Path(source).glob("*.safetensors"))
        commit = getattr(model.config, "_commit_hash", None) or ""
        self.digest = digest_folder(Path(source), ["config.json", *weights]) if weights else commit[:12]

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """float64 (n,): probability of the toxic class. Texts beyond the classifier's length are cut at the end."""
        return score_visible(texts, self._score_batch, TEXTS_AT_ONCE)

    def _score_batch(self, texts: Sequence[str]) -> np.ndarray:
        import torch

        from ifguide.models.loading import context_length

        room = context_length(self._model.config)
        if room > 2 and self._model.config.model_type in ("roberta", "xlm-roberta", "camembert"):
            room -= 2  # their positions start at 2
        limit = min(self._tokenizer.model_max_length, room)
        encoded = self._tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True, max_length=limit)
        with torch.inference_mode():
            logits = self._model(**encoded.to(self._model.device)).logits.double()
        probabilities = logits.sigmoid() if self._independent else logits.softmax(-1)
        return probabilities[:, self._label].cpu().numpy()


def find_toxic_label(id2label: dict[int, str], label: str | None = None) -> int:
    """The number of the toxic class: the one with this name (in any case) or number; without a `label` the one with a
    usual name, or class 1 of two unnamed classes, as in ToxiGen-RoBERTa. A ConfigError, which lists the classes: there
    is no such class, or it is not clear which."""
    names = {int(i): name for i, name in id2label.items()}
    lowered = {name.lower(): i for i, name in names.items()}
    choices = ", ".join(f"{i} ({name})" for i, name in sorted(names.items()))
    if label is not None:
        if label.lower() in lowered:
            return lowered[label.lower()]
        if label.isdigit() and int(label) in names:
            return int(label)
        raise ConfigError(f"evaluate.scorer: expected one of the classes {choices}, got {label!r}")
    for word in ("toxic", "toxicity", "hate", "hateful", "offensive", "abusive"):
        if word in lowered:
            return lowered[word]
    if set(lowered) == {"label_0", "label_1"}:
        return lowered["label_1"]
    if len(names) == 1:
        return next(iter(names))
    expected = "a class that clearly is the toxic one"
    raise ConfigError(f"evaluate.scorer: expected {expected}, got {choices}; add #LABEL to the scorer")


def classifier_source(spec: str) -> str:
    """The folder or hub id of the classifier or judge that a setting names; empty for another scorer."""
    kind, _, rest = spec.partition(":")
    if kind == DEFAULT_SCORER:
        return str(DEFAULT)
    return rest.partition("#")[0] if kind in ("classifier", "judge") else ""


def classifier_files(spec: str) -> tuple[str, ...]:
    """The files that decide the scores, of the folder a setting names; empty: all of them."""
    return HASHED if spec.partition(":")[0] in (DEFAULT_SCORER, "judge") else ()


def load_scorer(spec: str, *, device: str = "cpu") -> ToxicityScorer:
    """The scorer that `evaluate.scorer` or `evaluate.implicit` names, one of `SPECS`; neural networks are on the
    device. A ConfigError: no such scorer; an InputError: it is not installed or cannot be loaded."""
    kind, _, rest = spec.partition(":")
    if kind == DEFAULT_SCORER and not rest:
        return built_in()
    if kind == "judge" and rest:
        return LinearJudge(Path(rest).expanduser())
    if kind == "detoxify":
        return DetoxifyScorer(rest or "original", device=device)
    if kind == "classifier" and rest:
        source, _, label = rest.partition("#")
        return ClassifierScorer(source, label or None, device=device)
    raise ConfigError(f"evaluate.scorer: expected {SPECS}, got {spec!r}")
