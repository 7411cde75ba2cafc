"""A choice of tokens: how many lie above the threshold, their neighbours, and a budget.

The stored unit of a threshold is the number of valid tokens strictly above it. A quantile says the same before a corpus
is counted, and is turned into that number here.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ifguide.config.schema import SelectionConfig
from ifguide.errors import ConfigError
from ifguide.selection.algorithm import rank_at_linear_quantile, rank_at_quantile


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What Algorithm 1 needs to select tokens of one corpus."""

    attribution: str
    """The kind of scores to select by."""
    tokens_above: int
    """Valid tokens strictly above the threshold; where scores tie there, as many fewer as the tie forces."""
    window: int
    """Tokens taken on each side of a hit."""
    max_tokens: int
    """Budget; 0: none."""
    no_tail: str = ""
    """Why the tokens are the `FALLBACK_SHARE` with the highest scores; empty: they are those that were asked for."""


FALLBACK_SHARE = 0.005
"""What a study's own settings select where they would select nothing."""


def read_choice(
    settings: Mapping | SelectionConfig, defaults: SelectionConfig, n_valid: int, count_tail: Callable[[str], int]
) -> Choice:
    """The choice that settings ask for, any of attribution, tokens_above or quantile, window and max_tokens, or all of
    study.toml's; `defaults` has what they leave open, the corpus `n_valid` valid tokens. The quantile 0 asks for the
    tokens in the upper tail of a kind of scores, which `count_tail` counts. Where study.toml's settings select nothing,
    the highest `FALLBACK_SHARE` is taken. A ConfigError: a setting that is unknown or out of range, both tokens_above
    and quantile, or scores without a tail."""
    given = {} if isinstance(settings, SelectionConfig) else dict(settings)
    above = given.pop("tokens_above", None)
    if above is not None and "quantile" in given:
        raise ConfigError("expected tokens_above or quantile, got both; leave out one of them")
    chosen = settings if isinstance(settings, SelectionConfig) else dataclasses.replace(defaults, **given)
    own, no_tail = chosen is settings, ""
    if above is None:
        rank = rank_at_quantile if chosen.quantile_rule == "rank" else rank_at_linear_quantile
        try:
            above = rank(n_valid, chosen.quantile) if chosen.quantile else count_tail(chosen.attribution)
        except ConfigError as error:
            if not own:
                raise
            above, no_tail = 0, str(error).partition(";")[0]
        if own and not above:
            no_tail = no_tail or f"no token is above the quantile {chosen.quantile}"
            above = min(max(0, n_valid - 1), math.ceil(FALLBACK_SHARE * n_valid))
    elif not 0 <= above < n_valid:
        raise ConfigError(f"tokens_above: expected 0 to {n_valid - 1:,}, got {above:,}")
    taken = {"tokens_above": above, "window": chosen.window, "max_tokens": chosen.max_tokens}
    return Choice(attribution=chosen.attribution, **taken, no_tail=no_tail)
