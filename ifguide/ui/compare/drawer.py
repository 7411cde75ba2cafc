"""The drawer at the right edge: training documents that pushed toward a clicked completion, beside those that read
alike; or a pair's token probabilities."""

from collections.abc import Mapping

import numpy as np
import streamlit as st

from ifguide.config.names import DEFAULT
from ifguide.data.word_index import COMMON_SHARE, TERMS_MOST, Term, WordIndex, mark_terms
from ifguide.evaluation.toxic_spans import Span
from ifguide.study.analysis.likelihood import read_likelihoods
from ifguide.ui import components, layout
from ifguide.ui.compare import likelihood_view, live, trace_panel
from ifguide.ui.compare.picks import PROMPT, Pick, remember_pick
from ifguide.ui.format import column, count, count_of, share, variant_title, variant_titles
from ifguide.ui.loaders import Loaded
from ifguide.ui.results.side_by_side import Samples, completion_cell, offensive_spans


def show_drawer(loaded: Loaded, samples: Samples, pick: Pick, colours: Mapping[str, str]) -> None:
    with st.container(key="drawer", gap="small"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.subheader("Training documents" if pick.model else "Token probabilities", anchor=False)
            st.space("stretch")
            if pick.span:
                st.button("Whole completion", key="span_close", on_click=layout.set_parameter, args=("span", ""))
            icon, close = ":material/close:", (0, "close")
            st.button("Close", "drawer_close", None, remember_pick, close, type="tertiary", icon=icon, shortcut="Esc")
        if pick.model:
            _show_answer(loaded, pick, colours)
            chosen = loaded.selection(DEFAULT).mask if DEFAULT in loaded.study.selection_names() else None
            with st.grid(2, min_column_width=400, gap="medium", key="origins"):
                with st.container(gap="small"):
                    trace_panel.show_pushed(loaded, pick, chosen)
                with st.container(gap="small"):
                    st.markdown("**Reads alike**")
                    _show_nearest(loaded, pick.text, pick.span, chosen)
        else:
            _show_likelihood(loaded, samples, pick, colours)


def _show_answer(loaded: Loaded, pick: Pick, colours: Mapping[str, str]) -> None:
    """The clicked completion, which the drawer may cover."""
    whose, row = f", completion {pick.sample + 1}" if pick.prompt != PROMPT else "", pick.rows[pick.model]
    shown = {"rows": [{"sample": pick.sample, "cells": [completion_cell(row)]}]}
    components.completions(
        shown | {"prompt": row["prompt"], "change": "", "results": [""]},
        key="drawer_answer",
        names=[pick.model],
        colours=colours,
        memory=f"{loaded.name}:{pick.prompt}",
        titles=[f"{variant_title(pick.model, pick.model in loaded.edited)}{whose}"],
    )


def _show_nearest(loaded: Loaded, text: str, span: Span | None, chosen: np.ndarray | None) -> None:
    index, corpus, order = loaded.word_index(), loaded.corpus(), loaded.rank_order()
    matches, terms = index.nearest(text, n=8, span=span, order=order)
    if not matches and not span:
        st.info("No document shares a rare word with this completion.", icon=":material/search_off:")
    columns = [column("Document", "titled"), column("Where", "excerpt")]
    rows = []
    for match in matches:
        document, offensive = corpus.document(match.document), _offensive(loaded, match.document, chosen)
        note = f"weight {match.score:.1f}"
        if chosen is not None:
            first, last = corpus.offsets[match.document], corpus.offsets[match.document + 1]
            note += f" · {count(int(np.count_nonzero(chosen[first:last])))} selected"
        where = [list(run) for run in mark_terms(document.text, match.shared, offensive)]
        rows.append({"key": document.id, "cells": [[document.id, note, ""], where]})
    if matches or span:
        picked = components.record_table(
            columns,
            rows,
            key="nearest",
            label=f"Training documents nearest to the {'toxic words' if span else 'completion'}",
            heading=[("Nearest to “", False), (text[span[0] : span[1]], True), ("”", False)] if span else (),
            pickable=True,
            empty="No searched document contains any of these words.",
        )
        if picked is not None:
            layout.open_document(loaded, picked)
    st.caption(_explain(index, corpus.n_documents, terms, span, ranked=order is not None))


def _offensive(loaded: Loaded, document: int, chosen: np.ndarray | None) -> list[Span]:
    """Characters of a document's selected tokens and human labels."""
    corpus = loaded.corpus()
    here = slice(int(corpus.offsets[document]), int(corpus.offsets[document + 1]))
    marked = np.zeros(here.stop - here.start, dtype=bool)
    for mask in (chosen, corpus.in_span):
        marked |= np.asarray(mask[here]) if mask is not None else False
    starts, ends = (np.asarray(places[here])[marked].tolist() for places in (corpus.char_start, corpus.char_end))
    return list(zip(starts, ends, strict=True))


def _explain(index: WordIndex, n_documents: int, terms: list[Term], span: Span | None, *, ranked: bool) -> str:
    searched = "all documents"
    if index.n_documents < n_documents:
        searched = f"the {count(index.n_documents)} best-ranked of {count_of(n_documents, 'document')}"
    warning, first = "", "the best-ranked by the default selection" if ranked else "the first in the corpus"
    if span:
        shared, term, limit = "contain these words", "A word, or a pair with its neighbour in the completion,", ""
        if any(len(term.words) == 1 and index.is_common(term.n_documents) for term in terms):
            order = "rank" if ranked else "place in the corpus"
            warning = f"Many documents contain such words, so a match says little; many are ordered only by {order}. "
    else:
        shared, term = "share the completion's rarest words and word pairs", "A term"
        limit = f", and terms in more than {share(COMMON_SHARE, digits=0)} of the documents do not"
    return (
        f"{warning}Documents that {shared}, out of {searched}; those words, selected tokens and human labels are"
        f" marked. {term} in n of N documents weighs log(N/n); the {TERMS_MOST} rarest count{limit}. On equal sums,"
        f" {first} come first. They are similar texts; only training without them shows whether they caused it."
    )


def _show_likelihood(loaded: Loaded, samples: Samples, pick: Pick, colours: Mapping[str, str]) -> None:
    names, prompt = list(samples), int(pick.prompt)
    likelihoods = read_likelihoods(loaded.study, prompt, names)
    if likelihoods is None:
        live.compute_tokens(loaded, names, prompt)
        return
    offensive: dict[str, list[Span]] = {}
    for name, frame in samples.items():
        rows = frame[(frame["prompt_index"] == prompt) & (frame["sample_index"] == pick.sample)]
        offensive[name] = offensive_spans(rows.iloc[0]) if len(rows) else []
    titles = variant_titles(names, loaded.edited)
    chosen = layout.choose("Colour by", {title: title for title in likelihood_view.choices(titles)}, key="colour_by")
    memory = f"{loaded.name}:{prompt}"
    payload = likelihood_view.viewer_payload(likelihoods, pick.sample, titles, chosen, colours, memory, offensive)
    components.likelihood(payload, key="likelihood")
    columns, rows = likelihood_view.mean_table(likelihoods, titles, colours, loaded.edited)
    st.caption(
        "Each token's log-probability (nats) under each model, given the prompt and the tokens before it. The text is"
        " tokenised again, so tokens may differ from those drawn where it can be split in two ways."
    )
    components.record_table(columns, rows, key="likelihood_means", label="Mean log-probability of a token")
    st.caption("The mean over all completions of this prompt, in nats.")
