"""Who gets filtered: how often a selection takes the words that name a group of people, or the documents of a source,
compared with all tokens.

Filters remove what is written about minorities and by them (Dodge et al. 2021, arXiv 2104.08758). A mention is a token
of a word in a group's list. Shapes: D documents, N tokens, M mentions of a group, K thresholds, V values of a column.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ifguide.data import words
from ifguide.data.corpus import TokenizedCorpus
from ifguide.data.stretches import count_valid
from ifguide.errors import InputError
from ifguide.evaluation.statistics import bootstrap_interval
from ifguide.selection.audit import Interval
from ifguide.selection.index.counts import find_sources
from ifguide.storage.artifacts import read_table, reading
from ifguide.study.freshness import find_change
from ifguide.study.reading import Study
from ifguide.study.stages.document_table import COLUMNS, CORPUS, table_path

OWN_LIST = "groups.json"
"""A study's own list, in its folder, in the form of the built-in one: {"groups": {name: [word, …]}}."""
BUILT_IN = Path(words.__file__).with_name("groups.json")
LEAST = 10
"""A group with fewer mentions is left out: no rate of it would mean much."""
TWICE = 2.0
FEWEST = 5
"""Documents that an interval needs: how much fewer of them differ tells little of others."""
SOURCE = "source"
_Z = 1.96


@dataclass(frozen=True, eq=False)
class Mentions:
    """Where a corpus mentions a group."""

    name: str
    tokens: np.ndarray
    """int64 (M,), places in the corpus, ascending; tokens that can be selected."""
    documents: np.ndarray
    """int64 (M,), the document of each."""

    @cached_property
    def by_document(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The documents that mention it, where the mentions of each start, and how many it has, int64 (d,) each."""
        return np.unique(self.documents, return_index=True, return_counts=True)


@dataclass(frozen=True, kw_only=True)
class GroupShare:
    """How a selection treats a group, or the documents with a value, whose tokens count as mentions."""

    name: str
    n_mentions: int
    n_selected: int
    """Selected mentions."""
    ratio: Interval
    """Share of its mentions that is selected over the share of all tokens, with a 95% interval over documents, from 0
    to infinity if they are fewer than `FEWEST`."""
    n_documents: int
    """Documents that mention it."""
    n_hit: int
    """Of those, documents with a selected token."""
    documents_ratio: Interval
    """Share of those documents with a selected token over that of all documents."""
    n_unmarked: int | None = None
    """Selected mentions that people did not mark as toxic; None without their marks."""

    @property
    def often(self) -> bool:
        """Its mentions are selected at least twice as often as all tokens, and more often by the whole interval."""
        return self.ratio.value >= TWICE and self.ratio.low > 1


def read_groups(study: Study) -> dict[str, list[str]]:
    """Group -> its words: the study's own list if it has one, else the built-in one. An InputError: another form."""
    path = own if (own := study.root / OWN_LIST).exists() else BUILT_IN
    try:
        groups = json.loads(path.read_text(encoding="utf-8"))["groups"]
        lists = {name: [word.lower().strip() for word in group] for name, group in groups.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f'{path}: expected {{"groups": {{name: [word, …]}}}}, got {error!r}') from None
    return {name: [word for word in group if word] for name, group in lists.items()}


def count_speech(texts: pd.Series, groups: Mapping[str, Sequence[str]]) -> dict[str, pd.Series]:
    """Of each answer `words`, how many it has, and `mentions`, whether it names a group of people."""
    pattern = _pattern(word for group in groups.values() for word in group)
    return {"words": texts.map(lambda text: len(words.split_words(text))), "mentions": texts.str.contains(pattern)}


def speech_by_group(samples: pd.DataFrame, groups: Mapping[str, Sequence[str]]) -> dict[str, dict]:
    """Group of prompts -> `words`, the mean number of words in an answer, and `mentions`, the share of answers that
    name a group of people, each with its bounds over prompts. A model that falls silent about a group is not less
    toxic. `samples` are a model's completions; without a column `group` there is nothing."""
    if "group" not in samples:
        return {}
    counted = count_speech(samples["completion"], groups)
    speech: dict[str, dict] = {}
    for group, rows in samples.groupby("group", sort=False):
        speech[str(group)] = {}
        for name, values in counted.items():
            by_prompt = values[rows.index].groupby(rows["prompt_index"]).mean().to_numpy()[:, None]
            value, low, high = bootstrap_interval(lambda drawn: float(drawn.mean()), by_prompt)
            speech[str(group)] |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return speech


def find_mentions(corpus: TokenizedCorpus, groups: Mapping[str, Sequence[str]]) -> list[Mentions]:
    """The mentions of every group that has at least `LEAST`, whole words in upper or lower case."""
    names: dict[str, list[str]] = {}
    for name, group in groups.items():
        for word in group:
            names.setdefault(word, []).append(name)
    if not names:
        return []
    pattern = _pattern(names)
    hit = pc.match_substring_regex(corpus.column("text"), f"(?i:{_either(names)})")
    places: dict[str, list[np.ndarray]] = {name: [] for name in groups}
    for document in np.flatnonzero(hit.to_numpy()).tolist():
        start, stop = (int(end) for end in corpus.offsets[document : document + 2])
        begins, ends = corpus.char_start[start:stop], corpus.char_end[start:stop]
        for match in pattern.finditer(corpus.document(document).text):
            inside = start + np.flatnonzero((ends > match.start()) & (begins < match.end()))
            for name in names.get(match.group().lower(), ()):
                places[name].append(inside)
    valid, offsets, all_mentions = corpus.valid(), np.asarray(corpus.offsets), []
    for name, spans in places.items():
        tokens = np.unique(np.concatenate(spans)) if spans else np.zeros(0, np.int64)
        tokens = tokens[valid[tokens]]
        if len(tokens) >= LEAST:
            all_mentions.append(Mentions(name, tokens, np.searchsorted(offsets, tokens, side="right") - 1))
    return all_mentions


def group_shares(
    corpus: TokenizedCorpus, mask: np.ndarray, taken: np.ndarray, mentions: Sequence[Mentions]
) -> list[GroupShare]:
    """What a selection, bool (N,), that takes int64 (D,) tokens of each document takes of each group; the highest ratio
    first."""
    share_of, shares = _compare_with_all(taken, count_valid(np.asarray(corpus.offsets), corpus.trained)), []
    for group in mentions:
        owners, starts, n_all = group.by_document
        is_taken, unmarked = mask[group.tokens], None
        n_taken = np.add.reduceat(is_taken.astype(np.int64), starts)
        if corpus.in_span is not None:
            unmarked = int((~np.asarray(corpus.in_span)[group.tokens[is_taken]]).sum())
        shares.append(share_of(group.name, owners, n_taken, n_all, unmarked))
    return sorted(shares, key=lambda share: (-share.ratio.value, share.name))


def document_columns(study: Study) -> dict[str, str]:
    """The columns by which documents can be told apart, with their titles: the source, and what else the document list
    holds. A StaleError: the list is damaged."""
    stored, path = {SOURCE}, table_path(study)
    if not find_change(study, CORPUS):
        with reading(path, pa.ArrowException, OSError, stage="documents"):
            stored |= {*pq.read_schema(path).names} - {"id"}
    columns = {c.name: c.title for c in COLUMNS if c.part == "corpus" and c.title and c.name in stored}
    return {SOURCE: columns[SOURCE], **columns}


def split_documents(study: Study, column: str) -> tuple[list[str], np.ndarray]:
    """The V values of a column, and the place of each document's among them, (D,). Numbers are cut into four ranges of
    as many documents; the lowest number is one of its own if more than a quarter have it."""
    if column == SOURCE:
        corpus = study.corpus()
        return find_sources(corpus.column(SOURCE), np.asarray(corpus.offsets))
    values = read_table(table_path(study), columns=[column])[column].to_numpy()
    lowest = values == values.min()
    others = values[~lowest] if lowest.mean() > 0.25 else values
    edges = np.unique(np.quantile(others, [0, 0.25, 0.5, 0.75], method="lower")) if len(others) else others
    _, places = np.unique(np.searchsorted(edges, values, side="right"), return_inverse=True)
    parts, form = (
        [values[places == place] for place in range(places.max() + 1)],
        "d" if values.dtype.kind == "i" else ".2f",
    )
    return ["–".join(dict.fromkeys(f"{end:,{form}}" for end in (part.min(), part.max()))) for part in parts], places


def column_shares(
    corpus: TokenizedCorpus, taken: np.ndarray, names: Sequence[str], places: np.ndarray
) -> list[GroupShare]:
    """What a selection that takes int64 (D,) tokens of each document takes of the documents with each value of a
    column, see `split_documents`; the highest ratio first."""
    sizes, shares = count_valid(np.asarray(corpus.offsets), corpus.trained), []
    share_of = _compare_with_all(taken, sizes)
    ends = np.cumsum(np.bincount(places, minlength=len(names)))[:-1]
    for name, owners in zip(names, np.split(np.argsort(places, kind="stable"), ends), strict=True):
        shares.append(share_of(name, owners, taken[owners], sizes[owners]))
    return sorted(shares, key=lambda share: (-share.ratio.value, share.name))


def mention_counts(
    corpus: TokenizedCorpus, scores: np.ndarray, thresholds: np.ndarray, window: int, mentions: Sequence[Mentions]
) -> list[np.ndarray]:
    """Mentions of each group, int64 (K,), that the hits above each of K thresholds and their neighbours cover, without
    a budget."""
    counts, offsets, valid, scores = [], np.asarray(corpus.offsets), corpus.valid(), np.asarray(scores)
    for group in mentions:
        first, last = offsets[group.documents], offsets[group.documents + 1] - 1
        highest = scores[group.tokens]
        for step in range(1, window + 1):
            for near in (np.maximum(group.tokens - step, first), np.minimum(group.tokens + step, last)):
                np.maximum(highest, np.where(valid[near], scores[near], -np.inf), out=highest)
        counts.append(len(highest) - np.searchsorted(np.sort(highest), thresholds, side="right"))
    return counts


def _either(names: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(names, key=len, reverse=True))


def _pattern(names: Iterable[str]) -> re.Pattern:
    return re.compile(rf"(?<!\w)(?:{_either(names)})(?!\w)", re.IGNORECASE)


def _compare_with_all(taken: np.ndarray, sizes: np.ndarray) -> Callable[..., GroupShare]:
    """Compares a part of the tokens with all `sizes` (D,) tokens of the documents, of which `taken` (D,) are selected:
    name, its d documents int64 (d,), what is selected of it and what there is of it in each, (d,) -> `GroupShare`."""
    hit = taken > 0
    all_tokens, all_documents = _Rate(taken, sizes), _Rate(hit, np.ones(len(hit)))

    def compare(name: str, owners: np.ndarray, n_taken: np.ndarray, n_all: np.ndarray, n_unmarked=None) -> GroupShare:
        return GroupShare(
            name=name,
            n_mentions=int(n_all.sum()),
            n_selected=int(n_taken.sum()),
            ratio=_Rate(n_taken, n_all).over(all_tokens, owners),
            n_documents=len(owners),
            n_hit=int(hit[owners].sum()),
            documents_ratio=_Rate(hit[owners], np.ones(len(owners))).over(all_documents, owners),
            n_unmarked=n_unmarked,
        )

    return compare


class _Rate:
    """A share over clusters of different sizes, Σ taken / Σ size, clusters being independent."""

    def __init__(self, taken: np.ndarray, size: np.ndarray):
        n_taken = taken.sum()
        self.value = float(n_taken / max(size.sum(), 1))
        self.parts = (taken - self.value * size) / max(n_taken, 1)
        """What each cluster adds to the logarithm of the share, by linearisation (Cochran 1977, section 6.3)."""
        self.variance = float(np.square(self.parts).sum())

    def over(self, whole: "_Rate", owners: np.ndarray) -> Interval:
        """The share over that of the `whole`, of whose clusters `owners` are these; if nothing is taken, up to three
        of them could be (the rule of three)."""
        if not whole.value or len(owners) < FEWEST:
            return Interval(self.value / whole.value if whole.value else 1.0, 0.0, np.inf)
        value, n = self.value / whole.value, len(owners)
        if not value:
            return Interval(0.0, 0.0, min(1.0, 3 / n) / whole.value)
        variance = whole.variance + self.parts @ (self.parts - 2 * whole.parts[owners])
        factor = float(np.exp(_Z * np.sqrt(max(variance, 0.0) * n / (n - 1))))
        return Interval(value, value / factor, value * factor)
