"""`probe`: how much a token's own hidden state looks like a toxic completion's. It needs no direction."""

from ifguide.influence.probe import fit_probe, hidden_states
from ifguide.study.stages.attributions import Place, Scorer
from ifguide.study.stages.checkpoints import encoded_queries, load_checkpoint


def make_scorer(place: Place) -> Scorer:
    """A probe for each pair of query sets, fitted on this checkpoint's states; all read the same forward pass."""
    model, _, device = load_checkpoint(place.study, place.checkpoint)
    config, probes = place.study.config, {}
    method, tokens = config.scores.probe_method, config.compute.tokens_per_batch
    for queries in place.sets:
        toxic, safe = (encoded_queries(place.study, kind, queries) for kind in ("toxic", "safe"))
        probes[queries or "study"] = fit_probe(model, toxic, safe, method=method, tokens_per_batch=tokens)

    def score(batch) -> list:
        states = hidden_states(model, batch)
        return [probe.score(states, batch) for probe in probes.values()]

    described = {
        name: {"layer": probe.layer, "auc": [round(x, 4) for x in probe.auc]} for name, probe in probes.items()
    }
    return Scorer(files=place.files("probe"), score=score, device=device, notes={"probes": described})
