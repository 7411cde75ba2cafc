"""Is a study what its manifests say? Hashes every file, compares inputs with outputs, and recomputes some scores from
the stored model, factors and direction."""

import contextlib
import errno
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ifguide.config.attributions import KINDS, needs_direction
from ifguide.data.stretches import count_valid
from ifguide.errors import ConfigError
from ifguide.runtime.progress import Progress
from ifguide.storage import artifacts
from ifguide.storage.lock import study_lock
from ifguide.study.freshness import unit_state
from ifguide.study.lineage import READ_BY_SCORES, Unit, can_be_made_again
from ifguide.study.reading import Study
from ifguide.study.stage_table import ON_REQUEST, STAGES
from ifguide.study.stages.attributions import Place, make_scorer
from ifguide.study.stages.checkpoints import (
    compute_direction,
    corpus_sequences,
    direction_file,
    load_checkpoint,
    read_factors,
)
from ifguide.study.stages.scoring import put_together

LEAST_DOCUMENTS = 3
"""At least this many documents are scored again, if the corpus has them."""
TOLERANCE = 1e-3
"""Largest relative difference that rounding explains: other batches, another device, other threads."""
LOOSE_TOLERANCE = 5e-2
"""The same for a model in bfloat16, and the most for scores taken by differences (`scores.derivative`): five times the
error that their manifest gives."""

_SELECT_OPTIONS = {
    "tokens": "selection.tokens_above",
    "quantile": "selection.quantile",
    "window": "selection.window",
    "max-tokens": "selection.max_tokens",
    "attribution": "selection.attribution",
}
"""Options of `ifguide select`, and the settings they are kept as."""


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

    @classmethod
    def of(
        cls, stage: str, what: str, stored: list[np.ndarray], fresh: list[np.ndarray], tolerance: float
    ) -> "Agreement":
        """Compare arrays. Where there are none, where their shapes differ, or where a value is not finite, they do not
        agree."""
        pairs = list(zip(stored, fresh, strict=True))
        apart = float("inf")
        if pairs and all(a.shape == b.shape and np.isfinite(a).all() and np.isfinite(b).all() for a, b in pairs):
            largest = max(float(np.abs(a).max(initial=0)) for a in stored)
            furthest = max(float(np.abs(a.astype(np.float64) - b).max(initial=0)) for a, b in pairs)
            if largest or not furthest:
                apart = furthest / (largest or 1.0)
        n_values = sum(array.size for array in stored)
        return cls(stage=stage, what=what, n_values=n_values, difference=apart, tolerance=tolerance)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One artefact, checked."""

    artefact: str
    """Its stage, and its name where it has one."""
    state: str
    """`whole`, `damaged` (its files are not those of its manifest), `stale` (made from something else) or `missing`."""
    why: str = ""
    """What is wrong, in plain words."""
    remedy: str = ""
    """The command that fixes it."""
    files: int = 0
    """Files hashed."""
    bytes: int = 0
    """Their size together."""
    digest: str = ""
    """The hash over its files' hashes that its readers name as their input."""
    seeds: dict[str, int] | None = None
    """Every seed among the settings it was made with."""
    versions: dict[str, str] | None = None
    """Of Python, ifguide and the libraries it was made with."""
    machine: dict | None = None
    """What it was made on; None where an earlier version did not say."""

    @property
    def is_wrong(self) -> bool:
        """Whether it needs fixing; what was never built does not."""
        return self.state in ("damaged", "stale")


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found."""

    study: str
    parts: tuple[Part, ...]
    agreements: tuple[Agreement, ...]
    """Recomputed scores and directions."""
    documents: int
    """How many documents were scored again; 0: none, and `not_rescored` says why."""
    not_rescored: str
    seed: int

    @property
    def problem(self) -> str:
        """The first thing that is wrong and the command that fixes it, in one line; empty when nothing is."""
        parts = [part for part in self.parts if part.is_wrong]
        wrong = [f"{part.artefact} is {part.state}: {part.why}; fix it with {part.remedy}" for part in parts]
        wrong += [
            f"{one.what} differs from what its inputs give by {one.difference:.2g} of its largest value (rounding: up"
            f" to {one.tolerance:g}); fix it with `ifguide run {self.study} --force {one.stage}`"
            for one in self.agreements
            if not one.agrees
        ]
        if not wrong:
            return ""
        return wrong[0] + (f" (and {len(wrong) - 1} more)" if wrong[1:] else "")

    @property
    def largest_difference(self) -> float | None:
        """Over everything recomputed; None when nothing was."""
        return max((one.difference for one in self.agreements), default=None)

    def as_json(self) -> dict:
        """Plain values; a difference that is no number (NaN, infinity, another shape) is null."""

        def number(value: float | None) -> float | None:
            return value if value is not None and value < float("inf") else None

        rescored = {
            "documents": self.documents,
            "seed": self.seed,
            "largest_difference": number(self.largest_difference),
            "not_rescored": self.not_rescored or None,
            "agreements": [
                {**asdict(one), "difference": number(one.difference), "agrees": one.agrees} for one in self.agreements
            ],
        }
        parts, problem = [asdict(part) for part in self.parts], self.problem or None
        return {"study": self.study, "ok": not problem, "problem": problem, "parts": parts, "rescored": rescored}


def verify_study(study: Study, *, share: float = 0.01, seed: int = 0, progress: Progress | None = None) -> Verification:
    """Check every artefact, and recompute the scores of a random share of the documents, drawn by the seed: 0 scores
    none, any other share at least three.

    Nothing is changed. The study is locked meanwhile, so that no run swaps what is being read. A BusyError: a run is
    going on; a ConfigError: a share outside 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"expected a share of the documents from 0 to 1, got {share}")
    progress = progress or Progress()
    study = Study(study.root, study.config, rehash=True)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(study_lock(study.root))
        except OSError as error:  # where it cannot be written to, nobody else can write either
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
        units = list_units(study)
        progress.begin_stage("hashes", 0, 2)
        parts = []
        for number, unit in enumerate(units):
            parts.append(check_unit(study, unit))
            progress.report(number + 1, len(units), "artefacts")
        progress.begin_stage("scores", 1, 2)
        documents, why = _draw(study, parts, share, seed)
        agreements = tuple(rescore(study, documents, progress)) if len(documents) else ()
    return Verification(
        study=study.name,
        parts=tuple(parts),
        agreements=agreements,
        documents=len(documents),
        not_rescored=why,
        seed=seed,
    )


def list_units(study: Study) -> list[Unit]:
    """What a run makes and all other named artefacts in the folder, in running order; scores of other methods last."""
    units: dict[Unit, None] = {}
    for stage, row in (STAGES | ON_REQUEST).items():
        if stage in STAGES:
            units |= dict.fromkeys(study.units(stage))
        if row.folder:
            units |= dict.fromkeys(Unit(stage, name) for name in study.names_of(stage))
    return list(units)


def check_unit(study: Study, unit: Unit) -> Part:
    """Compare an artefact's files, inputs and settings with its manifest."""
    folder = study.folder(unit)
    manifest = artifacts.read_manifest(folder)
    if manifest is None and not folder.is_dir():
        return Part(artefact=str(unit), state="missing", why="not built")
    if manifest is None:
        why = f"its {artifacts.MANIFEST} is missing or unreadable"
        return Part(artefact=str(unit), state="damaged", why=why, remedy=_remedy(study, unit, {}, damaged=True))
    state, why = "damaged", artifacts.check_hashes(folder, manifest)
    if not why:
        why = unit_state(study, unit).reason
        state = "stale" if why else "whole"
    config = manifest["config"]
    return Part(
        artefact=str(unit),
        state=state,
        why=why,
        remedy=_remedy(study, unit, config, damaged=state == "damaged") if why else "",
        files=len(manifest["outputs"]),
        bytes=sum(manifest.get("bytes", {}).values()),
        digest=artifacts.digest_of(manifest),
        seeds={key: value for key, value in config.items() if key.rpartition(".")[2] == "seed"},
        versions=manifest.get("versions", {}),
        machine=manifest.get("machine"),
    )


def _remedy(study: Study, unit: Unit, config: dict, *, damaged: bool) -> str:
    """The command that rebuilds an artefact made with the settings `config`; forced for a damaged one, as a run trusts
    sizes."""
    stage, name = unit.stage, unit.name
    if stage in STAGES and unit in study.units(stage):
        return f"`ifguide run {study.name} --force {stage}`" if damaged else f"`ifguide run {study.name}`"
    if stage == "selection" and not can_be_made_again(study.config, name):
        given = [f"--{option} {config[key]}" for option, key in _SELECT_OPTIONS.items() if key in config]
        return f"`ifguide select {study.name} --name {name} {' '.join(given) or '...'}`"
    options = {"documents": "", "suppress": f" --selection {name}", "evaluate": f" --model {name}"}
    options["index-gradients"] = f" --dimensions {name}"
    stage = stage.replace("gradients", "index-gradients")
    verb = stage if stage in options else "compare"
    command = f"`ifguide {verb} {study.name}{options.get(stage, f' --with {name}')}`"
    folder = study.folder(unit).relative_to(study.root.parent)
    return f"{command} after removing the folder {folder} of the cache" if damaged else command


def _draw(study: Study, parts: list[Part], share: float, seed: int) -> tuple[np.ndarray, str]:
    """Numbers, int64 ascending, of the documents to score again, or none and why: a random `share` of those of two
    tokens or more, at least `LEAST_DOCUMENTS`, the same ones for the same seed."""
    none = np.array([], dtype=np.int64)
    if not share:
        return none, "not asked for"
    if not study.units("scores"):
        return none, "there is no model here"
    state = {part.artefact: part.state for part in parts}
    for stage in READ_BY_SCORES:
        if state.get(stage, "whole") != "whole":  # scores without influence have no factors and no direction
            return none, f"{stage} is {state[stage]}"
    scored = np.flatnonzero(count_valid(study.corpus().offsets, study.corpus().trained))
    n = min(len(scored), max(LEAST_DOCUMENTS, int(np.ceil(share * len(scored)))))
    documents = np.sort(np.random.default_rng(seed).choice(scored, size=n, replace=False))
    return documents, "" if len(documents) else "no document has a score"


def rescore(study: Study, documents: np.ndarray, progress: Progress) -> list[Agreement]:
    """Compute the direction of every checkpoint, the scores of some documents, int64 (n,) ascending, and the means over
    checkpoints again. All artefacts up to the scores are whole."""
    names = study.checkpoint_names()
    agreements: list[Agreement] = []
    for number, name in enumerate(names):
        if needs_direction(study.config.scores):
            agreements += _compare_direction(study, name)
        progress.report(2 * number + 1, 2 * len(names), "parts")
        agreements += _compare_scores(study, name, documents)
        progress.report(2 * number + 2, 2 * len(names), "parts")
    return [*agreements, *_compare_means(study, names)]


def _compare_direction(study: Study, name: str) -> list[Agreement]:
    model, modules, device = load_checkpoint(study, name)
    factors = read_factors(study, name, str(device))
    agreements = []
    for queries in study.query_sets():
        what = f"direction {name}, {queries}" if queries else f"direction {name}"
        fresh = compute_direction(study, model, modules, factors, queries)
        stored = artifacts.load_tensors(study.folder(Unit("direction")) / name / direction_file(queries))
        layers = stored if stored.keys() == fresh.keys() else []  # other layers: nothing to compare
        before, now = ([part[layer].double().cpu().numpy() for layer in layers] for part in (stored, fresh))
        agreements.append(Agreement.of("direction", what, before, now, TOLERANCE))
    return agreements


def _compare_scores(study: Study, name: str, documents: np.ndarray) -> list[Agreement]:
    from ifguide.influence.attribution import score_batches
    from ifguide.influence.batches import make_batches

    folder = study.folder(Unit("scores"))
    by_key = artifacts.read_json(folder / artifacts.NOTES)
    notes = {key: by_checkpoint[name] for key, by_checkpoint in by_key.items() if name in by_checkpoint}
    full_precision = study.config.model.dtype in ("float32", "float64")
    place = Place(study=study, checkpoint=name, sets=study.query_sets(), notes=notes)
    sequences = corpus_sequences(study, chosen=documents)
    agreements = []
    for kind in KINDS:
        if not KINDS[kind].module or KINDS[kind].parts or not study.has_scores(kind):
            continue
        scorer = make_scorer(kind, place)
        tolerance = min(LOOSE_TOLERANCE, max(TOLERANCE, 5 * scorer.error)) if full_precision else LOOSE_TOLERANCE
        batches = make_batches(sequences, study.config.compute.tokens_per_batch)
        scored = list(score_batches(batches, scorer.by_file, scorer.device))
        places = np.concatenate([places for places, _, _ in scored])
        for file in scorer.files:
            stored = np.asarray(artifacts.load_array(folder / name / f"{file}.npy")[places], np.float64)
            fresh = np.concatenate([values[file] for _, values, _ in scored]).astype(np.float64)
            agreements.append(Agreement.of("scores", f"{file} {name}", [stored], [fresh], tolerance))
    return agreements


def _compare_means(study: Study, names: list[str]) -> list[Agreement]:
    """The study's own arrays against those put together again from its checkpoints', all tokens."""
    folder = study.folder(Unit("scores"))
    kinds = [kind for kind in KINDS if study.has_scores(kind)]
    agreements = []
    with tempfile.TemporaryDirectory() as work:
        parts, again = [folder / name for name in names], Path(work)
        for file in put_together(study.corpus(), parts, again, kinds, study.config.scores, study.query_sets()):
            stored, fresh = ([np.asarray(artifacts.load_array(part / f"{file}.npy"))] for part in (folder, again))
            agreements.append(Agreement.of("scores", f"{file} of the study", stored, fresh, 1e-5))
    return agreements
