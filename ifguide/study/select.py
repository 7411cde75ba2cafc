"""Selections of a study: Algorithm 1 or a control, from the study's own scores."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from ifguide.config.io import config_to_dict
from ifguide.config.names import DEFAULT, check_name
from ifguide.config.schema import SelectionConfig
from ifguide.data.by_document import sum_by_document
from ifguide.errors import ConfigError, StaleError
from ifguide.selection.algorithm import (
    Ranking,
    rank_documents,
    select_best,
    select_random,
    select_tokens,
    soft_strengths,
    threshold_at_quantile,
)
from ifguide.selection.saved import Selection, write_selection
from ifguide.storage import artifacts
from ifguide.study.freshness import inputs_of, unit_state
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.variants import BASELINES, RESERVED

if TYPE_CHECKING:
    from ifguide.selection.index import ScoreIndex


def preview_selection(study: Study, settings: dict) -> Selection:
    """Compute a selection without saving it; `settings` as for `save_selection`."""
    return compute_selection(study, _selection_config(study, settings))


def save_selection(study: Study, name: str, settings: dict) -> Selection:
    """Compute a selection from the study's scores and save it.

    Args:
        name: its name; the built-in names are refused.
        settings: any of attribution, quantile, window, max_tokens; the rest comes from study.toml.

    Raises:
        ConfigError: a bad name or setting.
    """
    check_name(name, "selection")
    if name in RESERVED:
        raise ConfigError(f"the name {name!r} is built in; choose another for your selection")
    for section in ("variants", "borrowed"):
        if name in getattr(study.config, section):
            raise ConfigError(f"study.toml has a [{section}.{name}]; choose another name for your selection")
    wanted = _selection_config(study, settings)
    unit = Unit("selection", name)
    flat = {f"selection.{k}": v for k, v in config_to_dict(wanted).items() if k not in ("controls", "seed")}
    with artifacts.building(
        study.folder(unit), stage="selection", inputs=inputs_of(study, unit), config=flat
    ) as partial:
        write_selection(compute_selection(study, wanted, name=name), partial)
    return study.selection(name)


def _selection_config(study: Study, settings: dict):
    try:
        return dataclasses.replace(study.config.selection, **settings)
    except TypeError as error:
        raise ConfigError(
            f"a selection has attribution, quantile, window and max_tokens; got {', '.join(settings)}"
        ) from error


def compute_selection(
    study: Study, settings: SelectionConfig, *, name: str = "preview", kind: str = "influence"
) -> Selection:
    """Compute a selection in memory.

    Args:
        study: its corpus and, but for `oracle`, its scores must be there.
        settings: quantile, window, budget and attribution.
        name: the name it will carry.
        kind: `influence` (Algorithm 1), `random` (as many tokens as Algorithm 1 selects), `oracle` (the known spans),
            or one of `ifguide.config.names.BASELINES` (as many tokens as the default selection holds, the best by that
            method's scores), or `borrowed` (the mask of another study, carried over; `name` says which).

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
    elif unit_state(study, Unit("index")).state == "fresh":
        ranking, mask = select_by_index(study, settings)
    else:
        ranking, mask = select_by_scan(study, settings)
    if kind == "random":
        mask = select_random(valid, int(mask.sum()), settings.seed)
    per_document = sum_by_document(mask, offsets)
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


def open_index(study: Study, kind: str = "own_loss") -> "ScoreIndex":
    """The index of a study's scores of one kind.

    Raises:
        StaleError: it is missing, damaged or of other scores; names the command that builds it again.
    """
    from ifguide.selection.index import ScoreIndex

    study.manifest(Unit("index"))  # names the command that builds it when it is not there
    return ScoreIndex(
        study.folder(Unit("index")),
        kind,
        corpus=study.corpus(),
        scores=study.scores(kind),
        defaults=study.config.selection,
        remedy=f"build it again with `ifguide run {study.name} --force index`",
    )


def select_by_index(study: Study, settings: SelectionConfig) -> tuple[Ranking, np.ndarray]:
    """Algorithm 1 through the study's index, which must be fresh: the documents' ranking, and the mask bool (N,)."""
    index = open_index(study, settings.attribution)
    found = index.resolve(settings)
    return found.ranking, index.mask(found)


def select_by_scan(study: Study, settings: SelectionConfig) -> tuple[Ranking, np.ndarray]:
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


def borrow_mask(study: Study, name: str) -> np.ndarray:
    """The mask bool (N,) that `[borrowed.NAME]` of study.toml names, carried over from the other study.

    Raises:
        InputError: the studies hold other texts.
    """
    from ifguide.selection.transfer import transfer_mask

    lent = study.config.borrowed[name]
    other = Study.open(lent.study, study.root.parent)
    return transfer_mask(other.corpus(), np.asarray(other.selection(lent.selection).mask), study.corpus())


def training_mask(study: Study, selection: str, weighting: str) -> np.ndarray:
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
