"""A small text grammar: templates with choices, slots and turns, expanded from a seeded random generator.

A template is plain text with three kinds of holes:

    [a|b|c]   one of the alternatives (they may hold slots, and choices may be nested)
    {day}     a slot: drawn once and then kept for the whole document
    {*day}    the same pool, drawn afresh, if possible not a value the document already used
    {3..9}    a whole number from 3 to 9

Turns are the only source of insults, so their character spans are known exactly.
"""

import random
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\*?)([a-z_]+)\}")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeio](?!ne\b)|um)")  # "an", but "a one", "a ukulele"
_FRESH = {"few", "dozens"}  # small numbers need not agree within a document
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A sentence with two endings: its beginning fits an insult and a kind phrase equally well."""

    lead: str
    """Template of the text before the phrase, without a space at the end."""
    kind: str
    """What fits after the lead: "one" (after "a"), "you" (after "you"), "many" (plural), or "how" (an adjective)."""
    bitter: str
    """Template of what follows an insult, with its own space or punctuation."""
    kindly: str
    """Template of what follows a kind phrase."""


@cache
def phrases() -> dict[str, Any]:
    """The tables of `phrases.toml`, read once; the entries of every list `turns` are `Turn`s."""
    tables = tomllib.loads(Path(__file__).with_name("phrases.toml").read_text(encoding="utf-8"))
    tables["insults"]["you"] = tables["insults"]["one"] + tables["insults"]["you"]
    for table in tables.values():
        if "turns" in table:
            table["turns"] = [Turn(**turn) for turn in table["turns"]]
    return tables


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """One finished sentence; for a turn also the place of its phrase."""

    text: str
    phrase: tuple[int, int] | None = None
    """Character range [start, end) of the insult or kind phrase; None for a sentence that is not a turn."""
    is_insult: bool = False
    turn: Turn | None = None

    @property
    def insults(self) -> tuple[tuple[int, int], ...]:
        """Character ranges of the insulting words; commas and neutral words such as "and" are left out."""
        if not self.is_insult or self.phrase is None:
            return ()
        start, end = self.phrase
        words = re.finditer(r"\w+", self.text[start:end])
        return tuple((start + m.start(), start + m.end()) for m in words if m[0] not in phrases()["neutral_words"])

    @property
    def lead(self) -> str:
        """A turn's text before its phrase, without the space between them; the whole text of any other sentence."""
        return self.text[: self.phrase[0] - 1] if self.phrase else self.text


@dataclass
class Writer:
    """Expands templates for one document and remembers its slots."""

    rng: random.Random
    pools: Mapping[str, Sequence[str] | str] = field(default_factory=dict)
    """Pools of the source and its topic; they come before the shared pools. A plain string is a fixed value."""

    def __post_init__(self) -> None:
        self._kept: dict[str, str] = {}
        self._used: dict[str, set[str]] = {}

    def expand(self, template: str) -> str:
        """Fill every hole of a template. A slot without a pool is a KeyError."""
        text = template
        while match := _CHOICE.search(text):
            text = text[: match.start()] + self.rng.choice(match[1].split("|")) + text[match.end() :]
        text = _RANGE.sub(lambda m: str(self.rng.randint(int(m[1]), int(m[2]))), text)
        text = _SLOT.sub(lambda m: self._fill(m[2], fresh=bool(m[1]) or m[2] in _FRESH), text)
        return _ARTICLE.sub(r"\1n ", text)

    def say(self, template: str) -> Sentence:
        """An ordinary sentence, with a capital at the start."""
        text = self.expand(template)
        return Sentence(text=text[:1].upper() + text[1:])

    def take_some(self, turns: Sequence[Turn], insults: Sequence[bool]) -> list[Sentence]:
        """One turn for each flag in `insults`, all different; true for an insult."""
        picked = zip(self.pick(turns, len(insults)), insults, strict=True)
        return [self.continue_turn(turn, self.say(turn.lead).text, insult=insult) for turn, insult in picked]

    def continue_turn(self, turn: Turn, lead: str, *, insult: bool) -> Sentence:
        """Continue a lead that is already expanded with an insult or with something kind."""
        phrase = self._draw(f"{turn.kind}-{insult}", phrases()["insults" if insult else "praise"][turn.kind])
        tail = self.expand(turn.bitter if insult else turn.kindly)
        start = len(lead) + 1
        return Sentence(text=f"{lead} {phrase}{tail}", phrase=(start, start + len(phrase)), is_insult=insult, turn=turn)

    def pick(self, items: Sequence, count: int) -> list:
        """`count` different items in random order (all of them when there are fewer)."""
        return self.rng.sample(list(items), min(count, len(items)))

    def _fill(self, name: str, *, fresh: bool) -> str:
        if not fresh and name in self._kept:
            return self._kept[name]
        pool = self.pools[name] if name in self.pools else phrases()["pools"][name]
        value = self.expand(pool if isinstance(pool, str) else self._draw(name, pool))
        if not fresh:
            self._kept[name] = value
        return value

    def _draw(self, name: str, pool: Sequence[str]) -> str:
        used = self._used.setdefault(name, set())
        options = [item for item in pool if item not in used] or list(pool)
        value = self.rng.choice(options)
        used.add(value)
        return value


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A composed document: paragraphs of sentences, and the writer with the document's slots."""

    writer: Writer
    paragraphs: tuple[tuple[Sentence, ...], ...]


def weave(rng: random.Random, sentences: Sequence[Sentence], turns: Sequence[Sentence]) -> tuple[Sentence, ...]:
    """Put the turns at random places among the sentences, after the first one; both keep their order."""
    places = sorted(rng.randint(1, len(sentences)) for _ in turns)
    woven = list(sentences)
    for turn, place in reversed(list(zip(turns, places, strict=True))):
        woven.insert(place, turn)
    return tuple(woven)
