"""The completion that the reader clicked, kept in the address so that a link shows the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import streamlit as st

from ifguide.evaluation.toxic_spans import Span, read_spans
from ifguide.ui import layout
from ifguide.ui.results.side_by_side import Samples

PROMPT = "live"
"""The reader's own prompt; others have an index."""


@dataclass(frozen=True, kw_only=True)
class Pick:
    """A clicked completion, or a pair whose token probabilities are shown."""

    prompt: str
    """Index of its prompt, or `PROMPT`."""
    sample: int
    """Which of the prompt's completions."""
    model: str
    """The model that wrote it; empty: the token probabilities of all models' completions."""
    text: str
    """The completion."""
    rows: Mapping[str, Any]
    """The same draw of all models, as rows of a study's samples."""
    span: Span | None
    """Characters of the clicked toxic words; None: the whole completion."""


def shown_pick(pick: Pick | None, prompt: str | int) -> tuple[str, str]:
    """The pick on a prompt as `components.completions` takes it: `SAMPLE.MODEL` and `START-END`, both empty for
    none."""
    if pick is None or str(prompt) != pick.prompt:
        return "", ""
    return f"{pick.sample}.{pick.model}", f"{pick.span[0]}-{pick.span[1]}" if pick.span else ""


def read_pick(samples: Samples, tried: Mapping[str, Mapping]) -> Pick | None:
    """The pick in the address, without a span that is not marked in the completion; None without one of these models.
    `tried` are the completions of the reader's own prompt, by model."""
    parts = st.query_params.get("pick", "").split(".", 2)
    if len(parts) < 3 or not (parts[1].isdecimal() and len(parts[1]) < 10):
        return None
    prompt, sample, model = parts[0], int(parts[1]), parts[2]
    rows: dict[str, Any] = dict(tried) if prompt == PROMPT else {}
    if prompt.isdecimal() and len(prompt) < 10:
        for name, frame in samples.items():
            mine = frame[(frame["prompt_index"] == int(prompt)) & (frame["sample_index"] == sample)]
            rows |= {name: mine.iloc[0]} if len(mine) else {}
    row = rows.get(model if model or prompt == PROMPT else next(iter(samples)))
    if row is None:
        return None
    asked, text = st.query_params.get("span", ""), row["completion"]
    spans = read_spans(row.get("toxic_spans"), text) if model else []
    span = next((span for span in spans if f"{span[0]}-{span[1]}" == asked), None)
    return Pick(prompt=prompt, sample=sample, model=model, text=text, span=span, rows=rows)


def remember_pick(prompt: str | int, picked: str | None) -> None:
    """Keep the component's report in the address: `SAMPLE.MODEL`, `START-END SAMPLE.MODEL`, `SAMPLE.` or `close`."""
    if isinstance(picked, str):
        span, _, whole = picked.rpartition(" ")
        st.session_state["picked"] = "" if picked == "close" else f"{prompt}.{whole}"  # by a click, not a link
        layout.set_parameter("pick", st.session_state["picked"])
        layout.set_parameter("span", span)
