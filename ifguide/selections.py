"""Saved selections: computes one with Algorithm 1 or a control, writes it, reads it back."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ifguide import artifacts
from ifguide.config import SelectionConfig
from ifguide.errors import ConfigError, StaleError
from ifguide.lineage import Unit
from ifguide.selection import (
    Ranking,
    rank_documents,
    select_best,
    select_random,
    select_tokens,
    soft_strengths,
    threshold_at_quantile,
)
from ifguide.variants import BASELINES, DEFAULT

if TYPE_CHECKING:
    from ifguide.study import Study

_ARRAYS = ("mask", "order", "count_above", "sum_above", "rank_score")


@dataclass(frozen=True)
class Selection:
    """A saved choice of tokens."""

    name: str
    settings: dict
    """What made it: kind, attribution, quantile, window, max_tokens, threshold, and counts."""
    mask: np.ndarray
    """bool (N,), one value a corpus token."""
    order: np.ndarray
    """int64 (D,), document indexes, best rank first."""
    count_above: np.ndarray
    """int64 (D,), tokens above the threshold."""
    sum_above: np.ndarray
    """float64 (D,), sum of their scores."""
    rank_score: np.ndarray
    """float64 (D,), harmonic mean of the two after min-max normalisation."""


def compute_selection(
    study: "Study", settings: SelectionConfig, *, name: str = "preview", kind: str = "influence"
) -> Selection:
    """Compute a selection in memory.

    Args:
        study: its corpus and, but for `oracle`, its scores must be there.
        settings: quantile, window, budget and attribution.
        name: the name it will carry.
        kind: `influence` (Algorithm 1), `random` (as many tokens as Algorithm 1 selects), `oracle` (the known spans), or one of
            `ifguide.variants.BASELINES` (as many tokens as the default selection holds, the best by that method's scores), or
            `borrowed` (the mask of another study, carried over; `name` says which).

    Raises:
        ConfigError: `oracle` without known spans.
        StaleError: the study has no scores of that kind, or scores of another corpus.
    """
    corpus = study.corpus()
    offsets, valid = np.asarray(corpus.offsets), corpus.valid()
    chosen_otherwise = kind in ("oracle", "borrowed", *BASELINES)
    quantile = None if chosen_otherwise else settings.quantile
    if kind == "borrowed":
        mask = borrow_mask(study, name)
        ranking = rank_documents(mask.astype(np.float32), offsets, valid, 0.5, corpus.id_rank)
    elif kind in BASELINES:
        scores = artifacts.load_array(study.folder(Unit("baseline", kind)) / "scores.npy")
        if kind == "classifier-documents":
            mask = (np.asarray(scores) >= study.config.baselines.document_min) & valid
        else:
            mask = select_best(scores, valid, study.selection(DEFAULT).settings["n_selected"])
        lowest = float(scores[mask].min()) if mask.any() else float("inf")
        ranking = rank_documents(
            scores, offsets, valid, float(np.nextafter(np.float32(lowest), -np.inf)), corpus.id_rank
        )
    elif kind == "oracle":
        if corpus.in_span is None:
            raise ConfigError("this corpus has no known spans; name their column with --spans-field")
        mask = np.asarray(corpus.in_span) & valid
        ranking = rank_documents(mask.astype(np.float32), offsets, valid, 0.5, corpus.id_rank)
    elif study.unit_state(Unit("index")).state == "fresh":
        ranking, mask = select_by_index(study, settings)
    else:
        ranking, mask = select_by_scan(study, settings)
    if kind == "random":
        mask = select_random(valid, int(mask.sum()), settings.seed)
    per_document = np.diff(np.concatenate([[0], np.cumsum(mask)])[offsets])
    described = {
        "name": name,
        "kind": kind,
        "attribution": None if chosen_otherwise else settings.attribution,
        "quantile": quantile,
        "window": 0 if chosen_otherwise else settings.window,
        "max_tokens": 0 if chosen_otherwise else settings.max_tokens,
        "threshold": ranking.threshold,
        "n_selected": int(mask.sum()),
        "n_valid": int(valid.sum()),
        "n_documents_hit": int(np.count_nonzero(per_document)),
    }
    return Selection(name, described, mask, ranking.order, ranking.count_above, ranking.sum_above, ranking.rank_score)


def select_by_index(study: "Study", settings: SelectionConfig) -> tuple[Ranking, np.ndarray]:
    """Algorithm 1 through the study's index, which must be fresh: the documents' ranking, and the mask bool (N,)."""
    from ifguide.index import ScoreIndex

    index = ScoreIndex.open(study, settings.attribution)
    found = index.resolve(settings)
    return found.ranking, index.mask(found)


def select_by_scan(study: "Study", settings: SelectionConfig) -> tuple[Ranking, np.ndarray]:
    """Algorithm 1 over all scores at once, with the same result.

    Raises:
        StaleError: the study has no scores of that kind, or scores of another corpus.
    """
    corpus = study.corpus()
    offsets, valid = np.asarray(corpus.offsets), corpus.valid()
    scores = np.asarray(study.scores(settings.attribution))
    if len(scores) != corpus.n_tokens:
        raise StaleError(
            f"the scores are of another corpus ({len(scores):,} tokens, now {corpus.n_tokens:,}); "
            f"compute them again with `ifguide run {study.name} --until scores`"
        )
    threshold = threshold_at_quantile(scores, valid, settings.quantile)
    ranking = rank_documents(scores, offsets, valid, threshold, corpus.id_rank)
    limits = {"window": settings.window, "max_tokens": settings.max_tokens}
    return ranking, select_tokens(scores, offsets, valid, ranking, **limits)


def borrow_mask(study: "Study", name: str) -> np.ndarray:
    """The mask bool (N,) that `[borrowed.NAME]` of study.toml names, carried over from the other study.

    Raises:
        InputError: the studies hold other texts.
    """
    from ifguide.study import Study
    from ifguide.transfer import transfer_mask

    lent = study.config.borrowed[name]
    other = Study.open(lent.study, study.root.parent)
    return transfer_mask(other.corpus(), np.asarray(other.selection(lent.selection).mask), study.corpus())


def training_mask(study: "Study", selection: str, weighting: str) -> np.ndarray:
    """What training is told about each corpus token: bool (N,), or float32 strengths (N,) for the weighting `score`.

    Raises:
        ConfigError: weights by score for a selection that was not made from scores.
    """
    chosen = study.selection(selection)
    if weighting == "even":
        return np.asarray(chosen.mask)
    if not chosen.settings["attribution"] or chosen.settings["kind"] != "influence":
        raise ConfigError(f"suppress.weighting: selection {selection!r} was not made from scores; use weighting 'even'")
    valid = study.corpus().valid()
    return soft_strengths(study.scores(chosen.settings["attribution"]), valid, chosen.settings["n_selected"])


def write_selection(selection: Selection, folder: Path) -> None:
    """Write a selection's arrays and settings into a folder."""
    for key in _ARRAYS:
        np.save(folder / f"{key}.npy", getattr(selection, key), allow_pickle=False)
    (folder / "selection.json").write_text(json.dumps(selection.settings, indent=1), encoding="utf-8")


def read_selection(name: str, folder: Path) -> Selection:
    """Read a selection, its arrays memory-mapped."""
    arrays = {key: artifacts.load_array(folder / f"{key}.npy") for key in _ARRAYS}
    return Selection(name, artifacts.read_part(folder, "selection.json"), **arrays)
