"""The controls of the Threshold page, as the address has them and as a selection needs them. No streamlit here.

The handle's place is the number of tokens above the threshold: `above` in the address.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from ifguide.selection.index import ScoreIndex
from ifguide.ui.format import finite

RANGES = ("all", "tail")
CONTROLS = {"above", "window", "budget", "range", "low", "high"}
"""Parameters of the address for the controls."""
LARGEST_WINDOW = 50
"""More neighbours on each side than this can only be a typing error."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The controls of the page."""

    tokens_above: int
    """Tokens strictly above the threshold."""
    window: int
    """Tokens taken on each side of a hit."""
    max_tokens: int
    """Token budget; 0: none."""
    range: str = "all"
    """Scores on the axis: `all` or `tail`."""
    low: float | None = None
    """Lower end of the brushed scores, excluded; None: nothing is brushed."""
    high: float | None = None
    """Upper end, included."""

    def settings(self, attribution: str) -> dict:
        """What `ifguide.study.stages.select.save_selection` and the score index take."""
        return {
            "attribution": attribution,
            "tokens_above": self.tokens_above,
            "window": self.window,
            "max_tokens": self.max_tokens,
        }

    @classmethod
    def of(cls, settings: Mapping) -> "Tuning":
        return cls(tokens_above=settings["tokens_above"], window=settings["window"], max_tokens=settings["max_tokens"])


def read_address(parameters: Mapping[str, str], start: Tuning, index: ScoreIndex) -> Tuning:
    """The controls that an address sets; what it leaves out or sets wrongly stays as in `start`."""
    numbers = {key: _number(parameters.get(key)) for key in CONTROLS - {"range"}}
    choice: dict = {
        key: numbers[key] for key in ("above", "window", "budget") if numbers[key] == int(numbers[key] or 0)
    }
    low, high = numbers["low"], numbers["high"]
    if low is not None and high is not None and low <= high:
        choice |= {"low": low, "high": high}
    return apply_choice(start, {**choice, "range": parameters.get("range")}, index)


def write_address(tuning: Tuning, default: Tuning) -> dict[str, str | None]:
    """The parameters that restore these controls; None where they are the default."""
    names = {"above": "tokens_above", "window": "window", "budget": "max_tokens", "range": "range"}
    now = {key: (getattr(tuning, name), getattr(default, name)) for key, name in names.items()}
    written = {key: None if value == usual else str(value) for key, (value, usual) in now.items()}
    ends = {"low": tuning.low, "high": tuning.high}
    return {**written, **{key: None if end is None else f"{end:.9g}" for key, end in ends.items()}}


def apply_choice(tuning: Tuning, choice: Mapping, index: ScoreIndex) -> Tuning:
    """The controls after the board's message: any of `above` or `threshold`, `window`, `budget`, `range`, and `low`
    with `high`, each limited to what is possible. Invalid parts are ignored."""
    names = ("above", "threshold", "window", "budget", "low", "high")
    above, threshold, window, budget, low, high = (finite(choice.get(name)) for name in names)
    if above is None and threshold is not None:
        above = max(1, index.tokens_above(threshold))
    changed: dict = {}
    if above is not None and above >= 1:
        changed["tokens_above"] = min(int(above), index.n_valid - 1)
    if window is not None and window >= 0:
        changed["window"] = min(int(window), LARGEST_WINDOW)
    if budget is not None and budget >= 0:
        changed["max_tokens"] = min(int(budget), index.n_valid)
    if choice.get("range") in RANGES:
        changed["range"] = choice["range"]
    if "low" in choice and "high" in choice:
        kept = low is not None and high is not None and low <= high
        changed |= {"low": low, "high": high} if kept else {"low": None, "high": None}
    return dataclasses.replace(tuning, **changed)


def _number(text: str | None) -> float | None:
    try:
        return finite(float(text)) if text else None
    except ValueError:
        return None
