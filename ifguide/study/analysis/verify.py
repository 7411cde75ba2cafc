"""Is a study what its manifests say? Hashes every file, compares inputs with outputs, and recomputes some scores."""

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ifguide.errors import BusyError, ConfigError
from ifguide.runtime.progress import Progress
from ifguide.storage import artifacts
from ifguide.storage.lock import study_lock
from ifguide.study.analysis.rescoring import Agreement, draw_documents, rescore
from ifguide.study.freshness import unit_state
from ifguide.study.lineage import STAGE_FOLDERS, STAGES, Unit, can_be_made_again
from ifguide.study.reading import Study

READ_BY_SCORES = ("corpus", "queries", "model", "factors", "direction", "scores")
"""What has to be whole before scores can be recomputed."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One artefact, checked."""

    artefact: str
    """Its stage, and its name where it has one."""
    state: str
    """`whole`, `damaged` (its files are not those of its manifest), `stale` (made from something else) or `missing`."""
    why: str = ""
    """What is wrong, in plain words."""
    mend: str = ""
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
        wrong = [
            f"{part.artefact} is {part.state}: {part.why}; fix it with {part.mend}"
            for part in self.parts
            if part.is_wrong
        ]
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

        agreements = [
            {**asdict(one), "difference": number(one.difference), "agrees": one.agrees} for one in self.agreements
        ]
        return {
            "study": self.study,
            "ok": not self.problem,
            "problem": self.problem or None,
            "parts": [asdict(part) for part in self.parts],
            "rescored": {
                "documents": self.documents,
                "seed": self.seed,
                "largest_difference": number(self.largest_difference),
                "not_rescored": self.not_rescored or None,
                "agreements": agreements,
            },
        }


def verify_study(study: Study, *, share: float = 0.01, seed: int = 0, progress: Progress | None = None) -> Verification:
    """Check every artefact, and recompute the scores of a random share of the documents.

    Nothing is changed. The study is locked meanwhile, so that no run swaps what is being read.

    Args:
        study: the study.
        share: of the documents to score again, 0 to 1; 0 scores none, any other at least three.
        seed: which ones.
        progress: where to report.

    Raises:
        BusyError: a run is going on.
        ConfigError: a share outside 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"expected a share of the documents from 0 to 1, got {share}")
    progress = progress or Progress()
    study = Study(study.root, study.config, rehash=True)
    with _left_alone(study.root):
        units = list_units(study)
        progress.begin_stage("hashes", 0, 2)
        parts = []
        for number, unit in enumerate(units):
            parts.append(check_unit(study, unit))
            progress.report(number + 1, len(units), "artefacts")
        progress.begin_stage("scores", 1, 2)
        agreements, n_documents, why = _rescore(study, parts, share, seed, progress)
    return Verification(
        study=study.name,
        parts=tuple(parts),
        agreements=tuple(agreements),
        documents=n_documents,
        not_rescored=why,
        seed=seed,
    )


def list_units(study: Study) -> list[Unit]:
    """What a run makes, then all other named artefacts in the folder, in running order."""
    found: dict[Unit, None] = {}
    for stage in ("baseline", *STAGES):
        if stage in STAGES:
            found |= dict.fromkeys(study.units(stage))
        if stage in STAGE_FOLDERS:
            found |= dict.fromkeys(Unit(stage, name) for name in study.names_of(stage))
    order = {stage: place for place, stage in enumerate((*STAGES[:7], "baseline", *STAGES[7:]))}
    return sorted(found, key=lambda unit: order[unit.stage])  # stable: names keep their order


def check_unit(study: Study, unit: Unit) -> Part:
    """Compare an artefact's files, inputs and settings with its manifest."""
    folder = study.folder(unit)
    manifest = artifacts.read_manifest(folder)
    if manifest is None and not folder.is_dir():
        return Part(artefact=str(unit), state="missing", why="not built")
    known: dict = {}
    if manifest is None:
        state, why = "damaged", f"its {artifacts.MANIFEST} is missing or unreadable"
    else:
        known = {
            "files": len(manifest["outputs"]),
            "bytes": sum(manifest.get("bytes", {}).values()),
            "digest": artifacts.digest_of(manifest),
            "seeds": {key: value for key, value in manifest["config"].items() if key.rpartition(".")[2] == "seed"},
            "versions": manifest.get("versions", {}),
            "machine": manifest.get("machine"),
        }
        if why := artifacts.check_hashes(folder, manifest):
            state = "damaged"
        else:
            why = unit_state(study, unit).reason
            state = "stale" if why else "whole"
    mend = _mend(study, unit, manifest, damaged=state == "damaged") if why else ""
    return Part(artefact=str(unit), state=state, why=why, mend=mend, **known)


def _mend(study: Study, unit: Unit, manifest: dict | None = None, *, damaged: bool) -> str:
    """The command that rebuilds an artefact. A damaged one may look fresh to a run, which trusts sizes, so a run has to
    be forced."""
    stage, name = unit.stage, unit.name
    if stage in STAGES and unit in study.units(stage):
        return f"`ifguide run {study.name} --force {stage}`" if damaged else f"`ifguide run {study.name}`"
    if stage == "selection" and not can_be_made_again(study.config, name):
        options = {
            "tokens_above": "--tokens",
            "quantile": "--quantile",
            "window": "--window",
            "max_tokens": "--max-tokens",
            "attribution": "--attribution",
        }
        config = (manifest or {}).get("config", {})
        given = "".join(
            f" {option} {config[f'selection.{key}']}" for key, option in options.items() if f"selection.{key}" in config
        )
        return f"`ifguide select {study.name} --name {name}{given or ' ...'}`"
    command = {
        "baseline": f"`ifguide compare {study.name} --with {name}`",
        "selection": f"`ifguide compare {study.name} --with {name}`",
        "documents": f"`ifguide documents {study.name}`",
        "suppress": f"`ifguide suppress {study.name} --selection {name}`",
        "evaluate": f"`ifguide evaluate {study.name} --model {name}`",
    }[stage]
    folder = study.folder(unit).relative_to(study.root.parent)
    return f"{command} after removing the folder {folder} of the cache" if damaged else command


def _rescore(
    study: Study, parts: list[Part], share: float, seed: int, progress: Progress
) -> tuple[list[Agreement], int, str]:
    if not share:
        return [], 0, "not asked for"
    state = {part.artefact: part.state for part in parts}
    for stage in READ_BY_SCORES:
        if state[stage] != "whole":
            return [], 0, f"{stage} is {state[stage]}"
    documents = draw_documents(study.corpus().offsets, share, seed)
    if not len(documents):
        return [], 0, "no document has a score"
    return rescore(study, documents, progress), len(documents), ""


@contextlib.contextmanager
def _left_alone(root: Path) -> Iterator[None]:
    """Hold the study, where it can be written to; where not, nobody else can write either."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(study_lock(root))
        except BusyError:
            raise
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
        yield
