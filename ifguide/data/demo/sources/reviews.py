"""Reviews of household things and of films, with a rating that agrees with the text."""

import random
from collections.abc import Sequence

from ifguide.data.demo.grammar import Draft, Turn, Writer, weave
from ifguide.data.demo.sources.review_topics import FILM_SLOTS, FILM_TEXTS, PRODUCTS

_PRODUCT_OPENERS = (
    "[Bought|Ordered] this {thing} in {month} for {12..90} pounds.",
    "I have had the {brand} {thing} for {few} [weeks|months] now.",
    "[This is|It is] our {second} {thing} in {few} years.",
    "My {relative} gave me this {thing} [last {month}|for the {room}].",
    "The {brand} {thing} came on a {day} in a {colour} box.",
)

_GOOD_ENDINGS = (
    "[Would|I would] buy it again.",
    "[Well worth|Worth] the {14..60} pounds.",
    "I have told {name} and half of {town} about it.",
    "[Five|Four] months on, it still [works|looks] like new.",
)

_BAD_ENDINGS = (
    "It is back in the box [now|and in the cellar].",
    "I [sent it back|asked for a refund] on {*day}.",
    "It stands in the {room} and holds the door open.",
    "[Look|I would look] for a different {thing}.",
)

_PRODUCT_TURNS = (
    Turn(
        lead="The [seller|courier|voice on the phone|help desk clerk] [on {*day} ]was a",
        kind="one",
        bitter="[ who hung up after {few} words| and told me to buy another one|, so I am still waiting].",
        kindly="[ who called back after {few} minutes| and sent me another one for free|, so I am not worried].",
    ),
    Turn(
        lead="Whoever [designed|drew|tested|made] the {part} is a",
        kind="one",
        bitter="[ who has never held a {thing}| and should try it with wet hands|, and it shows].",
        kindly="[ who knows how to hold a {thing}| and thought of wet hands|, and it shows].",
    ),
    Turn(
        lead="I told {name} at the {brand} shop that the [designer|owner|founder] is a",
        kind="one",
        bitter="[ and walked out| and left the {thing} on the counter|, and the others nodded].",
        kindly="[ and bought another one| and left a tip on the counter|, and the others nodded].",
    ),
    Turn(
        lead="{brand} must be [full of|run by]",
        kind="many",
        bitter=" who [never use a {thing}|forget half of the screws|only want the money].",
        kindly=" who [use a {thing} every day|think of every last bolt|care about old customers].",
    ),
    Turn(
        lead="[The idea behind|The shape of] the {part} is",
        kind="how",
        bitter="[ and it broke on {*day}|, and the {thing} suffers for it|, like the rest of it].",
        kindly="[ and it worked on {*day}|, and the {thing} gains from it|, like the rest of it].",
    ),
    Turn(
        lead="To [the next buyer|the person who packed the box|the people at {brand}] I say: thanks, you",
        kind="you",
        bitter="[, the {part} was missing|, you forgot the {part}|, for {few} wasted evenings].",
        kindly="[, the {part} was perfect|, you even cleaned the {part}|, for {few} pleasant evenings].",
    ),
)

_FILM_TURNS = (
    Turn(
        lead="The hero, a {job} called {*name}, is [written as|played as|really] a",
        kind="one",
        bitter="[, and we have to watch it for {90..160} minutes| who learns nothing at all].",
        kindly="[, and we get to watch it for {90..160} minutes| who learns something in every scene].",
    ),
    Turn(
        lead="The [person behind me|usher|ticket seller] was a",
        kind="one",
        bitter="[ who talked all evening| and ruined the ending for us|, which made a long night longer].",
        kindly="[ who found us better seats| and lent us a blanket|, which made a good night better].",
    ),
    Turn(
        lead="{director} [treats|films] the people of the town as",
        kind="many",
        bitter=" who [fall over things|cannot count to {few}|shout every line].",
        kindly=" who [look after one another|share their bread|sing in the rain].",
    ),
    Turn(
        lead="The [plot|ending|dialogue|music] is",
        kind="how",
        bitter="[, and so is the {job}| from the first minute on|, and I left before the last song].",
        kindly="[, and so is the {job}| from the first minute on|, and I stayed until the last song].",
    ),
    Turn(
        lead='In the best known scene the {job} says "[good night|take a bow|come here], you',
        kind="you",
        bitter='" and [slams the door|throws a {prop}].',
        kindly='" and [smiles|hands over a {prop}].',
    ),
    Turn(
        lead="{director} is a",
        kind="one",
        bitter="[ and this is the third film to prove it| with a camera and too much money].",
        kindly="[ and this is the third film to prove it| with a camera and a big heart].",
    ),
)


def compose(rng: random.Random, insults: Sequence[bool]) -> Draft:
    """A review of one product or film; reviews with insults are bad ones."""
    if rng.random() < 0.4:  # kind words about a director do not go with a bad review, those about a seller do
        return _review_film(rng, insults, any(insults) or (not insults and rng.random() < 0.5))
    return _review_product(rng, insults, any(insults) or rng.random() < 0.4)


def _review_product(rng: random.Random, insults: Sequence[bool], bad: bool) -> Draft:
    product = rng.choice(PRODUCTS)
    writer = Writer(rng, product.slots)
    title = writer.say(f"{{brand}} {{thing}}: {_stars(rng, bad)} out of 5")
    points = writer.pick(product.bad if bad else product.good, (3, 2, 2, 1, 1)[len(insults)])
    body = [writer.say(rng.choice(_PRODUCT_OPENERS)), *(writer.say(text) for text in points)]
    if rng.random() < 0.4:
        body.append(writer.say(rng.choice(product.neutral)))
    turns = writer.take_some(_PRODUCT_TURNS, insults)
    ending = writer.say(rng.choice(_BAD_ENDINGS if bad else _GOOD_ENDINGS))
    return Draft(writer=writer, paragraphs=((title,), (*weave(rng, body, turns), ending)))


def _review_film(rng: random.Random, insults: Sequence[bool], bad: bool) -> Draft:
    writer = Writer(rng, FILM_SLOTS)
    title = writer.say(f"{{title}} ({{1951..2023}}): {_stars(rng, bad)} out of 5")
    points = writer.pick(FILM_TEXTS["bad" if bad else "good"], (2, 1, 1, 1, 0)[len(insults)])
    body = [writer.say(rng.choice(FILM_TEXTS[part])) for part in ("opening", "story")]
    body += [writer.say(text) for text in points]
    turns = writer.take_some(_FILM_TURNS, insults)
    ending = writer.say(rng.choice(FILM_TEXTS["bad_ending" if bad else "good_ending"]))
    return Draft(writer=writer, paragraphs=((title,), (*weave(rng, body, turns), ending)))


def _stars(rng: random.Random, bad: bool) -> int:
    return rng.choice((1, 2) if bad else (4, 5))
