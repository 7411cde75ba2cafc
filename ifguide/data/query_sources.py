"""Query sets from what people have: scored prompts, toxic sentences with neutral rewrites, labelled texts."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ifguide.config.schema import QueriesConfig
from ifguide.data.queries import CONTINUATION, KINDS, read_queries, split_text
from ifguide.data.readers import Row, check_text, read_rows, take_field
from ifguide.errors import InputError

if TYPE_CHECKING:
    import pandas

RowQueries = list[tuple[str, str, str]] | str
"""What a row gives: queries (kind, prompt, completion), those of a pair together; or why it is left out."""
MOST_WORDS = 60
"""A longer text is cut here before it becomes a query."""
_SPACED = re.compile(r"\s+([,.!?;:]|n't\b|'\w)")
"""The spaces before punctuation that ParaDetox has and other text has not."""


def read_query_sets(path: str, config: QueriesConfig, labels=("text", "label")) -> "pandas.DataFrame":
    """`make_sets` from a file with scored prompts and continuations, as RealToxicityPrompts has them; or with columns
    whose names hold `toxic` and `neutral`, as ParaDetox has them; or with a text and its label (0, 1, true, false or a
    score). Scores count as `config.toxic_min` and `config.safe_max` say. Without pairs the sets are matched."""
    columns = list(next((row.values for row in _read(path)), {}))
    pair = find_rewrites(columns)
    if CONTINUATION in columns:
        return make_sets(_read_scored(path, config), path, match=True)
    if pair:
        return make_sets((_cut(*sentences) for sentences in read_rewrites(path, *pair)), path)
    if len(labels) == 2 and {*columns} >= set(labels):
        rows = read_rows(path, text_field=labels[0], columns=labels)
        return make_sets((_read_labelled(row, config, *labels) for row in rows), path, match=True)
    expected = f"'prompt' and 'continuation', 'toxic' and 'neutral', or {' and '.join(map(repr, labels))}"
    there = ", ".join(map(repr, columns)) or "none"
    raise InputError(f"{path}: expected columns {expected}, got {there}; name the text and the label with --labels")


def find_rewrites(columns: Iterable[str]) -> list[str]:
    """The columns of a toxic sentence and its neutral rewrite; empty without both."""
    pair = [next((name for name in columns if part in name), "") for part in ("toxic", "neutral")]
    return pair if all(pair) else []


def make_sets(rows: Iterable[RowQueries], source: str, *, match: bool = False) -> "pandas.DataFrame":
    """Columns `kind`, `prompt` and `completion`: no text is in both sets or twice in one, and a pair is kept whole or
    not at all. `match` draws as many for both sets of each length (words of the completion, in steps of a fifth), and
    always the same ones. `attrs["left_out"]` says why others are missing. An InputError about the `source`: an empty
    set."""
    import pandas as pd

    rows = list(rows)
    left_out = Counter(row for row in rows if isinstance(row, str))
    queries = [(number, *query) for number, row in enumerate(rows) if not isinstance(row, str) for query in row]
    frame = pd.DataFrame(queries, columns=["row", "kind", "prompt", "completion"])
    texts = (frame["prompt"] + frame["completion"]).map(letters)
    in_both = frame.groupby(texts)["kind"].transform("nunique") > 1
    bad = in_both | (frame["completion"].map(letters) == "") | frame.assign(text=texts).duplicated(["kind", "text"])
    kept = frame[~bad.groupby(frame["row"]).transform("any")]
    left_out["queries whose text comes again or has no letters"] = len(frame) - len(kept)
    if match and kept["kind"].nunique() == 2:
        steps = (4 * np.log2(kept["completion"].str.split().str.len())).round()
        turns = kept.sample(frac=1, random_state=0).groupby([steps, "kind"]).cumcount()
        paired = kept["kind"].groupby([steps, turns.reindex(kept.index)]).transform("nunique") == 2
        left_out["queries whose length is rarer in the other set"] = int((~paired).sum())
        kept = kept[paired]
    reasons = ", ".join(f"{n:,} {why}" for why, n in (+left_out).items()) or "nothing"
    if kept["kind"].nunique() < 2:
        got = " and ".join(f"{(kept['kind'] == kind).sum():,} {kind}" for kind in KINDS) + f" (left out: {reasons})"
        raise InputError(f"{source}: expected toxic and safe queries, got {got}; add texts of both kinds")
    kept = kept.drop(columns="row").reset_index(drop=True)
    kept.attrs["left_out"] = reasons
    return kept


def _read_scored(path: str, config: QueriesConfig) -> Iterator[RowQueries]:
    for kind in KINDS:
        frame = read_queries(path, kind=kind, config=config)
        yield from ([(kind, *pair)] for pair in frame.itertuples(index=False, name=None))
        yield from [f"rows that are not {kind} or have no scores"] * frame.attrs["left_out"].total()


def read_rewrites(path: str, *fields: str) -> Iterator[list[str]]:
    """Toxic sentences and their neutral rewrites from two columns, with the spaces that other text has."""
    for row in _read(path, columns=fields):
        texts = (check_text(take_field(row, name) or "", row.where, name) for name in fields)
        yield [_SPACED.sub(r"\1", text) for text in texts]


def _read(path: str, **options) -> Iterator[Row]:
    return read_rows(path, quoted=".tsv" not in Path(path).suffixes, **options)  # ParaDetox's quotes nothing


def split_rewrite(toxic: str, neutral: str) -> tuple[str, str, str] | None:
    """(prompt, toxic rest, neutral rest): the words both sentences begin with, and how each goes on; None where they do
    not begin alike, or one ends there."""
    words = toxic.split(), neutral.split()
    alike = next((i for i, (a, b) in enumerate(zip(*words, strict=False)) if a.lower() != b.lower()), 0)
    rests = [" " + " ".join(one[alike:]) for one in words]
    return (" ".join(words[0][:alike]), rests[0], rests[1]) if alike else None


def _cut(toxic: str, neutral: str) -> RowQueries:
    prompt, *rests = split_rewrite(toxic, neutral) or ("",)
    reason = "pairs that do not begin alike, or of which one ends there"
    return [(kind, prompt, rest) for kind, rest in zip(KINDS, rests, strict=True)] if prompt else reason


def _read_labelled(row: Row, config: QueriesConfig, text_field: str, label_field: str) -> RowQueries:
    text, label = check_text(take_field(row, text_field) or "", row.where, text_field), take_field(row, label_field)
    word = "" if label is None else str(label).strip().lower()
    try:
        score = float({"true": "1", "false": "0", "": "nan"}.get(word, word))
        if score < 0 or score > 1:  # such as -1 for texts that nobody has labelled
            raise ValueError("no share")
    except ValueError as error:
        problem = f"expected 0, 1, true, false or a score from 0 to 1 in {label_field!r}, got {word[:60]!r}"
        raise InputError(f"{row.where}: {problem}; name another column with --labels, or change the row") from error
    if score >= config.toxic_min or score < config.safe_max:
        return cut_text(text, KINDS[score < config.toxic_min], config.split_share)
    return "rows without a clear label"


def cut_text(text: str, kind: str, share: float = 0.5) -> RowQueries:
    """A query from a text: its first `MOST_WORDS` words, cut in two after this share of them."""
    pair = split_text("".join(re.findall(r"\s*\S+", text)[:MOST_WORDS]), share)
    return "texts of less than two words" if isinstance(pair, str) else [(kind, *pair)]


def letters(text: str) -> str:
    """A text's letters alone, in lower case: two that agree in them are one text."""
    return "".join(filter(str.isalpha, text.lower()))
