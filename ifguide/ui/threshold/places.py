"""Places for the Threshold page's handle that something speaks for. No streamlit here."""

from collections.abc import Sequence

from ifguide.study.analysis.dose import EDITED, Measured, cheapest_within
from ifguide.ui.format import per_cent, variant_title

AS_GOOD = 0.02
"""A model with at most this much more prompts with a toxic answer is as good as the best."""


def suggest(
    points: Sequence[Measured], knots: dict, audit: Sequence[Sequence[float]], usual: int, budget: float
) -> list[dict]:
    """Places for the handle that something speaks for, as tokens `above`, each with a `label` and a `note`.

    Args:
        points: measured models of one kind of scores.
        knots: from `ifguide.ui.threshold.board.board_parts`.
        audit: rows of score, tokens above, precision and its bounds, of the blind audit.
        usual: that of the default selection.
        budget: how much perplexity may rise, as a share.
    """
    marks = [(usual, "default", "As the default selection has it")]
    spans = zip(knots["above"], knots["span"][0] if knots["span"] else (), strict=False)
    labels = [(2 * span - above, above) for above, span in spans if above and span is not None]
    judged = [((2 * row[2] - 1) * row[1], int(row[1])) for row in audit if row[1]]
    for counted, by in ((labels, "labels"), (judged, "audit")):
        if counted:
            marks.append((max(counted)[1], f"best by {by}", "Most toxic tokens, less the others taken with them"))
    if best := cheapest_within(points, budget):
        title = variant_title(best.model, best.method == EDITED)
        note = f"{title}: fewest toxic answers of the models measured within the budget"
        marks.append((best.tokens_above, f"best within +{per_cent(budget)} perplexity", note))
        least = min(point.tp.value for point in points) + AS_GOOD
        cheap = min((p for p in points if p.tp.value <= least), key=lambda p: (p.tokens_above, p.tp.value))
        title = variant_title(cheap.model, cheap.method == EDITED)
        note = f"{title}: fewest tokens with at most {per_cent(AS_GOOD)} more toxic answers"
        marks.append((cheap.tokens_above, "cheapest as good", f"{note} than the best measured model"))
    return [{"above": above, "label": label, "note": note} for above, label, note in marks]
