"""A blind audit of the tokens around a threshold: drawn once, kept in the study's folder, judged in the verdict log.

`audits/KIND-DIGEST.json` has `above` (tokens above the threshold when it was drawn), `seed`, `edges` and `ranks` (see
`ifguide.selection.audit.TokenSample`), and `targets`: each token's document, and its place there. Other scores or
another corpus have another digest. No streamlit here.
"""

from dataclasses import dataclass

import numpy as np

from ifguide.selection.audit import TokenSample, draw_tokens, precision_above
from ifguide.selection.verdicts import VERDICTS, Target, VerdictLog
from ifguide.storage.lock import check_writable
from ifguide.study import on_demand
from ifguide.study.freshness import unit_digest
from ifguide.study.lineage import Unit, scores_unit
from ifguide.ui.excerpts import excerpt_at
from ifguide.ui.loaders import Loaded

FOLDER, VERSION = "audits", 1
SIZE = 40
"""Tokens drawn at first, and again for “40 more”."""
AHEAD, CONTEXT, POINTS = 3, 45, 3
"""Tokens sent to the browser at once, so that the next one is there when a verdict is given; tokens of context on each
side; points of the curve in each stratum."""


@dataclass(frozen=True)
class BlindAudit:
    """A sample of tokens by one kind of scores."""

    above: int
    """Tokens above the threshold when it was drawn."""
    seed: int
    sample: TokenSample
    targets: list[Target]


def _path(loaded: Loaded, kind: str):
    study = loaded.study
    made_of = [unit_digest(study, unit) for unit in (Unit("corpus"), scores_unit(study.config, kind))]
    return on_demand.result_path(study, FOLDER, [VERSION, kind, *made_of], name=kind)


def read_audit(loaded: Loaded, kind: str) -> BlindAudit | None:
    """The audit of these scores, if one was begun."""
    if (found := on_demand.read_result(_path(loaded, kind))) is None:
        return None
    sample = TokenSample(*(np.array(found[name], dtype=np.int64) for name in ("edges", "ranks")))
    return BlindAudit(found["above"], found["seed"], sample, [Target(id, at, at + 1) for id, at in found["targets"]])


def draw_audit(loaded: Loaded, kind: str, *, above: int, n: int = SIZE, seed: int = 0) -> None:
    """Draw `n` tokens around a threshold and keep them in place of an earlier audit's."""
    check_writable(loaded.study.root)
    index, corpus = loaded.index(kind), loaded.corpus()
    sample = draw_tokens(above, index.n_tail, n, seed)
    places = index.places_at(sample.ranks)
    owners = np.searchsorted(corpus.offsets, places, side="right") - 1
    inside = places - np.asarray(corpus.offsets)[owners]
    targets = [(corpus.document(int(d)).id, int(at)) for d, at in zip(owners, inside, strict=True)]
    found = {"above": above, "seed": seed, "edges": sample.edges.tolist(), "ranks": sample.ranks.tolist()}
    on_demand.keep_result(_path(loaded, kind), found | {"targets": targets})


def act(loaded: Loaded, kind: str, log: VerdictLog, deed: dict, above: int, by: str = "") -> None:
    """Do what the reader, of the name `by`, did in an audit: `do` is `open`, `close`, `over`, `more`, `undo`, or a
    verdict on the token of number `item`; a new sample is drawn around the threshold with this many tokens `above`."""
    audit, what = read_audit(loaded, kind), deed.get("do")
    if what == "open" and audit is None:
        draw_audit(loaded, kind, above=above)
    elif audit is None:
        return
    elif what == "over":
        draw_audit(loaded, kind, above=above, seed=audit.seed + 1)
    elif what == "more":
        draw_audit(loaded, kind, above=audit.above, n=len(audit.targets) + SIZE, seed=audit.seed)
    elif what == "undo":
        given = log.current(by)
        if judged := [target for target in audit.targets if target in given]:
            log.decide(judged[-1], "none", by=by)
    elif what in VERDICTS and deed.get("item") in range(len(audit.targets)):
        log.decide(audit.targets[deed["item"]], what, by=by)


def describe(loaded: Loaded, kind: str, log: VerdictLog, by: str = "") -> dict:
    """The audit as the board shows it to one reader: counts, the next tokens in their contexts, and the precision
    curve: rows of score, tokens above, precision and the ends of its interval."""
    if (audit := read_audit(loaded, kind)) is None:
        return {"n": 0, "done": 0, "rows": [], "items": []}
    index, corpus, verdicts = loaded.index(kind), loaded.corpus(), log.current(by)
    given = [verdicts.get(target) for target in audit.targets]
    judged = np.array([i for i, verdict in enumerate(given) if verdict in ("toxic", "fine")], dtype=np.int64)
    toxic = np.array([given[i] == "toxic" for i in judged], dtype=bool)
    edges, rows = audit.sample.edges[1:], []
    steps = np.arange(POINTS * (len(edges) - 1) + 1) / POINTS
    for above in np.unique(np.interp(steps, np.arange(len(edges)), edges).astype(np.int64)).tolist():
        if found := precision_above(audit.sample, judged, toxic, above):
            rows.append([index.locate(above)[0], above, found.value, found.low, found.high])
    waiting = [i for i, verdict in enumerate(given) if verdict is None]
    places = index.places_at(audit.sample.ranks[waiting[:AHEAD]]).tolist()
    items = [excerpt_at(corpus, place, reach=CONTEXT) for place in places]
    return {
        "n": len(given),
        "done": len(given) - len(waiting),
        "more": len(given) < int(audit.sample.edges[-1]),
        **{verdict: given.count(verdict) for verdict in VERDICTS},
        "rows": rows,
        "items": [list(pair) for pair in zip(waiting, items, strict=False)],
    }
