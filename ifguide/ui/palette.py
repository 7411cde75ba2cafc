"""Colours, readable by colour-blind people and on light and dark ground alike. No streamlit here.

Orange stands for "teaches toxicity", blue for the opposite; nothing is said by colour alone.
"""

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


def variant_colour(name: str) -> str:
    """The colour of a model."""
    return VARIANT_COLOURS.get(name, OTHER_COLOUR)
