"""What the Threshold page's board draws and previews from: exact counts at the knots, bins, and one exact result. No
streamlit here.

The browser gets a few hundred kilobytes for a corpus of any size, and interpolates between the knots while the reader
drags the handle. Shape: K knots, from the highest threshold down.
"""

import numpy as np

from ifguide.data.corpus import TokenizedCorpus
from ifguide.selection.index import Resolved, ScoreIndex
from ifguide.selection.prediction import predicted_change
from ifguide.study.sharing.shard_sample import Sketch
from ifguide.ui.excerpts import excerpt_at
from ifguide.ui.format import count, number, score

N_BINS = 200
AT_BOUNDARY = 3
"""Tokens shown on each side of the threshold."""
FAR_OUT = 8.0
"""The axis is compressed if the highest score is this many times further from the median than the 99th percentile."""
MARKS_MOST = 4000
RANK_POINTS = 240


def axis_unit(thresholds: np.ndarray, above: np.ndarray, n_valid: int) -> float:
    """The unit of a compressed axis, asinh(score / unit); 0 for a linear axis, which suits most scores. `thresholds`,
    float64 (K,), descend; `above`, int64 (K,), are the tokens above each."""
    middle, high = (float(np.interp(share * n_valid, above, thresholds)) for share in (0.5, 0.01))
    far = float(thresholds[0]) - middle
    return round(high - middle, 12) if high > middle and far > FAR_OUT * (high - middle) else 0.0


def axis_edges(low: float, high: float, unit: float, n_bins: int = N_BINS) -> np.ndarray:
    """Edges, float64 (n_bins + 1,), of bins of equal width on the axis."""
    if not unit:
        return np.linspace(low, high, n_bins + 1)
    edges = np.sinh(np.linspace(np.arcsinh(low / unit), np.arcsinh(high / unit), n_bins + 1)) * unit
    edges[0], edges[-1] = low, high
    return edges


def board_parts(index: ScoreIndex, influence: np.ndarray | None = None, sketch: Sketch | None = None) -> dict:
    """What does not depend on the controls: the knots for all windows, the bins of the whole axis, the words. Effects
    are sums of the index's own scores, or of `influence`, float32 (N,), which are known without neighbours only. With
    the `sketch` of shards, of which the index has a sample, the bins are of all shards."""
    preview, words, (lowest, highest) = index.preview(), index.words(), index.extremes
    lowest = lowest if sketch is None else min(lowest, sketch.lowest)
    unit = axis_unit(preview.threshold, preview.tokens_above, index.n_valid)
    pad = [None] * (len(preview.threshold) - len(preview.documents))

    def by_window(counts: np.ndarray) -> list[list]:
        return [column.tolist() + pad for column in counts.T]

    columns = [words[name].to_pylist() for name in ("first_above", "last_above", "word", "count")]
    knots = {
        "threshold": _digits(preview.threshold, 8),
        "above": preview.tokens_above.tolist(),
        "documents": preview.documents.tolist() + pad,
        "covered": by_window(preview.covered.sum(axis=2)),
        "span": None if preview.spans is None else by_window(preview.spans),
        "effect": [_digits(column, 7) + pad for column in preview.effect.T],
        "shards": None if sketch is None else sketch.tokens_above(preview.threshold)[0].tolist(),
    }
    if influence is not None:
        sums = np.append(0.0, np.cumsum(influence[index.places_at(np.arange(index.n_tail))], dtype=np.float64))
        hits = sums[preview.tokens_above[: len(preview.effect)]]
        knots["effect"] = [_digits(hits, 7) + pad, *[[None] * len(preview.threshold)] * (preview.effect.shape[1] - 1)]
    middle = index.locate(index.n_valid // 2)[0] if index.n_valid else 0.0
    axis = {
        "unit": unit,
        "lowest": lowest,
        "middle": middle,
        "highest": highest,
        "whole": _bins(sketch or index, lowest, highest, unit),
    }
    return {**axis, "knots": knots, "words": [list(row) for row in zip(*columns, strict=True)]}


def tail_bins(index: ScoreIndex, parts: dict, threshold: float, sketch: Sketch | None = None) -> dict:
    """Bins of the close-up: the highest tenth of the scores, or more if the threshold is lower."""
    highest = parts["highest"]
    inside = 0 < index.n_tail < index.n_valid
    low = index.locate(index.n_tail)[0] if inside else parts["lowest"]
    if threshold < low:
        low = max(parts["lowest"], threshold - 0.1 * (highest - threshold))
    return _bins(sketch or index, float(low), highest, parts["unit"])


def shards_result(sketch: Sketch, threshold: float) -> list:
    """Tokens of all shards above a threshold, and how exact that is; documents with one, and how exact that is."""
    result: list = []
    for counts in (sketch.tokens_above(np.array([threshold])), sketch.documents_above(np.array([threshold]))):
        best, least, most = counts[:, 0].tolist()
        result += [best, "exact" if least == most else f"between {count(least)} and {count(most)}"]
    return result


def exact_result(exact: Resolved, seq: int) -> dict:
    return {
        "seq": seq,
        "threshold": exact.threshold,
        "above": exact.n_above,
        "window": exact.choice.window,
        "budget": exact.choice.max_tokens,
        "tokens": exact.n_selected,
        "documents": exact.n_documents,
        "precision": exact.precision,
        "recall": exact.recall,
        "effect": exact.effect,
        "seconds": exact.seconds,
        "scanned": exact.hits.scanned,
    }


def boundary(corpus: TokenizedCorpus, index: ScoreIndex, scores: np.ndarray, exact: Resolved) -> dict[str, list]:
    """The last tokens above the threshold and the first ones below it, nearest first, with score and context. Both are
    empty outside the tail."""
    around = exact.n_above + np.arange(AT_BOUNDARY)
    sides = {}
    for side, ranks in (("last", 2 * exact.n_above - 1 - around), ("first", around)):
        places = index.places_at(ranks[(ranks >= 0) & (ranks < index.n_tail)]).tolist()
        texts = [excerpt_at(corpus, place, lambda near: scores[near] > exact.threshold) for place in places]
        sides[side] = [[score(float(scores[at])), text] for at, text in zip(places, texts, strict=True)]
    return sides


def rank_line(exact: Resolved) -> dict:
    """Running total of covered tokens over the documents by rank, as if there were no budget: `documents` and `tokens`
    at about `RANK_POINTS` places, and how many documents are `hit`."""
    hit = np.flatnonzero(covered := exact.covered[exact.ranking.order])
    running = np.concatenate([[0], np.cumsum(covered[: hit[-1] + 1 if hit.size else 0])])
    places = np.unique(np.linspace(0, len(running) - 1, RANK_POINTS).astype(np.int64))
    return {"documents": places.tolist(), "tokens": running[places].tolist(), "hit": len(hit)}


def effect_text(n_valid: int, penalty: float, *, predicts: bool, agreement: tuple[float, int] | None = None) -> dict:
    """What the board says about estimated effects: the scale of a sum of influence, help, and a note on trust.
    `predicts` is false in a study without influence; `agreement` is from `ifguide.study.analysis.dose.rank_agreement`.
    """
    help = "This study has no influence scores (scores.own_loss), whose sum would estimate an effect."
    if predicts:
        help = (
            "(1 + penalty) times the selected tokens' influence, as a mean over all tokens: how much the loss of toxic"
            " completions would rise, compared with safe ones, after one small training step. Above 0, toxic"
            " completions become less likely. It has no unit: use it only to compare selections of one study."
        )
    note = "Rough estimate. Train to confirm." if predicts else ""
    if predicts and agreement:
        rho, n_models = number(agreement[0], 2), agreement[1]
        note = f"Rough estimate. It ranks this study's {n_models} measured models with a rank correlation of {rho}."
    return {"scale": predicted_change(1.0, n_valid, penalty), "predicts": predicts, "help": help, "note": note}


def document_marks(scores: np.ndarray) -> list[float]:
    """The scores of a document's tokens, float32 (n,), without the first one, which nothing predicts."""
    return _digits(np.asarray(scores[1 : MARKS_MOST + 1], dtype=np.float64), 6)


def _bins(index: ScoreIndex | Sketch, low: float, high: float, unit: float) -> dict:
    if high - low <= 1e-6 * max(abs(low), abs(high)):  # all scores are the same
        return {"low": low - 1, "high": high + 1, "left": [low - 0.5], "right": [high + 0.5], "count": [index.n_valid]}
    if isinstance(index, Sketch):
        return {"low": low, "high": high, **index.bars(axis_edges(low, high, unit))}
    table = index.histogram(axis_edges(low, high, unit))
    sides = {side: _digits(table[side].to_numpy(), 9) for side in ("left", "right")}
    return {"low": low, "high": high, **sides, "count": table["count"].to_pylist()}


def _digits(values: np.ndarray, digits: int) -> list:
    return [float(f"{value:.{digits}g}") for value in values.tolist()]
