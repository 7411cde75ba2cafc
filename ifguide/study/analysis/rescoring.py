"""Scores of some documents computed anew from the stored model, factors and direction, to be held against the stored
ones."""

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ifguide.data.corpus import chunk_documents
from ifguide.runtime.progress import Progress
from ifguide.storage import artifacts
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.scoring import SCORES, average_over_checkpoints, direction_file, read_layout, score_file

LEAST_DOCUMENTS = 3
"""However small the share, at least so many documents are scored again, where the corpus has them."""
TOLERANCE = 1e-3
"""Largest relative difference that rounding explains: other batches, another device, other threads."""
LOOSE_TOLERANCE = 5e-2
"""The same where scores were taken by differences or in bfloat16 (`scores.derivative`), which is less exact by itself.
"""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """One stored quantity against the same computed anew."""

    stage: str
    """Whose artefact it is: `direction` or `scores`."""
    what: str
    """File and checkpoint, for people."""
    n_values: int
    """Values compared."""
    difference: float
    """Largest absolute difference, as a multiple of the largest absolute stored value; 0 is bit-equal."""
    tolerance: float
    """Largest difference that is still called the same."""

    @property
    def agrees(self) -> bool:
        """Whether the two are the same but for rounding; not where either holds something that is not a number."""
        return self.difference <= self.tolerance


def draw_documents(offsets: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Numbers of a random share of the documents that have a score, ascending, int64.

    Args:
        offsets: int64 (D+1,).
        share: from 0 to 1, of the documents of two tokens or more; at least `LEAST_DOCUMENTS` are drawn.
        seed: gives the same documents every time.
    """
    scored = np.flatnonzero(np.diff(offsets) >= 2)
    n = min(len(scored), max(LEAST_DOCUMENTS, int(np.ceil(share * len(scored)))))
    return np.sort(np.random.default_rng(seed).choice(scored, size=n, replace=False))


def rescore(study: Study, documents: np.ndarray, progress: Progress) -> list[Agreement]:
    """Compute the direction of every checkpoint, the scores of some documents and the means over checkpoints anew.

    Args:
        study: with artefacts up to the scores, all whole.
        documents: int64 (n,), ascending.
        progress: where to report.
    """
    names = study.checkpoint_names()
    found: list[Agreement] = []
    for number, name in enumerate(names):
        found += _compare_direction(study, name)
        progress.report(2 * number + 1, 2 * len(names), "parts")
        found += _compare_scores(study, name, documents)
        progress.report(2 * number + 2, 2 * len(names), "parts")
    return [*found, *_compare_means(study, names)]


def _compare_direction(study: Study, name: str) -> list[Agreement]:
    from ifguide.study.checkpoints import compute_direction, load_checkpoint, read_factors

    model, modules, device = load_checkpoint(study, name)
    factors = read_factors(study, name, str(device))
    found = []
    for queries in study.query_sets():
        fresh = compute_direction(study, model, modules, factors, queries)
        stored = artifacts.load_tensors(study.folder(Unit("direction")) / name / direction_file(queries))
        if stored.keys() != fresh.keys():
            difference, n_values = float("inf"), 0
        else:
            pairs = [(stored[layer].double().numpy(), fresh[layer].double().cpu().numpy()) for layer in stored]
            difference = relative_difference([a for a, _ in pairs], [b for _, b in pairs])
            n_values = sum(a.size for a, _ in pairs)
        found.append(
            Agreement(
                stage="direction",
                what=f"direction {_label(name, queries)}",
                n_values=n_values,
                difference=difference,
                tolerance=TOLERANCE,
            )
        )
    return found


def _compare_scores(study: Study, name: str, documents: np.ndarray) -> list[Agreement]:
    from ifguide.influence.attribution import position_scores_several
    from ifguide.influence.derivative import Derivative, score_along
    from ifguide.influence.losses import SplitModel
    from ifguide.study.checkpoints import load_checkpoint, read_direction

    notes = artifacts.read_json(study.folder(Unit("scores")) / artifacts.NOTES)["derivatives"][name]
    sets = study.query_sets()
    ways = [Derivative(**notes[queries or "study"]) for queries in sets]
    exact = all(way.method == "jvp" for way in ways) and study.config.model.dtype in ("float32", "float64")
    found = []
    for kind in ("own_loss", "position"):
        if not study.has_scores(kind):
            continue
        attention = "eager" if kind == "own_loss" and any(way.method == "jvp" for way in ways) else "sdpa"
        model, modules, device = load_checkpoint(study, name, attention=attention)
        directions = [read_direction(study, name, queries, modules) for queries in sets]
        files = [score_file(kind, queries) for queries in sets]
        split = SplitModel(model)
        if kind == "own_loss":
            score, files = score_along(split, modules, directions, ways), [*files, "token_loss"]
        else:
            score = functools.partial(_first, functools.partial(position_scores_several, split, modules, directions))
        places, values = _score_documents(study, documents, score, device, len(files))
        for file, fresh in zip(files, values, strict=True):
            stored = artifacts.load_array(study.folder(Unit("scores")) / name / f"{file}.npy")
            found.append(
                Agreement(
                    stage="scores",
                    what=f"{file} {name}",
                    n_values=len(places),
                    difference=relative_difference([np.asarray(stored[places], np.float64)], [fresh]),
                    tolerance=TOLERANCE if exact else LOOSE_TOLERANCE,
                )
            )
    return found


def _first(score: Callable, batch):
    return score(batch)[0]


def _score_documents(study: Study, documents: np.ndarray, score: Callable, device, n_files: int):
    """Places in the corpus int64 (n,), and for each file the scores float64 (n,) there."""
    from ifguide.influence.batches import CorpusSequences, make_batches

    corpus, layout = study.corpus(), read_layout(study)
    offsets = np.asarray(corpus.offsets)
    chunks = chunk_documents(offsets, layout["max_length"] - (layout["bos"] is not None))
    chunks = chunks[np.isin(chunks[:, 0], documents)]
    sequences = CorpusSequences(corpus.token_ids, offsets, chunks, layout["bos"])
    places: list[np.ndarray] = []
    values: list[list[np.ndarray]] = [[] for _ in range(n_files)]
    for batch in make_batches(sequences, study.config.compute.tokens_per_batch):
        counted = (batch.target_index >= 0).numpy()
        places.append(batch.target_index.numpy()[counted])
        for kept, tensor in zip(values, score(batch.to(device)), strict=True):
            kept.append(tensor.float().cpu().numpy()[counted])
    return np.concatenate(places), [np.concatenate(kept).astype(np.float64) for kept in values]


def _compare_means(study: Study, names: list[str]) -> list[Agreement]:
    """The study's own arrays against those put together anew from its checkpoints', all tokens."""
    folder, settings = study.folder(Unit("scores")), study.config.scores
    files = [*SCORES, *(score_file(kind, queries) for queries in study.query_sets() if queries for kind in SCORES[:2])]
    files = [file for file in files if (folder / f"{file}.npy").is_file()]
    found = []
    with tempfile.TemporaryDirectory() as place:
        average_over_checkpoints(
            study.corpus(),
            [folder / name for name in names],
            files,
            Path(place),
            average=settings.average,
            pooling=settings.pooling,
        )
        for file in files:
            stored, fresh = (artifacts.load_array(part / f"{file}.npy") for part in (folder, Path(place)))
            found.append(
                Agreement(
                    stage="scores",
                    what=f"{file} of the study",
                    n_values=len(stored),
                    difference=relative_difference([np.asarray(stored)], [np.asarray(fresh)]),
                    tolerance=1e-5,
                )
            )
    return found


def relative_difference(stored: list[np.ndarray], fresh: list[np.ndarray]) -> float:
    """The largest absolute difference over the largest absolute stored value; infinite where shapes or numbers are no
    good."""
    if any(
        a.shape != b.shape or not np.isfinite(a).all() or not np.isfinite(b).all()
        for a, b in zip(stored, fresh, strict=True)
    ):
        return float("inf")
    largest = max((float(np.abs(a).max(initial=0)) for a in stored), default=0.0)
    apart = max(
        (float(np.abs(a.astype(np.float64) - b).max(initial=0)) for a, b in zip(stored, fresh, strict=True)),
        default=0.0,
    )
    return apart / largest if largest else float("inf") if apart else 0.0


def _label(name: str, queries: str) -> str:
    return f"{name}, {queries}" if queries else name
