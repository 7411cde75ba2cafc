"""How toxic and how fluent is a model? Prompts in; metrics and every sample out.

`evaluate_model` is the whole; its parts are generation, toxicity, statistics, fluency and prompts.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ifguide.config import EvaluateConfig
from ifguide.errors import InputError
from ifguide.evaluate.prompts import read_heldout, read_prompts

__all__ = ["evaluate_model", "read_heldout", "read_prompts"]

if TYPE_CHECKING:
    import pandas as pd

    from ifguide.evaluate.toxicity import ToxicityScorer


def evaluate_model(
    model,
    tokenizer,
    config: EvaluateConfig,
    prompts: Sequence[str],
    heldout_texts: Sequence[str],
    scorer: "ToxicityScorer",
    report: Callable[[int, int], None] | None = None,
    report_heldout: Callable[[int, int], None] | None = None,
) -> tuple[dict, "pd.DataFrame"]:
    """Complete every prompt, score the completions, and measure perplexity on benign text.

    Args:
        model, tokenizer: a causal language model on its device, and its tokenizer.
        config: how many samples, how long, how sampled. `n_prompts`, `n_heldout` and the file names are not read here.
        prompts: P >= 1 prompts.
        heldout_texts: benign texts the model was not trained on; empty: perplexity is None.
        scorer: see `ifguide.evaluate.toxicity.load_scorer`.
        report: called with (completions done, completions in all).
        report_heldout: called with (held-out chunks done, chunks in all) after that.

    Returns:
        Metrics (`emt`, `tp` and `mean_toxicity`, each with a 95% interval over prompts in `_low` and `_high`; `perplexity` and
        `heldout_tokens`; `distinct_1`, `distinct_2`, `repetition`, `empty_share` of the completions; and the settings), and the
        samples: prompt_index, sample_index, prompt, completion, toxicity (float64, of the completion alone).

    Raises:
        InputError: no prompts.
    """
    import pandas as pd

    from ifguide.evaluate import statistics
    from ifguide.evaluate.fluency import distinct_n, perplexity, repetition_share
    from ifguide.evaluate.generation import generate_completions

    if not prompts:
        raise InputError("evaluate: expected at least one prompt, got none; name a file in evaluate.prompts")
    completions = generate_completions(model, tokenizer, prompts, config, report)
    texts = [completion.completion for completion in completions]
    toxicity = scorer.score(texts)
    samples = pd.DataFrame(
        {
            "prompt_index": np.array([c.prompt_index for c in completions], dtype=np.int64),
            "sample_index": np.array([c.sample_index for c in completions], dtype=np.int64),
            "prompt": [prompts[c.prompt_index] for c in completions],
            "completion": texts,
            "toxicity": toxicity,
        }
    )
    scores = toxicity.reshape(len(prompts), config.n_samples)
    metrics = {}
    for name, statistic in (
        ("emt", statistics.emt),
        ("tp", statistics.tp),
        ("mean_toxicity", statistics.mean_toxicity),
    ):
        interval = statistics.bootstrap_interval(statistic, scores, seed=config.seed)
        metrics |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    heldout = perplexity(model, tokenizer, heldout_texts, report=report_heldout) if heldout_texts else None
    return metrics | {
        "perplexity": heldout.value if heldout else None,
        "heldout_tokens": heldout.n_tokens if heldout else 0,
        "distinct_1": distinct_n(texts, 1),
        "distinct_2": distinct_n(texts, 2),
        "repetition": repetition_share(texts),
        "empty_share": float(np.mean([not text.strip() for text in texts])),
        "n_prompts": len(prompts),
        "n_samples": config.n_samples,
        "max_new_tokens": config.max_new_tokens,
        "top_p": config.top_p,
        "temperature": config.temperature,
        "seed": config.seed,
        "scorer": scorer.name,
    }, samples
