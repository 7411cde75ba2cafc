"""What a report says, read from a study; nothing is trained or scored."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ifguide.config.names import BASE
from ifguide.data import words
from ifguide.data.by_document import sum_by_document
from ifguide.errors import InputError, StaleError
from ifguide.evaluation.outcomes import Outcomes, compare_with_first
from ifguide.selection.algorithm import precision_recall
from ifguide.selection.saved import Selection
from ifguide.storage import artifacts
from ifguide.study.analysis import groups
from ifguide.study.analysis.comparison import Comparison, compare_variants, read_metrics
from ifguide.study.freshness import stage_states
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stage_table import STAGES
from ifguide.study.stages.document_table import scale_middle, scale_top
from ifguide.ui.format import count, count_of
from ifguide.ui.veil import hide_words, marked_words

COUNT_WORDS_UP_TO = 5_000_000
"""Words of a corpus with more tokens are not counted."""
DOCUMENTS, DOCUMENT_TOKENS = 8, 140
"""Documents shown, and tokens shown of each."""
EXAMPLES = 4
"""Prompts shown with the largest drop, and with the largest rise."""


@dataclass(frozen=True, kw_only=True)
class SelectionFacts:
    """A selection in numbers."""

    name: str
    settings: dict
    """From selection.json."""
    precision: float | None
    """Share of its tokens that people labelled; None without labels."""
    recall: float | None
    """Share of the labelled tokens that it contains."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownDocument:
    """A document's strongest part."""

    title: str
    about: str
    pieces: list[str]
    """Texts of the n tokens shown."""
    scores: np.ndarray
    """float32 (n,)."""
    selected: np.ndarray
    """bool (n,)."""
    hidden: np.ndarray
    """bool (n,): offensive."""
    cut: tuple[bool, bool]
    """Whether text is left out before and after."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportFacts:
    """Everything a report shows."""

    study: Study
    metrics: dict[str, dict]
    """Model -> metrics.json, in the study's order."""
    samples: dict[str, pd.DataFrame]
    """Model -> its completions."""
    differences: dict[str, Comparison]
    """Model -> its comparison with the first."""
    outcomes: dict[str, Outcomes]
    """Model -> its outcomes against the first, prompt by prompt."""
    selection: str
    """The selection whose words and documents are shown."""
    selections: list[SelectionFacts]
    words: list[words.WordCount]
    """Most often selected first; empty if the corpus is too large."""
    mentioned: list[groups.GroupShare]
    """What the selection takes of each group, the highest ratio first; empty if the corpus is too large."""
    sources: list[groups.GroupShare]
    """What it takes of the documents of each source."""
    documents: list[ShownDocument]
    scale: tuple[float, float]
    """The score without a colour, the median, and the one at which the colour is strongest."""
    manifests: dict[str, dict]
    """Artefact -> its manifest."""
    stale: dict[str, str]
    """Stage -> why it is out of date or missing."""

    @property
    def edited(self) -> frozenset[str]:
        return frozenset(name for name, values in self.metrics.items() if values.get("edited"))

    @property
    def first(self) -> str:
        return next(iter(self.metrics))

    @property
    def example(self) -> str | None:
        """The model whose completions are shown beside the first's: the selection's, or else the second one."""
        return self.selection if self.selection in self.differences else next(iter(self.differences), None)


def collect_facts(study: Study, selection: str) -> ReportFacts:
    """Read everything that a report shows. An InputError: nothing was evaluated. A StaleError: an artefact is missing
    or damaged."""
    names = study.evaluation_names()
    if not names:
        study.require_model(Unit("evaluate"))
        remedy = f"measure them with `ifguide run {study.name}`"
        raise InputError(f"report: expected evaluated models in {study.name!r}, got none; {remedy}")
    samples = {name: study.samples(name) for name in names}
    heldout = {name: study.heldout_losses(name) for name in names}
    compared = compare_variants(samples, base=names[0], heldout=heldout)
    chosen = study.selection(selection)
    documents, scale = _documents(study, chosen, marked_words(samples[BASE]) if BASE in samples else frozenset())
    return ReportFacts(
        study=study,
        metrics={name: {} for name in names} | read_metrics(study, names),
        samples=samples,
        differences={comparison.variant: comparison for comparison in compared},
        outcomes=compare_with_first(samples),
        selection=selection,
        selections=[_selection(study, name) for name in study.selection_names()],
        words=_words(study, chosen),
        **_shares(study, chosen),
        documents=documents,
        scale=scale,
        manifests=_manifests(study),
        stale={stage: state.reason for stage, state in stage_states(study).items() if state.state != "fresh"},
    )


def _selection(study: Study, name: str) -> SelectionFacts:
    chosen, corpus = study.selection(name), study.corpus()
    precision = recall = None
    if corpus.in_span is not None and len(chosen.mask) == corpus.n_tokens:
        precision, recall = precision_recall(chosen.mask, np.asarray(corpus.in_span), corpus.valid())
    return SelectionFacts(name=name, settings=chosen.settings, precision=precision, recall=recall)


def _words(study: Study, chosen: Selection) -> list[words.WordCount]:
    corpus = study.corpus()
    if corpus.n_tokens > COUNT_WORDS_UP_TO or len(chosen.mask) != corpus.n_tokens:
        return []
    return words.rank_words(words.count_selected_words(corpus, chosen.mask), words.count_words(corpus.column("text")))


def _shares(study: Study, chosen: Selection) -> dict[str, list[groups.GroupShare]]:
    corpus = study.corpus()
    if len(chosen.mask) != corpus.n_tokens:
        return {"mentioned": [], "sources": []}
    taken, searched = sum_by_document(chosen.mask, np.asarray(corpus.offsets)), corpus.n_tokens <= COUNT_WORDS_UP_TO
    mentions = groups.find_mentions(corpus, groups.read_groups(study)) if searched else []
    sources = groups.column_shares(corpus, taken, *groups.split_documents(study, groups.SOURCE))
    return {"mentioned": groups.group_shares(corpus, chosen.mask, taken, mentions), "sources": sources}


def _documents(
    study: Study, chosen: Selection, toxic_words: frozenset[str]
) -> tuple[list[ShownDocument], tuple[float, float]]:
    """The best-ranked documents around their strongest tokens, and the scores of no colour and of the strongest."""
    corpus, kind = study.corpus(), chosen.settings.get("attribution") or study.config.selection.attribution
    if not study.has_scores(kind):
        return [], (0.0, 0.0)
    scores = study.scores(kind)
    if not len(scores) == len(chosen.mask) == corpus.n_tokens:
        remedy = f"build it again with `ifguide run {study.name}`"
        raise StaleError(f"the selection {chosen.name!r} belongs to another corpus or other scores; {remedy}")
    read = scores, np.asarray(corpus.offsets), corpus.trained
    middle, top = scale_middle(*read), scale_top(*read)
    shown = []
    for rank, index in enumerate(chosen.order[:DOCUMENTS].tolist(), 1):
        here = slice(int(corpus.offsets[index]), int(corpus.offsets[index + 1]))
        values, mask = np.asarray(scores[here]), np.asarray(chosen.mask[here])
        if not mask.any():
            break
        document, pieces = corpus.document(index), corpus.document_tokens(index)
        centre = int(np.argmax(np.where(mask, values, -np.inf)))
        start = max(0, min(centre - DOCUMENT_TOKENS // 2, len(pieces) - DOCUMENT_TOKENS))
        part = slice(start, min(len(pieces), start + DOCUMENT_TOKENS))
        by_people = mask if corpus.in_span is None else mask | np.asarray(corpus.in_span[here])
        shown.append(
            ShownDocument(
                title=f"{rank}. {document.id}",
                about=f"{document.source} · {count_of(int(mask.sum()), 'selected token')} of {count(len(pieces))}",
                pieces=pieces[part],
                scores=np.where(corpus.valid_between(here.start, here.stop), values, middle)[part],
                selected=mask[part],
                hidden=hide_words("".join(pieces), np.cumsum([*map(len, pieces)]), by_people, toxic_words)[part],
                cut=(part.start > 0, part.stop < len(pieces)),
            )
        )
    return shown, (middle, top)


def _manifests(study: Study) -> dict[str, dict]:
    """The manifests of all artefacts that exist, in the order the stages run."""
    names: Mapping[str, list[str]] = {
        "selection": study.selection_names(),
        "documents": ["", *study.names_of("documents")],
        "suppress": study.suppressed_names(),
        "evaluate": study.evaluation_names(),
    }
    units = [Unit(stage, name) for stage in STAGES for name in names.get(stage, [""])]
    return {str(unit): manifest for unit in units if (manifest := artifacts.read_manifest(study.folder(unit)))}
