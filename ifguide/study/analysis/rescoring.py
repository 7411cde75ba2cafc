"""Scores of some documents computed again from the stored model, factors and direction, and compared with the stored
ones."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ifguide.config.attributions import KINDS
from ifguide.runtime.progress import Progress
from ifguide.storage import artifacts
from ifguide.study.attributions import Place, make_scorer
from ifguide.study.checkpoints import corpus_sequences, direction_file
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.scoring import Treatment, put_together

LEAST_DOCUMENTS = 3
"""At least this many documents are scored again, if the corpus has them."""
TOLERANCE = 1e-3
"""Largest relative difference that rounding explains: other batches, another device, other threads."""
LOOSE_TOLERANCE = 5e-2
"""The same where scores were taken by differences or in bfloat16 (`scores.derivative`), which is less exact by itself.
"""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """One stored quantity compared with the same computed again."""

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
    """Compute the direction of every checkpoint, the scores of some documents and the means over checkpoints again.

    Args:
        study: with artefacts up to the scores, all whole.
        documents: int64 (n,), ascending.
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
    from ifguide.influence.attribution import score_batches
    from ifguide.influence.batches import make_batches

    folder = study.folder(Unit("scores"))
    notes = {
        key: by_checkpoint[name]
        for key, by_checkpoint in artifacts.read_json(folder / artifacts.NOTES).items()
        if name in by_checkpoint
    }
    full_precision = study.config.model.dtype in ("float32", "float64")
    place = Place(study=study, checkpoint=name, sets=study.query_sets(), notes=notes)
    sequences = corpus_sequences(study, chosen=documents)
    found = []
    for kind in KINDS:
        if not KINDS[kind].module or KINDS[kind].parts or not study.has_scores(kind):
            continue
        scorer = make_scorer(kind, place)
        batches = make_batches(sequences, study.config.compute.tokens_per_batch)
        scored = list(score_batches(batches, scorer.by_file, scorer.device))
        places = np.concatenate([places for places, _, _ in scored])
        for file in scorer.files:
            stored = artifacts.load_array(folder / name / f"{file}.npy")
            fresh = np.concatenate([values[file] for _, values, _ in scored]).astype(np.float64)
            found.append(
                Agreement(
                    stage="scores",
                    what=f"{file} {name}",
                    n_values=len(places),
                    difference=relative_difference([np.asarray(stored[places], np.float64)], [fresh]),
                    tolerance=TOLERANCE if scorer.exact and full_precision else LOOSE_TOLERANCE,
                )
            )
    return found


def _compare_means(study: Study, names: list[str]) -> list[Agreement]:
    """The study's own arrays against those put together again from its checkpoints', all tokens."""
    folder = study.folder(Unit("scores"))
    kinds = [kind for kind in KINDS if study.has_scores(kind)]
    found = []
    with tempfile.TemporaryDirectory() as work:
        parts, fresh_folder = [folder / name for name in names], Path(work)
        treatment = Treatment.of(study.config.scores)
        for file in put_together(study.corpus(), parts, fresh_folder, kinds, treatment, study.query_sets()):
            stored, fresh = (artifacts.load_array(part / f"{file}.npy") for part in (folder, fresh_folder))
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
