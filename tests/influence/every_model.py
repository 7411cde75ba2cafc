"""A tiny float64 model of each architecture, its layers, and sequences of unlike length."""

import functools

import numpy as np
import torch

from ifguide.influence.attribution import position_scores
from ifguide.influence.batches import Sequence, make_batches
from ifguide.models.layers import layer_shape
from ifguide.models.loading import tracked_modules
from tests.one_case import for_each
from tests.tiny import ENGINE, tiny_model, token_documents


class Case:
    def __init__(self, kind):
        self.model = tiny_model(kind)
        self.modules = tracked_modules(self.model)
        ids, offsets = token_documents(6, seed=3)
        self.sequences = [Sequence(ids[a:b], np.arange(a, b)) for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
        self.n_tokens = len(ids)

    def batches(self, tokens_per_batch=30):
        return list(make_batches(self.sequences, tokens_per_batch))

    def random_direction(self, seed=1):
        generator = torch.Generator().manual_seed(seed)
        return {
            name: torch.randn(layer_shape(m), dtype=torch.float64, generator=generator) * 0.1
            for name, m in self.modules.items()
        }


every_model = for_each("case", [functools.partial(Case, kind) for kind in ENGINE])
"""Runs a test once for a fresh case of each architecture."""


def position_alone(model, modules, direction, batch):
    """Position scores along one direction, and losses."""
    scores, losses = position_scores(model, modules, [direction], batch)
    return scores[0], losses
