"""`position`: the part of the sequence's influence that flows through the position that predicts the token."""

from ifguide.influence.attribution import position_scores
from ifguide.influence.losses import SplitModel
from ifguide.study.stages.attributions import Place, Scorer
from ifguide.study.stages.checkpoints import load_checkpoint


def make_scorer(place: Place) -> Scorer:
    """Scores along every direction."""
    model, modules, device = load_checkpoint(place.study, place.checkpoint)
    directions, split = place.read_directions(modules), SplitModel(model)
    return Scorer(
        files=place.files("position"),
        score=lambda batch: position_scores(split, modules, directions, batch)[0].unbind(),
        device=device,
    )
