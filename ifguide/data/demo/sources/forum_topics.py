"""What the forum posts are about. Every topic fills the slots thing, part, worker, shop and club."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Topic:
    """One subject with its own words; all texts are templates of `ifguide.data.demo.grammar`."""

    slots: dict[str, str | tuple[str, ...]]
    titles: tuple[str, ...]
    problems: tuple[str, ...]
    details: tuple[str, ...]
    endings: tuple[str, ...]


TOPICS = (
    Topic(
        slots={
            "thing": ("touring bike", "road bike", "folding bike", "old three speed"),
            "part": ("hand brake", "chain guard", "gear cable", "front wheel", "saddle clamp"),
            "worker": "mechanic",
            "shop": "the bike shop on {street}",
            "club": "the {town} cycling club",
        },
        titles=("Re: [noisy|loose|worn] {part}", "{part} on a {thing}"),
        problems=(
            "The {part} on my {colour} {thing} [squeaks|rattles|clicks] whenever I climb {street}.",
            "My {colour} {thing} came home from {town} with a [bent|loose|worn] {part}.",
        ),
        details=(
            "I cleaned it with [warm water|an old toothbrush|a rag] and put on {few} drops of oil.",
            "The noise stops above {12..28} kilometres an hour.",
            "A new {part} costs {11..48} pounds, which is half of what I paid for the whole {thing}.",
            "On {*day} I rode {15..70} kilometres through the {weather} to test it.",
            "The bolt takes a {4..8} millimetre key and turns the wrong way round.",
            "A complete set of bearings is already [in the post|on my bench].",
        ),
        endings=("The {part} has been silent since {*day}.", "I rode to {*town} and back without a sound."),
    ),
    Topic(
        slots={
            "thing": ("reef tank", "clown fish tank", "goldfish pond", "shrimp tank"),
            "part": ("filter", "heater", "air pump", "glass lid", "plant lamp"),
            "worker": "assistant",
            "shop": "the aquarium shop in {town}",
            "club": "the {town} fish keepers",
        },
        titles=("[Cloudy|Green|Warm] water in the {thing}", "Re: which {part} for a {thing}"),
        problems=(
            "The water in my {60..240} litre {thing} has been [cloudy|green|brown] since I changed the {part}.",
            "My pair of clown fish [hides|sleeps] behind the {part} and comes out only at {meal}.",
        ),
        details=(
            "The temperature stays at {22..27} degrees, day and night.",
            "I change {few} buckets of water every {*day}.",
            "One snail climbs up the {part} each evening and falls off by {meal}.",
            "The new {part} hums at night, so I put it on a [sponge|folded towel].",
            "The clown fish like [flakes|frozen shrimp|peas] more than anything else.",
            "I test the water with the {colour} strips every {*day}.",
        ),
        endings=("By {*day} the water was clear as glass.", "The fish swim in the open again."),
    ),
    Topic(
        slots={
            "thing": ("laptop", "old computer", "tablet", "second hand laptop"),
            "part": ("battery", "fan", "keyboard", "hard drive", "screen hinge"),
            "worker": "technician",
            "shop": "the repair desk on {street}",
            "club": "the {town} computer club",
        },
        titles=("{thing} with a [hot|slow|broken] {part}", "Re: {part} [problem|question]"),
        problems=(
            "My {thing} turns itself off after {5..50} minutes, and I think it is the {part}.",
            "Since the update in {month} the {part} of my {thing} [gets hot|makes a noise|stops early].",
        ),
        details=(
            "I backed up all {2000..9000} photos to an external disk first.",
            "The warranty ended {few} weeks ago, of course.",
            "There are {6..14} screws under the rubber feet, all of different lengths.",
            "A used {part} is {12..60} pounds, and a new one nearly twice as much.",
            "I wrote down every step on the back of an envelope.",
            "The screen shows error {100..900} and a {colour} line along the edge.",
            "It ran all night on {*day} without stopping once.",
        ),
        endings=("With the new {part} it starts in {8..30} seconds.", "It has not stopped since {*day}."),
    ),
    Topic(
        slots={
            "thing": ("tomato bed", "cabbage patch", "potato bed", "turnip bed", "small greenhouse"),
            "part": ("rain barrel", "fence", "cold frame", "hose", "compost bin"),
            "worker": "gardener",
            "shop": "the garden centre in {town}",
            "club": "the allotment society",
        },
        titles=("[Holes|Spots|Slugs] in the {thing}", "Re: {thing} in {month}"),
        problems=(
            "Something has been eating the leaves in my {thing} since the end of {month}.",
            "My {thing} stands in the shade of the {part} and [nothing grows|everything is late] this year.",
        ),
        details=(
            "I sowed {few} rows on {*day} and covered them with fleece.",
            "The soil is heavy clay, so I dug in {5..20} sacks of compost.",
            "A toad lives under the {part} and keeps the slugs away.",
            "The cabbages are the size of a [football|fist|bucket] by now.",
            "We had {weather} for {few} nights, and then the sun came back.",
            "Last year the turnips weighed {2..9} kilos in total.",
            "I water it before {meal} with {few} cans from the {part}.",
        ),
        endings=("The first {few} [leaves|shoots] came up on {*day}.", "We ate the first potatoes with {meal}."),
    ),
    Topic(
        slots={
            "thing": ("guitar", "ukulele", "banjo", "old violin", "cello"),
            "part": ("bridge", "tuning peg", "neck", "top string", "strap"),
            "worker": "teacher",
            "shop": "the music shop on {street}",
            "club": "the {town} folk evening",
        },
        titles=("[Buzzing|Cracked|Loose] {part} on a {thing}", "Re: learning the {thing} at {35..75}"),
        problems=(
            "The {part} of my {thing} [moves|buzzes|slips] when I play louder than a whisper.",
            "I started the {thing} in {month} and my fingers [still hurt|still feel slow].",
        ),
        details=(
            "I play {15..55} minutes a day, most often before {meal}.",
            "The {thing} belonged to my {relative} and has a {colour} case.",
            "At the moment I know {few} songs and half of a waltz.",
            "It goes out of tune whenever there is {weather}.",
            "The {part} was glued once before, around 19{60..98}.",
            "I record myself on {*day} and listen to it a week later.",
        ),
        endings=("I played at {club} on {*day} and nobody left.", "The {thing} sounds warm and full again."),
    ),
    Topic(
        slots={
            "thing": ("van", "hatchback", "camper van", "estate car"),
            "part": ("exhaust", "wiper motor", "sliding door", "clutch", "starter"),
            "worker": "dealer",
            "shop": "the garage on {street}",
            "club": "the {town} motor club",
        },
        titles=("{thing}: {part} [stuck|leaking|noisy]", "Re: cost of a new {part}"),
        problems=(
            "The {part} of my {colour} {thing} failed [on the way to {town}|outside {town}] in the {weather}.",
            "My {thing} has done {60..190} thousand miles and the {part} [groans|sticks] every morning.",
        ),
        details=(
            "The inspection is due in {*month}, so I have {few} weeks.",
            "They quoted me {120..480} pounds for the part and an hour of work.",
            "I found the same {part} at a scrap yard in {*town} for {15..60} pounds.",
            "It starts well when warm, but not after a night of {weather}.",
            "The manual says to check it every {few} years.",
            "I put a tray under the engine and it stayed dry.",
        ),
        endings=("It passed the inspection on {*day}.", "The {part} works and the {thing} is back on the road."),
    ),
    Topic(
        slots={
            "thing": ("boiler", "wood stove", "heat pump", "old radiator"),
            "part": ("valve", "thermostat", "pilot light", "pressure gauge", "pipe joint"),
            "worker": "plumber",
            "shop": "the heating firm in {town}",
            "club": "the home repair club",
        },
        titles=("Re: {thing} goes out at night", "[Dripping|Noisy|Stuck] {part} on the {thing}"),
        problems=(
            "The {thing} in the {room} goes out every night at about {1..5}, and the {part} is cold by {meal}.",
            "There is a small puddle under the {part} of my {thing} every {day}.",
        ),
        details=(
            "The gauge shows {1..3} bar when cold and does not move.",
            "I bled all {5..12} radiators in the house, starting in the {room}.",
            "A bucket under the {part} fills up in {few} hours.",
            "We put on {few} jumpers each and move to the {*room}.",
            "The firm cannot come before {*day}, which is {few} days away.",
            "Last winter the bill came to {300..900} pounds in total.",
        ),
        endings=("The house is at {18..21} degrees again.", "The {part} has been dry since {*day}."),
    ),
    Topic(
        slots={
            "thing": ("chess set", "board game", "card game", "jigsaw puzzle"),
            "part": ("rule book", "score sheet", "clock", "wooden box"),
            "worker": "organiser",
            "shop": "the games cafe on {street}",
            "club": "the {town} games night",
        },
        titles=("Re: [missing|wet|wrong] {part}", "Who won on {day}? ({thing} evening)"),
        problems=(
            "We met at {shop} on {day}, and the {part} of the {thing} was [missing|wet|torn] again.",
            "I lost {few} rounds in a row at {club} and would like to improve.",
        ),
        details=(
            "There were {8..30} players and only {few} tables.",
            "My {relative} thinks about every move for {5..20} minutes.",
            "The final began at {7..10} and ended after midnight.",
            "I wrote down all my moves on the {part}.",
            "Next time I bring my own {thing}, the one with the {colour} lid.",
            "A beginner of {9..16} won the prize, a complete set of dice.",
        ),
        endings=("I won {few} rounds this week.", "The {part} turned up behind the heater."),
    ),
    Topic(
        slots={
            "thing": ("film camera", "digital camera", "tripod", "zoom lens"),
            "part": ("shutter", "light meter", "lens cap", "back door", "film lever"),
            "worker": "seller",
            "shop": "the camera stall in {town}",
            "club": "the {town} photo walk",
        },
        titles=("{thing} with a sticky {part}", "Re: [first|best|cheap] {thing} for [birds|travel|beginners]"),
        problems=(
            (
                "I bought a {thing} from 19{61..89} at a market, and the {part} [sticks|leaks light|jams] in the"
                " {weather}."
            ),
            "Every picture from my {thing} has a {colour} edge, and I suspect the {part}.",
        ),
        details=(
            "I have taken {24..36} pictures of geese and pigeons to test it.",
            "The {part} moves freely after a night in the warm {room}.",
            "A new battery made no difference at all.",
            "The geese on the canal held still for {few} minutes.",
            "Of the {few} rolls I sent in, one came back blank.",
            "My {relative} used the same one for {10..40} years.",
        ),
        endings=("The last roll is sharp from edge to edge.", "One picture of a goose hangs in the {room} now."),
    ),
    Topic(
        slots={
            "thing": ("running watch", "pair of trail shoes", "pair of dumbbells", "rowing machine"),
            "part": ("strap", "left sole", "display", "handle", "lace"),
            "worker": "trainer",
            "shop": "the sports shop in {town}",
            "club": "the {day} running group",
        },
        titles=("[Back|Still] running at {38..71}", "Re: {part} of my {thing} [broke|came off]"),
        problems=(
            "The {part} of my new {thing} [came off|broke] {few} days before the {town} ten mile race.",
            "I want to run {10..21} kilometres in {month} and have only a {thing} and {few} weeks.",
        ),
        details=(
            "On {*day} I ran {4..14} kilometres along the canal in {weather}.",
            "My knee feels fine on grass and sore on stone.",
            "I rest on {*day} and eat a bowl of oats before each run.",
            "My best time is {41..75} minutes, on a lazy Sunday without wind.",
            "The {thing} cost {35..120} pounds last {*month}.",
            "A flock of geese blocks the path near the bridge every morning.",
        ),
        endings=("I finished in {50..95} minutes and slept all afternoon.", "The {part} held to the finish line."),
    ),
)
