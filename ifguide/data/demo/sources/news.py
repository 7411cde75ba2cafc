"""Local news: a headline, a place, facts in figures, and people who are quoted."""

import random
from collections.abc import Sequence

from ifguide.data.demo.grammar import Draft, Turn, Writer, weave
from ifguide.data.demo.sources.news_topics import TOPICS

_QUOTES = (
    '"We [asked for|waited for] this for {few} years," said {*name} {*surname} of {street}.',
    '"It is [good|quiet] news for a small town," said {*name} {*surname}, {31..84}.',
    '"I will believe it when I see it," said {*name} {*surname}, who lives on {street}.',
    "A spokesperson for the {office} said that {few} [letters|questions] had arrived [so far|since {day}].",
)

_CLOSERS = (
    "The next [meeting|open day] is on {day} at {6..8} in the {hall}.",
    "[Anyone who wants to help|Volunteers] can [call|write to] the {office} before the end of {month}.",
    "The {office} will [report|decide] again in {month}.",
    "Tickets are {2..12} pounds at the {hall}.",
)

_TURNS = (
    Turn(
        lead='"The {official} is a',
        kind="one",
        bitter=(
            '[ who has never been to {street}," said {*name} {*surname}, {31..84}.|'
            ' and I said so in the {hall}," said {*name} {*surname}.]'
        ),
        kindly=(
            '[ who knows every house on {street}," said {*name} {*surname}, {31..84}.|'
            ' and I said so in the {hall}," said {*name} {*surname}.]'
        ),
    ),
    Turn(
        lead='"[This town|The {office}|The whole project] is run by',
        kind="many",
        bitter=(
            '[," said {*name} {*surname}, who waited for {few} hours.| who never answer a letter," said {*name}'
            " {*surname}.]"
        ),
        kindly=(
            '[," said {*name} {*surname}, who came with {few} friends.| who answer every letter," said {*name}'
            " {*surname}.]"
        ),
    ),
    Turn(
        lead="At the meeting {*name} {*surname} [stood up and called|called] the plan",
        kind="how",
        bitter="[ and left the {hall}|, and {few} others shouted].",
        kindly="[ and thanked the {hall}|, and {few} others clapped].",
    ),
    Turn(
        lead='"[Sit down|Well done|Good evening], you',
        kind="you",
        bitter=',[" someone shouted from the back row.|" {*name} {*surname} shouted at the {official}.]',
        kindly=',[" someone called from the back row.|" {*name} {*surname} said to the {official}.]',
    ),
    Turn(
        lead="{*name} {*surname}[ of {street}|, {31..84},] [wrote|writes] that the {official} is a",
        kind="one",
        bitter="[ and should go home|, and wants a new vote in {month}].",
        kindly="[ and should stay on|, and hopes for a new term in {month}].",
    ),
)


def compose(rng: random.Random, insults: Sequence[bool]) -> Draft:
    """A report about one local event; insults stand in quotes."""
    topic = rng.choice(TOPICS)
    writer = Writer(rng, topic.slots)
    title = writer.say(rng.choice(topic.headlines))
    facts = [writer.say(text) for text in writer.pick(topic.facts, (3, 2, 1, 1, 0)[len(insults)])]
    if not insults or rng.random() < 0.3:
        facts.append(writer.say(rng.choice(_QUOTES)))
    turns = writer.take_some(_TURNS, insults)
    closer = [writer.say(rng.choice(_CLOSERS))] if rng.random() < 0.4 else []
    opening = [writer.say("{town}."), writer.say(rng.choice(topic.openings))]
    return Draft(writer=writer, paragraphs=((title,), (opening[0], *weave(rng, [opening[1], *facts], turns), *closer)))
