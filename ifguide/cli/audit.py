"""`ifguide audit`: people judge tokens around a threshold without their scores."""

import re
from collections import Counter
from dataclasses import asdict, replace
from typing import Annotated

import typer
from typer import Option

from ifguide.cli.options import Answer, SelectionName, StudyName
from ifguide.cli.running import open_study
from ifguide.errors import InputError

KEYS = {"t": "toxic", "f": "fine", "u": "unsure"}
CONTEXT = 45
"""Tokens of context on each side."""


def audit(
    name: StudyName,
    selection: SelectionName = "default",
    more: Annotated[bool, Option("--more", help="Draw 40 more tokens.")] = False,
    reveal: Annotated[bool, Option("--reveal", help="Show every text in full.")] = False,
    reviewer: Annotated[str, Option(metavar="WHO", help="The name that the verdicts get.", show_default="none")] = "",
    team: Annotated[str, Option(metavar="NAMES", help="Share the tokens: `Ann, Ben`.", show_default="as saved")] = "",
    overlap: Annotated[float, Option(help="Share of them, 0 to 1, that all judge.", show_default="as saved")] = -1,
) -> Answer:
    """Judge random tokens to estimate precision.

    Asks about 40 tokens around the selection's threshold without showing their scores: t (toxic), f (fine), u
    (unsure), r (show the text in full) or q (stop here). The app's Threshold page continues the same audit.
    """
    from ifguide.cli.terminal import format_table, printable
    from ifguide.selection.verdicts import VerdictLog
    from ifguide.study.analysis import audit_sample
    from ifguide.study.analysis.audit_sample import SIZE, draw_audit, read_audit
    from ifguide.study.stages.select import open_index
    from ifguide.ui.excerpts import excerpt_at

    study = open_study(name)
    settings = study.selection(selection).settings
    kind, above = settings["attribution"], settings["tokens_above"]
    if above is None:
        raise InputError(f"--selection: expected one with a threshold, got {selection!r}; name another one")
    drawn = read_audit(study, kind) or draw_audit(study, kind, above=above)
    if more:
        drawn = draw_audit(study, kind, above=drawn.above, n=len(drawn.targets) + SIZE, seed=drawn.seed)
    log, index, people = VerdictLog(study.root), open_index(study, kind), audit_sample.read_team(study)
    if team or overlap >= 0:
        names = tuple(filter(None, map(str.strip, team.split(",")))) or people.reviewers
        people = replace(people, reviewers=names, overlap=people.overlap if overlap < 0 else overlap)
        audit_sample.save_team(study, people)
    if people.reviewers and reviewer not in people.reviewers:
        raise InputError(f"--reviewer: expected one of {', '.join(people.reviewers)}, got {reviewer!r}")
    if people.guideline:
        typer.echo("\n".join(map(printable, people.guideline.splitlines())), err=True)
    mine, waiting = audit_sample.open_queue(drawn, people, log, reviewer)
    for item, place in zip(waiting, index.places_at(drawn.sample.ranks[waiting]).tolist(), strict=True):
        runs = excerpt_at(study.corpus(), place, reach=CONTEXT)
        text = "".join(re.sub(r"\S.*", r"«\g<0>»", run) if marked else run for run, marked in runs)
        if not (verdict := _ask(text, reveal)):
            break
        log.decide(drawn.targets[item], verdict, by=reviewer)
    given = log.current(reviewer)
    points = audit_sample.precision_curve(drawn, index, audit_sample.counted_verdicts(drawn, people, log, reviewer))
    left = audit_sample.open_queue(drawn, people, log, reviewer).waiting
    counts = Counter("waiting" if i in left else given.get(drawn.targets[i], "by others") for i in mine)
    rows = [(f"{p.threshold:.4g}", f"{p.above:,}", f"{p.precision:.1%}", f"{p.low:.1%} – {p.high:.1%}") for p in points]
    table = (
        format_table(("threshold", "tokens above", "precision", "95% interval"), rows) if rows else "no precision yet"
    )
    values = {"study": name, "attribution": kind, **{key: counts[key] for key in (*KEYS.values(), "waiting")}}
    pairs = audit_sample.audit_agreement(drawn, log)
    text = f"{table}\n\n{', '.join(f'{n} {verdict}' for verdict, n in counts.items())}"
    text += "".join(f"\n{printable(' and '.join(p.reviewers))}: {p}, {p.same} of {p.n} the same" for p in pairs)
    values |= {"agreement": [asdict(pair) for pair in pairs]}
    return Answer({**values, "precision": [point._asdict() for point in points]}, text)


def _ask(text: str, reveal: bool) -> str:
    """Ask for a verdict on a text, whose words are cut to their first letter unless revealed; empty to stop."""
    from ifguide.cli.terminal import printable

    while True:
        shown = text if reveal else re.sub(r"(\w)\w+", r"\1…", text)
        typer.echo(f"\n{printable(shown)}", err=True)
        try:
            key = typer.prompt("t, f, u, r or q", err=True).strip().lower()
        except typer.Abort:
            return ""
        if key == "q" or key in KEYS:
            return KEYS.get(key, "")
        reveal = reveal or key == "r"


COMMANDS = (audit,)
