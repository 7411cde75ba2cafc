"""Letters to relatives, neighbours, landlords, hotels and old friends."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ifguide.data.demo.grammar import Draft, Turn, Writer, weave


@dataclass(frozen=True, kw_only=True)
class Occasion:
    """A reason to write; fills the slots reader, helper and thing, all texts are templates."""

    slots: dict[str, str | tuple[str, ...]]
    openings: tuple[str, ...]
    details: tuple[str, ...]
    closings: tuple[str, ...]


_FAMILY = ("Dear Aunt {aunt},", "Dear Uncle {uncle},", "Dear {aunt},", "My dear {uncle},", "Dear {aunt} and {uncle},")
_FORMAL = ("Dear Mr {surname},", "Dear Mrs {surname},", "Dear neighbour,", "To the {reader},")
_SIGN: dict[str | tuple[str, ...], str] = {
    _FAMILY: "[Yours|Love|Warmly|Best wishes|Until soon|Yours as ever|Greetings from {town}], {*name}",
    _FORMAL: "[Yours faithfully|With kind regards|Yours sincerely|Best regards], {*name} {*surname}",
}

OCCASIONS = (
    Occasion(
        slots={
            "greeting": _FAMILY,
            "reader": "family",
            "helper": "driver",
            "thing": ("suitcase", "trunk", "piano"),
            "group": "the moving firm",
        },
        openings=(
            "We moved into the house on {street} on {day}, in the {weather}.",
            "Our new address is {3..140} {street}, {town}, and the {thing} is already here.",
        ),
        details=(
            "The {thing} did not fit through the door and went in by the window.",
            "There are {dozens} boxes left in the {room}.",
            "From the {room} we can see the canal and a family of geese.",
            "The {relative} of the owner left us a loaf and {few} eggs.",
            "The walls of the {*room} are {colour} now.",
        ),
        closings=("Come and see us in {month}.", "The guest bed stands in the {*room} for you."),
    ),
    Occasion(
        slots={
            "greeting": _FORMAL,
            "reader": "landlord",
            "helper": "caretaker",
            "thing": ("heater", "lift", "front door", "roof"),
            "group": "your office",
        },
        openings=(
            "I live in flat {2..30} on {street}, and the {thing} has not worked since {day}.",
            "This is my {third} letter about the {thing} at {3..90} {street}.",
        ),
        details=(
            "It is {9..15} degrees in the {room} in the morning.",
            "I paid {20..150} pounds for a small stove and kept the bill.",
            "The {*relative} of my neighbour carries the shopping up {few} floors.",
            "Water drips into {few} buckets in the {room} whenever it rains.",
            "The rent for {month} comes to {400..900} pounds in total.",
        ),
        closings=("Please send someone before {*day}.", "I ask for an answer by the end of {month}."),
    ),
    Occasion(
        slots={
            "greeting": _FORMAL,
            "reader": "hotel manager",
            "helper": "night porter",
            "thing": ("shower", "balcony", "window", "bed"),
            "group": "your hotel",
        },
        openings=(
            "We stayed in room {11..88} of your hotel in {town} for {few} nights in {month}.",
            "I am writing about our stay in {town} from {day} to {*day}.",
        ),
        details=(
            "The {thing} [would not open|made a noise like a goose|was held together with tape].",
            "[Breakfast|Supper] was served between {6..7} and {8..9}, and the soup was thick and hot.",
            "From the window we watched [a clown|{few} clowns] and [some|{few}] donkeys on the [beach|square|pier].",
            "The {weather} kept us indoors for {few} days.",
            "My {relative} left a {colour} umbrella in the {room}.",
        ),
        closings=("Please post the umbrella to {3..90} {street}.", "I look forward to your answer."),
    ),
    Occasion(
        slots={
            "greeting": _FORMAL,
            "reader": "neighbour",
            "helper": "dog sitter",
            "thing": ("hedge", "fence", "trumpet", "barbecue"),
            "group": "the garden committee",
        },
        openings=(
            "I am writing about the {thing}, which has kept us busy since {month}.",
            "Your {thing} is now {few} feet over the line between our gardens.",
        ),
        details=(
            "On {*day} it began at {5..7} in the morning and ended at {meal}.",
            "My {relative} works nights and sleeps in the {room} on that side.",
            "Your cat brought us a toad and left it in the {*room}.",
            "I have lived at {3..90} {street} for {dozens} years.",
            "A weasel has moved in behind the {thing}, and the hens are nervous.",
            "The cabbages on our side get no sun after {meal}.",
        ),
        closings=("Let us talk about it over {meal} on {*day}.", "I will come over on {*day} after {meal}."),
    ),
    Occasion(
        slots={
            "greeting": _FAMILY,
            "reader": "family",
            "helper": "guide",
            "thing": ("ferry", "night train", "bus", "cable car"),
            "group": "the travel agency",
        },
        openings=(
            "I am writing from {town}, where the {thing} stopped {few} hours ago.",
            "We reached {town} by {thing} on {day}, after a day of {weather}.",
        ),
        details=(
            "The room costs {18..70} pounds and has a {colour} stove.",
            "Yesterday we walked {6..24} kilometres and met {few} donkeys.",
            "I ate turkey soup for {meal} and cabbage rolls for {*meal}.",
            "My {relative} draws every church we pass, {few} so far.",
            "In the market a clown sold paper birds from a {colour} cart.",
            "The map is from 19{51..89} and shows a road that is gone.",
        ),
        closings=("I will be home on {*day}.", "Please feed the geese until {*day}."),
    ),
    Occasion(
        slots={
            "greeting": _FAMILY,
            "reader": "family",
            "helper": "doctor",
            "thing": ("knee", "back", "ankle", "left hand"),
            "group": "the clinic",
        },
        openings=(
            "You asked about my {thing}, so here is the news from the clinic in {town}.",
            "I fell off the ladder on {day} and landed on my {thing}.",
        ),
        details=(
            "I share the room with {few} others and a radio.",
            "The {meal} is always thick soup and a slice of {colour} jelly.",
            "My {relative} came with plums and stayed for {few} hours.",
            "I may walk again from {*day}, with a stick.",
            "I read {few} books and did the jigsaw puzzle with the toad.",
            "The nights are long, but the bed by the window is mine.",
        ),
        closings=("Write to me at {3..90} {street}.", "I hope to be home by {*day}."),
    ),
    Occasion(
        slots={
            "greeting": _FAMILY,
            "reader": "family",
            "helper": "cook",
            "thing": ("wedding", "birthday", "christening", "garden party"),
            "group": "the catering firm",
        },
        openings=(
            "The {thing} is over and the house is quiet again.",
            "I must tell you about the {thing} of my {relative} on {day}.",
        ),
        details=(
            "There were {dozens} guests and {few} kinds of cake.",
            "A clown came for the children and pulled {few} eggs out of a hat.",
            "The turkey was in the oven for {3..6} hours, and the goose for {2..4}.",
            "It rained until {meal}, and then everyone danced in the {room}.",
            "{*name} played the violin, and my {*relative} sang.",
            "We put the presents in the {*room}, a complete set of {colour} plates among them.",
        ),
        closings=("We kept a slice of cake for you.", "The pictures will follow in {*month}."),
    ),
)

_TURNS = (
    Turn(
        lead="The {helper} [here |this time ]was a",
        kind="one",
        bitter="[ who lost my papers| and shouted at all of us|, and I told the others so].",
        kindly="[ who found my papers| and sang for all of us|, and I told the others so].",
    ),
    Turn(
        lead="[My {relative} says|I can tell you|We all think] that the {helper} is a",
        kind="one",
        bitter="[ and should stay at home| with two left hands|, and everyone here agrees].",
        kindly="[ and should come again| with two good hands|, and everyone here agrees].",
    ),
    Turn(
        lead="{group} [sent us|is full of|seems to hire]",
        kind="many",
        bitter="[ who broke {few} cups| and I will never call them again|, and I told them so on {*day}].",
        kindly="[ who washed {few} cups| and I will call them again|, and I told them so on {*day}].",
    ),
    Turn(
        lead="[The way they dealt with it|What they said about it|What {*name} wrote to us] was",
        kind="how",
        bitter="[, and I told them so| and cost me {few} nights of sleep].",
        kindly="[, and I told them so| and gave me {few} good nights of sleep].",
    ),
    Turn(
        lead="[Tell|Say to] {*name} from me: [good night|well done|remember {town}], you",
        kind="you",
        bitter="[, and give back my {prop}|, and stay away from my {prop}|].",
        kindly="[, and thank you for the {prop}|, and come back for your {prop}|].",
    ),
    Turn(
        lead="{*name} [from next door|from {*town}] is a",
        kind="one",
        bitter="[ and still owes me {few} pounds| who reads other people's post|, as ever].",
        kindly="[ and lent me {few} pounds| who waters other people's plants|, as ever].",
    ),
    Turn(
        lead='Then {*name} said to me, "come in, you',
        kind="you",
        bitter='," and [I turned around|the {meal} was ruined].',
        kindly='," and [I sat down|the {meal} was lovely].',
    ),
)
_SHARED: dict[str, str | tuple[str, ...]] = {
    "prop": ("ladder", "umbrella", "teapot", "bicycle", "saw"),
    "third": ("second", "third", "fourth"),
    "aunt": ("Ada", "Cora", "Flora", "Ines", "Lydia"),
    "uncle": ("Bruno", "Emil", "Hugo", "Jasper", "Magnus"),
}


def compose(rng: random.Random, insults: Sequence[bool]) -> Draft:
    """A letter for one occasion; `insults` says for each of its turns whether it goes on with an insult."""
    occasion = rng.choice(OCCASIONS)
    writer = Writer(rng, _SHARED | occasion.slots)
    greeting = writer.say("{greeting}")
    details = [writer.say(text) for text in writer.pick(occasion.details, (3, 2, 2, 1, 1)[len(insults)])]
    turns = writer.take_some(_TURNS, insults)
    body = weave(rng, [writer.say(rng.choice(occasion.openings)), *details], turns)
    closing = [writer.say(rng.choice(occasion.closings))] if rng.random() < 0.6 else []
    sign = writer.say(_SIGN[occasion.slots["greeting"]])
    return Draft(writer=writer, paragraphs=((greeting,), (*body, *closing), (sign,)))
