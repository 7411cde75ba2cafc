"""The index behind the threshold: what any threshold, window and budget select from a billion tokens, unscanned."""

from ifguide.selection.coverage import MAX_WINDOW
from ifguide.selection.index.results import Holding, Overlap, Preview, Resolved
from ifguide.selection.index.score_index import ScoreIndex

__all__ = ["MAX_WINDOW", "Holding", "Overlap", "Preview", "Resolved", "ScoreIndex"]
