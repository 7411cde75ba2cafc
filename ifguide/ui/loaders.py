"""Reads studies for the pages, and remembers what is slow to read.

Everything is remembered by the study's folder and fingerprint, so a rebuilt artefact is read anew; memory maps stay on
disk.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import streamlit as st

from ifguide.config.attributions import KINDS
from ifguide.config.names import DEFAULT
from ifguide.data import word_counts as words
from ifguide.data.by_document import sum_by_document
from ifguide.data.corpus import TokenizedCorpus
from ifguide.data.word_index import WordIndex, choose_documents
from ifguide.errors import StaleError
from ifguide.selection.index import MaskSums, Overlap, Resolved, ScoreIndex
from ifguide.selection.saved import Selection
from ifguide.study.analysis.comparison import Comparison, compare_variants
from ifguide.study.analysis.prediction import read_prediction
from ifguide.study.folder import cache_dir
from ifguide.study.freshness import study_fingerprint
from ifguide.study.reading import Study
from ifguide.study.select import open_index

if TYPE_CHECKING:
    import pandas

COUNT_WORDS_UP_TO = 5_000_000
"""Tokens of the largest corpus whose words are counted in its texts; beyond, entries of the model's vocabulary are."""
PIECES_MOST = 2000


@dataclass(frozen=True)
class Loaded:
    """A study as the pages see it."""

    study: Study
    fingerprint: str

    @property
    def name(self) -> str:
        return self.study.name

    @cached_property
    def key(self) -> tuple[str, str]:
        """What everything remembered of this study is filed under: its folder and fingerprint."""
        return str(self.study.root), self.fingerprint

    def corpus(self) -> TokenizedCorpus:
        return _corpus(*self.key)

    def texts(self) -> pa.ChunkedArray:
        """The documents' texts, memory-mapped."""
        return _documents(*self.key)["text"]

    def sources(self) -> np.ndarray:
        """Each document's source, object (D,)."""
        return _sources(*self.key)

    def source_names(self) -> list[str]:
        """The different sources, sorted."""
        return _source_names(*self.key)

    def ids(self) -> list[str]:
        return _ids(*self.key)

    def kinds(self) -> list[str]:
        """Kinds of scores the study has."""
        return [kind for kind in KINDS if self.study.has_scores(kind)]

    def scores(self, kind: str) -> np.ndarray:
        return _scores(*self.key, kind)

    def index(self, kind: str) -> ScoreIndex:
        """What any threshold selects, without a scan of all tokens."""
        return remembered_index(*self.key, kind)

    def resolved(self, settings: dict) -> Resolved:
        """The exact result of a choice, not saved; `settings` as for `Study.save_selection`."""
        return _resolved(*self.key, tuple(sorted(settings.items())))

    def prediction(self) -> dict | None:
        """How predicted effects fared against trained models of this study; None when that was not measured."""
        return read_prediction(self.study)

    def saved_sums(self, kind: str, name: str) -> MaskSums:
        """What a saved selection's mask holds, its effect by one kind of scores."""
        return _saved_sums(*self.key, kind, name)

    def overlap(self, kind: str, a: "str | dict", b: "str | dict") -> Overlap:
        """Two selections compared; each is the name of a saved one, or settings."""
        return _overlap(*self.key, kind, *(x if isinstance(x, str) else tuple(sorted(x.items())) for x in (a, b)))

    def in_range(self, kind: str, low: float, high: float) -> pa.Table:
        """Documents with scores in (low, high]: document, count, most first."""
        return _in_range(*self.key, kind, low, high)

    def selection(self, name: str) -> Selection:
        return _selection(*self.key, name)

    def n_selected(self, name: str) -> np.ndarray:
        """Selected tokens in each document, int64 (D,)."""
        return _n_selected(*self.key, name)

    def word_counts(self) -> Counter:
        return _word_counts(*self.key)

    def ranked_words(self, settings: dict) -> list[words.WordCount]:
        """The words a choice selects, most often first; above `COUNT_WORDS_UP_TO` tokens, vocabulary entries instead of
        words."""
        return _ranked_words(*self.key, tuple(sorted(settings.items())))

    def difference(self, left: str, right: str) -> Comparison:
        """The right model against the left one, prompt by prompt, with 95% intervals."""
        return _difference(*self.key, left, right, "oracle" if "oracle" in self.study.evaluation_names() else "")

    def samples(self, variant: str) -> "pandas.DataFrame":
        return _samples(*self.key, variant)

    def word_index(self) -> WordIndex:
        """Where the words of the documents stand; of a large corpus, those of the best-ranked documents."""
        return _word_index(*self.key)


def load_study(name: str) -> Loaded:
    """Open a study for this rerun.

    Raises:
        IFGuideError: it is gone, or its study.toml cannot be read.
    """
    study = Study.open(name, cache_dir())
    return Loaded(study, study_fingerprint(study))


def open_root(root: str) -> Study:
    """The study in a folder."""
    return Study.open(Path(root).name, Path(root).parent)


@st.cache_resource(max_entries=4, show_spinner=False)
def _corpus(root: str, fingerprint: str) -> TokenizedCorpus:
    return open_root(root).corpus()


@st.cache_resource(max_entries=4, show_spinner=False)
def _documents(root: str, fingerprint: str) -> pa.Table:
    return pa.Table.from_batches(_corpus(root, fingerprint).batches)


@st.cache_resource(max_entries=4, show_spinner=False)
def _sources(root: str, fingerprint: str) -> np.ndarray:
    return _documents(root, fingerprint)["source"].to_numpy(zero_copy_only=False)


@st.cache_resource(max_entries=4, show_spinner=False)
def _source_names(root: str, fingerprint: str) -> list[str]:
    return sorted(_documents(root, fingerprint)["source"].unique().to_pylist())


@st.cache_resource(max_entries=4, show_spinner=False)
def _ids(root: str, fingerprint: str) -> list[str]:
    return _documents(root, fingerprint)["id"].to_pylist()


@st.cache_resource(max_entries=12, show_spinner=False)
def _scores(root: str, fingerprint: str, kind: str) -> np.ndarray:
    return open_root(root).scores(kind)


@st.cache_resource(max_entries=4, show_spinner=False)
def remembered_index(root: str, fingerprint: str, kind: str) -> ScoreIndex:
    return open_index(open_root(root), kind)


@st.cache_resource(max_entries=8, show_spinner=False)
def _resolved(root: str, fingerprint: str, settings: tuple) -> Resolved:
    wanted = dict(settings)
    return remembered_index(root, fingerprint, wanted["attribution"]).resolve(wanted)


@st.cache_resource(max_entries=16, show_spinner=False)
def _saved_sums(root: str, fingerprint: str, kind: str, name: str) -> MaskSums:
    return remembered_index(root, fingerprint, kind).saved(_mask(root, fingerprint, name))


@st.cache_resource(max_entries=8, show_spinner=False)
def _overlap(root: str, fingerprint: str, kind: str, a: str | tuple, b: str | tuple) -> Overlap:
    sides = [_mask(root, fingerprint, x) if isinstance(x, str) else _resolved(root, fingerprint, x) for x in (a, b)]
    return remembered_index(root, fingerprint, kind).compare(*sides)


def _mask(root: str, fingerprint: str, name: str) -> np.ndarray:
    mask, n_tokens = _selection(root, fingerprint, name).mask, _corpus(root, fingerprint).n_tokens
    if len(mask) != n_tokens:
        raise StaleError(
            f"the selection {name!r} is of another corpus ({len(mask):,} tokens, now {n_tokens:,}); save it again"
        )
    return mask


@st.cache_resource(max_entries=8, show_spinner=False)
def _in_range(root: str, fingerprint: str, kind: str, low: float, high: float) -> pa.Table:
    return remembered_index(root, fingerprint, kind).documents_in_range(low, high)


@st.cache_resource(max_entries=12, show_spinner=False)
def _selection(root: str, fingerprint: str, name: str) -> Selection:
    return open_root(root).selection(name)


@st.cache_resource(max_entries=12, show_spinner=False)
def _n_selected(root: str, fingerprint: str, name: str) -> np.ndarray:
    mask = _selection(root, fingerprint, name).mask
    return sum_by_document(mask, np.asarray(_corpus(root, fingerprint).offsets))


@st.cache_resource(max_entries=2, show_spinner="Counting the corpus's words, once for this study…")
def _word_counts(root: str, fingerprint: str) -> Counter:
    return words.count_words(_documents(root, fingerprint)["text"])


@st.cache_resource(max_entries=32, show_spinner="Counting words…")
def _ranked_words(root: str, fingerprint: str, settings: tuple) -> list[words.WordCount]:
    index, found = (
        remembered_index(root, fingerprint, dict(settings)["attribution"]),
        _resolved(root, fingerprint, settings),
    )
    if index.n_valid > COUNT_WORDS_UP_TO:
        rows = index.selected_words(found, PIECES_MOST).to_pylist()
        return [words.WordCount(row["word"], row["selected"], row["occurrences"], row["lift"]) for row in rows]
    selected = words.count_selected_words(_corpus(root, fingerprint), index.mask(found))
    return words.rank_words(selected, _word_counts(root, fingerprint))


@st.cache_resource(max_entries=6, show_spinner="Reading the completions…")
def _samples(root: str, fingerprint: str, variant: str) -> "pandas.DataFrame":
    return open_root(root).samples(variant)


@st.cache_resource(max_entries=16, show_spinner="Comparing the models…")
def _difference(root: str, fingerprint: str, left: str, right: str, oracle: str) -> Comparison:
    names = {left, right, oracle} - {""}
    samples = {name: _samples(root, fingerprint, name) for name in names}
    heldout = {name: open_root(root).heldout_losses(name) for name in (left, right)}
    return next(c for c in compare_variants(samples, base=left, heldout=heldout) if c.variant == right)


@st.cache_resource(max_entries=2, show_spinner="Reading the documents' words, once for this study…")
def _word_index(root: str, fingerprint: str) -> WordIndex:
    study, corpus = open_root(root), _corpus(root, fingerprint)
    order = study.selection(DEFAULT).order if DEFAULT in study.selection_names() else None
    whole = order is not None and len(order) == corpus.n_documents
    return WordIndex(corpus.column("text"), choose_documents(corpus.offsets, order if whole else None))
