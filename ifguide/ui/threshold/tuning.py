"""What the reader has set on the Threshold page, as the address writes it and as a selection needs it. No streamlit
here.

The handle stands for a number of tokens above the threshold; the address names it as the share of all tokens, `top`, in
per cent, with as many digits as it takes to find the same threshold again.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ifguide.config.schema import SelectionConfig
from ifguide.selection.algorithm import quantile_position

RANGES = ("all", "tail")
LARGEST_WINDOW = 50
"""More neighbours on each side than this are taken for a slip."""


class Handle(Protocol):
    """What of the score index turns positions of the handle into quantiles."""

    n_valid: int

    def quantile_for(self, n_above: int) -> float: ...

    def tokens_above(self, threshold: float) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The controls of the page."""

    quantile: float
    """The threshold is this quantile of all valid scores."""
    window: int
    """Tokens taken on each side of a hit."""
    max_tokens: int
    """Budget; 0: none."""
    range: str = "all"
    """Scores on the axis: `all` or `tail`."""
    low: float | None = None
    """Lower end of the brushed scores, left out; None: nothing is brushed."""
    high: float | None = None
    """Upper end, included."""

    def settings(self, attribution: str) -> dict:
        """What `Study.save_selection` and the score index take."""
        return {
            "attribution": attribution,
            "quantile": self.quantile,
            "window": self.window,
            "max_tokens": self.max_tokens,
        }

    def at(self, settings: Mapping) -> "Tuning":
        """The controls as a saved selection was made with, the view unchanged."""
        kept = {key: settings[key] for key in ("quantile", "window", "max_tokens")}
        return dataclasses.replace(self, **kept)


def default_tuning(settings: SelectionConfig) -> Tuning:
    """The controls as study.toml sets them."""
    return Tuning(quantile=settings.quantile, window=settings.window, max_tokens=settings.max_tokens)


def same_place(a: float, b: float, n_valid: int) -> bool:
    """Whether two quantiles give the same threshold."""
    return quantile_position(n_valid, a) == quantile_position(n_valid, b)


def share_text(quantile: float, n_valid: int) -> str:
    """The share above a quantile in per cent, in the fewest digits that lead back to the same threshold."""
    n_above = n_valid - 1 - quantile_position(n_valid, quantile)
    for digits in range(2, 14):
        for share in (1 - quantile, (n_above + 0.5) / n_valid):  # the second lies amid all shares that lead there
            text = f"{100 * share:.{digits}f}"
            found = _quantile_of(float(text))
            if found is not None and same_place(found, quantile, n_valid):
                return text.rstrip("0").rstrip(".")
    raise AssertionError(f"no share leads back to quantile {quantile} of {n_valid} values")


def read_address(parameters: Mapping[str, str], start: Tuning, n_tokens: int) -> Tuning:
    """The controls as an address names them; what it does not name, or names wrongly, stays as it was.

    Args:
        parameters: `top`, `window`, `budget`, `range`, `low`, `high`.
        start: the controls before.
        n_tokens: largest budget.
    """
    found: dict = {}
    top = _quantile_of(_number(parameters.get("top")))
    if top is not None:
        found["quantile"] = top
    for name, key, most in (("window", "window", LARGEST_WINDOW), ("budget", "max_tokens", n_tokens)):
        value = _number(parameters.get(name))
        if value is not None and value == int(value) and value >= 0:
            found[key] = min(int(value), most)
    if parameters.get("range") in RANGES:
        found["range"] = parameters["range"]
    low, high = _number(parameters.get("low")), _number(parameters.get("high"))
    if low is not None and high is not None and low <= high:
        found |= {"low": low, "high": high}
    return dataclasses.replace(start, **found)


def write_address(tuning: Tuning, default: Tuning, n_valid: int) -> dict[str, str | None]:
    """The parameters that lead back to these controls; None where the address need not name one."""
    written: dict[str, str | None] = {
        "top": None if same_place(tuning.quantile, default.quantile, n_valid) else share_text(tuning.quantile, n_valid),
        "window": None if tuning.window == default.window else str(tuning.window),
        "budget": None if tuning.max_tokens == default.max_tokens else str(tuning.max_tokens),
        "range": None if tuning.range == default.range else tuning.range,
    }
    return written | {key: None if (end := getattr(tuning, key)) is None else f"{end:.9g}" for key in ("low", "high")}


def apply_choice(tuning: Tuning, choice: Mapping, handle: Handle, n_tokens: int) -> Tuning:
    """The controls after the board's message; a part of it that makes no sense changes nothing.

    Args:
        tuning: the controls before.
        choice: any of `above`, `share` (per cent) and `threshold`, `window`, `budget`, `range`, and `low` with `high`.
        handle: the score index.
        n_tokens: largest budget.
    """
    changed: dict = {}
    above, share, threshold = (_finite(choice.get(key)) for key in ("above", "share", "threshold"))
    if above is None and share is not None and 0 < share <= 100:
        above = max(1.0, round(share / 100 * handle.n_valid))
    if above is None and threshold is not None:
        above = max(1, handle.tokens_above(threshold))
    if above is not None and above >= 1:
        changed["quantile"] = handle.quantile_for(min(int(above), handle.n_valid - 1))
    for name, key, most in (("window", "window", LARGEST_WINDOW), ("budget", "max_tokens", n_tokens)):
        value = _finite(choice.get(name))
        if value is not None and value >= 0:
            changed[key] = min(int(value), most)
    if choice.get("range") in RANGES:
        changed["range"] = choice["range"]
    if "low" in choice and "high" in choice:
        low, high = _finite(choice["low"]), _finite(choice["high"])
        changed |= (
            {"low": low, "high": high}
            if low is not None and high is not None and low <= high
            else {"low": None, "high": None}
        )
    return dataclasses.replace(tuning, **changed)


def _quantile_of(share: float | None) -> float | None:
    quantile = None if share is None else round(1 - share / 100, 14)
    return quantile if quantile is not None and 0 <= quantile < 1 else None


def _number(text: str | None) -> float | None:
    try:
        return _finite(float(text)) if text else None
    except ValueError:
        return None


def _finite(value) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
