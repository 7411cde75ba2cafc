"""Under a prompt: the clicked completion's nearest training documents, and its token probabilities."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import streamlit as st

from ifguide.config.names import DEFAULT
from ifguide.data.word_index import COMMON_SHARE, TERMS_MOST, Term, WordIndex, mark_terms
from ifguide.evaluation.toxic_spans import Span, read_spans
from ifguide.runtime.jobs import active_job, latest_job
from ifguide.study.analysis.likelihood import read_likelihoods
from ifguide.ui import components, job_panel, layout
from ifguide.ui.compare import likelihood_view
from ifguide.ui.compare.side_by_side import Samples
from ifguide.ui.format import column, count, count_of, plain, sentence, share, variant_title
from ifguide.ui.loaders import Loaded

NEAREST = 8
"""Documents shown."""
HEADING_CHARACTERS = 80
"""Of a toxic span, shown above its documents."""
VIEWS = ["Nearest training documents", "Token probabilities"]


@dataclass(frozen=True, kw_only=True)
class Pick:
    """A completion that was clicked."""

    prompt: int
    """Index of its prompt."""
    sample: int
    """Which of the prompt's completions."""
    model: str
    """Whose."""
    span: Span | None = None
    """Characters of the toxic words in it that were clicked; None: the completion as a whole."""

    @property
    def span_text(self) -> str:
        """As the address has it; empty for the whole completion."""
        return f"{self.span[0]}-{self.span[1]}" if self.span else ""


def read_pick(samples: Samples) -> Pick | None:
    """The picked completion from the address; None where there is none of these models.

    Its span must be one that is marked in the completion; with any other one the completion is picked as a whole.
    """
    parts = st.query_params.get("pick", "").split(".", 2)
    if len(parts) < 3 or not all(part.isdecimal() and len(part) < 10 for part in parts[:2]) or parts[2] not in samples:
        return None
    found = Pick(prompt=int(parts[0]), sample=int(parts[1]), model=parts[2])
    frame = samples[found.model]
    there = (frame["prompt_index"] == found.prompt) & (frame["sample_index"] == found.sample)
    if not there.any():
        return None
    row, asked = frame[there].iloc[0], st.query_params.get("span", "")
    spans = (replace(found, span=span) for span in read_spans(row.get("toxic_spans"), row["completion"]))
    return next((marked for marked in spans if marked.span_text == asked), found)


def remember_pick(prompt: int, picked: str | None) -> None:
    """Keep the component's report in the address: `SAMPLE.MODEL`, `START-END SAMPLE.MODEL`, or `close`."""
    if not isinstance(picked, str):
        return
    span, _, whole = picked.rpartition(" ")
    layout.set_parameter("pick", "" if picked == "close" else f"{prompt}.{whole}")
    layout.set_parameter("span", span)
    if span:
        st.session_state["panel_view"] = VIEWS[0]  # the other view is about the whole completion


def show_panel(loaded: Loaded, samples: Samples, pick: Pick, colours: Mapping[str, str]) -> None:
    """The panel about one completion."""
    frame = samples[pick.model]
    text = frame[(frame["prompt_index"] == pick.prompt) & (frame["sample_index"] == pick.sample)]["completion"].iloc[0]
    with st.container(border=True, key="panel"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
                toxic = ", its toxic words" if pick.span else ""
                st.markdown(
                    f"**Completion {pick.sample + 1} of {plain(variant_title(pick.model))}**{toxic}", width="content"
                )
                if pick.span:
                    look: dict = {"icon": ":material/arrow_back:", "key": "span_close"}
                    st.button("Whole completion", **look, on_click=layout.set_parameter, args=("span", ""))
            view = layout.switch(
                "What to show", VIEWS, key="panel_view", default=VIEWS[0], label_visibility="collapsed"
            )
        if view == VIEWS[0]:
            _show_nearest(loaded, text, pick.span)
        else:
            _show_likelihood(loaded, list(samples), pick, colours)


def _show_nearest(loaded: Loaded, text: str, span: Span | None) -> None:
    index, corpus = loaded.word_index(), loaded.corpus()
    order = loaded.rank_order()
    found, terms = index.nearest(text, n=NEAREST, span=span, order=order)
    searched = (
        "all documents"
        if index.n_documents == corpus.n_documents
        else f"the {count(index.n_documents)} best-ranked of {count_of(corpus.n_documents, 'document')}"
    )
    first = "the best-ranked by the default selection" if order is not None else "the first in the corpus"
    if span:
        what, terms_are = "contain these words", "A word, or a pair with its neighbour in the completion,"
        limit, common = "", _warn_of_common(index, terms, "ranks" if order is not None else "corpus")
    else:
        what, terms_are = "share the completion's rarest words and pairs of words", "A term"
        limit, common = f", and none found in more than {share(COMMON_SHARE, digits=0)} of the documents", ""
    st.caption(
        f"Documents that {what}, searched in {searched}. {terms_are} found in n of N documents weighs log(N/n); the"
        f" {TERMS_MOST} rarest count{limit}. Among equal sums, {first} come first. {common}They read alike; only"
        " training without them shows whether they caused it. Click one to read it."
    )
    if not found and not span:
        st.info("No document shares a rare word with this completion.", icon=":material/search_off:")
        return
    chosen = loaded.n_selected(DEFAULT) if DEFAULT in loaded.study.selection_names() else None
    columns = [column("Document", "text"), column("Weight", note="Sum of the shared terms' weights")]
    if chosen is not None:
        columns.append(column("Selected", note="Its tokens in the default selection"))
    columns += [column("Shared terms", "excerpt", narrow=True), column("Where", "excerpt")]
    rows = []
    for near in found:
        document = corpus.document(near.document)
        cells: list = [document.id, f"{near.score:.1f}"]
        cells += [count(chosen[near.document])] if chosen is not None else []
        cells.append([[", ".join(" ".join(term.words) for term in near.shared), False]])
        cells.append([list(run) for run in mark_terms(document.text, near.shared)])
        rows.append({"key": document.id, "cells": cells})
    look: dict = {"empty": "No searched document contains any of these words."}
    look["label"] = f"Training documents nearest to the {'toxic words' if span else 'completion'}"
    heading: list[tuple[str, bool]] = []  # with the words apart from the page's own text
    if span:
        words = text[span[0] : span[1]]
        words = words if len(words) <= HEADING_CHARACTERS else f"{words[:HEADING_CHARACTERS]}…"
        heading = [("Nearest training documents to “", False), (words, True), ("”", False)]
    picked = components.record_table(columns, rows, key="nearest", pickable=True, heading=heading, **look)
    if picked is not None:
        layout.open_document(loaded, picked)


def _warn_of_common(index: WordIndex, terms: list[Term], order: str) -> str:
    """How to read the list when the clicked words are in many documents."""
    words = [term for term in terms if len(term.words) == 1]
    common = [term for term in words if index.is_common(term.n_documents)]
    if not common:
        return ""
    which = f"{count(len(common))} of these words are" if len(common) < len(words) else "These words are"
    which = "This word is" if len(words) == 1 else which
    rarest = share(min(term.n_documents for term in common), index.n_documents, digits=0)
    return (
        f"{which} in many documents ({rarest}{'' if len(common) == 1 else ' and more'}), so a match says little, and"
        f" much of the order below is that of the {order}. "
    )


def _show_likelihood(loaded: Loaded, names: list[str], pick: Pick, colours: Mapping[str, str]) -> None:
    found = read_likelihoods(loaded.study, pick.prompt, names)
    if found is None:
        _offer_job(loaded, names, pick)
        return
    chosen = layout.choose("Colour by", list(likelihood_view.choices(names)), key="colour_by", width=320)
    payload = likelihood_view.viewer_payload(found, pick.sample, names, chosen, colours, f"{loaded.name}:{pick.prompt}")
    components.likelihood(payload, key="likelihood")
    columns, rows = likelihood_view.mean_table(found, names, colours)
    st.caption(
        "Each token's log-probability (nats) after the prompt and the tokens before it, under each model. The text is"
        " tokenised again, so where it can be split in two ways the tokens may differ from those drawn. Below: the mean"
        " over all completions of this prompt."
    )
    components.record_table(columns, rows, key="likelihood_means", label="Mean log-probability of a token")


def _offer_job(loaded: Loaded, names: list[str], pick: Pick) -> None:
    st.write(
        "How likely is each token of these completions under each model? This is computed once for each prompt, as a"
        " background job."
    )
    if active_job(loaded.study.root):
        st.caption("A job is running. The answer appears here once it is done.")
        st.button("Look again", icon=":material/refresh:", key="likelihood_again")
        return
    last = latest_job(loaded.study.root)
    if last and last.status().state in ("failed", "dead") and last.status().command[:1] == ("likelihood",):
        st.error(f"The last attempt failed: {sentence(last.status().error)}", icon=":material/error:")
    if st.button("Compute", icon=":material/play_arrow:", key="likelihood_start"):
        models = ",".join(names)
        arguments = ["likelihood", loaded.name, "--prompt", str(pick.prompt), "--models", models]
        job_panel.start(loaded.study.root, arguments)
