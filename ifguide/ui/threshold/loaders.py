"""The Threshold page's numbers, remembered for each study and kind of scores."""

import streamlit as st

from ifguide.ui.loaders import Loaded, remembered_index
from ifguide.ui.threshold import board
from ifguide.ui.threshold.tuning import Tuning


def default_tuning(loaded: Loaded, kind: str) -> Tuning:
    """The controls as study.toml sets them, for one kind of scores."""
    settings = loaded.study.config.selection
    above = loaded.resolved({"attribution": kind}).n_above
    return Tuning(tokens_above=above, window=settings.window, max_tokens=settings.max_tokens)


def board_parts(loaded: Loaded, kind: str) -> dict:
    """The board's numbers that do not depend on the controls."""
    return _board_parts(*loaded.key, kind)


def source_knots(loaded: Loaded, kind: str, window: int) -> dict:
    """The sources' counts at some of the knots."""
    return _source_knots(*loaded.key, kind, window)


@st.cache_resource(max_entries=4, show_spinner=False)
def _board_parts(root: str, fingerprint: str, kind: str) -> dict:
    return board.board_parts(remembered_index(root, fingerprint, kind))


@st.cache_resource(max_entries=12, show_spinner=False)
def _source_knots(root: str, fingerprint: str, kind: str, window: int) -> dict:
    return board.source_knots(remembered_index(root, fingerprint, kind).preview(), window)
