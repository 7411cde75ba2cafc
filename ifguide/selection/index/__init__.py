"""The index behind the threshold: what any threshold, window and budget select, without a scan of a billion tokens."""

from ifguide.selection.coverage import MAX_WINDOW
from ifguide.selection.index.results import Holding, Overlap, Preview, Resolved
from ifguide.selection.index.score_index import ScoreIndex

__all__ = ["MAX_WINDOW", "Holding", "Overlap", "Preview", "Resolved", "ScoreIndex"]
