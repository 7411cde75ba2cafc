"""Below the reader: what was decided so far, how precise the selection is by it, and a selection corrected by it."""

from dataclasses import dataclass

import numpy as np
import streamlit as st

from ifguide.selection import audit
from ifguide.selection.verdicts import VerdictLog
from ifguide.study.select import save_reviewed
from ifguide.ui.documents.store import DocumentStore
from ifguide.ui.format import count, count_of, plain, selection_title
from ifguide.ui.layout import guard
from ifguide.ui.loaders import Loaded


@dataclass(frozen=True, eq=False)
class Audit:
    """A sample of a selection's spans, drawn for judging."""

    spans: audit.Spans
    """All selected spans."""
    drawn: np.ndarray
    """int64, numbers of the sampled ones."""
    offsets: np.ndarray
    """int64 (D+1,)."""

    def _place(self, number: int) -> tuple[int, int, int]:
        """A span's document, and its start and stop counted in the document's own tokens."""
        document = int(self.spans.document[number])
        first = int(self.offsets[document])
        return document, int(self.spans.start[number]) - first, int(self.spans.stop[number]) - first

    def targets(self) -> dict[int, list[tuple[int, int]]]:
        """Document -> its sampled spans, counted in its own tokens, in reading order."""
        found: dict[int, list[tuple[int, int]]] = {}
        for document, start, stop in map(self._place, np.sort(self.drawn).tolist()):
            found.setdefault(document, []).append((start, stop))
        return found

    def judged(self, ids: dict[int, str], log: VerdictLog) -> tuple[np.ndarray, np.ndarray]:
        """(numbers of the sampled spans that have a verdict of toxic or fine, whether toxic).

        A span's own verdict counts, else one that overlaps it, else that its whole document is fine.
        """
        numbers, toxic, whole = [], [], log.of_documents()
        for number in self.drawn.tolist():
            document, start, stop = self._place(number)
            near = [(a, b, v) for a, b, v in log.spans_of(ids[document]) if a < stop and b > start and v != "unsure"]
            verdicts = [v for a, b, v in near if (a, b) == (start, stop)] + [v for _, _, v in near]
            if whole.get(ids[document]) == "fine":
                verdicts.append("fine")
            if verdicts:
                numbers.append(number)
                toxic.append(verdicts[0] == "toxic")
        return np.array(numbers, dtype=np.int64), np.array(toxic, dtype=bool)


def show_panel(loaded: Loaded, store: DocumentStore, selection: str, log: VerdictLog, audited: Audit | None) -> None:
    """The panel, drawn again after every verdict."""
    verdicts = log.current()
    if not verdicts and audited is None:
        st.caption(
            "Press t, f or u to call a document toxic, fine or unsure; ? shows all keys. Verdicts are saved at once, in"
            " the study's folder."
        )
        return
    st.subheader("Verdicts", anchor=False)
    documents = {t.document: v for t, v in verdicts.items() if not t.is_span}
    judged = {"Documents": [*documents.values()], "Spans of tokens": [v for t, v in verdicts.items() if t.is_span]}
    chosen = _with_selected(store, documents)
    by_documents = audit.simple_precision(chosen.count("toxic"), chosen.count("toxic") + chosen.count("fine"))
    measured = None
    with st.grid(3, min_column_width=250):
        for title, given in judged.items():
            if given:
                _show_card(title, _tally(given), count_of(len(given), "verdict"))
        if audited is not None:
            measured = _show_audit(audited, store, log)
        elif by_documents:
            _show_card(
                "Toxic among those judged",
                _share(by_documents),
                f"of {count_of(by_documents.n, 'verdict')}, not a random sample",
                "Of the documents with selected tokens that you called toxic or fine, the share of toxic ones, with a"
                " 95% Wilson interval. You chose which ones to judge, most likely the top ones; an audit of random"
                " spans speaks for the whole selection.",
            )
    if measured:
        st.success(
            f"At this threshold {_share(measured)} of the selected spans in “{plain(selection_title(selection))}” are"
            " toxic (95% interval).",
            icon=":material/fact_check:",
        )
    _show_saving(loaded, selection, log)


def _show_audit(audited: Audit, store: DocumentStore, log: VerdictLog) -> audit.Precision | None:
    """The audit's figure; returned once every sampled span is judged."""
    documents = np.unique(audited.spans.document[audited.drawn])
    ids = {row["document"]: row["id"] for row in store.rows(documents)}
    numbers, toxic = audited.judged(ids, log)
    strata = audit.strata_of(audited.spans)
    sizes = np.bincount(strata, minlength=audit.STRATA)
    found = audit.audit_precision(strata[numbers], sizes, toxic) if len(numbers) else None
    _show_card(
        "Selected spans that are toxic",
        _share(found) if found else "–",
        f"{count(len(numbers))} of {count(len(audited.drawn))} sampled spans judged",
        f"From {count(len(audited.drawn))} of {count(len(audited.spans.start))} selected spans, drawn at random, as"
        " many from each quarter of their highest scores; 95% interval (Wilson, with the sample's effective size). It"
        " is shown once every quarter has a verdict of toxic or fine.",
    )
    return found if len(numbers) == len(audited.drawn) else None


def _show_card(title: str, value: str, note: str, help: str | None = None) -> None:
    st.metric(title, value, note, delta_color="off", delta_arrow="off", border=True, help=help)


def _share(found: audit.Precision) -> str:
    return f"{found.value:.0%} [{100 * found.low:.0f}, {100 * found.high:.0f}]"


def _tally(verdicts: list[str]) -> str:
    shown = [word for word in ("toxic", "fine", "unsure") if word != "unsure" or word in verdicts]
    return " · ".join(f"{verdicts.count(word)} {word}" for word in shown)


def _with_selected(store: DocumentStore, documents: dict[str, str]) -> list[str]:
    """Verdicts on documents that hold selected tokens."""
    numbers = store.numbers(documents)
    rows = store.rows(np.array(sorted(numbers.values()), dtype=np.int64)) if numbers else []
    return [documents[row["id"]] for row in rows if row["selected"]]


def _show_saving(loaded: Loaded, selection: str, log: VerdictLog) -> None:
    with st.expander("Apply my labels to a new selection"):
        st.write(
            "Documents and spans you called fine leave the selection; spans you called toxic enter it. The new"
            " selection can be trained against like any other."
        )
        with st.container(horizontal=True, vertical_alignment="bottom"):
            name = st.text_input("Its name", key="reviewed_name", placeholder="reviewed", width=260)
            save = st.button("Save the corrected selection", icon=":material/save:")
        if save:
            with guard(go_on=True):
                made = save_reviewed(loaded.study, selection, name or "reviewed", log.current())
                found = made.settings
                st.success(
                    f"Saved “{plain(made.name)}”: {count_of(found['n_selected'], 'token')}, {count(found['excluded'])}"
                    f" fewer and {count(found['forced'])} more than before.",
                    icon=":material/check:",
                )
