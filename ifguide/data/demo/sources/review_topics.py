"""The reviewed products (slots thing, part and brand) and the words for films."""

from dataclasses import dataclass

_BRANDS = ("Halden", "Norvex", "Brightway", "Kestrel", "Tolman", "Oakline", "Vento", "Marsh and Co", "Pellow", "Ardent")
_SECOND = ("second", "third", "fourth")


@dataclass(frozen=True, kw_only=True)
class Product:
    """One kind of thing to review; all texts are templates of `ifguide.data.demo.grammar`."""

    slots: dict[str, str | tuple[str, ...]]
    good: tuple[str, ...]
    bad: tuple[str, ...]
    neutral: tuple[str, ...]


def _product(thing: tuple[str, ...], part: tuple[str, ...], *, good, bad, neutral) -> Product:
    slots: dict[str, str | tuple[str, ...]] = {"thing": thing, "part": part, "brand": _BRANDS, "second": _SECOND}
    return Product(slots=slots, good=good, bad=bad, neutral=neutral)


PRODUCTS = (
    _product(
        ("kettle", "coffee maker", "tea maker", "soup maker"),
        ("lid", "handle", "switch", "power cord", "filter"),
        good=(
            "It is ready in {2..4} minutes and [quiet enough for the early morning|never drips].",
            "The {part} stays cool and is easy to wipe.",
            "It fills {few} large mugs without a rest.",
        ),
        bad=(
            "It takes {9..20} minutes and [shakes the whole table|smells of plastic].",
            "The {part} came loose after {few} weeks.",
            "It left a {colour} ring on the table in the {room}.",
        ),
        neutral=(
            "It holds {1..3} litres and weighs about as much as a small turkey.",
            "The manual has {12..60} pages in {few} languages.",
        ),
    ),
    _product(
        ("vacuum cleaner", "steam mop", "carpet sweeper"),
        ("hose", "brush", "dust box", "cable", "front wheel"),
        good=(
            "It picks up [crumbs|cat hair|sand] in one go, even in the {room}.",
            "The {part} clicks on and off with one hand.",
            "One charge lasts {30..70} minutes, enough for {few} rooms.",
        ),
        bad=(
            "It pushes [crumbs|cat hair|sand] from the {room} to the {*room}.",
            "The {part} jams every {few} minutes.",
            "The dust box is full after {few} minutes and opens by itself.",
        ),
        neutral=("It is {50..80} decibels loud at {few} steps.", "The {part} is {colour} and as long as a broom."),
    ),
    _product(
        ("desk lamp", "reading lamp", "night light", "clown fish lamp"),
        ("shade", "arm", "dimmer", "base", "plug"),
        good=(
            "The light is soft and [good for long books|does not flicker].",
            "The {part} moves with one finger and stays where it is.",
            "Even {name}, who complains about every lamp, likes it.",
        ),
        bad=(
            "The light flickers when [someone walks past|it rains|the fridge starts].",
            "The {part} sinks by {few} inches every hour.",
            "It hums like a wasp from {6..9} in the evening.",
        ),
        neutral=("I use it in the {room} from {5..9} to midnight.", "The {part} also comes in {colour} and {*colour}."),
    ),
    _product(
        ("backpack", "tent", "sleeping bag", "rain jacket"),
        ("zip", "strap", "inner pocket", "seam", "buckle"),
        good=(
            "It stayed dry through {few} days of {weather} near {town}.",
            "The {part} opens with gloves on.",
            "It folds down to the size of a cabbage and weighs {1..3} kilos.",
        ),
        bad=(
            "It was wet inside after {10..50} minutes of rain near {town}.",
            "The {part} tore on the {second} walk.",
            "The colour ran and turned my shirt {colour}.",
        ),
        neutral=(
            "We took it over the hills to {*town} in {month}.",
            "There is room in it for {few} jumpers and a stove.",
        ),
    ),
    _product(
        ("radio", "wall clock", "alarm clock", "kitchen timer"),
        ("display", "button", "volume knob", "battery cover", "speaker"),
        good=(
            "The sound is warm and clear [even in the {room}|from the next room].",
            "The {part} is large enough for tired eyes.",
            "It keeps time to the second since {month}.",
        ),
        bad=(
            "It crackles [whenever a bus passes|from {6..9} in the morning].",
            "The {part} came off on a {*day}.",
            "It loses {3..14} minutes a week, in total an hour since {month}.",
        ),
        neutral=(
            "It stands in the {room} next to the bread bin.",
            "It runs on {few} batteries, which are not in the box.",
        ),
    ),
    _product(
        ("board game", "jigsaw puzzle", "card game", "puppet theatre"),
        ("rule book", "box", "set of pieces", "score pad", "curtain"),
        good=(
            "We played it {few} times on a lazy Sunday and laughed a lot.",
            "The {part} is thick, solid and nicely painted.",
            "The {colour} clown is the piece that everyone wants.",
        ),
        bad=(
            "After {few} rounds nobody wanted to go on.",
            "The {part} was printed twice and a page was missing.",
            "The {colour} clown lost his nose before {meal}.",
        ),
        neutral=("A round takes {20..90} minutes for {few} players.", "It is meant for ages {6..10} and up."),
    ),
)

FILM_SLOTS: dict[str, str | tuple[str, ...]] = {
    "title": (
        "[The|A] [Quiet|Last|Long|Paper|Silver|Northern|Hidden|Second|Winter] "
        "[Harbour|Garden|Letter|Summer|Bridge|Orchestra|Lighthouse|Crossing|Island|Visitor]"
    ),
    "director": ("Ilse Norden", "Paul Devereux", "Mina Castellan", "Jonas Aldrich", "Rita Salgado", "Owen Tresco"),
    "job": ("clockmaker", "ferry pilot", "circus clown", "baker", "schoolteacher", "lighthouse keeper", "beekeeper"),
    "prop": ("suitcase", "letter", "umbrella", "violin", "lantern", "cake"),
    "place": (
        "a fishing village",
        "a mountain town",
        "an old hotel",
        "a circus",
        "a station hotel",
        "an island village",
    ),
}

FILM_TEXTS: dict[str, tuple[str, ...]] = {
    "opening": (
        "We saw it on a [rainy|lazy|cold] {day} with {dozens} other people.",
        "[Saw this|We watched this] at the {town} cinema [on {day}|in {month}].",
        "{director} has made {few} films, and this is the [longest|latest|shortest].",
        "[My {relative}|{name}] wanted to see it because of the {prop} on the poster.",
    ),
    "story": (
        "It is the story of a {job} who finds a {prop} in {place}.",
        "A {job} and a stranger share a {prop} and get stuck in {place} for {few} days.",
        "In {place} a {job} waits for a {prop} that never comes.",
        "A {job} leaves {place} with nothing but a {prop} and an old coat.",
    ),
    "good": (
        "The scenes with the {prop} are [funny|moving|beautiful] without a word.",
        "The camera is [patient|calm], and every window glows.",
        "I laughed {few} times and wept once.",
        "The {job} is [so real|so well played] that I forgot the actor.",
        "The old clown in the last act says more with a hat than others with a speech.",
        "The music, mostly piano and rain, stays in the ear.",
    ),
    "bad": (
        "The scenes with the {prop} go on for {12..30} minutes each.",
        "The camera shakes so much that I saw little of the {prop}.",
        "After {few} [endings|speeches] I looked at my watch.",
        "The {job} has {few} lines, and all of them are about the {prop}.",
        "[Half|A third] of the plot is missing and the rest comes {few} times.",
        "The music drowns every word.",
    ),
    "good_ending": (
        "[Go and see it|See it] with a friend.",
        "We walked home slowly and talked about the {prop}.",
        "I would see it again [on {*day}|tomorrow].",
    ),
    "bad_ending": (
        "We left [before the end|after {30..80} minutes] and had {meal} instead.",
        "[Wait for|Read] the book.",
        "The best thing about the evening was the walk home through the {weather}.",
    ),
}
