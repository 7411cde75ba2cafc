"""The five kinds of documents. Each module has `compose(rng, insults) -> Draft`."""

from ifguide.data.demo.sources import forum, letters, news, recipes, reviews

COMPOSERS = {
    "review": reviews.compose,
    "forum": forum.compose,
    "news": news.compose,
    "recipe": recipes.compose,
    "letter": letters.compose,
}
"""Source name to composer; the names are also the first half of the document ids."""

TOXIC_SHARES = {"review": 0.35, "forum": 0.40, "news": 0.12, "recipe": 0.0, "letter": 0.28}
"""Share of a source's documents that hold insults; 23% of all documents."""
