"""How toxic and how fluent a model is: prompts in; metrics and every sample out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ifguide.config.schema import EvaluateConfig
from ifguide.data.prompts import Prompt
from ifguide.errors import InputError
from ifguide.evaluation import statistics
from ifguide.evaluation.statistics import bootstrap_interval
from ifguide.runtime.distributed import current

if TYPE_CHECKING:
    import pandas as pd
    from transformers import LogitsProcessor

    from ifguide.evaluation.toxicity import ToxicityScorer


def evaluate_model(
    model,
    tokenizer,
    config: EvaluateConfig,
    prompts: Sequence[Prompt],
    scorer: "ToxicityScorer",
    *,
    implicit_scorer: "ToxicityScorer | None" = None,
    heldout_texts: Sequence[str] = (),
    lambada_texts: Sequence[str] = (),
    base: dict | None = None,
    work: Path | None = None,
    steer: "LogitsProcessor | None" = None,
    report: Callable[[str, int, int], None] | None = None,
) -> tuple[dict, "pd.DataFrame", "pd.DataFrame"] | None:
    """Complete every prompt, score the completions, and measure what else the model can do.

    The processes of a run divide the completions and the held-out text; the rest is the main one's, and the others give
    None.

    Args:
        config: sampling; its files and numbers of prompts are not read here.
        scorer: see `ifguide.evaluation.toxicity.load_scorer`.
        implicit_scorer: a second one; its numbers are called `implicit_...`.
        heldout_texts: benign texts the model was not trained on; empty: perplexity is None.
        lambada_texts: passages whose last word the model predicts; empty: not measured.
        base: metrics of the base model, to compare fluency with; None when this is the base model.
        work, steer: as in `ifguide.evaluation.generation.generate_completions`. Perplexity and last words are the
            model's own, without `steer`.
        report: called with (what is counted, done, in all).

    Returns:
        Metrics, as docs/formats.md names them; the samples: prompt_index, sample_index, prompt, completion, toxicity
        (float64, of the completion alone), with a second scorer implicit_toxicity, toxic_spans (int32 start, end,
        start, end, … of its toxic words, see `ifguide.evaluation.toxic_spans`), and with groups group; and the
        held-out texts, a row each: nats (float64, summed cross-entropy) and n_tokens (int64, predicted tokens).

    Raises:
        InputError: no prompts.
    """
    import pandas as pd

    from ifguide.evaluation import generation
    from ifguide.evaluation.fluency import distinct_n, fluency_warning, repetition_share
    from ifguide.evaluation.last_word import guess_last_words
    from ifguide.evaluation.toxic_spans import find_toxic_spans, flatten_spans

    if not prompts:
        raise InputError("evaluate: expected at least one prompt, got none; name a file in evaluate.prompts")

    def tell(what: str):
        return (lambda done, total: report(what, done, total)) if report else None

    starts = [prompt.text for prompt in prompts]
    completions = generation.generate_completions(model, tokenizer, starts, config, work, tell("completions"), steer)
    size = max(1, config.batch_size // 16)  # whole texts are much longer than completions
    fluency, heldout = _measure_perplexity(model, tokenizer, heldout_texts, config, size, tell("held-out chunks"))
    if not current().is_main:
        return None
    texts = [completion.completion for completion in completions]
    places = ("prompt_index", "sample_index")
    columns: dict = {name: np.array([getattr(c, name) for c in completions], dtype=np.int64) for name in places}
    columns |= {"prompt": [starts[c.prompt_index] for c in completions], "completion": texts}
    scorers = {"": scorer, **({"implicit_": implicit_scorer} if implicit_scorer else {})}
    columns |= {f"{lead}toxicity": rater.score(texts) for lead, rater in scorers.items()}
    spans = find_toxic_spans(texts, columns["toxicity"], scorer)
    columns["toxic_spans"] = [flatten_spans(found_in) for found_in in spans]
    metrics: dict = {}
    of_prompt = np.array([prompt.group for prompt in prompts])
    if any(of_prompt):
        columns["group"] = [prompts[c.prompt_index].group for c in completions]
    groups: dict[str, dict] = {}
    for lead in scorers:
        scores = columns[f"{lead}toxicity"].reshape(len(prompts), config.n_samples)
        metrics |= measure_toxicity(scores, lead, config.seed)
        for group, values in measure_groups(scores, of_prompt, lead, config.seed).items():
            groups.setdefault(group, {}).update(values)
    metrics |= fluency | {
        "distinct_1": distinct_n(texts, 1),
        "distinct_2": distinct_n(texts, 2),
        "repetition": repetition_share(texts),
        "empty_share": float(np.mean([not text.strip() for text in texts])),
    }
    if lambada_texts:
        words = guess_last_words(
            model, tokenizer, lambada_texts, last=config.lambada_last, batch_size=size, report=tell("passages")
        )
        metrics |= _with_bounds("lambada_accuracy", statistics.share_interval(words.correct)) | {
            "lambada_log_probability": float(words.log_probability.mean()),
            "lambada_passages": len(lambada_texts),
        }
    metrics |= {
        "fluency_warning": fluency_warning(metrics, base),
        "groups": groups,
        "n_prompts": len(prompts),
        **{name: getattr(config, name) for name in ("n_samples", "max_new_tokens", "top_p", "temperature", "seed")},
        **describe_scorer(scorer),
        **(describe_scorer(implicit_scorer, "implicit_") if implicit_scorer else {}),
    }
    return metrics, pd.DataFrame(columns), heldout


def _measure_perplexity(model, tokenizer, texts: Sequence[str], config, size: int, report) -> tuple:
    """Perplexity with its interval, and the loss of each held-out text."""
    import pandas as pd

    from ifguide.evaluation.fluency import heldout_losses, perplexity_of

    if not texts:
        nothing = {"nats": np.zeros(0), "n_tokens": np.zeros(0, dtype=np.int64)}
        return {"perplexity": None, "heldout_tokens": 0}, pd.DataFrame(nothing)
    losses = heldout_losses(model, tokenizer, texts, batch_size=size, report=report)
    metrics: dict = {"perplexity": perplexity_of(losses), "heldout_tokens": int(losses.tokens.sum())}
    if bounds := statistics.perplexity_interval(losses.nats, losses.tokens, seed=config.seed):
        metrics |= {"perplexity_low": bounds.low, "perplexity_high": bounds.high}
    return metrics, pd.DataFrame({"nats": losses.nats, "n_tokens": losses.tokens})


def measure_toxicity(scores: np.ndarray, lead: str = "", seed: int = 0) -> dict:
    """EMT, TP and mean toxicity of scores (P, K), each with a 95% interval over prompts in `_low` and `_high`: TP's is
    Wilson's, the others' bootstrap. Every name begins with `lead`."""
    metrics = _with_bounds(f"{lead}emt", bootstrap_interval(statistics.emt, scores, seed=seed))
    metrics |= _with_bounds(f"{lead}tp", statistics.share_interval(scores.max(axis=1) >= statistics.TOXIC_FROM))
    return metrics | _with_bounds(
        f"{lead}mean_toxicity", bootstrap_interval(statistics.mean_toxicity, scores, seed=seed)
    )


def measure_groups(scores: np.ndarray, of_prompt: np.ndarray, lead: str = "", seed: int = 0) -> dict[str, dict]:
    """`n_prompts` and `measure_toxicity` for each group, by its name, of the prompts of scores (P, K); `of_prompt`,
    (P,), has their names, empty for a prompt without one."""
    rows = {group: of_prompt == group for group in dict.fromkeys(filter(None, of_prompt.tolist()))}
    return {g: {"n_prompts": int(r.sum()), **measure_toxicity(scores[r], lead, seed)} for g, r in rows.items()}


def describe_scorer(scorer: "ToxicityScorer", lead: str = "") -> dict[str, str]:
    """Which judge rated, and the hash of what it computes with, where it has one."""
    digest = getattr(scorer, "digest", "")
    return {f"{lead}scorer": scorer.name, **({f"{lead}scorer_hash": digest} if digest else {})}


def _with_bounds(name: str, interval: statistics.Interval) -> dict[str, float]:
    return {f"{name}{end}": value for end, value in zip(("", "_low", "_high"), interval, strict=True)}
