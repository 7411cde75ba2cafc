"""The blind audit on the Threshold page: what the reader does in it, and what the board shows. No streamlit here."""

import numpy as np

from ifguide.selection.verdicts import VERDICTS, VerdictLog
from ifguide.study.analysis import audit_sample
from ifguide.study.analysis.audit_sample import SIZE, draw_audit, read_audit, read_team
from ifguide.ui.excerpts import excerpt_at
from ifguide.ui.loaders import Loaded

AHEAD = 3
"""Tokens sent to the browser at once, so that the next one is there when a verdict is given."""
CONTEXT = 45
"""Tokens of context on each side."""


def act(loaded: Loaded, kind: str, log: VerdictLog, action: dict, above: int, by: str = "") -> None:
    """Do what a reader, named `by`, did in an audit: its `do` is `open`, `close`, `over`, `more`, `undo`, or a verdict
    on the token with the number `item`. A new sample is drawn around the threshold with `above` tokens over it."""
    study, what = loaded.study, action.get("do")
    audit = read_audit(study, kind)
    if what == "open" and audit is None:
        draw_audit(study, kind, above=above)
    elif audit is None:
        return
    elif what == "over":
        draw_audit(study, kind, above=above, seed=audit.seed + 1)
    elif what == "more":
        draw_audit(study, kind, above=audit.above, n=len(audit.targets) + SIZE, seed=audit.seed)
    elif what in VERDICTS or what == "undo":
        items, verdicts = audit_sample.open_queue(audit, read_team(study), log, by).items, log.current(by)
        if what != "undo" and action.get("item") in items:
            log.decide(audit.targets[action["item"]], what, by=by)
        elif what == "undo" and (judged := [i for i in items if audit.targets[i] in verdicts]):
            log.decide(audit.targets[judged[-1]], "none", by=by)


def describe(loaded: Loaded, kind: str, log: VerdictLog, by: str = "") -> dict:
    """The audit as the board shows it to one reader: counts, the next tokens in context, and the precision curve."""
    if (audit := read_audit(loaded.study, kind)) is None:
        return {"n": 0, "done": 0, "rows": [], "items": []}
    index, corpus, team = loaded.index(kind), loaded.corpus(), read_team(loaded.study)
    mine, waiting = audit_sample.open_queue(audit, team, log, by)
    verdicts, seen = audit_sample.counted_verdicts(audit, team, log, by), log.current(by)
    given = [seen.get(audit.targets[i]) for i in mine]
    places = index.places_at(audit.sample.ranks[waiting[:AHEAD]]).tolist()
    items = [excerpt_at(corpus, place, reach=CONTEXT) for place in places]
    pairs = audit_sample.audit_agreement(audit, log)
    kappas = [pair.kappa for pair in pairs if pair.kappa is not None]
    mean = f"mean κ {np.mean(kappas):.2f}" if kappas else ""  # Light's κ
    return {
        "n": len(mine) or len(verdicts),
        "done": len(mine) - len(waiting) if mine else sum(map(bool, verdicts)),
        "more": len(verdicts) < int(audit.sample.edges[-1]),
        **{verdict: given.count(verdict) for verdict in VERDICTS},
        "rows": [list(point) for point in audit_sample.precision_curve(audit, index, verdicts)],
        "items": [list(pair) for pair in zip(waiting, items, strict=False)],
        "stranger": bool(team.reviewers) and by not in team.reviewers,
        "guideline": team.guideline,
        "agreement": str(*pairs) if len(pairs) == 1 else mean,
    }
