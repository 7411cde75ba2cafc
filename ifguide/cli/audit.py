"""`ifguide audit`: people judge tokens around a threshold without their scores."""

import re
from collections import Counter
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
) -> Answer:
    """Judge random tokens to estimate precision.

    Asks about 40 tokens around the selection's threshold without showing their scores: t (toxic), f (fine), u
    (unsure), r (show the text in full) or q (stop here). The app's Threshold page continues the same audit.
    """
    from ifguide.cli.terminal import format_table
    from ifguide.selection.verdicts import VerdictLog
    from ifguide.study.analysis.audit_sample import SIZE, draw_audit, precision_curve, read_audit
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
    log, index = VerdictLog(study.root), open_index(study, kind)
    for target, place in zip(drawn.targets, index.places_at(drawn.sample.ranks).tolist(), strict=True):
        if target not in log.current(reviewer):
            runs = excerpt_at(study.corpus(), place, reach=CONTEXT)
            text = "".join(re.sub(r"\S.*", r"«\g<0>»", run) if marked else run for run, marked in runs)
            if not (verdict := _ask(text, reveal)):
                break
            log.decide(target, verdict, by=reviewer)
    given = log.current(reviewer)
    points = precision_curve(drawn, index, given)
    counts = Counter(given.get(target, "waiting") for target in drawn.targets)
    rows = [(f"{p.threshold:.4g}", f"{p.above:,}", f"{p.precision:.1%}", f"{p.low:.1%} – {p.high:.1%}") for p in points]
    table = (
        format_table(("threshold", "tokens above", "precision", "95% interval"), rows) if rows else "no precision yet"
    )
    values = {"study": name, "attribution": kind, **{key: counts[key] for key in (*KEYS.values(), "waiting")}}
    text = f"{table}\n\n{', '.join(f'{n} {verdict}' for verdict, n in counts.items())}"
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
