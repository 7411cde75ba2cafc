"""The covariances that the factors are made from."""

from ifguide.influence.ekfac import Fit
from ifguide.runtime.distributed import ALONE


def fit_covariances(model, modules, batches, *, labels="sampled", seed=0, processes=ALONE):
    """Per-token second moments A (I, I) and G (O, O) of every layer, over all real tokens."""
    fit = Fit(model, modules, batches, labels=labels, seed=seed, processes=processes)
    inputs, outputs = fit.covariances(modules)
    return {name: inputs[fit.shared[name]] for name in modules}, outputs
