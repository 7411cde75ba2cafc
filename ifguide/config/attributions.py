"""The kinds of token scores: what each is called and which file computes it. Names only; no torch.

A new kind is one file (see `ifguide.study.stages.attributions`) and one entry of `KINDS`. It is computed unless
`[scores]` has a setting of its name that is false.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ScoreKind:
    """One kind of token scores."""

    title: str
    """Its name in the app."""
    note: str
    """What it measures, in one sentence."""
    module: str = ""
    """The module that computes it; empty: another kind's module gives it along with its own."""
    curvature: bool = False
    """It is an influence: it needs the direction v, and so EK-FAC's factors, and its sum predicts an effect."""
    directional: bool = True
    """It is taken along a direction, so every pair of query sets has scores of this kind."""
    parts: tuple[str, ...] = ()
    """Kinds it is combined from, once their scores are averaged over the checkpoints; empty: it is computed from the
    model."""
    unit: str = ""
    """Unit of its values; empty: none."""
    selects: bool = True
    """Tokens can be selected by it: it is an attribution. Other kinds are only shown, and averaged as they are."""


KINDS: dict[str, ScoreKind] = {
    "own_loss": ScoreKind(
        title="Influence",
        note="How much likelier toxic completions get when the model trains on this token (“own loss”).",
        module="ifguide.study.stages.attributions.own_loss",
        curvature=True,
    ),
    "position": ScoreKind(
        title="Position influence",
        note="The influence that flows through the position the token is predicted from: what kronfluence and"
        " the paper's released code report.",
        module="ifguide.study.stages.attributions.position",
        curvature=True,
    ),
    "probe": ScoreKind(
        title="Probe",
        note="How much the model's state at this token looks like a toxic completion's. It measures what the token is"
        " like, not what training on it does.",
        module="ifguide.study.stages.attributions.probe",
    ),
    "combined": ScoreKind(
        title="Probe and influence",
        note="Influence and probe, each over its standard deviation, added up.",
        module="ifguide.study.stages.attributions.combined",
        parts=("own_loss", "probe"),
    ),
    "tfidf": ScoreKind(
        title="Influence, rare words first",
        note="Influence, scaled by how few documents have the token: by log(documents / (documents with it + 1)).",
        module="ifguide.study.stages.attributions.tfidf",
        parts=("own_loss",),
    ),
    "token_loss": ScoreKind(
        title="Model's loss",
        note="How badly the model predicts the token, in nats. High means surprising, not toxic.",
        directional=False,
        unit="nats",
        selects=False,
    ),
}
"""Every kind by name, in the order they are shown."""


def attributions() -> tuple[str, ...]:
    """Names of the kinds that tokens can be selected by."""
    return tuple(name for name, kind in KINDS.items() if kind.selects)


def describe_kind(name: str) -> ScoreKind:
    """The kind of this name, or what can be said of scores that came from a file."""
    return KINDS.get(name) or ScoreKind(title=name, note="Scores from a file.", directional=False)


def computed_kinds(scores) -> tuple[str, ...]:
    """Names of the kinds that a study with this `ScoresConfig` computes."""
    enabled = {name for name in KINDS if getattr(scores, name, KINDS[name].module or scores.own_loss)}
    return tuple(name for name in KINDS if name in enabled and enabled.issuperset(KINDS[name].parts))


def needs_direction(scores) -> bool:
    """Whether a kind that this `ScoresConfig` computes needs the direction v."""
    return any(KINDS[name].curvature for name in computed_kinds(scores))
