"""A blind audit of the tokens around a threshold: drawn once, kept in the study's folder, judged in the verdict log.

`audits/KIND-DIGEST.json` has `above` (tokens above the threshold when it was drawn), `seed`, `edges` and `ranks` (see
`ifguide.selection.audit.TokenSample`), and `targets`: each token's document and its number there. The digest is of the
scores and the corpus, so other scores have another audit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ifguide.selection.audit import TokenSample, draw_tokens, precision_above
from ifguide.selection.index import ScoreIndex
from ifguide.selection.verdicts import Target
from ifguide.storage.lock import check_writable
from ifguide.study import on_demand
from ifguide.study.freshness import unit_digest
from ifguide.study.lineage import Unit, scores_unit
from ifguide.study.reading import Study
from ifguide.study.stages.select import open_index

FOLDER, VERSION = "audits", 1
SIZE = 40
"""Tokens drawn at first, and again each time the audit is extended."""
POINTS = 3
"""Points of the precision curve in each stratum."""


@dataclass(frozen=True)
class BlindAudit:
    """A sample of tokens by one kind of scores."""

    above: int
    """Tokens above the threshold when it was drawn."""
    seed: int
    sample: TokenSample
    targets: list[Target]


class PrecisionPoint(NamedTuple):
    """The share of toxic tokens above a threshold, with its 95% interval."""

    threshold: float
    above: int
    """Tokens above the threshold."""
    precision: float
    low: float
    high: float


def _path(study: Study, kind: str) -> Path:
    made_of = [unit_digest(study, unit) for unit in (Unit("corpus"), scores_unit(study.config, kind))]
    return on_demand.result_path(study, FOLDER, [VERSION, kind, *made_of], name=kind)


def read_audit(study: Study, kind: str) -> BlindAudit | None:
    """The audit of these scores, if one was started."""
    if (stored := on_demand.read_result(_path(study, kind))) is None:
        return None
    sample = TokenSample(*(np.array(stored[name], dtype=np.int64) for name in ("edges", "ranks")))
    targets = [Target(document, token, token + 1) for document, token in stored["targets"]]
    return BlindAudit(stored["above"], stored["seed"], sample, targets)


def draw_audit(study: Study, kind: str, *, above: int, n: int = SIZE, seed: int = 0) -> BlindAudit:
    """Draw `n` tokens around a threshold with `above` tokens over it, and store them in place of an earlier audit's. A
    StaleError: there is no index of these scores. An InputError: the study is a recorded one."""
    check_writable(study.root)
    index, corpus = open_index(study, kind), study.corpus()
    sample = draw_tokens(above, index.n_tail, n, seed)
    places = index.places_at(sample.ranks)
    documents = np.searchsorted(corpus.offsets, places, side="right") - 1
    tokens = places - np.asarray(corpus.offsets)[documents]
    targets = [Target(corpus.document(int(d)).id, int(t), int(t) + 1) for d, t in zip(documents, tokens, strict=True)]
    stored = {"above": above, "seed": seed, "edges": sample.edges.tolist(), "ranks": sample.ranks.tolist()}
    stored["targets"] = [(target.document, target.start) for target in targets]
    on_demand.keep_result(_path(study, kind), stored)
    return BlindAudit(above, seed, sample, targets)


def precision_curve(audit: BlindAudit, index: ScoreIndex, verdicts: Mapping[Target, str]) -> list[PrecisionPoint]:
    """Precision by threshold, from the highest threshold down, where the verdicts suffice; `unsure` is left out."""
    given = [verdicts.get(target) for target in audit.targets]
    judged = np.array([i for i, verdict in enumerate(given) if verdict in ("toxic", "fine")], dtype=np.int64)
    toxic = np.array([given[i] == "toxic" for i in judged], dtype=bool)
    edges = audit.sample.edges[1:]
    steps = np.arange(POINTS * (len(edges) - 1) + 1) / POINTS
    points = []
    for above in np.unique(np.interp(steps, np.arange(len(edges)), edges).astype(np.int64)).tolist():
        if precision := precision_above(audit.sample, judged, toxic, above):
            points.append(PrecisionPoint(index.locate(above)[0], above, *precision))
    return points
