"""Colours that colour-blind people can tell apart, on light and dark backgrounds. No streamlit here.

Orange means more toxic, blue less toxic; nothing is shown by colour alone.
"""

import itertools
from collections.abc import Iterable

TEACHES = "#d9730d"
"""Positive scores."""
COUNTERS = "#3a86c8"
"""Negative scores."""
MUTED = "#8b95a1"
"""What others are compared with."""
TRUTH = "#1a9a77"
"""Human labels."""

VARIANT_COLOURS = {"base": MUTED, "default": COUNTERS, "suppressed": COUNTERS, "random": "#c9a227", "oracle": TRUTH}
"""One colour a model, the same on every page."""
MORE_COLOURS = ("#c4699b", "#7d6bc4", "#c2563d", "#4f9a3d", "#2fa3a3", "#9c6b3f")
"""Models trained against a selection that the reader saved; after the last one they repeat."""


def variant_colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each of a study's models, given in the study's order, so that a model has one colour everywhere."""
    more = itertools.cycle(MORE_COLOURS)
    return {name: VARIANT_COLOURS.get(name) or next(more) for name in names}


def kind_colours(kinds: Iterable[str]) -> dict[str, str]:
    """A colour for each kind of scores that models were made by."""
    return dict(zip(sorted(set(kinds)), itertools.cycle(MORE_COLOURS)))


TOKEN_BINS = {
    "light": {
        "signed": ("#559dde", "#92c1ef", "#cce3f9", "#ffffff", "#ffe2c2", "#fdbc72", "#e88a1c"),
        "loss": ("#ffffff", "#e3dcf1", "#c2b4de", "#a390cc"),
        "ink": "#1f2933",
    },
    "dark": {
        "signed": ("#2f7ac0", "#1d5487", "#163655", "#14171c", "#4c3115", "#7d480f", "#b0630c"),
        "loss": ("#14171c", "#362e4b", "#544879", "#7464a3"),
        "ink": "#ffffff",
    },
}
"""Background colours of tokens by strength. `signed` runs from less toxic through none (the page's background) to more
toxic, `loss` from expected to surprising. Neighbours differ by at least 10 in CIEDE2000, also for people with
deuteranopia and protanopia, and text on each has a contrast of at least 4.5: tests compute both."""

LIKELIHOOD_BINS = {
    "light": {**TOKEN_BINS["light"], "signed": ("#aba030", "#d4c95f", "#efe9b0", *TOKEN_BINS["light"]["loss"])},
    "dark": {**TOKEN_BINS["dark"], "signed": ("#7d7425", "#5a541f", "#38351a", *TOKEN_BINS["dark"]["loss"])},
}
"""The same for how much likelier a token is to one model than to another, from yellow to violet, for orange and blue
mean toxic and safe."""
