"""`probe`: how much a token's own hidden state looks like a toxic completion's. It needs no direction.

Where influence is scored by central differences, its passes give the states as well, and the probe costs none of its
own.
"""

from ifguide.errors import ConfigError
from ifguide.influence.batches import make_batches, query_sequences
from ifguide.influence.probe import Probe, fit_probe, hidden_states, read_states
from ifguide.models.layers import device_of
from ifguide.study.stages.attributions import Place, Scorer
from ifguide.study.stages.checkpoints import encoded_queries, load_checkpoint

READING_ERROR = 1e-3
"""How far states from other passes put a score off, at most, root mean square, in standard deviations."""


def make_scorer(place: Place) -> Scorer:
    """All probes read the same forward pass."""
    model, _, device = load_checkpoint(place.study, place.checkpoint)
    probes = fit_probes(place, model)

    def score(batch) -> list:
        states = hidden_states(model, batch)
        return [probe.score(states, batch) for probe in probes.values()]

    notes = {"probes": describe_probes(probes)}
    return Scorer(files=place.files("probe"), score=score, device=device, error=READING_ERROR, notes=notes)


def fit_probes(place: Place, model) -> dict[str, Probe]:
    """A probe for each pair of query sets, fitted on this checkpoint's states."""
    config, probes = place.study.config, {}
    method, tokens = config.scores.probe_method, config.compute.tokens_per_batch
    for queries in place.sets:
        toxic, safe = (encoded_queries(place.study, kind, queries) for kind in ("toxic", "safe"))
        probes[queries or "study"] = fit_probe(model, toxic, safe, method=method, tokens_per_batch=tokens)
    return probes


def describe_probes(probes: dict[str, Probe]) -> dict:
    """What the manifest notes of them."""
    return {name: {"layer": probe.layer, "auc": [round(x, 4) for x in probe.auc]} for name, probe in probes.items()}


def can_listen(place: Place, model, probes: dict[str, Probe]) -> bool:
    """Whether the states of a pass that is listened to are those that the model says it has, tried on one query."""
    [batch, *_] = make_batches(query_sequences(encoded_queries(place.study, "toxic", "")[:1]), 1)
    batch = batch.to(device_of(model))
    try:
        with read_states(model, {probe.layer for probe in probes.values()}) as states:
            expected = hidden_states(model, batch)
    except ConfigError:
        return False
    return all(state.shape == expected[layer].shape and state.equal(expected[layer]) for layer, state in states.items())
