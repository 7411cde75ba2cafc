"""The Threshold page's numbers, cached for each study and kind of scores."""

from ifguide.config.names import DEFAULT
from ifguide.study.freshness import unit_state
from ifguide.study.lineage import Unit
from ifguide.ui.loaders import Loaded, remembered
from ifguide.ui.threshold import board
from ifguide.ui.threshold.tuning import Tuning


@remembered(4)
def default_tuning(loaded: Loaded, kind: str) -> Tuning:
    """The controls of the default selection, or of study.toml for another kind of scores."""
    settings = loaded.study.config.selection
    if kind == settings.attribution and unit_state(loaded.study, Unit("selection", DEFAULT)).state == "fresh":
        return Tuning.of(loaded.selection(DEFAULT).settings)  # its budget is smaller where it cuts no window
    above = loaded.index(kind).above_quantile(settings.quantile)
    return Tuning(tokens_above=above, window=settings.window, max_tokens=settings.max_tokens)


@remembered(4)
def board_parts(loaded: Loaded, kind: str) -> dict:
    return board.board_parts(loaded.index(kind))
