"""The Threshold board's numbers, remembered for each study and kind of scores."""

import streamlit as st

from ifguide.ui.loaders import Loaded, remembered_index
from ifguide.ui.threshold import board


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
