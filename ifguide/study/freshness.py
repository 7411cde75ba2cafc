"""What of a study is up to date, and why the rest is not: compares the inputs and settings of each artefact now with
those it was made from."""

from dataclasses import dataclass
from pathlib import Path

from ifguide.config.io import config_to_dict
from ifguide.data.readers import list_files
from ifguide.errors import InputError, StaleError
from ifguide.storage import artifacts
from ifguide.storage.lock import RECORD
from ifguide.study import lineage
from ifguide.study.folder import StudyFolder, cut_split, is_glob
from ifguide.study.lineage import STAGE_FOLDERS, STAGES, InputFile, Unit, read_units


@dataclass(frozen=True)
class StageState:
    """Whether a stage is up to date."""

    state: str
    """`fresh`, `stale` or `missing`."""
    reason: str = ""
    """Why it is stale or missing, in plain words."""
    seconds: float | None = None
    """How long it took to build, if it is there."""
    peak: int | None = None
    """Bytes of memory it took at most, on the device if that is a GPU, where the system told."""


def _hash_input(study: StudyFolder, file: InputFile) -> str:
    """Hash of one of the user's own files; a hub id is its own hash."""
    place = study.resolve(file.path)
    base = place if Path(place).exists() else cut_split(place)[0]
    if is_glob(base) and not Path(base).exists():
        return artifacts.hash_json([study.fingerprints.of(found) for found in list_files(base)])
    if Path(base).is_absolute():
        return study.fingerprints.of(Path(base), file.names)
    return f"hub:{place}" + (f"@{file.revision}" if file.revision else "")


def settings_of(study: StudyFolder, unit: Unit) -> dict:
    """The settings an artefact depends on, flat, as `section.key`; a saved selection keeps those it was saved with."""
    if unit.stage == "selection" and not lineage.can_be_made_again(study.config, unit.name):
        manifest = artifacts.read_manifest(study.folder(unit))
        return manifest["config"] if manifest else {}
    return lineage.unit_settings(study.config, unit)


def reads(study: StudyFolder, unit: Unit) -> list[Unit]:
    """The artefacts an artefact reads; a saved selection remembers which scores it was made from."""
    if unit.stage != "selection" or lineage.can_be_made_again(study.config, unit.name):
        return read_units(study.config, unit)
    settings = settings_of(study, unit)
    if settings.get("kind") == "mask":
        return [Unit("corpus")]
    return [Unit("corpus"), lineage.scores_unit(study.config, settings.get("selection.attribution", ""))]


def inputs_of(study: StudyFolder, unit: Unit, read: list[Unit] | None = None) -> dict[str, str]:
    """Name to current hash of everything an artefact is made from; `read` says which artefacts it reads. An InputError:
    a file of the user's is gone; a StaleError: an artefact it reads is not there."""
    files = [file for file in lineage.input_files(study.config, unit) if file.path]
    found = {"schema": str(artifacts.SCHEMA)} | {f"file {file.label}": _hash_input(study, file) for file in files}
    sources = reads(study, unit) if read is None else read
    return found | {str(source): unit_digest(study, source) for source in sources}


def unit_digest(study: StudyFolder, unit: Unit) -> str:
    """The hash that an artefact's readers name as their input. A StaleError: it is not there."""
    manifest = artifacts.read_manifest(study.folder(unit))
    if manifest is None:
        raise StaleError(f"{unit} is missing; build it with `ifguide run {study.name}`")
    return artifacts.digest_of(manifest)


def unit_state(study: StudyFolder, unit: Unit, known: dict[Unit, StageState] | None = None) -> StageState:
    """Whether one artefact is fresh, and if not, why."""
    known = {} if known is None else known
    if unit not in known:
        known[unit] = _judge(study, unit, known)
    return known[unit]


def _judge(study: StudyFolder, unit: Unit, known: dict[Unit, StageState]) -> StageState:
    manifest = artifacts.read_manifest(study.folder(unit))
    if manifest is None:
        return StageState("missing", "not built yet")
    peaks = manifest.get("peak", {})
    took = manifest.get("seconds"), peaks.get("device") or peaks.get("host")
    if (study.root / RECORD).is_file():  # packed: what it was made from stayed where it was made
        return StageState("fresh", "", *took)
    problem = artifacts.check_sizes(study.folder(unit), manifest)
    states = {source: unit_state(study, source, known).state for source in reads(study, unit)}
    unfit = [f"{source} is {state}" for source, state in states.items() if state != "fresh"]
    reason = f"damaged: {problem}" if problem else unfit[0] if unfit else _find_change(study, unit, manifest)
    return StageState("stale" if reason else "fresh", reason, *took)


def require_fresh(study: StudyFolder, unit: Unit, command: str = "") -> None:
    """A StaleError unless an artefact is fresh; it names the command that builds it, a run where none is given."""
    state = unit_state(study, unit)
    if state.state != "fresh":
        command = command or f"run {study.name}"
        raise StaleError(f"{unit} is {state.state} ({state.reason}); build it with `ifguide {command}`")


def find_change(study: StudyFolder, unit: Unit) -> str:
    """Why an artefact does not follow from the inputs and settings there are now, whether those are fresh or not; empty
    when it does."""
    manifest = artifacts.read_manifest(study.folder(unit))
    return "not built yet" if manifest is None else _find_change(study, unit, manifest)


def _find_change(study: StudyFolder, unit: Unit, manifest: dict) -> str:
    try:
        now = inputs_of(study, unit)
    except (InputError, StaleError) as error:
        return str(error)
    before = manifest["inputs"]
    before = {key: digest for key, digest in now.items() if key == f"file {lineage.CHAT_TEMPLATE}"} | before
    for key in sorted(now.keys() | before.keys()):
        if now.get(key) != before.get(key):
            if key == "schema":
                return "made by another version of ifguide"
            return f"the {key} changed" if key.startswith("file ") else f"{key} was rebuilt"
    settings = settings_of(study, unit)
    for key in sorted(settings.keys() | manifest["config"].keys()):
        old, new = manifest["config"].get(key), settings.get(key)
        if key not in manifest["config"] and new == lineage.default_setting(key):
            continue  # a setting of a later version, whose default is what was done before there was one
        if old != new:
            return f"setting {key} is now {new!r}, was {old!r}"
    return ""


def stage_states(study: StudyFolder) -> dict[str, StageState]:
    """State of every stage; a stage of several artefacts is as good as its worst one."""
    known: dict[Unit, StageState] = {}
    return {stage: stage_state(study, stage, known) for stage in STAGES}


def stage_state(study: StudyFolder, stage: str, known: dict[Unit, StageState] | None = None) -> StageState:
    """State of one stage."""
    known = {} if known is None else known
    states = {unit: unit_state(study, unit, known) for unit in study.units(stage)}
    seconds = [state.seconds for state in states.values() if state.seconds is not None]
    total = round(sum(seconds), 3) if seconds else None
    peak = max((state.peak for state in states.values() if state.peak is not None), default=None)
    for wanted in ("stale", "missing"):
        for unit, state in states.items():
            if state.state == wanted:
                reason = f"{unit.name}: {state.reason}" if unit.name else state.reason
                partly = wanted == "missing" and seconds
                return StageState("stale" if partly else wanted, reason, total, peak)
    return StageState("fresh", "", total, peak)


def study_fingerprint(study: StudyFolder) -> str:
    """Short hash that changes whenever any artefact of the study does; a cache key.

    The stage `documents` is left out: it follows from the others, and the app writes it while pages are open.
    """
    manifests = sorted([*study.root.glob(f"*/{artifacts.MANIFEST}"), *study.root.glob(f"*/*/{artifacts.MANIFEST}")])
    marks = [
        [p.relative_to(study.root).as_posix(), p.stat().st_mtime_ns, p.stat().st_ino]
        for p in manifests
        if ".partial-" not in p.as_posix() and p.parent.parent != study.root / STAGE_FOLDERS["documents"]
    ]
    return artifacts.hash_json([marks, config_to_dict(study.config)])[:16]
