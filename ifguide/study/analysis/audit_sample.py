"""A blind audit of the tokens around a threshold: drawn once, kept in the study's folder, judged in the verdict log.

`audits/KIND-DIGEST.json` has `above` (tokens above the threshold when it was drawn), `seed`, `edges` and `ranks` (see
`ifguide.selection.audit.TokenSample`), and `targets`: each token's document and its number there. The digest is of the
scores and the corpus, so other scores have another audit.

A team shares it: `team.json` has the `reviewers`, the `overlap` (the share of tokens that all of them judge), and the
`guideline` they judge by.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ifguide.errors import ConfigError
from ifguide.selection.audit import Agreement, TokenSample, deal, draw_tokens, find_agreement, precision_above
from ifguide.selection.index import ScoreIndex
from ifguide.selection.verdicts import Target, VerdictLog
from ifguide.storage.artifacts import hash_json
from ifguide.storage.lock import check_writable
from ifguide.study import on_demand
from ifguide.study.freshness import unit_digest
from ifguide.study.lineage import Unit, scores_unit
from ifguide.study.reading import Study
from ifguide.study.stages.select import open_index

FOLDER, VERSION, TEAM = "audits", 1, "team.json"
SIZE = 40
"""Tokens drawn at first, and again each time the audit is extended."""
POINTS = 3
"""Points of the precision curve in each stratum."""
MOST_PEOPLE, MOST_NAME, MOST_TEXT = 20, 60, 4000
"""Reviewers of a team, and characters of a name and of the guideline."""


@dataclass(frozen=True)
class Team:
    """Who reviews a study together, and how."""

    reviewers: tuple[str, ...] = ()
    """Empty: whoever comes judges all of an audit."""
    overlap: float = 0.1
    """Share of an audit's tokens that all of them judge."""
    guideline: str = ""
    """What they call toxic, as text."""

    def __post_init__(self):
        names = self.reviewers
        good = all(name.strip() == name and name.isprintable() and 0 < len(name) <= MOST_NAME for name in names)
        if not good or len({*names}) < len(names):
            raise ConfigError(f"expected different names of at most {MOST_NAME} characters, got {names!r}")
        if len(names) > MOST_PEOPLE or len(self.guideline) > MOST_TEXT or not 0 <= self.overlap <= 1:
            most = f"at most {MOST_PEOPLE} reviewers, an overlap of 0 to 100%, and {MOST_TEXT} characters of guideline"
            raise ConfigError(f"expected {most}; shorten the list or the text")


def read_team(study: Study) -> Team:
    """The study's team; one without reviewers where there is none, or its file is damaged."""
    try:
        stored = on_demand.read_result(study.root / TEAM) or {}
        guideline = str(stored["guideline"]).encode(errors="replace").decode()  # half a character would break a page
        return Team(tuple(map(str, stored["reviewers"])), stored["overlap"], guideline)
    except (KeyError, TypeError, ConfigError):
        return Team()


def save_team(study: Study, team: Team) -> None:
    """Keep it with the study. An InputError: the study is a recorded one."""
    check_writable(study.root)
    on_demand.keep_result(study.root / TEAM, asdict(team))


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


class Queue(NamedTuple):
    """What one reviewer judges of an audit, as places in its targets, in the order of judging."""

    items: list[int]
    waiting: list[int]
    """Those without the reviewer's verdict, or for what only one judges, without anybody's."""


def open_queue(audit: BlindAudit, team: Team, log: VerdictLog, by: str) -> Queue:
    """All of the audit without a team; nothing for who is not in it. The same team and audit give the same queue."""
    mine, anybody, names = log.current(by), log.current(), sorted(team.reviewers)
    owners = np.full(len(audit.targets), -1)
    if names:
        seed = int(hash_json([audit.seed, audit.above, names])[:8], 16)
        owners = deal(len(owners), len(names), team.overlap, seed)
    allowed = [-1, names.index(by)] if by in names else [] if names else [-1]
    items = np.flatnonzero(np.isin(owners, allowed)).tolist()
    judged = [mine if owners[i] < 0 else anybody for i in items]
    return Queue(items, [i for i, given in zip(items, judged, strict=True) if audit.targets[i] not in given])


def counted_verdicts(audit: BlindAudit, team: Team, log: VerdictLog, by: str) -> list[list[str]]:
    """The verdicts on each token that the precision is from: the final one, else of a team all, else that which the
    reviewer `by` sees."""
    one = log.current(by) if not team.reviewers else {}
    one |= {target: verdict for target, (verdict, *_) in log.finals().items()}
    return [
        [one[target]] if target in one else [verdict for verdict, _ in log.opinions(target).values() if team.reviewers]
        for target in audit.targets
    ]


def audit_agreement(audit: BlindAudit, log: VerdictLog) -> list[Agreement]:
    """How far every two reviewers agree on the tokens of the audit that both judged."""
    given: dict[str, dict[Target, tuple[str, str]]] = {}
    for target in audit.targets:
        for who, opinion in log.opinions(target).items():
            given.setdefault(who, {})[target] = opinion
    return find_agreement(given)


def precision_curve(audit: BlindAudit, index: ScoreIndex, verdicts: Sequence[Sequence[str]]) -> list[PrecisionPoint]:
    """Precision by threshold, from the highest threshold down, where the verdicts suffice; from `counted_verdicts`.
    `unsure` is left out; a token on which reviewers disagree is toxic by the share of those who call it so."""
    votes = [[verdict == "toxic" for verdict in given if verdict != "unsure"] for given in verdicts]
    judged = np.array([i for i, given in enumerate(votes) if given], dtype=np.int64)
    toxic = np.array([np.mean(votes[i]) for i in judged])
    edges = audit.sample.edges[1:]
    steps = np.arange(POINTS * (len(edges) - 1) + 1) / POINTS
    points = []
    for above in np.unique(np.interp(steps, np.arange(len(edges)), edges).astype(np.int64)).tolist():
        if precision := precision_above(audit.sample, judged, toxic, above):
            points.append(PrecisionPoint(index.locate(above)[0], above, *precision))
    return points
