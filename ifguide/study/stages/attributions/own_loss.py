"""`own_loss`: the derivative of each token's own loss along v (Eq. 8), and that loss itself, `token_loss`; with them
`probe`, whose states the passes of central differences hold."""

from collections.abc import Callable
from dataclasses import asdict

from ifguide.influence.derivative import Derivative, score_along
from ifguide.influence.losses import SplitModel
from ifguide.influence.probe import Probe, read_states
from ifguide.study.stages.attributions import Place, Scorer
from ifguide.study.stages.attributions.probe import can_listen, describe_probes, fit_probes
from ifguide.study.stages.checkpoints import choose_way, load_checkpoint


def make_scorer(place: Place) -> Scorer:
    """Scores along every direction, and the losses."""
    # only `eager` attention has the exact derivative, which the choice of a way needs as well
    model, modules, device = load_checkpoint(place.study, place.checkpoint, attention="eager")
    directions, split = place.read_directions(modules), SplitModel(model)
    chosen, names = place.notes.get("derivatives"), [queries or "study" for queries in place.sets]
    if chosen:
        ways = [Derivative(**chosen[name]) for name in names]
    else:
        ways = [choose_way(place.study, split, modules, v, device) for v in directions]
    methods = {way.method for way in ways}
    if "jvp" not in methods and model._supports_sdpa:
        model.set_attn_implementation("sdpa")
        split = SplitModel(model)
    score, files = score_along(split, modules, directions, ways), (*place.files("own_loss"), "token_loss")
    notes = {"derivatives": {name: asdict(way) for name, way in zip(names, ways, strict=True)}}
    if place.probes and "jvp" not in methods:
        probes = fit_probes(place, model)
        if can_listen(place, model, probes):
            score, files = _listening(model, score, probes), (*files, *place.files("probe"))
            notes["probes"] = describe_probes(probes)
    error = max((2 - 2 * way.correlation) ** 0.5 for way in ways)
    return Scorer(files=files, score=score, device=device, error=error, notes=notes)


def _listening(model, score: Callable, probes: dict[str, Probe]) -> Callable:
    layers = {probe.layer for probe in probes.values()}

    def score_both(batch) -> list:
        with read_states(model, layers) as states:
            scores = score(batch)
        return [*scores, *(probe.score(states, batch) for probe in probes.values())]

    return score_both
