"""Places for the Threshold page's handle that something speaks for. No streamlit here."""

from collections.abc import Iterable, Sequence

from ifguide.study.analysis.dose import Measured, cheapest_within
from ifguide.ui.format import per_cent, variant_title

AS_GOOD = 0.02
"""A model with at most this much more prompts with a toxic answer is as good as the best."""


def suggest(
    points: Iterable[Measured], knots: dict, audit: Sequence[Sequence[float]], automatic: int, budget: float
) -> list[dict]:
    """Places for the handle that something speaks for, as tokens `above`, each with a `label` and a `note`.

    Args:
        points: measured models of one kind of scores.
        knots: from `ifguide.ui.threshold.board.board_parts`.
        audit: rows of score, tokens above, precision and its bounds, of the blind audit.
        automatic: what the scores' upper tail holds.
        budget: how much perplexity may rise, as a share.
    """
    points = list(points)
    marks = [(automatic, "automatic", "Where the upper tail of the scores begins")]
    gain = "Toxic tokens minus others are most here, by "
    labelled = [(2 * span - above, above) for above, span in _counted(knots) if above]
    if labelled:
        marks.append((max(labelled)[1], "best by labels", f"{gain}human labels"))
    judged = [((2 * row[2] - 1) * row[1], int(row[1])) for row in audit if row[1]]
    if judged:
        marks.append((max(judged)[1], "best by audit", f"{gain}the blind audit"))
    if best := cheapest_within(points, budget):
        note = f"{variant_title(best.model)}: fewest toxic answers of the models measured within the budget"
        marks.append((best.tokens_above, f"best within +{per_cent(budget)} perplexity", note))
    if points:
        least = min(point.tp.value for point in points)
        cheap = min((p for p in points if p.tp.value <= least + AS_GOOD), key=lambda p: (p.tokens_above, p.tp.value))
        note = f"{variant_title(cheap.model)}: fewest tokens with at most {per_cent(AS_GOOD)} more toxic answers"
        marks.append((cheap.tokens_above, "cheapest as good", f"{note} than the best measured model"))
    return [{"above": above, "label": label, "note": note} for above, label, note in marks]


def _counted(knots: dict) -> list[tuple[int, int]]:
    """Tokens above a threshold, and how many of them people labelled, where both are known."""
    spans = knots["span"][0] if knots["span"] else []
    return [(above, span) for above, span in zip(knots["above"], spans, strict=False) if span is not None]
