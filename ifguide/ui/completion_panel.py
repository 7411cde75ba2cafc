"""Under a prompt: what is known of the completion that was clicked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import streamlit as st

from ifguide.ui.loaders import Loaded

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Pick:
    """A completion that was clicked."""

    prompt: int
    """Index of its prompt."""
    sample: int
    """Which of the prompt's completions."""
    model: str
    """Whose."""


def read_pick(samples: "Mapping[str, pd.DataFrame]") -> Pick | None:
    """The picked completion from the address; None where there is none of these models."""
    parts = st.query_params.get("pick", "").split(".", 2)
    if len(parts) < 3 or not all(part.isdecimal() and len(part) < 10 for part in parts[:2]) or parts[2] not in samples:
        return None
    found = Pick(prompt=int(parts[0]), sample=int(parts[1]), model=parts[2])
    frame = samples[found.model]
    there = (frame["prompt_index"] == found.prompt) & (frame["sample_index"] == found.sample)
    return found if there.any() else None


def remember_pick(prompt: int, picked: str) -> None:
    """Keep what the component said in the address: `SAMPLE.MODEL`, or `close`."""
    if picked == "close":
        st.query_params.pop("pick", None)
    else:
        st.query_params["pick"] = f"{prompt}.{picked}"


def show_panel(loaded: Loaded, samples: "Mapping[str, pd.DataFrame]", pick: Pick, colours: Mapping[str, str]) -> None:
    """The panel."""
