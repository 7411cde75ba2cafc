"""What `ifguide mechanism` measures. No torch."""

from dataclasses import field

from pydantic import field_validator

from ifguide.config.names import BASE, DEFAULT
from ifguide.config.types import AtLeastOne, Count, Flag, Text
from ifguide.config.validation import table


@table("prefix")
class PrefixSettings:
    """How much is searched; the same for every model that is compared."""

    n_tokens: AtLeastOne = 5
    """Length of the prefix."""
    steps: Count = 20
    """Rounds; each changes one token at most."""
    candidates: AtLeastOne = 32
    """Changes tried in a round."""
    top_k: AtLeastOne = 32
    """Changes of a place are drawn from this many tokens, those with the largest gain by the gradient."""
    seed: Count = 0
    """Of the first prefix and of the draws."""
    batch_size: AtLeastOne = 64
    """Texts in one forward pass."""


@table("mechanism")
class MechanismSettings:
    """What is measured."""

    models: tuple[Text, ...] = (BASE, DEFAULT)
    """`base` and names of selections whose models are compared."""
    search: Flag = True
    """Whether to search for a prefix, which takes most of the time."""
    n_search: AtLeastOne = 16
    """This many toxic queries are drawn for the search; the others judge the prefix."""
    prefix: PrefixSettings = field(default_factory=PrefixSettings)
    """Length and budget of the search."""

    @field_validator("models")
    @classmethod
    def _are_different(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        if not models or len(set(models)) != len(models):
            raise ValueError(f"expected different models, got {', '.join(models) or 'none'}")
        return models
