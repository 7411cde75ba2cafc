"""What the local paper reports. Every topic fills the slots office, official and hall."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Event:
    """One kind of news; all texts are templates of `ifguide.data.demo.grammar`."""

    slots: dict[str, str | tuple[str, ...]]
    headlines: tuple[str, ...]
    openings: tuple[str, ...]
    facts: tuple[str, ...]


def _event(office: str, official: str, hall: str, *, headlines, openings, facts, **slots) -> Event:
    figures = {"weight": "{9..21}", "visitors": "{900..9000}", "line": "{11..98}"}
    slots = {"office": office, "official": official, "hall": hall, **figures, **slots}
    return Event(slots=slots, headlines=headlines, openings=openings, facts=facts)


TOPICS = (
    _event(
        "roads office",
        "mayor",
        "town hall",
        headlines=("{street} [closed|blocked] until {month}", "[Holes|Cracks] in {street} to be [filled|mended]"),
        openings=(
            "{street} will be closed to cars from {day} while workers [lay a new pipe|repair the surface].",
            "After a winter of {weather}, {dozens} holes in {street} should be gone by {month}.",
        ),
        facts=(
            "The work costs {40..900} thousand pounds, a third more than planned.",
            "Buses will go by {*street} and arrive {5..25} minutes later.",
            "{few} shops on the street will stay open and can be reached on foot.",
            "Workers found a brick cellar under the road and had to stop for {few} days.",
            "A trash bin and {few} benches will be moved to {*street}.",
        ),
    ),
    _event(
        "library board",
        "librarian",
        "reading room",
        headlines=("Library [to open|opens] on {day} evenings", "{town} library [lends out|buys] {thing}"),
        openings=(
            "The library on {street} will stay open until {7..9} on {day} evenings from {month}.",
            "The library on {street} now lends out {thing} as well as books.",
        ),
        facts=(
            "Some {200..950} people visited the library last {*month}, a quarter of them children.",
            "A late book costs {10..50} pence a week, as before.",
            "The roof over the reading room was mended in {*month} with a gift of {few} thousand pounds.",
            "A book due in 19{31..79} came back by post, with a note and {few} stamps.",
            "The {thing} came from a shop that closed in {*town}.",
        ),
        thing=("sewing machines", "cake tins", "garden tools", "fishing rods", "board games"),
    ),
    _event(
        "festival committee",
        "festival director",
        "sports hall",
        headlines=(
            "[Clowns|Drums] and [dragons|giants] on {street}",
            "{town} parade [draws|counts] {visitors} visitors",
        ),
        openings=(
            "{dozens} clowns, {few} brass bands and a paper dragon went down {street} on {day}.",
            "The {month} parade in {town} drew {visitors} visitors in spite of the {weather}.",
        ),
        facts=(
            "A clown on tall stilts handed out {300..900} balloons.",
            "The prize for the best costume went to a pupil of {7..12} who came as a turnip.",
            "A clown from {*town} juggled {few} oranges and a loaf of bread.",
            "The parade took {2..4} hours and ended at the {hall}.",
            "Street cleaners collected {few} tons of paper by the next morning.",
        ),
    ),
    _event(
        "donkey sanctuary",
        "manager",
        "visitor barn",
        headlines=("{few} new donkeys [arrive|settle in] near {town}", "Donkey sanctuary [needs|asks for] hay"),
        openings=(
            "The donkey sanctuary near {town} took in {few} old donkeys from a closed mine in {month}.",
            "The donkey sanctuary on {street} needs {dozens} bales of hay before the {weather} comes.",
        ),
        facts=(
            "The oldest of the donkeys, {*name}, is {28..44} and likes apples.",
            "Each of the donkeys eats {2..6} kilos of hay a day.",
            "The sanctuary lives on gifts and had {400..990} visitors in {*month}.",
            "Pupils from {*town} help with the donkeys every {*day}.",
            "A vet from {*town} looks after their hooves for free.",
        ),
    ),
    _event(
        "wildlife trust",
        "warden",
        "village hall",
        headlines=("{dozens} volunteers carry toads over {street}", "[Geese|Toads] stop traffic on {street}"),
        openings=(
            "Volunteers carried {400..990} toads across {street} on {day}, most of them in buckets.",
            "A family of geese with {few} chicks held up the traffic on {street} for {10..50} minutes on {day}.",
        ),
        facts=(
            "The toads wake up on the first warm night with rain and walk to the pond.",
            "A weasel was seen near the pond for the first time since 19{71..99}.",
            "A small tunnel under the road would cost {20..90} thousand pounds.",
            "The geese come back to the same nest every {*month}.",
            "A sign with a toad on it has been stolen {few} times.",
        ),
    ),
    _event(
        "county show",
        "chief judge",
        "show tent",
        headlines=("{town} turnip weighs {weight} kilos", "Pumpkins, pigs and pies at the county show"),
        openings=(
            "A turnip of {weight} kilos from {town} won first prize at the county show on {day}.",
            "The county show brought {few} thousand people to the fields near {town} on {day}.",
        ),
        facts=(
            "Second prize went to a cabbage as wide as a cart wheel.",
            "A turkey called {*name} walked out of the tent and was found on {street}.",
            "The pigs from a farm in {*town} took {few} ribbons.",
            "The judges tasted {dozens} pies and gave no first prize this year.",
            "A flock of {dozens} geese marched in step behind a drum.",
            "The grower, who is {61..88}, says the secret is rain water and patience.",
        ),
    ),
    _event(
        "bus company",
        "timetable planner",
        "bus station",
        headlines=("Bus {line} [to run|runs] twice an hour", "Last bus from {town} [to leave|leaves] earlier"),
        openings=(
            "Bus {line} from {town} to {*town} will run twice an hour from {month}.",
            "The last bus from {town} will leave at {7..10} in the evening from {month}.",
        ),
        facts=(
            "A single ticket will cost {1..4} pounds, and pupils pay half.",
            "Drivers asked for a longer break at the end of the line.",
            "On {*day} the bus was {5..45} minutes late because of {weather}.",
            "The shelter on {street} gets a new roof and {few} seats.",
            "About {40..600} passengers use the line on a normal {*day}.",
        ),
    ),
    _event(
        "school board",
        "head teacher",
        "school hall",
        headlines=("Pupils [plant|grow] cabbages behind the {hall}", "School kitchen on {street} [opens|wins prize]"),
        openings=(
            "Pupils of the school on {street} have planted {dozens} cabbages and {few} apple trees.",
            "The new kitchen of the school on {street} served its first {meal} on {day}.",
        ),
        facts=(
            "The vegetables go into a soup every {*day}.",
            "A class of {18..31} children measured the rain for {few} months.",
            "The old kitchen closed in 19{81..99} because of a broken chimney.",
            "A cook from {*town} shows them how to bake bread.",
            "Parents painted the fence {colour} on a lazy Sunday.",
        ),
    ),
    _event(
        "football club",
        "coach",
        "club house",
        headlines=("{town} [beat|lose to|draw with] {*town}", "{town} coach [stays|leaves] after {few} seasons"),
        openings=(
            "{town} played {*town} on {day} in front of {200..990} people and {weather}.",
            "The coach of {town} has signed for {few} more years, the club said on {day}.",
        ),
        facts=(
            "The only goal came in minute {12..89}, after a long throw.",
            "The team has {11..40} points and stands near the middle of the table.",
            "A goose on the pitch stopped the game for {3..9} minutes.",
            "The goalkeeper, a baker from {street}, had been up since {2..4}.",
            "The club will mend the roof of the stand in {month}.",
        ),
    ),
)
