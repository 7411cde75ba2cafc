"""What of a study is up to date, and why the rest is not: compares the inputs and settings of each artefact now with
those it was made from."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from ifguide.config.io import config_to_dict
from ifguide.data.readers import list_files
from ifguide.errors import InputError, StaleError
from ifguide.storage import artifacts
from ifguide.storage.lock import RECORD
from ifguide.study.folder import StudyFolder, cut_split, is_glob
from ifguide.study.lineage import InputFile, Unit, can_be_made_again, default_setting, scores_unit
from ifguide.study.stage_table import LATER_FILES, STAGES, input_files, read_units, unit_settings

NOT_BUILT = "not built yet"


@dataclass(frozen=True)
class StageState:
    """Whether an artefact, or a stage, is up to date."""

    state: str
    """`fresh`, `stale` or `missing`."""
    reason: str = ""
    """Why it is stale or missing, in plain words."""
    seconds: float | None = None
    """How long it took to build, if it is there."""
    peak: int | None = None
    """Bytes of memory it took at most, on the device if that is a GPU, where the system told."""
    source: Unit | None = None
    """The artefact it reads that is not fresh, where that is the reason."""
    source_state: str = ""
    """The state of that artefact."""


class Freshness:
    """The state of a study's artefacts, each judged once and each manifest read once; `renew` what was built since."""

    def __init__(self, study: StudyFolder):
        self._study = study
        self._manifests: dict[Unit, dict | None] = {}
        self._states: dict[Unit, StageState] = {}
        self._packed = (study.root / RECORD).is_file()

    def manifest(self, unit: Unit) -> dict | None:
        """An artefact's manifest; None: it is not there."""
        if unit not in self._manifests:
            self._manifests[unit] = artifacts.read_manifest(self._study.folder(unit))
        return self._manifests[unit]

    def settings(self, unit: Unit) -> dict:
        """The settings an artefact depends on, flat, as `section.key`; a saved selection keeps those it was saved
        with."""
        if unit.stage == "selection" and not can_be_made_again(self._study.config, unit.name):
            manifest = self.manifest(unit)
            return manifest["config"] if manifest else {}
        return unit_settings(self._study.config, unit)

    def reads(self, unit: Unit) -> list[Unit]:
        """The artefacts an artefact reads; a saved selection remembers which scores it was made from."""
        if unit.stage != "selection" or can_be_made_again(self._study.config, unit.name):
            return read_units(self._study.config, unit)
        settings = self.settings(unit)
        if settings.get("kind") == "mask":
            return [Unit("corpus")]
        return [Unit("corpus"), scores_unit(self._study.config, settings.get("selection.attribution", ""))]

    def inputs(self, unit: Unit, read: list[Unit] | None = None) -> dict[str, str]:
        """Name to current hash of everything an artefact is made from; `read` says which artefacts it reads. An
        InputError: a file of the user's is gone; a StaleError: an artefact it reads is not there."""
        files = [file for file in input_files(self._study.config, unit) if file.path]
        hashes = {"schema": str(artifacts.SCHEMA)}
        hashes |= {f"file {file.label}": _hash_input(self._study, file) for file in files}
        return hashes | {str(source): self.digest(source) for source in (self.reads(unit) if read is None else read)}

    def digest(self, unit: Unit) -> str:
        """The hash that an artefact's readers name as their input. A StaleError: it is not there."""
        manifest = self.manifest(unit)
        if manifest is None:
            self._study.require_model(unit)
            raise StaleError(f"{unit} is missing; build it with `ifguide run {self._study.name}`")
        return artifacts.digest_of(manifest)

    def state(self, unit: Unit) -> StageState:
        """Whether an artefact is fresh, and if not, why."""
        if unit not in self._states:
            self._states[unit] = self._judge(unit)
        return self._states[unit]

    def renew(self, unit: Unit) -> None:
        """Forget what was known of an artefact that was just built, and the states of all that read it."""
        self._manifests.pop(unit, None)
        outdated = {unit}
        for reader in self._states:  # what is read was judged before what reads it
            if not outdated.isdisjoint(self.reads(reader)):
                outdated.add(reader)
        self._states = {other: state for other, state in self._states.items() if other not in outdated}

    def _judge(self, unit: Unit) -> StageState:
        manifest = self.manifest(unit)
        if manifest is None:
            return StageState("missing", NOT_BUILT)
        peaks = manifest.get("peak", {})
        took = manifest.get("seconds"), peaks.get("device") or peaks.get("host")
        if self._packed:  # what it was made from stayed where it was made
            return StageState("fresh", "", *took)
        problem = artifacts.check_sizes(self._study.folder(unit), manifest)
        if problem:
            return StageState("stale", f"damaged: {problem}", *took)
        for source in self.reads(unit):
            if (state := self.state(source).state) != "fresh":
                return StageState("stale", f"{source} is {state}", *took, source, state)
        reason = self.find_change(unit)
        return StageState("stale" if reason else "fresh", reason, *took)

    def find_change(self, unit: Unit) -> str:
        """Why an artefact does not follow from the inputs and settings there are now, whether those are fresh or not;
        empty when it does."""
        manifest = self.manifest(unit)
        if manifest is None:
            return NOT_BUILT
        try:
            now = self.inputs(unit)
        except (InputError, StaleError, FileNotFoundError) as error:  # the last: it is moved while it is read
            return str(error)
        before = manifest["inputs"]
        before = {key: digest for key, digest in now.items() if key in LATER_FILES} | before
        for key in sorted(now.keys() | before.keys()):
            if now.get(key) != before.get(key):
                if key == "schema":
                    return "made by another version of ifguide"
                return f"the {key} changed" if key.startswith("file ") else f"{key} was rebuilt"
        settings = self.settings(unit)
        for key in sorted(settings.keys() | manifest["config"].keys()):
            old, new = manifest["config"].get(key), settings.get(key)
            if key not in manifest["config"] and new == default_setting(key):
                continue  # a setting of a later version, whose default is what was done before there was one
            if old != new:
                return f"setting {key} is now {new!r}, was {old!r}"
        return ""

    def stage(self, stage: str) -> StageState:
        """State of a stage: it is as good as the worst of its artefacts."""
        states = {unit: self.state(unit) for unit in self._study.units(stage)}
        seconds = [state.seconds for state in states.values() if state.seconds is not None]
        total = round(sum(seconds), 3) if seconds else None
        peak = max((state.peak for state in states.values() if state.peak is not None), default=None)
        for worst in ("stale", "missing"):
            for unit, state in states.items():
                if state.state == worst:
                    reason = f"{unit.name}: {state.reason}" if unit.name else state.reason
                    partly = worst == "missing" and seconds
                    name = "stale" if partly else worst
                    return StageState(name, reason, total, peak, state.source, state.source_state)
        return StageState("fresh", "", total, peak)

    def stages(self) -> dict[str, StageState]:
        """State of every stage of a run."""
        return {stage: self.stage(stage) for stage in STAGES}

    def require(self, unit: Unit, command: str = "") -> None:
        """A StaleError unless an artefact is fresh; it names the command that builds it, a run where none is given."""
        state = self.state(unit)
        if state.state != "fresh":
            self._study.require_model(unit)
            command = command or f"run {self._study.name}"
            raise StaleError(f"{unit} is {state.state} ({state.reason}); build it with `ifguide {command}`")


def _hash_input(study: StudyFolder, file: InputFile) -> str:
    """Hash of one of the user's own files; a hub id is its own hash."""
    place = study.resolve(file.path)
    base = place if Path(place).exists() else cut_split(place)[0]
    if is_glob(base) and not Path(base).exists():
        return artifacts.hash_json([study.fingerprints.of(path) for path in list_files(base)])
    if Path(base).is_absolute():
        return study.fingerprints.of(Path(base), file.names)
    return f"hub:{place}" + (f"@{file.revision}" if file.revision else "")


def settings_of(study: StudyFolder, unit: Unit) -> dict:
    """`Freshness.settings`, asked once."""
    return Freshness(study).settings(unit)


def inputs_of(study: StudyFolder, unit: Unit, read: list[Unit] | None = None) -> dict[str, str]:
    """`Freshness.inputs`, asked once."""
    return Freshness(study).inputs(unit, read)


def unit_digest(study: StudyFolder, unit: Unit) -> str:
    """`Freshness.digest`, asked once."""
    return Freshness(study).digest(unit)


def unit_state(study: StudyFolder, unit: Unit) -> StageState:
    """`Freshness.state`, asked once."""
    return Freshness(study).state(unit)


def require_fresh(study: StudyFolder, unit: Unit, command: str = "") -> None:
    """`Freshness.require`, asked once."""
    Freshness(study).require(unit, command)


def find_change(study: StudyFolder, unit: Unit) -> str:
    """`Freshness.find_change`, asked once."""
    return Freshness(study).find_change(unit)


def stage_state(study: StudyFolder, stage: str) -> StageState:
    """`Freshness.stage`, asked once."""
    return Freshness(study).stage(stage)


def stage_states(study: StudyFolder) -> dict[str, StageState]:
    """`Freshness.stages`, asked once."""
    return Freshness(study).stages()


def study_fingerprint(study: StudyFolder) -> str:
    """Short hash that changes whenever any artefact of the study does; a cache key.

    The stage `documents` is left out: it follows from the others, and the app writes it while pages are open.
    """
    marks = []
    for folder in {study.root, *study.root.iterdir()} - {study.root / STAGES["documents"].folder}:
        with contextlib.suppress(OSError):  # a folder that was just moved into its place, or a file
            for path in folder.glob(f"*/{artifacts.MANIFEST}"):
                if ".partial-" not in (place := path.relative_to(study.root).as_posix()):
                    marks.append([place, (stat := path.stat()).st_mtime_ns, stat.st_ino])
    marks.sort()
    return artifacts.hash_json([marks, config_to_dict(study.config)])[:16]
