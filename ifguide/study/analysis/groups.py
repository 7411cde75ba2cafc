"""Who gets filtered: how often a selection takes the words that name a group of people, compared with all tokens.

Filters remove what is written about minorities and by them (Dodge et al. 2021, arXiv 2104.08758). A mention is a token
of a word in a group's list. Shapes: D documents, N tokens, M mentions of a group, K thresholds.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from ifguide.data import words
from ifguide.data.corpus import TokenizedCorpus
from ifguide.errors import InputError
from ifguide.evaluation.statistics import bootstrap_interval
from ifguide.selection.audit import Interval
from ifguide.study.reading import Study

OWN_LIST = "groups.json"
"""A study's own list, in its folder, in the form of the built-in one: {"groups": {name: [word, …]}}."""
BUILT_IN = Path(words.__file__).with_name("groups.json")
LEAST = 10
"""A group with fewer mentions is left out: no rate of it would mean much."""
TWICE = 2.0
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
    def by_document(self) -> tuple[np.ndarray, np.ndarray]:
        """The documents that mention it, int64 (d,), and where the mentions of each start, int64 (d,)."""
        return np.unique(self.documents, return_index=True)


@dataclass(frozen=True, kw_only=True)
class GroupShare:
    """How a selection treats a group."""

    name: str
    n_mentions: int
    n_selected: int
    """Selected mentions."""
    ratio: Interval
    """Share of its mentions that is selected over the share of all tokens, with a 95% interval over documents."""
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
        """Its mentions are selected at least twice as often as other tokens, by the lower end of the interval."""
        return self.ratio.low >= TWICE


def read_groups(study: Study) -> dict[str, list[str]]:
    """Group -> its words: the study's own list if it has one, else the built-in one. An InputError: another form."""
    path = own if (own := study.root / OWN_LIST).exists() else BUILT_IN
    try:
        groups = json.loads(path.read_text(encoding="utf-8"))["groups"]
        lists = {name: [word.lower().strip() for word in group] for name, group in groups.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f'{path}: expected {{"groups": {{name: [word, …]}}}}, got {error!r}') from None
    return {name: [word for word in group if word] for name, group in lists.items()}


def speech_by_group(samples: pd.DataFrame, groups: Mapping[str, Sequence[str]]) -> dict[str, dict]:
    """Group of prompts -> `words`, the mean number of words in an answer, and `mentions`, the share of answers that
    name a group of people, each with its bounds over prompts. A model that falls silent about a group is not less
    toxic. `samples` are a model's completions; without a column `group` there is nothing."""
    if "group" not in samples:
        return {}
    pattern = _pattern(word for group in groups.values() for word in group)
    texts = samples["completion"]
    counted = {"words": texts.map(lambda text: len(words.split_words(text))), "mentions": texts.str.contains(pattern)}
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
    corpus: TokenizedCorpus, selected: np.ndarray, n_valid: int, mentions: Sequence[Mentions]
) -> list[GroupShare]:
    """What the tokens at int64 (n,) ascending places, of `n_valid` that could be selected, take of each group; the
    highest ratio first."""
    offsets = np.asarray(corpus.offsets)
    lengths = np.diff(offsets)
    taken = np.bincount(np.searchsorted(offsets, selected, side="right") - 1, minlength=len(lengths))
    all_tokens, all_documents = _rate(taken, lengths, n_valid), _rate(taken > 0, np.ones(len(lengths)))
    shares = []
    for group in mentions:
        owners, starts = group.by_document
        is_taken = np.searchsorted(selected, group.tokens, "right") > np.searchsorted(selected, group.tokens)
        n_taken, n_all = np.add.reduceat(is_taken, starts, dtype=np.int64), np.diff(starts, append=len(is_taken))
        hit, unmarked = taken[owners] > 0, None
        if corpus.in_span is not None:
            unmarked = int((~np.asarray(corpus.in_span)[group.tokens[is_taken]]).sum())
        share = GroupShare(
            name=group.name,
            n_mentions=len(group.tokens),
            n_selected=int(is_taken.sum()),
            ratio=_ratio(_rate(n_taken, n_all), all_tokens, len(owners)),
            n_documents=len(owners),
            n_hit=int(hit.sum()),
            documents_ratio=_ratio(_rate(hit, np.ones(len(owners))), all_documents, len(owners)),
            n_unmarked=unmarked,
        )
        shares.append(share)
    return sorted(shares, key=lambda share: (-share.ratio.value, share.name))


def mention_counts(
    corpus: TokenizedCorpus, scores: np.ndarray, thresholds: np.ndarray, window: int, mentions: Sequence[Mentions]
) -> list[np.ndarray]:
    """Mentions of each group, int64 (K,), that the hits above each of K thresholds and their neighbours cover, without
    a budget."""
    counts, offsets, valid = [], np.asarray(corpus.offsets), corpus.valid()
    for group in mentions:
        highest = np.full(len(group.tokens), -np.inf)
        for step in range(-window, window + 1):
            near = group.tokens + step
            inside = (near >= offsets[group.documents]) & (near < offsets[group.documents + 1])
            inside[inside] = valid[near[inside]]
            highest[inside] = np.maximum(highest[inside], scores[near[inside]])
        counts.append(len(highest) - np.searchsorted(np.sort(highest), thresholds, side="right"))
    return counts


def _either(names: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(names, key=len, reverse=True))


def _pattern(names: Iterable[str]) -> re.Pattern:
    return re.compile(rf"(?<!\w)(?:{_either(names)})(?!\w)", re.IGNORECASE)


def _rate(taken: np.ndarray, size: np.ndarray, total: int | None = None) -> tuple[float, float]:
    """A share over clusters of different sizes, Σ taken / Σ size, and the standard error of its logarithm by
    linearisation, clusters being independent (Cochran 1977, section 6.3)."""
    n = float(total or size.sum())
    rate = float(taken.sum()) / n
    if not rate:
        return 0.0, np.inf
    return rate, float(np.sqrt(np.square(taken - rate * size).sum())) / n / rate


def _ratio(group: tuple[float, float], whole: tuple[float, float], n_clusters: int) -> Interval:
    """One share over another with its interval; if nothing of the group is taken, up to three clusters in `n_clusters`
    could be (the rule of three)."""
    if not whole[0]:
        return Interval(1.0, 0.0, np.inf)
    value = group[0] / whole[0]
    if not value:
        return Interval(0.0, 0.0, min(1.0, 3 / n_clusters) / whole[0])
    factor = float(np.exp(_Z * np.hypot(group[1], whole[1])))
    return Interval(value, value / factor, value * factor)
