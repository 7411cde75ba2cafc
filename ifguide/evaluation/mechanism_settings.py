"""What `ifguide mechanism` measures. No torch."""

from dataclasses import dataclass, field

from ifguide.config.names import BASE, DEFAULT
from ifguide.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PrefixSettings:
    """How much is searched; the same for every model that is compared."""

    n_tokens: int = 5
    """Length of the prefix."""
    steps: int = 20
    """Rounds; each changes one token at most."""
    candidates: int = 32
    """Changes tried in a round."""
    top_k: int = 32
    """Changes of a place are drawn from this many tokens, those with the largest gain by the gradient."""
    seed: int = 0
    """Of the first prefix and of the draws."""
    batch_size: int = 64
    """Texts in one forward pass."""

    def __post_init__(self):
        for name in ("n_tokens", "candidates", "top_k", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"prefix search: expected {name} of 1 or more, got {getattr(self, name)}")
        if self.steps < 0 or self.seed < 0:
            raise ConfigError(f"prefix search: expected steps and seed of 0 or more, got {self.steps} and {self.seed}")


@dataclass(frozen=True, kw_only=True)
class MechanismSettings:
    """What is measured."""

    models: tuple[str, ...] = (BASE, DEFAULT)
    """`base` and names of selections whose models are compared."""
    search: bool = True
    """Whether to search for a prefix, which takes most of the time."""
    n_search: int = 16
    """This many toxic queries are drawn for the search; the others judge the prefix."""
    prefix: PrefixSettings = field(default_factory=PrefixSettings)
    """Length and budget of the search."""

    def __post_init__(self):
        if not self.models or len(set(self.models)) != len(self.models):
            raise ConfigError(f"mechanism: expected different models, got {', '.join(self.models) or 'none'}")
        if self.n_search < 1:
            raise ConfigError(f"mechanism: expected 1 or more queries to search with, got {self.n_search}")
