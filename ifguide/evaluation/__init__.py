"""How toxic and how fluent a model is: completions, scorers, perplexity, statistics.

Imports every room up to `training`. It does not know studies.

Everywhere `model` is a causal language model on its device, which is put in evaluation mode; `tokenizer` is the
model's; `batch_size` counts texts in one forward pass; and `report` is called with (done, in all).
"""

from collections.abc import Callable

from ifguide.evaluation.statistics import (
    bootstrap_interval,
    emt,
    paired_bootstrap_difference,
    paired_perplexity_difference,
    perplexity_interval,
    share_interval,
    tp,
)

__all__ = [
    "Report",
    "bootstrap_interval",
    "emt",
    "paired_bootstrap_difference",
    "paired_perplexity_difference",
    "perplexity_interval",
    "share_interval",
    "tp",
]

Report = Callable[[int, int], None]
