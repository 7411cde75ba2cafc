"""How each kind of attribution is computed: one file a kind, named in `ifguide.config.attributions`.

A kind's file has one of two functions:

    make_scorer(place: Place) -> Scorer                                  scores batches of the corpus at one checkpoint
    combine(arrays: list[np.ndarray], corpus) -> Iterator[np.ndarray]    float32 blocks, in the corpus's order, from the
                                                                         study's scores of the kinds in `parts`
"""

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ifguide.config.attributions import KINDS
from ifguide.study.reading import Study
from ifguide.study.stages.checkpoints import Direction, named_file, read_direction

if TYPE_CHECKING:
    import torch

    from ifguide.influence.batches import Batch


@dataclass(frozen=True, kw_only=True)
class Place:
    """A checkpoint and the directions to score along."""

    study: Study
    checkpoint: str
    """Its name, or `base`."""
    sets: Sequence[str] = ("",)
    """Pairs of query sets: names of `queries.extra`, empty for the study's own."""
    directions: list[Direction] | None = None
    """v of each pair, (O, I) a layer; None: as the study's stage `direction` stored them."""
    probes: bool = False
    """The probe is scored as well: influence gives it where its passes hold the states."""
    notes: dict = field(default_factory=dict)
    """What the scorer of an earlier run found out here (`Scorer.notes`), to score in the same way again."""

    def files(self, kind: str) -> tuple[str, ...]:
        """The files of a directional kind, one a pair of query sets."""
        return tuple(named_file(kind, queries) for queries in self.sets)

    def read_directions(self, modules: dict) -> list[Direction]:
        """v of each pair of query sets, each layer's part where the layer computes."""
        if self.directions is not None:
            return self.directions
        return [read_direction(self.study, self.checkpoint, queries, modules) for queries in self.sets]


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """What a kind of attribution computes at one checkpoint."""

    files: tuple[str, ...]
    """Names of what it gives, as paths below the checkpoint's folder and without `.npy`."""
    score: Callable[["Batch"], Iterable["torch.Tensor"]]
    """One (B, T-1) tensor a file, for a batch on `device`."""
    device: "torch.device"
    error: float = 0.0
    """How far its own rounding puts a score off, root mean square, in standard deviations of the scores."""
    notes: dict = field(default_factory=dict)
    """What it found out, for the manifest and for `Place.notes`."""

    def by_file(self, batch: "Batch") -> dict[str, "torch.Tensor"]:
        """`score` by name of the file."""
        return dict(zip(self.files, self.score(batch), strict=True))


def make_scorer(kind: str, place: Place) -> Scorer:
    """The scorer of a kind that is computed from the model."""
    return importlib.import_module(KINDS[kind].module).make_scorer(place)
