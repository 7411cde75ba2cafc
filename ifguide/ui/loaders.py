"""Reads studies for the pages, and caches what is slow to read.

The cache key is the study's folder and fingerprint, so rebuilt artefacts are read again; memory maps stay on disk.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import streamlit as st

from ifguide.config.attributions import describe_kind
from ifguide.config.names import DEFAULT
from ifguide.data import words
from ifguide.data.by_document import sum_by_document
from ifguide.data.corpus import TokenizedCorpus
from ifguide.data.word_index import WordIndex, choose_documents
from ifguide.errors import StaleError
from ifguide.selection.index import Holding, Overlap, Resolved, ScoreIndex
from ifguide.selection.saved import Selection
from ifguide.study.analysis import groups
from ifguide.study.analysis.comparison import Comparison, compare_variants, read_metrics
from ifguide.study.analysis.dose import Measured, measured_points
from ifguide.study.analysis.judges import describe_disagreement
from ifguide.study.folder import cache_dir
from ifguide.study.freshness import study_fingerprint
from ifguide.study.reading import Study
from ifguide.study.sharing import shard_sample
from ifguide.study.stages.document_table import scale_middle
from ifguide.study.stages.select import open_index
from ifguide.study.variants import UNTOUCHED, is_edit

if TYPE_CHECKING:
    import pandas

MENTIONS_UP_TO = 20_000_000
"""Tokens of the largest corpus that is searched for groups while a reader waits, about half a minute."""
COUNT_WORDS_UP_TO = 5_000_000
"""For a corpus of more tokens, entries of the model's vocabulary are counted instead of words."""
PIECES_MOST = 2000


def remembered(most: int, spinner: bool | str = False):
    """Cache a method of `Loaded` by the study's key and its arguments, for at most this many of them."""
    by_key: dict[str | type, Callable] = {f"{__name__}.Loaded": attrgetter("key")}
    return st.cache_resource(max_entries=most, show_spinner=spinner, hash_funcs=by_key)


@dataclass(frozen=True)
class Loaded:
    """A study as the pages see it."""

    study: Study
    fingerprint: str

    @property
    def name(self) -> str:
        return self.study.name

    @cached_property
    def key(self) -> tuple[str, str, str]:
        """The cache key: the study's folder, fingerprint and judge."""
        return str(self.study.root), self.fingerprint, self.study.judge

    def judged(self, judge: str) -> "Loaded":
        """The same with the figures of another judge, see `Study.judged`."""
        return Loaded(self.study.judged(judge), self.fingerprint)

    @remembered(8)
    def disagreement(self) -> list[str]:
        """Where judges disagree on which model is least toxic."""
        return describe_disagreement(self.study.judged(""))

    @remembered(4)
    def corpus(self) -> TokenizedCorpus:
        return self.study.corpus()

    @remembered(4)
    def sketch(self) -> shard_sample.Sketch | None:
        """What is known of all shards that the documents are a sample of; None where they are none."""
        return shard_sample.read_sketch(self.study)

    @property
    def is_sample(self) -> bool:
        """Whether the documents are a sample of shards."""
        return shard_sample.is_sample(self.study)

    @property
    def whole(self) -> str:
        """What counts of tokens and documents are shares of."""
        return "the sample" if self.is_sample else "all"

    @property
    def sampled(self) -> str:
        """What follows a number of the sample."""
        return " in the sample" if self.is_sample else ""

    @remembered(4)
    def source_names(self) -> list[str]:
        return sorted(self.corpus().column("source").unique().to_pylist())

    @remembered(12)
    def scores(self, kind: str) -> np.ndarray:
        return self.study.scores(kind)

    @remembered(12)
    def middle(self, kind: str) -> float:
        """The score of a kind at which colours are none; 0 for losses, which only grow."""
        corpus = self.corpus()
        if describe_kind(kind).unit:
            return 0.0
        return scale_middle(self.scores(kind), np.asarray(corpus.offsets), corpus.trained)

    @remembered(8)
    def queries(self, kind: str) -> "pandas.DataFrame":
        return self.study.queries(kind)

    @remembered(4)
    def index(self, kind: str) -> ScoreIndex:
        return open_index(self.study, kind)

    @remembered(8)
    def resolved(self, settings: dict) -> Resolved:
        """The exact result of settings, not saved; `settings` as for `ifguide.study.stages.select.save_selection`."""
        return self.index(settings["attribution"]).resolve(settings)

    @remembered(16)
    def saved_sums(self, kind: str, name: str) -> Holding:
        return self.index(kind).saved(self._mask(name))

    def influence(self, kind: str) -> np.ndarray | None:
        """Influence by own loss, whose sum estimates the effect of a selection by another kind of scores; None where
        the kind is an influence itself, or where the study has none."""
        own = not describe_kind(kind).curvature and self.study.has_scores("own_loss")
        return self.scores("own_loss") if own else None

    @remembered(4)
    def measured(self) -> list[Measured]:
        """Every measured model that was made against tokens above a threshold."""
        return measured_points(self.study)

    @remembered(8)
    def overlap(self, kind: str, a: "str | dict", b: "str | dict") -> Overlap:
        """Two selections compared, each given as settings or the name of a saved one."""
        return self.index(kind).compare(*(self._mask(x) if isinstance(x, str) else self.resolved(x) for x in (a, b)))

    def _mask(self, name: str) -> np.ndarray:
        mask, n_tokens = self.selection(name).mask, self.corpus().n_tokens
        if len(mask) != n_tokens:
            sizes = f"expected {n_tokens:,} tokens, got {len(mask):,}"
            raise StaleError(f"the selection {name!r} belongs to another corpus ({sizes}); save it again")
        return mask

    @remembered(8)
    def in_range(self, kind: str, low: float, high: float) -> pa.Table:
        """Documents with scores in (low, high]: columns document and count, most first."""
        return self.index(kind).documents_in_range(low, high)

    @remembered(12)
    def selection(self, name: str) -> Selection:
        return self.study.selection(name)

    @remembered(12)
    def n_selected(self, name: str) -> np.ndarray:
        """Selected tokens in each document, int64 (D,)."""
        return sum_by_document(self.selection(name).mask, np.asarray(self.corpus().offsets))

    @remembered(2, "Counting the corpus's words, once for this study…")
    def word_counts(self) -> Counter:
        return words.count_words(self.corpus().column("text"))

    @remembered(32, "Counting words…")
    def ranked_words(self, settings: dict) -> list[words.WordCount]:
        """The words that settings select, most often first; above `COUNT_WORDS_UP_TO` tokens, vocabulary entries."""
        index, selection = self.index(settings["attribution"]), self.resolved(settings)
        if index.n_valid > COUNT_WORDS_UP_TO:
            rows = index.selected_words(selection, PIECES_MOST).to_pylist()
            return [words.WordCount(row["word"], row["selected"], row["occurrences"], row["lift"]) for row in rows]
        return words.rank_words(words.count_selected_words(self.corpus(), index.mask(selection)), self.word_counts())

    @remembered(16, "Comparing the models…")
    def difference(self, left: str, right: str) -> Comparison:
        """The right model compared with the left one, prompt by prompt, with 95% intervals."""
        names = {left, right} | ({"oracle", UNTOUCHED} & set(self.study.evaluation_names()))
        samples = {name: self.samples(name) for name in names}
        heldout = {name: self.study.heldout_losses(name) for name in (left, right)}
        return compare_variants(samples, base=left, heldout=heldout, only=right)[0]

    def metrics(self, names: Iterable[str]) -> dict[str, dict]:
        """Of those of the models that were evaluated, see `read_metrics`."""
        return read_metrics(self.study, names)

    def mentions(self) -> list[groups.Mentions]:
        """Where the corpus mentions groups of people; none in a corpus too large to be searched."""
        return self._mentions(groups.read_groups(self.study)) if self.corpus().n_tokens <= MENTIONS_UP_TO else []

    @remembered(2, "Looking for groups in the corpus, once for this study…")
    def _mentions(self, lists: dict[str, list[str]]) -> list[groups.Mentions]:
        return groups.find_mentions(self.corpus(), lists)

    def group_shares(self, settings: dict) -> list[groups.GroupShare]:
        """What settings select of each group, the highest ratio first."""
        return self._group_shares(settings, groups.read_groups(self.study))

    @remembered(8)
    def speech(self, variant: str) -> dict[str, dict]:
        """What a model says about each group of prompts, see `groups.speech_by_group`."""
        return groups.speech_by_group(self.samples(variant), groups.read_groups(self.study))

    @remembered(8)
    def _group_shares(self, settings: dict, lists: dict[str, list[str]]) -> list[groups.GroupShare]:
        mentions, exact = self.mentions(), self.resolved(settings)
        mask = self.index(settings["attribution"]).mask(exact) if mentions else np.zeros(0, bool)
        return groups.group_shares(self.corpus(), mask, exact.taken, mentions)

    @remembered(8)
    def split(self, column: str) -> tuple[list[str], np.ndarray]:
        """The values of a column of the documents, and the place of each document's, see `groups.split_documents`."""
        return groups.split_documents(self.study, column)

    @remembered(16)
    def column_shares(self, settings: dict, column: str) -> list[groups.GroupShare]:
        """What settings select of the documents with each value of a column, the highest ratio first."""
        return groups.column_shares(self.corpus(), self.resolved(settings).taken, *self.split(column))

    @cached_property
    def edited(self) -> frozenset[str]:
        """Evaluated models that are edits."""
        return frozenset(name for name in self.study.evaluation_names() if is_edit(self.study.config, name))

    @remembered(6, "Reading the completions…")
    def samples(self, variant: str) -> "pandas.DataFrame":
        return self.study.samples(variant)

    @remembered(2, "Reading the documents' words, once for this study…")
    def word_index(self) -> WordIndex:
        """Where the documents' words are; for a large corpus only in the best-ranked documents."""
        corpus = self.corpus()
        return WordIndex(corpus.column("text"), choose_documents(corpus.offsets, self.rank_order()))

    def rank_order(self) -> np.ndarray | None:
        """Documents by their rank in the default selection; None without one of this corpus."""
        order = self.selection(DEFAULT).order if DEFAULT in self.study.selection_names() else None
        return order if order is not None and len(order) == self.corpus().n_documents else None


def load_study(name: str) -> Loaded:
    """Open a study for this rerun; an IFGuideError if it is gone, or its study.toml cannot be read."""
    study = Study.open(name, cache_dir())
    return Loaded(study, study_fingerprint(study))
