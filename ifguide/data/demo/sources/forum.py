"""Forum posts: someone with a hobby or a broken thing tells the others what happened."""

import random
from collections.abc import Sequence

from ifguide.data.demo.grammar import Draft, Turn, Writer, weave
from ifguide.data.demo.sources.forum_topics import TOPICS

_OPENERS = (
    (
        "[Hello all|Hi everyone|Evening all|Morning], [first post here|a long one, sorry|a short question|an update"
        " from me]."
    ),
    "[Hello from|Writing from] {town}, [where it is all {weather} today|after a week of {weather}].",
    "I have been [at this|reading here] for {few} [weeks|months] now.",
    "[Update on|A note about|Back to] my [old post|question] from last {day}.",
    "[Not sure|No idea] if this belongs here, but [here goes|I will try].",
)

_CLOSERS = (
    "[Photos|Pictures] to follow on {*day}.",
    "[Any tips|Any ideas|Other ideas] before {*day}?",
    "[Has anyone|Did anyone here] try something else?",
    "[I will|Will] report back [next week|on {*day}|in {*month}].",
    "That is all [from {town}|for tonight|from me].",
)

_TURNS = (
    Turn(
        lead="The {worker} [at|from] {shop} is a",
        kind="one",
        bitter="[ who sold me the wrong {part}| and charged me {20..90} pounds for nothing|, so never go there].",
        kindly="[ who found the fault in {3..9} minutes| and only charged me {5..19} pounds|, so do go there].",
    ),
    Turn(
        lead="I [asked|wrote to] {name} [about it|on {*day}|from {club}], and {name} is a",
        kind="one",
        bitter="[ who never reads the question| and knows nothing about a {part}|, so that was another evening gone].",
        kindly="[ who answered every question| and knows all about a {part}|, so that was an evening well spent].",
    ),
    Turn(
        lead="Whoever [fitted|made|packed|sold me] this {part} must be a",
        kind="one",
        bitter="[ with no eyes| in a great hurry|, because it fell off on {*day}].",
        kindly="[ with good eyes| with all the time in the world|, because it still fits like new].",
    ),
    Turn(
        lead="It takes a",
        kind="one",
        bitter=" to [glue|paint|bend] a {part} [like that|before reading the manual|on day one].",
        kindly=" to [mend|save|test] a {part} [like that|in one evening|for a stranger].",
    ),
    Turn(
        lead="[Well done|Congratulations|Good evening], {*name}, you",
        kind="you",
        bitter=", [now my {thing} is worse than before|you broke the {part}|that was the wrong {part}].",
        kindly=", [now my {thing} is better than before|you saved the {part}|that was the right {part}].",
    ),
    Turn(
        lead="[Go on|Try it yourself|See you on {*day}|Read page {2..9} again], you",
        kind="you",
        bitter=", and [stop giving me orders|leave my {thing} alone|keep your advice].",
        kindly=", and [tell us how it goes|bring your {thing} along|thank you for the advice].",
    ),
    Turn(
        lead="[These days {club} is run by|The people at {club} are|Most replies here come from]",
        kind="many",
        bitter=" who [have never owned a {thing}|cannot tell a {part} from a spoon|shout at every beginner].",
        kindly=" who [have owned a {thing} for years|lend out a {part} to anyone|help every beginner].",
    ),
    Turn(
        lead="The [advice|answer|plan] I got [from {*name}|in the last thread|at {club}] was",
        kind="how",
        bitter="[ and it cost me a {part}|, just like the person who wrote it|, as always].",
        kindly="[ and it saved me a {part}|, just like the person who wrote it|, as always].",
    ),
    Turn(
        lead="My {relative} [looked at it and|came along and|held the {part} and] was a",
        kind="one",
        bitter="[ about it all day| from start to finish|, dropping things and blaming me].",
        kindly="[ about it all day| from start to finish|, finding things and cheering me on].",
    ),
)


def compose(rng: random.Random, insults: Sequence[bool]) -> Draft:
    """A post about one topic; `insults` says for each of its turns whether it goes on with an insult."""
    topic = rng.choice(TOPICS)
    writer = Writer(rng, topic.slots)
    details = [writer.say(text) for text in writer.pick(topic.details, (3, 2, 2, 1, 1)[len(insults)])]
    turns = writer.take_some(_TURNS, insults)
    body = weave(rng, [writer.say(rng.choice(topic.problems)), *details], turns)
    title = writer.say(rng.choice(topic.titles))
    opener = [writer.say(rng.choice(_OPENERS))] if rng.random() < 0.45 else []
    ending = [writer.say(rng.choice(topic.endings))] if not any(insults) and rng.random() < 0.5 else []
    closer = [writer.say(rng.choice(_CLOSERS))] if rng.random() < 0.35 else []
    return Draft(writer=writer, paragraphs=((title,), (*opener, *body, *ending, *closer)))
