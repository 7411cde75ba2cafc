"""The Threshold page's numbers, cached for each study and kind of scores."""

from ifguide.ui.loaders import Loaded, remembered
from ifguide.ui.threshold import board
from ifguide.ui.threshold.tuning import Tuning


@remembered(4)
def default_tuning(loaded: Loaded, kind: str) -> Tuning:
    """The controls as study.toml sets them, for one kind of scores."""
    settings = loaded.study.config.selection
    above = loaded.index(kind).above_quantile(settings.quantile)
    return Tuning(tokens_above=above, window=settings.window, max_tokens=settings.max_tokens)


@remembered(4)
def board_parts(loaded: Loaded, kind: str) -> dict:
    """The board's numbers that do not depend on the controls."""
    return board.board_parts(loaded.index(kind))
