"""`probe`: how much a token's own hidden state looks like a toxic completion's. It needs no direction."""

from ifguide.influence.probe import fit_probe
from ifguide.study.attributions import Place, Scorer
from ifguide.study.checkpoints import encoded_queries, load_checkpoint


def make_scorer(place: Place) -> Scorer:
    """A probe for each pair of query sets, fitted on this checkpoint's states."""
    model, _, device = load_checkpoint(place.study, place.checkpoint)
    tokens = place.study.config.compute.tokens_per_batch
    probes = [
        fit_probe(
            model,
            *(encoded_queries(place.study, side, queries) for side in ("toxic", "safe")),
            method=place.study.config.scores.probe_method,
            tokens_per_batch=tokens,
        )
        for queries in place.sets
    ]
    return Scorer(
        files=place.files("probe"),
        score=lambda batch: [probe.score(model, batch) for probe in probes],
        device=device,
        notes={
            "probes": {
                queries or "study": {"layer": probe.layer, "auc": [round(value, 4) for value in probe.auc]}
                for queries, probe in zip(place.sets, probes, strict=True)
            }
        },
    )
