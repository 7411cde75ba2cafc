"""`own_loss`: the derivative of each token's own loss along v (Eq. 8), and that loss itself, `token_loss`."""

from dataclasses import asdict

from ifguide.influence.derivative import Derivative, score_along
from ifguide.influence.losses import SplitModel
from ifguide.study.attributions import Place, Scorer
from ifguide.study.checkpoints import choose_way, load_checkpoint


def make_scorer(place: Place) -> Scorer:
    """Scores along every direction, and the losses."""
    # only `eager` attention has the exact derivative, which the choice of a way needs as well
    model, modules, device = load_checkpoint(place.study, place.checkpoint, attention="eager")
    directions, split = place.read_directions(modules), SplitModel(model)
    known = place.notes.get("derivatives", {})
    ways = [
        Derivative(**known[queries or "study"]) if known else choose_way(place.study, split, modules, v, device)
        for queries, v in zip(place.sets, directions, strict=True)
    ]
    methods = {way.method for way in ways}
    if "jvp" not in methods:
        model.set_attn_implementation("sdpa")
        split = SplitModel(model)
    return Scorer(
        files=(*place.files("own_loss"), "token_loss"),
        score=score_along(split, modules, directions, ways),
        device=device,
        exact=methods == {"jvp"},
        notes={"derivatives": {queries or "study": asdict(way) for queries, way in zip(place.sets, ways, strict=True)}},
    )
