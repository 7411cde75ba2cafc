"""Below the reader: the verdicts so far, how far reviewers agree, their notes, and a selection corrected by them."""

import contextlib

import streamlit as st

from ifguide.errors import InputError
from ifguide.selection import audit
from ifguide.selection.verdicts import VERDICTS, Given, Target, VerdictLog
from ifguide.study.analysis.audit_sample import (
    MOST_TEXT,
    BlindAudit,
    Team,
    audit_agreement,
    open_queue,
    read_team,
    save_team,
)
from ifguide.study.stages.select import save_reviewed
from ifguide.ui import components
from ifguide.ui.documents.loaders import reviewer
from ifguide.ui.excerpts import excerpt_at
from ifguide.ui.format import column, count, count_of, number, plain
from ifguide.ui.job_panel import refuse_recorded
from ifguide.ui.layout import guard
from ifguide.ui.loaders import Loaded


def show_panel(loaded: Loaded, selection: str, log: VerdictLog) -> str | None:
    """The panel, redrawn after every verdict; returns the document that was picked in it."""
    entries, reviewers = log.entries(), log.reviewers()
    if not entries:
        return None
    panel = st.expander(f"Verdicts ({count(len(entries))})", key="judged", bind="query-params")
    if not panel.open:
        return None
    with panel:
        with st.grid(3, min_column_width=250):
            for title, of_spans in (("Documents", False), ("Spans of tokens", True)):
                if verdicts := [verdict for target, (verdict, *_) in entries.items() if target.is_span == of_spans]:
                    _show_card(title, _tally(verdicts), count_of(len(verdicts), "verdict"))
            _show_agreement(audit.find_agreement(reviewers))
        n, change, filtered = len(log.disputed()), st.session_state.update, {"verdicts": ["disputed"]}
        if n and st.button(f"Review {count_of(n, 'disagreement')}", on_click=change, args=(filtered,)):
            st.rerun()
        picked = _show_notes(reviewers, reviewer())
        if not refuse_recorded(loaded.study.root):
            _show_saving(loaded, selection, log)
    return picked


def show_team(loaded: Loaded, log: VerdictLog, drawn: BlindAudit | None = None) -> None:
    """Who reviews together and by which guideline, to be changed in place; how much of an audit each has judged; and
    what they disagree on in it, or in all documents, to be decided."""
    team, by, finals = read_team(loaded.study), reviewer(), log.finals()
    disputes = {target: given for target, given in log.disputes().items() if not drawn or target in drawn.targets}
    stranger = bool(team.reviewers) and by not in team.reviewers
    shown = {target: given for target, given in disputes.items() if by in given or stranger}  # none is swayed
    n = len(shown.keys() - finals.keys())
    panel = st.expander(f"Team{f' ({count(n)} to decide)' * bool(n)}", key="team_panel", bind="query-params")
    if not panel.open:
        return
    with panel:
        if team.reviewers:
            _ask_name(team, by)
        if drawn and team.reviewers:
            with st.grid(4, min_column_width=200):
                for name in team.reviewers:
                    items, waiting = open_queue(drawn, team, log, name)
                    value = f"{count(len(items) - len(waiting))} of {count(len(items))}"
                    _show_card(f"Judged by {plain(name)}", value, "tokens of the audit")
                _show_agreement(audit_agreement(drawn, log))
        if shown:
            _ask_decisions(loaded, log, shown, finals, by)
        if hidden := len(disputes) - len(shown):
            st.caption(f"{count_of(hidden, 'disagreement')} on what you have not judged: they are shown once you have.")
        if not refuse_recorded(loaded.study.root):
            _ask_team(loaded, team)


def _ask_decisions(loaded: Loaded, log: VerdictLog, disputes: dict[Target, Given], finals: dict, by: str) -> None:
    """What each said, side by side, and a button for each verdict; pressed again, it takes the decision back."""
    keys, rows = {}, []
    people = sorted({who for given in disputes.values() for who in given})
    for target, given in sorted(disputes.items(), key=lambda item: item[0] in finals):
        keys[key := f"{target.start} {target.stop} {target.document}"] = target
        verdict, _, who = finals.get(target, ("", "", ""))
        chosen = [(word, "none" if (word, by) == (verdict, who) else word) for word in VERDICTS]
        choices = [[word.capitalize(), f"{act} {key}", word == verdict] for word, act in chosen]
        opinions = [[*given.get(name, ("–", ""))] for name in people]
        rows.append({"key": key, "cells": [target.document, _text(loaded, target), *opinions, choices]})
    columns = [column("Document", "text"), column("Text", "excerpt"), *(column(name, "titled") for name in people)]
    columns.append(column("Decision", "choices"))
    picked = components.record_table(columns, rows, key="disputes", label="Disagreements", most=10)
    act, _, key = (picked or "").partition(" ")
    if key in keys and act in (*VERDICTS, "none"):
        log.decide(keys[key], act, by=by, final=True)
        st.rerun()
    st.caption("A decision counts instead of these verdicts, also in the precision. Press it again to take it back.")


def _text(loaded: Loaded, target: Target) -> list[list]:
    """Where a verdict's span or document begins; empty where the corpus no longer has it."""
    corpus = loaded.corpus()
    with contextlib.suppress(InputError):
        first, end = corpus.offsets[(index := corpus.index_of(target.document)) : index + 2]
        if (place := int(first) + (target.start or 0)) < end:
            return [[part, mark * target.is_span] for part, mark in excerpt_at(corpus, place)]
    return []


def _show_agreement(pairs: list[audit.Agreement]) -> None:
    for pair in pairs:
        bounds = ", ".join(number(bound, 2) for bound in pair.bounds or ())
        _show_card(
            f"Agreement of {plain(' and '.join(pair.reviewers))}",
            f"κ = {number(pair.kappa, 2)}",
            f"{f'[{bounds}], ' * bool(bounds)}{count(pair.same)} of {count_of(pair.n, 'verdict')} the same",
            "Cohen's κ on what both judged, with its 95% interval, which is too narrow below 20 verdicts: 1 is full"
            " agreement, 0 is chance. A dash: both always gave the same verdict.",
        )


def _ask_name(team: Team, by: str) -> None:
    chosen = [*team.reviewers].index(by) if by in team.reviewers else None
    name = st.selectbox("You are", team.reviewers, chosen, key=f"you {by}", placeholder="Choose your name", width=260)
    if name and name != by:
        st.session_state["reviewer"] = name
        st.rerun()


def _ask_team(loaded: Loaded, team: Team) -> None:
    keys = [f"{part} {hash(team)}" for part in ("reviewers", "overlap", "guideline")]  # new when others change the team

    def save() -> None:
        names, overlap, text = (st.session_state[key] for key in keys)
        with guard(go_on=True):
            people = tuple(filter(None, map(str.strip, names.split(","))))
            save_team(loaded.study, Team(people, overlap / 100, text.strip()))

    with st.form("team", border=False):
        with st.container(horizontal=True):
            note = "Names with commas between them. Each judges an own part of the audit; empty: everyone judges all."
            st.text_input("Reviewers", ", ".join(team.reviewers), key=keys[0], help=note, placeholder="Ann, Ben, Cy")
            note = "The share of the audit's tokens that all of them judge, to see how far they agree."
            share = round(100 * team.overlap)
            st.number_input("Judged by all, %", 0, 100, share, key=keys[1], help=note, width=160)
        note = "What counts as toxic, and what does not. Shown beside the buttons for verdicts."
        st.text_area("Guideline", team.guideline, max_chars=MOST_TEXT, key=keys[2], help=note)
        st.form_submit_button("Save the team", icon=":material/save:", on_click=save)


def _show_notes(reviewers: dict[str, dict[Target, tuple[str, str]]], by: str) -> str | None:
    """Notes on the verdicts, those of others only on what the reviewer `by` has judged too."""
    notes = [
        (target.document, verdict, reviewer, note)
        for reviewer, verdicts in reviewers.items()
        for target, (verdict, note) in verdicts.items()
        if note and (reviewer in ("", by) or target in reviewers.get(by, {}))
    ]
    rows = [{"key": f"{i} {cells[0]}", "cells": [cell or "–" for cell in cells]} for i, cells in enumerate(notes)]
    if not rows:
        return None
    columns = [column(title, "text") for title in ("Document", "Verdict", "Reviewer", "Note")]
    picked = components.record_table(columns, rows, key="notes", label="Notes on verdicts", pickable=True)
    return picked and picked.partition(" ")[2]


def _show_card(title: str, value: str, note: str, help: str | None = None) -> None:
    st.metric(title, value, note, delta_color="off", delta_arrow="off", border=True, help=help)


def _tally(verdicts: list[str]) -> str:
    shown = [word for word in ("toxic", "fine", "unsure") if word != "unsure" or word in verdicts]
    return " · ".join(f"{verdicts.count(word)} {word}" for word in shown)


def _show_saving(loaded: Loaded, selection: str, log: VerdictLog) -> None:
    st.markdown("**Apply my labels to a new selection**")
    st.caption(
        "Documents and spans you called fine leave the selection; spans you called toxic enter it. You can train"
        " against the new selection as against any other."
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input("Its name", key="reviewed_name", placeholder="reviewed", width=260)
        save = st.button("Save the corrected selection", icon=":material/save:")
    if save:
        with guard(go_on=True):
            saved = save_reviewed(loaded.study, selection, name or "reviewed", log.current())
            n_out, n_in = saved.settings["excluded"], saved.settings["forced"]
            st.success(
                f"Saved “{plain(saved.name)}”: {count_of(saved.settings['n_selected'], 'token')}, {count(n_out)}"
                f" removed and {count(n_in)} added.",
                icon=":material/check:",
            )
