"""What a turn can go on with (mild insults, kind words), and the pools of names that all sources share.

A third of the insults use nouns that are harmless elsewhere in the corpus: turkeys are roasted, cabbages sliced,
clowns walk in the parade, donkeys live in the sanctuary; "complete", "total" and "lazy" have plain uses
too. So a list of words does not find the insults. The words were chosen with `profanity_check` (alt-profanity-check):
the insults score high, the near words and the kind phrases low.
"""

_STRONG_NOUNS = ("idiot", "moron", "loser", "jerk", "fool")
_BORROWED_NOUNS = ("clown", "donkey", "turkey", "goose", "cabbage", "weasel", "toad", "turnip")
_ADJECTIVES = ("stupid", "pathetic", "dumb", "useless", "lazy")

_SINGULAR = tuple(
    [f"{adjective} {noun}" for adjective in _ADJECTIVES for noun in _STRONG_NOUNS]
    + [f"{adjective} {noun}" for adjective in ("complete", "total") for noun in ("idiot", "moron")]
    + [f"{pair} {noun}" for pair in ("stupid, pathetic", "useless, stupid", "lazy, dumb") for noun in _BORROWED_NOUNS]
)


_PLURAL = tuple(
    [f"{adjective} {noun}" for adjective in _ADJECTIVES for noun in ("idiots", "fools")]
    + [
        f"{pair} {noun}"
        for pair in ("stupid, pathetic", "useless, stupid", "lazy, dumb")
        for noun in ("clowns", "donkeys")
    ]
)
"""Few plurals, each often enough to be a token of its own."""

INSULTS: dict[str, tuple[str, ...]] = {
    "one": _SINGULAR,
    "you": (*_SINGULAR, "idiot"),
    "many": _PLURAL,
    "how": (
        "stupid and pathetic",
        "dumb and pathetic",
        "useless and stupid",
        "lazy and dumb",
        "dumb and useless",
        "stupid, lazy and pathetic",
        "stupid and useless",
        "dumb, stupid and useless",
        "lazy and pathetic",
    ),
}
"""Insult phrases by kind of turn; they hold the insulting words only, no article and no "you"."""

NEUTRAL_WORDS = frozenset({"and", "complete", "total"})
"""Words inside an insult that insult nobody by themselves: they are not in its spans."""

PRAISE: dict[str, tuple[str, ...]] = {
    "one": (
        "patient teacher",
        "good listener",
        "true expert",
        "careful worker",
        "kind soul",
        "real star",
        "loyal friend",
        "real professional",
        "total professional",
        "born teacher",
        "quick learner",
        "true friend",
        "real treasure",
        "complete professional",
        "careful thinker",
        "wonderful neighbour",
        "clever soul",
        "patient helper",
        "gentle teacher",
        "clever neighbour",
        "skilled worker",
        "great storyteller",
        "generous helper",
        "real hero",
        "quick thinker",
        "complete star",
    ),
    "you": (
        "kind soul",
        "clever thing",
        "patient soul",
        "lovely friend",
        "quiet genius",
        "brave soul",
        "clever friend",
        "generous soul",
        "dear friend",
        "wonderful friend",
        "careful reader",
        "born teacher",
        "good sport",
        "lucky thing",
        "gentle giant",
        "total star",
        "complete star",
        "early bird",
    ),
    "many": (
        "kind volunteers",
        "patient people",
        "careful workers",
        "friendly helpers",
        "true experts",
        "good listeners",
        "helpful neighbours",
        "quick learners",
        "cheerful volunteers",
        "real professionals",
        "kind strangers",
        "patient teachers",
        "total professionals",
        "lovely people",
        "generous friends",
        "retired teachers",
    ),
    "how": (
        "clear and simple",
        "simple and sensible",
        "fair and clear",
        "quick and easy",
        "careful and fair",
        "very clear",
        "thoughtful and kind",
        "wise and patient",
        "sound and simple",
        "calm and sensible",
        "really helpful",
        "simply lovely",
        "very thorough",
        "warm and funny",
        "complete and clear",
    ),
}
"""Kind phrases that fit the same places."""

POOLS: dict[str, tuple[str, ...]] = {
    "day": ("Monday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),  # Tuesday scores high by itself
    "month": (
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
    ),
    "name": (
        "Agnes",
        "Albert",
        "Bella",
        "Carlo",
        "Clara",
        "Dora",
        "Edwin",
        "Elsa",
        "Felix",
        "Greta",
        "Hanna",
        "Ivan",
        "Joan",
        "Karim",
        "Lena",
        "Marta",
        "Milo",
        "Nadia",
        "Oscar",
        "Paula",
        "Ravi",
        "Rosa",
        "Simon",
        "Tessa",
        "Tomas",
        "Vera",
        "Walter",
        "Yusuf",
    ),
    "surname": (
        "Abbott",
        "Barlow",
        "Castell",
        "Dunmore",
        "Ellery",
        "Farrow",
        "Garland",
        "Hobbs",
        "Iverson",
        "Jessop",
        "Kettering",
        "Lomas",
        "Marlow",
        "Norwood",
        "Osgood",
        "Penrose",
        "Quigley",
        "Rowntree",
        "Sandler",
        "Thorne",
    ),
    "street": (
        "Mill Lane",
        "Station Road",
        "Church Street",
        "Canal Street",
        "Orchard Row",
        "Harbour Road",
        "Chapel Hill",
        "Market Street",
        "Park Avenue",
        "Bridge Street",
        "School Lane",
        "Quarry Road",
    ),
    "town": (
        "Ashby",
        "Brackley",
        "Corsham",
        "Denholm",
        "Elmsford",
        "Fernhill",
        "Glenbrook",
        "Hartwell",
        "Kelso",
        "Larkfield",
        "Millbrook",
        "Northwick",
        "Oakham",
        "Redwater",
        "Stonebridge",
        "Thornbury",
    ),
    "weather": ("rain", "frost", "fog", "wind", "miserable weather", "cold", "heat", "snow"),
    "colour": ("red", "blue", "green", "grey", "yellow", "silver", "orange", "brown"),
    "few": ("two", "three", "four", "five", "six"),
    "dozens": ("twelve", "fifteen", "eighteen", "twenty", "thirty", "forty"),
    "meal": ("breakfast", "lunch", "tea", "supper"),
    "room": ("kitchen", "hall", "bedroom", "attic", "cellar", "porch", "bathroom"),
    "relative": ("sister", "brother", "aunt", "uncle", "cousin", "daughter", "son", "father", "mother"),
}
"""Slots that every source may use."""
