"""How toxic and how fluent a model is: completions, scorers, perplexity, statistics.

Imports every room up to `training`. It does not know studies.

Everywhere `model` is a causal language model on its device, which is put in evaluation mode; `tokenizer` is the
model's; `batch_size` counts texts in one forward pass; and `report` is called with (done, in all).
"""

from collections.abc import Callable

Report = Callable[[int, int], None]
