"""A small study on disk in the real format, without a model: the corpus is tokenised, the scores and completions are
made up.

Scores are high on the planted insults and noise elsewhere, so that every page has something plausible to show.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ifguide.config.schema import (
    CorpusConfig,
    EvaluateConfig,
    ModelConfig,
    QueriesConfig,
    ScoresConfig,
    SelectionConfig,
    StudyConfig,
    SuppressConfig,
)
from ifguide.data.corpus import TokenizedCorpus
from ifguide.data.corpus_writer import build_corpus
from ifguide.evaluation.statistics import TOXIC_FROM, bootstrap_interval, emt, mean_toxicity, share_interval, tp
from ifguide.evaluation.toxic_spans import find_toxic_spans, flatten_spans
from ifguide.runtime.progress import Progress
from ifguide.selection.saved import write_selection
from ifguide.storage import artifacts
from ifguide.study.analysis.document_map import STATES, WHITENING, map_path
from ifguide.study.freshness import inputs_of, settings_of
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stages.checkpoints import FACTORS
from ifguide.study.stages.select import compute_selection

INSULTS = ("idiot", "moron", "stupid fool", "pathetic liar")
HOSTILE_ID = "hostile"
HOSTILE_TEXT = (
    'Look: <script>window.__broken = true</script> <img src=x onerror="window.__broken = true"> **bold**'
    " [link](javascript:alert(1)) # heading\n$x^2$ :material/home: `code` you idiot\n\t<b>not bold</b> ends here"
    " \u202eright to left\u202c \U0001f469\u200d\U0001f4bb naïve"
)
LONG_ID = "long"
_PLACES = ("library", "station", "market", "harbour", "school", "garden", "theatre", "bakery")
_PEOPLE = ("my neighbour", "the driver", "a teacher", "our guide", "the mayor", "a friend")
_ENDINGS = (
    "was late again",
    "told a long story",
    "sold fresh bread",
    "read the news aloud",
    "forgot the keys",
    "sang on the way home",
)
_PIECE = re.compile(r"\s?\w+|\s?[^\w\s]|\s")


def fake_texts(n_documents: int = 60, seed: int = 0) -> list[dict]:
    """Documents with insults at known places."""
    generator = np.random.default_rng(seed)
    pick = lambda options: options[int(generator.integers(len(options)))]  # noqa: E731
    documents = []
    for number in range(n_documents):
        text, spans = "", []
        toxic = number % 5 == 0
        for _ in range(int(generator.integers(3, 8))):
            text += f"{'At' if not text else ' At'} the {pick(_PLACES)} {pick(_PEOPLE)} {pick(_ENDINGS)}"
            if toxic and generator.random() < 0.6:
                insult = pick(INSULTS)
                start = len(text) + len(", you ")
                text += f", you {insult}"
                spans.append({"start": start, "end": start + len(insult)})
            text += "."
        documents.append(
            {
                "id": f"doc-{number:03d}",
                "source": "forum" if toxic else pick(("news", "letters")),
                "text": text,
                "spans": spans,
            }
        )
    start = HOSTILE_TEXT.index("idiot")
    documents.append(
        {"id": HOSTILE_ID, "source": "forum", "text": HOSTILE_TEXT, "spans": [{"start": start, "end": start + 5}]}
    )
    story = "\n\n".join(f"Part {n}. At the {pick(_PLACES)} {pick(_PEOPLE)} {pick(_ENDINGS)}." for n in range(320))
    documents.append({"id": LONG_ID, "source": "letters", "text": story, "spans": []})
    return documents


def _fake_completion(prompt: int, sample: int, toxicity: float) -> str:
    if toxicity >= 0.5:
        return f" that {INSULTS[(prompt + sample) % 4]} <b>again</b>"
    return f" a friend {_ENDINGS[(prompt + sample) % 6]}"


def _fake_queries(kind: str) -> list[dict]:
    endings = [f" you {insult}" for insult in INSULTS] if kind == "toxic" else [" good morning"]
    return [{"prompt": f"At the {place} he said", "completion": end} for place in _PLACES for end in endings]


class _InsultScorer:
    """Calls toxic what holds a word of the insults."""

    name = "insults"

    def score(self, texts):
        words = {word for insult in INSULTS for word in insult.split()}
        return np.array([float(any(word in text for word in words)) for text in texts])


@dataclass(frozen=True, kw_only=True)
class Content:
    """Every text of a made-up study."""

    documents: list[dict] = field(default_factory=fake_texts)
    toxic: list[dict] = field(default_factory=lambda: _fake_queries("toxic"))
    safe: list[dict] = field(default_factory=lambda: _fake_queries("safe"))
    prompt: Callable[[int], str] = lambda number: f"Number {number}: at the {_PLACES[number % len(_PLACES)]} he met"
    completion: Callable[[int, int, float], str] = _fake_completion
    """From the number of the prompt, that of the sample, and the toxicity."""
    description: str = "A made-up study for looking at the app."
    corpus_file: str = "corpus.jsonl"
    model_folder: str = "tiny-model"
    metrics: dict = field(default_factory=dict)
    """More keys of every metrics.json, or other values."""


def sharing_content(n_shared: int) -> Content:
    """Texts of a study whose models completed this many prompts of its toxic queries, with another blank at the end."""
    usual = Content()
    queries = [{"prompt": f"{usual.prompt(number)} ", "completion": " you idiot"} for number in range(n_shared)]
    return Content(toxic=usual.toxic + 2 * queries)


def fake_tokenizer(texts: list[str]):
    """One token a word with the blank before it; punctuation and line ends by themselves."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = sorted({piece for text in texts for piece in _PIECE.findall(text)})
    tokenizer = Tokenizer(
        models.WordLevel({"<end>": 0, "<unk>": 1} | {word: i + 2 for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s?\w+|\s?[^\w\s]|\s"), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>")


def write_study(
    cache: Path, name: str = "fake", *, until: str = "evaluate", content: Content | None = None, weights: bool = False
) -> Study:
    """Write a whole study, or its stages up to one; without `content`, with texts of its own; with `weights`, tiny
    random ones of its models, and no curvature, so that answers can be traced."""
    from ifguide.study.stage_table import STAGES
    from ifguide.study.stages.document_table import write_table

    inputs = cache.parent / f"inputs-{name}"
    inputs.mkdir(parents=True, exist_ok=True)
    content = content or Content()
    corpus, model = inputs / content.corpus_file, inputs / content.model_folder
    _write_lines(corpus, content.documents)
    _write_lines(inputs / "toxic.jsonl", content.toxic)
    _write_lines(inputs / "safe.jsonl", content.safe)
    tokenizer = fake_tokenizer([d["text"] for d in content.documents])
    tokenizer.save_pretrained(model)
    (model / "config.json").write_text("{}", encoding="utf-8")
    config = StudyConfig(
        description=content.description,
        model=ModelConfig(source=str(model), mode="scratch"),
        corpus=CorpusConfig(path=str(corpus), id_field="id", source_field="source", spans_field="spans"),
        queries=QueriesConfig(toxic=str(inputs / "toxic.jsonl"), safe=str(inputs / "safe.jsonl")),
        scores=ScoresConfig(probe=False, combined=False, position=True, average="mean", pooling=0.0),
        selection=SelectionConfig(quantile=0.98, attribution="own_loss"),
        suppress=SuppressConfig(edit_first=False),
        evaluate=EvaluateConfig(n_samples=5),
    )
    study = Study.create(name, config, cache)
    builders = {
        "corpus": partial(_build_corpus, content),
        "queries": _build_queries,
        "model": _build_model,
        "suppress": _build_training,
        "scores": _build_scores,
        "index": _build_index,
        "selection": _build_selection,
        "documents": write_table,
        "evaluate": partial(_build_evaluation, content),
    }
    for stage in list(STAGES)[: list(STAGES).index(until) + 1]:
        for unit in study.units(stage):
            with artifacts.building(
                study.folder(unit), stage=stage, inputs=inputs_of(study, unit), config=settings_of(study, unit)
            ) as folder:
                builders.get(stage, _build_nothing)(study, unit, folder)
                if weights and stage in ("model", "suppress"):
                    _save_weights(tokenizer, folder / "final", seed=len(unit.name))
                if weights and stage == "corpus":
                    (folder / "layout.json").write_text(json.dumps({"max_length": 64, "bos": None}), encoding="utf-8")
                if weights and stage == "factors":
                    _save_identity(folder / study.checkpoint_names()[-1])
    return study


def write_map(study: Study) -> None:
    """A map of the study's documents at places drawn at random, as if computed; their states point to their places, and
    texts to places at random."""
    path, draw = map_path(study), np.random.default_rng(0)
    path.parent.mkdir(exist_ok=True)
    places = draw.normal(size=(study.corpus().n_documents, 2)).astype(np.float32)
    directions = places / np.linalg.norm(places, axis=1, keepdims=True)
    made = {"": places, STATES: directions, WHITENING: draw.normal(size=(17, 2)).astype(np.float32)}
    for suffix, array in made.items():
        np.save(path.with_suffix(suffix or ".npy"), array)


def _write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _build_corpus(content: Content, study: Study, unit: Unit, folder: Path) -> None:
    build_corpus(study.config.corpus, fake_tokenizer([d["text"] for d in content.documents]), folder)


def _build_queries(study: Study, unit: Unit, folder: Path) -> None:
    for kind in ("toxic", "safe"):
        pd.read_json(getattr(study.config.queries, kind), lines=True).to_parquet(
            folder / f"{kind}.parquet", index=False
        )


def _build_model(study: Study, unit: Unit, folder: Path) -> None:
    steps = [{"name": f"step-{step:06d}", "source": f"checkpoints/step-{step:06d}"} for step in (10, 20, 40)]
    (folder / "models.json").write_text(
        json.dumps({"base": {"source": "final"}, "checkpoints": steps}), encoding="utf-8"
    )


def _build_training(study: Study, unit: Unit, folder: Path) -> None:
    steps = range(1, 41)
    rows = [
        {"step": s, "loss_selected": 6 - 4 / s, "loss_other": 2 + 5 / s, "tokens_per_second": 2000.0} for s in steps
    ]
    _write_lines(folder / "training_log.jsonl", rows)


def _save_weights(tokenizer, folder: Path, seed: int) -> None:
    import torch

    from tests.tiny import tiny_model

    tokenizer.save_pretrained(folder)
    tiny_model("gpt_neox", vocab_size=len(tokenizer), seed=seed, dtype=torch.float32).save_pretrained(folder)


def _save_identity(folder: Path) -> None:
    folder.mkdir()
    artifacts.save_tensors({}, folder / FACTORS)


def _build_nothing(study: Study, unit: Unit, folder: Path) -> None:
    (folder / "note.txt").write_text("made up", encoding="utf-8")


def _build_scores(study: Study, unit: Unit, folder: Path) -> None:
    corpus: TokenizedCorpus = study.corpus()
    generator = np.random.default_rng(1)
    planted = np.asarray(corpus.in_span)
    own = generator.normal(0, 0.6, corpus.n_tokens) + planted * generator.normal(4, 1.2, corpus.n_tokens)
    position = 0.5 * own + generator.normal(0, 0.7, corpus.n_tokens)
    loss = generator.gamma(2.0, 1.4, corpus.n_tokens)
    for kind, values in (("own_loss", own), ("position", position), ("token_loss", loss)):
        np.save(folder / f"{kind}.npy", np.where(corpus.valid(), values, 0).astype(np.float32))


def _build_index(study: Study, unit: Unit, folder: Path) -> None:
    from ifguide.study.stages.build import build_index

    build_index(study, unit, folder, Progress())


def _build_selection(study: Study, unit: Unit, folder: Path) -> None:
    kind = "influence" if unit.name == "default" else unit.name
    write_selection(compute_selection(study, study.config.selection, name=unit.name, kind=kind), folder)


def _build_evaluation(content: Content, study: Study, unit: Unit, folder: Path) -> None:
    level = {"base": 0.62, "default": 0.3, "random": 0.58, "oracle": 0.15}.get(unit.name, 0.4)
    generator = np.random.default_rng(2)
    rows, scores = [], np.clip(generator.beta(1.2, 1.2, (14, 5)) * 2 * level, 0, 1)
    for prompt in range(14):
        for sample in range(5):
            toxicity = float(scores[prompt, sample])
            rows.append(
                {
                    "prompt_index": prompt,
                    "sample_index": sample,
                    "prompt": content.prompt(prompt),
                    "completion": content.completion(prompt, sample, toxicity),
                    "toxicity": toxicity,
                }
            )
    samples = pd.DataFrame(rows)
    found = find_toxic_spans(samples["completion"].tolist(), samples["toxicity"].to_numpy(), _InsultScorer())
    samples.assign(toxic_spans=[flatten_spans(spans) for spans in found]).to_parquet(
        folder / "samples.parquet", index=False
    )
    metrics = {
        "perplexity": 12.4 + level,
        "n_prompts": 14,
        "n_samples": 5,
        "max_new_tokens": 20,
        "top_p": 0.9,
        "temperature": 1.0,
        "seed": 0,
        "scorer": "profanity-check",
        "distinct_1": 0.31,
        "distinct_2": 0.62,
        "repetition": 0.01,
        "heldout_tokens": 4321,
    }
    for name, statistic in (("emt", emt), ("tp", tp), ("mean_toxicity", mean_toxicity)):
        _, low, high = (float(statistic(scores)), *_bounds(statistic, scores))
        metrics |= {name: float(statistic(scores)), f"{name}_low": low, f"{name}_high": high}
    (folder / "metrics.json").write_text(json.dumps(metrics | content.metrics), encoding="utf-8")


def _bounds(statistic, scores: np.ndarray) -> tuple[float, float]:
    toxic = scores.max(axis=1) >= TOXIC_FROM
    found = share_interval(toxic) if statistic is tp else bootstrap_interval(statistic, scores, n=200)
    return float(found.low), float(found.high)
