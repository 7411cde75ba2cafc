"""The five kinds of documents: a composer for each, `(rng, insults) -> Draft`. `insults` has a flag for each turn, true
for an insult. The texts are in `phrases.toml`. The order of the draws is part of the corpus: the same seed gives the
same bytes only while every composer draws in this order. A news report, for example, draws its opening last."""

import random
from collections.abc import Callable, Sequence

from benchmarks.demo_corpus.grammar import Draft, Sentence, Writer, phrases, weave

TOXIC_SHARES = {"review": 0.35, "forum": 0.40, "news": 0.12, "recipe": 0.0, "letter": 0.28}
"""Share of a source's documents that hold insults; 23% of all documents."""


def _say_some(writer: Writer, templates: Sequence[str], count: int) -> list[Sentence]:
    return [writer.say(text) for text in writer.pick(templates, count)]


def _say_one(writer: Writer, templates: Sequence[str]) -> Sentence:
    return writer.say(writer.rng.choice(templates))


def _say_maybe(writer: Writer, templates: Sequence[str], chance: float) -> list[Sentence]:
    return [_say_one(writer, templates)] if writer.rng.random() < chance else []


def compose_review(rng: random.Random, insults: Sequence[bool]) -> Draft:
    """A review of a household thing or a film; its rating agrees with the text. With insults it is a bad review."""
    film = rng.random() < 0.4
    # kind words about a director do not go with a bad review, those about a seller do
    bad = any(insults) or (not (film and insults) and rng.random() < (0.5 if film else 0.4))
    texts = phrases()["film" if film else "product"]
    subject = texts if film else rng.choice(texts["subjects"])
    writer = Writer(rng, texts["slots"] | subject["slots"])
    stars = rng.choice((1, 2) if bad else (4, 5))
    title = writer.say(f"{'{title} ({1951..2023})' if film else '{brand} {thing}'}: {stars} out of 5")
    count = ((2, 1, 1, 1, 0) if film else (3, 2, 2, 1, 1))[len(insults)]
    points = writer.pick(subject["bad" if bad else "good"], count)
    body = [_say_one(writer, texts[part]) for part in (("openings", "stories") if film else ("openers",))]
    body += map(writer.say, points)
    body += [] if film else _say_maybe(writer, subject["neutral"], 0.4)
    turns = writer.take_some(texts["turns"], insults)
    ending = _say_one(writer, texts["bad_endings" if bad else "good_endings"])
    return Draft(writer=writer, paragraphs=((title,), (*weave(rng, body, turns), ending)))


def compose_forum(rng: random.Random, insults: Sequence[bool]) -> Draft:
    """A forum post: someone with a hobby or a broken thing tells the others what happened."""
    texts = phrases()["forum"]
    topic = rng.choice(texts["subjects"])
    writer = Writer(rng, topic["slots"])
    details = _say_some(writer, topic["details"], (3, 2, 2, 1, 1)[len(insults)])
    turns = writer.take_some(texts["turns"], insults)
    body = weave(rng, [_say_one(writer, topic["problems"]), *details], turns)
    title = _say_one(writer, topic["titles"])
    opener = _say_maybe(writer, texts["openers"], 0.45)
    ending = [] if any(insults) else _say_maybe(writer, topic["endings"], 0.5)
    closer = _say_maybe(writer, texts["closers"], 0.35)
    return Draft(writer=writer, paragraphs=((title,), (*opener, *body, *ending, *closer)))


def compose_news(rng: random.Random, insults: Sequence[bool]) -> Draft:
    """A report about one local event; its insults are quoted."""
    texts = phrases()["news"]
    event = rng.choice(texts["subjects"])
    writer = Writer(rng, texts["slots"] | event["slots"])
    title = _say_one(writer, event["headlines"])
    facts = _say_some(writer, event["facts"], (3, 2, 1, 1, 0)[len(insults)])
    facts += _say_maybe(writer, texts["quotes"], 0.3) if insults else [_say_one(writer, texts["quotes"])]
    turns = writer.take_some(texts["turns"], insults)
    closer = _say_maybe(writer, texts["closers"], 0.4)
    place, opening = writer.say("{town}."), _say_one(writer, event["openings"])
    return Draft(writer=writer, paragraphs=((title,), (place, *weave(rng, [opening, *facts], turns), *closer)))


def compose_recipe(rng: random.Random, insults: Sequence[bool]) -> Draft:
    """A recipe: its ingredients come back in every step. It has no turns."""
    texts = phrases()["recipe"]
    dish = rng.choice(texts["subjects"])
    writer = Writer(rng, texts["slots"])
    title = _say_one(writer, dish["titles"])
    ingredients = writer.say(dish["ingredients"])
    steps = [_say_one(writer, ways) for ways in dish["steps"]]
    ending = _say_one(writer, texts["sweet_endings" if dish.get("is_sweet") else "endings"])
    return Draft(writer=writer, paragraphs=((title,), (ingredients,), (*steps, ending)))


def compose_letter(rng: random.Random, insults: Sequence[bool]) -> Draft:
    """A letter for one occasion."""
    texts = phrases()["letter"]
    occasion = rng.choice(texts["subjects"])
    writer = Writer(rng, texts["slots"] | occasion["slots"] | {"greeting": texts["greetings"][occasion["greeting"]]})
    greeting = writer.say("{greeting}")
    details = _say_some(writer, occasion["details"], (3, 2, 2, 1, 1)[len(insults)])
    turns = writer.take_some(texts["turns"], insults)
    body = weave(rng, [_say_one(writer, occasion["openings"]), *details], turns)
    closing = _say_maybe(writer, occasion["closings"], 0.6)
    sign = writer.say(texts["signatures"][occasion["greeting"]])
    return Draft(writer=writer, paragraphs=((greeting,), (*body, *closing), (sign,)))


COMPOSERS: dict[str, Callable[[random.Random, Sequence[bool]], Draft]] = {
    "review": compose_review,
    "forum": compose_forum,
    "news": compose_news,
    "recipe": compose_recipe,
    "letter": compose_letter,
}
"""Source name to composer; the names are also the first half of the document ids."""
