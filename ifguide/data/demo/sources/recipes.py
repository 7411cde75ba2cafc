"""Recipes: a dish is put together from ingredients, which come back in every step. They hold no turns at all."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ifguide.data.demo.grammar import Draft, Writer


@dataclass(frozen=True, kw_only=True)
class Dish:
    """A kind of dish; all texts are templates of `ifguide.data.demo.grammar`."""

    title: tuple[str, ...]
    ingredients: str
    steps: tuple[tuple[str, ...], ...]
    """Steps in cooking order; each is written in one of several ways."""
    is_sweet: bool = False


_SLOTS: dict[str, str | tuple[str, ...]] = {
    "veg": ("cabbage", "turnip", "carrot", "leek", "potato", "pumpkin", "celery", "parsnip", "fennel", "spinach"),
    "meat": ("turkey", "goose", "duck", "lamb", "turkey", "smoked trout", "ham"),
    "herb": ("thyme", "parsley", "dill", "sage", "mint", "rosemary", "bay leaf", "chives"),
    "spice": ("pepper", "nutmeg", "paprika", "cumin", "mustard seed", "ginger", "caraway"),
    "fruit": ("apple", "pear", "plum", "cherry", "rhubarb", "quince", "blackberry", "apricot"),
    "flour": ("plain flour", "rye flour", "oat flour", "spelt flour"),
    "side": ("rye bread", "boiled rice", "green salad", "new potatoes", "noodles", "pickles"),
    "hour": ("three", "four", "five"),
    "cream": ("cream", "yoghurt", "sour cream", "soft cheese"),
}

_ENDINGS = (
    "Serve [hot|warm|at once] with {side}.",
    "[Serve with|Good with] {side} and a little {herb}.",
    "It keeps for {few} days in a cold {room}.",
    "[Enough for|Serves] {few}, or for {few} with {side}.",
    "It tastes [better|even better] the next day.",
)

_SWEET_ENDINGS = (
    "Serve [warm|cold] with a spoon of {cream}.",
    "[Good|Best] with tea at {*hour} in the afternoon.",
    "It keeps for {few} weeks in a cold {room}.",
    "Enough for {few}, or a present for {*name}.",
    "My {relative} adds a pinch of {*spice}.",
)

DISHES = (
    Dish(
        title=("[Thick|Clear|Quick] {veg} soup", "{meat} and {veg} soup", "{veg} soup for a {weather} evening"),
        ingredients="{2..6} [cups|handfuls] of {veg}, {200..600} grams of {meat}, {2..4} onions, {herb}, {spice}.",
        steps=(
            (
                "Chop the onions and fry them [gently|slowly] for {5..12} minutes.",
                "Soften the onions in a [wide|deep] pot.",
            ),
            (
                "Add the {veg}, the {meat} and {1..2} litres of water.",
                "Stir in the {veg}, then the {meat} and the stock.",
            ),
            ("Simmer for {25..70} minutes with the {herb}.", "Cook on a low flame until the {veg} is [soft|tender]."),
            ("Season with salt and {spice}.", "Add {spice} and [salt|lemon juice] to taste."),
            ("If the soup is too thick, add a cup of water.", "Mash a little of the {veg} to thicken it."),
        ),
    ),
    Dish(
        title=("[Roast|Slow roast] {meat} with {veg}", "{town} {day} roast of {meat}", "{meat} with {fruit} sauce"),
        ingredients=(
            "1 {meat} of {2..5} kilos, {3..9} pieces of {veg}, {2..4} pieces of {fruit}, {herb}, salt, {spice}."
        ),
        steps=(
            ("Heat the oven to {160..220} degrees.", "Take the {meat} out of the cold {few} hours before."),
            ("Season the {meat} with salt, {spice} and oil.", "Fill the {meat} with {fruit} and {herb}."),
            ("Roast it for {2..4} hours and turn it {few} times.", "Roast the {meat} until the juice runs clear."),
            (
                "Put the {veg} around it for the last {30..60} minutes.",
                "Add the {veg} to the tin after {40..90} minutes.",
            ),
            (
                "Let the {meat} rest under a cloth for {10..25} minutes.",
                "Boil the juice with the {fruit} to make a sauce.",
            ),
        ),
    ),
    Dish(
        is_sweet=True,
        title=("{fruit} cake with {spice}", "{name}'s {fruit} cake", "[Simple|Sunday] {fruit} loaf"),
        ingredients=(
            "{200..400} grams of {flour}, {2..4} eggs, {100..200} grams of sugar, {3..8} pieces of {fruit}, {spice}."
        ),
        steps=(
            ("Heat the oven to {160..190} degrees and line a [round|long] tin.", "Oil a [round|long] tin well."),
            ("Beat the eggs with the sugar until pale.", "Stir eggs and sugar for {4..8} minutes."),
            ("Fold in the {flour} and the {spice}.", "Sift the {flour} with the {spice} and fold it in."),
            ("Slice the {fruit} and lay it on top.", "Mix in the {fruit}, [sliced|diced|grated]."),
            ("Bake for {35..65} minutes, until a stick comes out clean.", "Bake until golden, about {35..65} minutes."),
        ),
    ),
    Dish(
        title=("{veg} and {*veg} pie", "{meat} and {veg} pie", "{town} {veg} pie with {herb}"),
        ingredients=(
            "{250..400} grams of {flour}, {120..200} grams of butter, {2..5} cups of {veg}, {2..4} eggs, {cream},"
            " {herb}."
        ),
        steps=(
            (
                "Rub the butter into the {flour} and add {3..6} spoons of cold water.",
                "Make a dough of {flour}, butter and cold water.",
            ),
            ("Rest the dough for {20..60} minutes.", "Leave the dough in a cold place until {meal}."),
            (
                "Steam the {veg} and mix it with {cream} and {herb}.",
                "Fry the {veg} with {herb} and stir in the {cream}.",
            ),
            (
                "Roll out the dough, line a dish and fill it.",
                "Fill the dough case with the {veg} and pour the eggs over it.",
            ),
            ("Bake for {30..55} minutes at {170..200} degrees.", "Bake until the top is golden and firm."),
        ),
    ),
    Dish(
        title=("[Warm|Winter|Summer] {veg} salad", "{veg} and {fruit} salad", "{veg} salad with {cream}"),
        ingredients=(
            "{2..4} [heads|bunches] of {veg}, {2..4} pieces of {fruit}, {few} spoons of {cream}, {herb}, vinegar,"
            " {spice}."
        ),
        steps=(
            (
                "Slice the {veg} [thinly|into ribbons] and salt it.",
                "Grate the {veg} and leave it with salt for {10..30} minutes.",
            ),
            ("Dice the {fruit}, skin and all.", "Peel the {fruit} and slice it into the bowl."),
            ("Stir the {cream} with vinegar and {spice}.", "Mix {cream}, vinegar, {spice} and a drop of honey."),
            ("Toss it all with plenty of {herb}.", "Mix gently and scatter the {herb} on top."),
        ),
    ),
    Dish(
        title=("{flour} bread with {spice}", "[Slow|Flat|Dark] {spice} bread", "Rolls of {flour} and {herb}"),
        ingredients=(
            "{400..900} grams of {flour}, {250..500} grams of warm water, {5..20} grams of yeast, salt, {spice},"
            " {herb}."
        ),
        steps=(
            ("Stir the yeast into the warm water.", "Wake the yeast in the water for {5..15} minutes."),
            ("Add the {flour}, the {spice} and the salt.", "Mix in the {flour} and {few} pinches of salt."),
            ("Knead for {8..15} minutes, until smooth.", "Fold the dough {few} times, every {20..40} minutes."),
            ("Let it rise in a warm {room} for {1..3} hours.", "Leave it overnight in a cold {room}."),
            ("Bake at {210..240} degrees for {25..50} minutes.", "Bake in a lidded pot until it sounds hollow."),
        ),
    ),
    Dish(
        title=("{meat} stew with {veg}", "{weather} day stew of {meat} and {veg}", "{name}'s {meat} and {fruit} stew"),
        ingredients=(
            "{500..900} grams of {meat}, {3..8} pieces of {veg}, {2..5} pieces of {fruit}, {2..5} onions, {herb},"
            " {spice}."
        ),
        steps=(
            ("Dice the {meat} and brown it in {few} batches.", "Brown the {meat} on all sides in a heavy pot."),
            ("Add onions, {spice} and a spoon of {flour}.", "Stir in the onions and the {spice}."),
            ("Cover it with water and add the {herb}.", "Pour in {1..2} litres of stock and bring it to a boil."),
            ("After {40..90} minutes add the {veg} and the {fruit}.", "Add the {veg} when the {meat} is nearly done."),
            ("Stew it on a lazy afternoon, {2..4} hours in total.", "It is done when the {meat} falls apart."),
        ),
    ),
    Dish(
        title=("{veg} dumplings with {cream}", "{flour} dumplings in {veg} broth", "{meat} dumplings"),
        ingredients=(
            "{200..500} grams of {flour}, {2..4} eggs, {2..5} cups of {veg}, {100..300} grams of {meat}, {cream},"
            " {herb}."
        ),
        steps=(
            ("Mix the {flour}, the eggs and {4..9} spoons of water.", "Work {flour} and eggs into a firm dough."),
            ("Grate the {veg} and press out the water.", "Chop the {veg} and the {meat} very small."),
            ("Season with {herb} and salt.", "Stir the {meat}, the {veg} and the {herb} together."),
            ("Make {12..36} small dumplings.", "Fold {12..36} small parcels and press the edges."),
            ("Lower them into simmering water for {6..14} minutes.", "Steam them for {12..25} minutes."),
        ),
    ),
    Dish(
        is_sweet=True,
        title=("{fruit} jam with {spice}", "{fruit} and {*fruit} jam", "{name}'s {fruit} chutney"),
        ingredients="{1..3} kilos of {fruit}, {400..900} grams of sugar, {2..4} lemons, {spice}, {few} clean jars.",
        steps=(
            ("Wash and halve the {fruit}.", "Peel the {fruit} and take out the stones or cores."),
            ("Cover the {fruit} with the sugar overnight.", "Stir in the sugar and wait for {2..8} hours."),
            ("Add the juice of the lemons and the {spice}.", "Tie the {spice} in a cloth and let it float on top."),
            ("Boil for {10..45} minutes and skim off the foam.", "Cook it slowly until a drop sets on a cold plate."),
            ("Fill the jars to the brim.", "Pour it into hot jars and write the month on the lids."),
        ),
    ),
    Dish(
        title=("{veg} pancakes with {herb}", "{flour} pancakes with {fruit}", "{day} pancakes"),
        ingredients=(
            "{150..350} grams of {flour}, {2..4} eggs, {300..600} grams of milk, {veg}, {fruit}, {herb}, {spice}."
        ),
        steps=(
            (
                "Whisk the {flour} with the milk, then the eggs.",
                "Stir milk and eggs into the {flour}, a little at a time.",
            ),
            ("Rest the batter for {15..60} minutes.", "Add {spice} and let the batter stand until {meal}."),
            ("Grate the {veg} into the batter.", "Slice the {veg} as thin as paper and fold it in with the {herb}."),
            ("Fry {8..20} small pancakes in oil.", "Fry them one at a time, {2..3} minutes a side."),
            ("Warm the {fruit} in a pan and spoon it over.", "Keep them warm in the oven, under a cloth."),
        ),
    ),
)


def compose(rng: random.Random, insults: Sequence[bool]) -> Draft:
    """A recipe.

    Raises:
        ValueError: turns were asked for; a recipe has none.
    """
    if insults:
        raise ValueError(f"Expected no turns in a recipe, got {len(insults)}.")
    dish = rng.choice(DISHES)
    writer = Writer(rng, _SLOTS)
    title = writer.say(rng.choice(dish.title))
    ingredients = writer.say(dish.ingredients)
    steps = [writer.say(rng.choice(ways)) for ways in dish.steps]
    ending = writer.say(rng.choice(_SWEET_ENDINGS if dish.is_sweet else _ENDINGS))
    return Draft(writer=writer, paragraphs=((title,), (ingredients,), (*steps, ending)))
