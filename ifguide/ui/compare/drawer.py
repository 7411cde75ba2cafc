"""The drawer at the right edge: the training documents nearest to a clicked completion, or a pair's token
probabilities."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import streamlit as st

from ifguide.config.names import DEFAULT
from ifguide.data.word_index import COMMON_SHARE, TERMS_MOST, Term, WordIndex, mark_terms
from ifguide.errors import IFGuideError
from ifguide.evaluation.toxic_spans import Span, read_spans
from ifguide.study.analysis.likelihood import read_likelihoods
from ifguide.ui import components, layout
from ifguide.ui.compare import likelihood_view, live
from ifguide.ui.compare.side_by_side import Samples
from ifguide.ui.format import column, count, count_of, plain, sentence, share, variant_title
from ifguide.ui.loaders import Loaded

NEAREST = 8
"""Documents shown."""
HEADING_CHARACTERS = 80
"""Of a toxic span, shown above its documents."""


@dataclass(frozen=True, kw_only=True)
class Pick:
    """A completion that was clicked, or a pair whose token probabilities are wanted."""

    prompt: int
    """Index of its prompt; `LIVE`: the reader's own."""
    sample: int
    """Which of the prompt's completions."""
    model: str = ""
    """Whose; empty: the pair's token probabilities."""
    text: str = ""
    """The completion."""
    span: Span | None = None
    """Characters of the toxic words in it that were clicked; None: the completion as a whole."""

    @property
    def span_text(self) -> str:
        """As the address has it; empty for the whole completion."""
        return f"{self.span[0]}-{self.span[1]}" if self.span else ""

    @property
    def row_text(self) -> str:
        """As the component has it."""
        return f"{self.sample}.{self.model}"


def read_pick(samples: Samples) -> Pick | None:
    """The pick from the address; None where there is none of these models.

    Its span must be one that is marked in the completion; with any other one the completion is picked as a whole.
    """
    parts = st.query_params.get("pick", "").split(".", 2)
    if len(parts) < 3 or not all(part.isdecimal() and len(part) < 10 for part in parts[:2]):
        return None
    prompt, sample, model = int(parts[0]), int(parts[1]), parts[2]
    frame = next(iter(samples.values())) if not model else samples.get(model)
    if frame is None:
        return None
    rows = frame[(frame["prompt_index"] == prompt) & (frame["sample_index"] == sample)]
    if not len(rows):
        return None
    if not model:
        return Pick(prompt=prompt, sample=sample)
    row = rows.iloc[0]
    spans = read_spans(row.get("toxic_spans"), row["completion"])
    return choose_span(Pick(prompt=prompt, sample=sample, model=model, text=row["completion"]), spans)
