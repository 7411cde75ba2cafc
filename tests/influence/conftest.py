import numpy as np
import pytest

from ifguide.influence.batches import Sequence, make_batches
from ifguide.models.loading import tracked_modules
from tests.tiny import SHAPES, tiny_model, token_documents


@pytest.fixture(params=SHAPES)
def case(request):
    """A tiny float64 model, its layers, and sequences of unlike length."""
    model = tiny_model(request.param)
    ids, offsets = token_documents(6, seed=3)
    sequences = [Sequence(ids[a:b], np.arange(a, b)) for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
    return Case(model, tracked_modules(model), sequences, len(ids))


class Case:
    def __init__(self, model, modules, sequences, n_tokens):
        self.model, self.modules, self.sequences, self.n_tokens = model, modules, sequences, n_tokens

    def batches(self, tokens_per_batch=30):
        return list(make_batches(self.sequences, tokens_per_batch))

    def random_direction(self, seed=1):
        import torch

        from ifguide.models.layers import layer_shape

        generator = torch.Generator().manual_seed(seed)
        return {
            name: torch.randn(layer_shape(m), dtype=torch.float64, generator=generator) * 0.1
            for name, m in self.modules.items()
        }
