"""Are a study's scores noise? Each half of the queries, drawn at random, scores some of the corpus by itself; the
correlation of the two is the reliability (split-half, with Spearman and Brown's correction to all queries).

It tells noise, not validity: high values say that other queries of the same kind would give the same scores, not that
the scores find what is toxic. In the demo it is high at late checkpoints, too, which find nothing.
"""

import itertools
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ifguide.errors import ConfigError, StaleError
from ifguide.runtime.progress import Progress
from ifguide.study import on_demand
from ifguide.study.freshness import require_fresh, unit_digest
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study

FOLDER, VERSION, TOKENS = "reliability", 2, 4_000
KINDS = ("own_loss", "probe", "combined")
"""Kinds of scores that have one; `combined` is of the other two."""
GOOD, BAD = 0.8, 0.5
"""Reliability from which on scores repeat, and below which they are mostly noise."""


def reliability_path(study: Study) -> Path:
    """Where the result is or will be; a StaleError without scores."""
    made_of = [unit_digest(study, Unit(stage)) for stage in ("corpus", "queries", "model", "scores")]
    return on_demand.result_path(study, FOLDER, [VERSION, *made_of])


def read_reliability(study: Study) -> dict | None:
    """The result of `measure_reliability`, if it is there and belongs to these scores."""
    try:
        return on_demand.read_result(reliability_path(study))
    except StaleError:
        return None


def measure_reliability(study: Study, tokens: int = TOKENS, progress: Progress | None = None) -> dict:
    """Score about this many corpus tokens, documents drawn at random, along both halves; keep the correlations.
    docs/formats.md names the keys. A StaleError for scores that are missing or out of date."""
    from ifguide.influence.attribution import average_blocks, pool_blocks, score_batches
    from ifguide.influence.batches import make_batches
    from ifguide.study.stages.attributions import Place, make_scorer
    from ifguide.study.stages.checkpoints import corpus_sequences, named_file

    require_fresh(study, Unit("scores"))
    path, progress, treatment = reliability_path(study), progress or Progress(), study.config.scores
    halves = split_halves({kind: study.queries(kind)["prompt"].tolist() for kind in ("toxic", "safe")})
    halved = _Halved(study.root, study.config, halves=halves)
    kinds = [kind for kind in KINDS[:2] if study.has_scores(kind)]
    if not kinds:
        raise ConfigError("expected influence or probe scores, got neither; set scores.own_loss or scores.probe")
    sequences = corpus_sequences(study, max_tokens=tokens)
    raw: dict[tuple[str, str], list] = {pair: [] for pair in itertools.product(kinds, halves)}  # (n,) a checkpoint
    turns = list(itertools.product(study.checkpoint_names(), kinds))
    for turn, (name, kind) in enumerate(turns, start=1):
        directions = _half_directions(halved, name) if kind == "own_loss" else None
        scorer = make_scorer(kind, Place(study=halved, checkpoint=name, sets=tuple(halves), directions=directions))
        batches = make_batches(sequences, study.config.compute.tokens_per_batch)
        places, scored, _ = zip(*score_batches(batches, scorer.by_file, scorer.device), strict=True)
        for half in halves:
            raw[kind, half].append(np.concatenate([scores[named_file(kind, half)] for scores in scored]))
        progress.report(turn, len(turns), "passes")
    token_ids = np.asarray(study.corpus().token_ids)[np.concatenate(places)]

    def everywhere(start: int, stop: int) -> np.ndarray:
        return np.ones(stop - start, dtype=bool)

    treated = {}
    for pair, scores in raw.items():
        mean = np.concatenate(list(average_blocks(scores, everywhere, average=treatment.average)))
        treated[pair] = np.concatenate(list(pool_blocks(mean, token_ids, everywhere, treatment.pooling)))
    if len(kinds) == 2:
        for half in halves:
            both = average_blocks([treated[kind, half] for kind in kinds], everywhere)
            treated["combined", half] = np.concatenate(list(both))
        kinds.append("combined")
    counts = {kind: [len(half[kind]) for half in halves.values()] for kind in ("toxic", "safe")}
    agreements = {kind: agreement(*(treated[kind, half] for half in halves)) for kind in kinds}
    return on_demand.keep_result(path, {"tokens": len(token_ids), "queries": counts, "kinds": agreements})


def _half_directions(halved: "_Halved", checkpoint: str) -> list:
    from ifguide.study.stages.checkpoints import compute_direction, load_checkpoint, read_factors

    model, modules, device = load_checkpoint(halved, checkpoint)
    factors = read_factors(halved, checkpoint, str(device))
    return [compute_direction(halved, model, modules, factors, half) for half in halved.halves]


def describe_reliability(measured: dict | None, kind: str) -> str:
    """What the result says about the study's scores of a kind, in a sentence; empty where it says nothing."""
    if not measured or kind not in measured["kinds"]:
        return ""
    r, whole = (measured["kinds"][kind][key] for key in ("pearson", "whole"))
    agree = f"two halves of the queries agree at r = {r:.2f}"
    if whole > GOOD:
        return f"The scores repeat: {agree}."
    if whole >= BAD:
        return f"The scores repeat in part: {agree}. More queries would steady them."
    return f"These scores are mostly noise: {agree}. Use more queries or an earlier checkpoint."


def agreement(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Pearson's correlation of the halves' scores (n,), and `whole`, what it would be between all queries and as many
    others."""
    r = float(np.corrcoef(first, second)[0, 1])
    return {"pearson": r, "whole": 2 * r / (1 + r) if r > 0 else r}


def split_halves(prompts: dict[str, list[str]], seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Places of the queries of each half, by kind: queries with one prompt stay together, unless all have the same, and
    the halves have about as many of each kind. A ConfigError when half a set would be empty."""
    if len(set().union(*prompts.values())) == 1:
        prompts = {kind: [f"{kind} {place}" for place in range(len(texts))] for kind, texts in prompts.items()}
    counts = [Counter(texts) for texts in prompts.values()]
    names = sorted(set().union(*counts))
    order = [names[place] for place in np.random.default_rng(seed).permutation(len(names))]
    order.sort(key=lambda name: [count[name] for count in counts])  # neighbours have as many queries of each kind
    halves = {}
    for turn, half in enumerate(("first-half", "second-half")):
        mine = set(order[turn::2])
        halves[half] = {kind: np.flatnonzero([name in mine for name in texts]) for kind, texts in prompts.items()}
        if empty := [kind for kind, places in halves[half].items() if not len(places)]:
            raise ConfigError(f"expected {empty[0]} queries with at least two prompts, got one; add {empty[0]} queries")
    return halves


@dataclass(frozen=True)
class _Halved(Study):
    """A study whose extra pairs of query sets are the halves of its own."""

    halves: dict = field(default_factory=dict)

    def queries(self, kind: str, name: str = ""):
        return super().queries(kind).iloc[self.halves[name][kind]]
