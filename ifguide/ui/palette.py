"""Colours, readable by colour-blind people and on light and dark ground alike. No streamlit here.

Orange stands for "teaches toxicity", blue for the opposite; nothing is said by colour alone.
"""

import itertools
from collections.abc import Iterable

TEACHES = "#d9730d"
"""Positive scores."""
COUNTERS = "#3a86c8"
"""Negative scores."""
MUTED = "#8b95a1"
"""What is not in question."""
TRUTH = "#1a9a77"
"""Human spans."""

VARIANT_COLOURS = {"base": MUTED, "default": COUNTERS, "suppressed": COUNTERS, "random": "#c9a227", "oracle": TRUTH}
"""One colour a model, the same on every page."""
OTHER_COLOUR = "#c4699b"
"""Models trained with a selection the reader saved."""


MORE_COLOURS = (OTHER_COLOUR, "#7d6bc4", "#c2563d", "#4f9a3d", "#2fa3a3", "#9c6b3f")
"""For several of them beside each other; after the last one they begin again."""


def variant_colour(name: str) -> str:
    """The colour of a model."""
    return VARIANT_COLOURS.get(name, OTHER_COLOUR)


def variant_colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each of a study's models, given in the study's order, so that a model keeps its colour wherever it
    stands."""
    more = itertools.cycle(MORE_COLOURS)
    return {name: VARIANT_COLOURS.get(name) or next(more) for name in names}


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
"""Grounds of tokens, one a step of strength. `signed` runs from "works against toxicity" over nothing (the page's own
ground) to "teaches toxicity"; `loss` from expected to surprising. Neighbours differ by at least 10 in CIEDE2000 to
people with deuteranopia and protanopia too, and the text on every one of them has a contrast of at least 4.5: tests
compute both."""
