"""The blind audit on the Threshold page: what the reader does in it, and what the board shows. No streamlit here."""

from ifguide.selection.verdicts import VERDICTS, VerdictLog
from ifguide.study.analysis.audit_sample import SIZE, draw_audit, precision_curve, read_audit
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
    elif what == "undo":
        verdicts = log.current(by)
        if judged := [target for target in audit.targets if target in verdicts]:
            log.decide(judged[-1], "none", by=by)
    elif what in VERDICTS and action.get("item") in range(len(audit.targets)):
        log.decide(audit.targets[action["item"]], what, by=by)


def describe(loaded: Loaded, kind: str, log: VerdictLog, by: str = "") -> dict:
    """The audit as the board shows it to one reader: counts, the next tokens in context, and the precision curve."""
    if (audit := read_audit(loaded.study, kind)) is None:
        return {"n": 0, "done": 0, "rows": [], "items": []}
    index, corpus, verdicts = loaded.index(kind), loaded.corpus(), log.current(by)
    given = [verdicts.get(target) for target in audit.targets]
    waiting = [i for i, verdict in enumerate(given) if verdict is None]
    places = index.places_at(audit.sample.ranks[waiting[:AHEAD]]).tolist()
    items = [excerpt_at(corpus, place, reach=CONTEXT) for place in places]
    return {
        "n": len(given),
        "done": len(given) - len(waiting),
        "more": len(given) < int(audit.sample.edges[-1]),
        **{verdict: given.count(verdict) for verdict in VERDICTS},
        "rows": [list(point) for point in precision_curve(audit, index, verdicts)],
        "items": [list(pair) for pair in zip(waiting, items, strict=False)],
    }
