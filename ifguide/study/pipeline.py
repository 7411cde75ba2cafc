"""Runs a study's stages in order: builds what is missing or stale, skips what is fresh, and reports progress.

The command line calls this in its own process, the app through a detached job. A lock keeps two runs of one study
apart. Several processes that a launcher started together are one run: the main one decides and writes (see
`ifguide.runtime.distributed`).
"""

import contextlib
import dataclasses
import functools
import pkgutil
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from ifguide.config.io import with_values
from ifguide.config.names import BASE, check_name
from ifguide.config.schema import BorrowedConfig, ImportedConfig, StudyConfig, VariantConfig
from ifguide.errors import ConfigError, StaleError
from ifguide.runtime import distributed
from ifguide.runtime.allocator import keep_freed_memory, return_freed_memory
from ifguide.runtime.progress import Progress
from ifguide.storage import artifacts
from ifguide.storage.lock import study_lock
from ifguide.storage.work import close_work
from ifguide.study.freshness import Freshness, require_fresh, unit_state
from ifguide.study.lineage import Unit, can_be_made_again
from ifguide.study.planning.plan import check_fit
from ifguide.study.planning.sizing import check_inputs, fit_to_data, smaller_batch
from ifguide.study.reading import Study
from ifguide.study.stage_table import GENERATION, STAGES, TRAINING, describe_stage, read_units, reads_only
from ifguide.study.variants import RESERVED, check_variants


def create_study(name: str, config: StudyConfig, cache: Path | None = None, *, named: set[str] | None = None) -> Study:
    """Check that every input of a configuration opens and parses, then write its study.toml.

    Args:
        named: `section.key` of the settings to leave as they are, while all others are scaled to model, data and device
            (see `ifguide.study.planning.sizing`); None: all are as they are.

    Raises:
        InputError: an input cannot be used; nothing was written.
        ConfigError: a bad name or setting; nothing was written.
    """
    study, reasons = Study.at(name, config, cache), None
    sample = check_inputs(study)
    if named is not None:
        config, reasons = fit_to_data(study, sample, named)
    return Study.create(name, config, cache, reasons)


def run_study(
    study: Study,
    *,
    until: str | None = None,
    force: str | None = None,
    progress: Progress | None = None,
    unchecked: bool = False,
) -> list[Unit]:
    """Build what is missing or stale.

    Args:
        until: last stage to run; None runs all.
        force: a stage to build again even when it is fresh. What reads it is built again only if its result changed.
        unchecked: start even what seems not to fit into memory.

    Returns:
        The artefacts that were built, in order.

    Raises:
        ConfigError: an unknown stage, or one that does not fit on this machine.
        BusyError: another process is running this study.
    """
    for stage in filter(None, (until, force)):
        study.units(stage)  # refuses an unknown name before anything runs
    order = list(STAGES)
    stages = order[: order.index(until) + 1] if until else order
    if force and force not in stages:
        raise ConfigError(f"--force {force} comes after --until {until}, so it would not run; leave one of them out")
    units = _with_sources(study, _early_result_first([unit for stage in stages for unit in study.units(stage)]))
    freshness = Freshness(study)
    if not unchecked and distributed.current().alone:
        due = [stage for stage in stages if freshness.stage(stage).state != "fresh"]
        if {"model", "factors", "suppress"}.intersection(due):
            check_fit(study, due)
    return _build(study, units, progress, freshness, forced={unit for unit in units if unit.stage == force})


def _early_result_first(units: list[Unit]) -> list[Unit]:
    """A run's artefacts, with the edited model and its measurements before the trainings on selections."""
    early = [Unit("suppress", "edited"), Unit("evaluate", BASE), Unit("evaluate", "edited")]
    if not set(early) <= set(units):
        return units
    place = min(n for n, unit in enumerate(units) if unit.stage == "suppress")
    return [*units[:place], *early, *(unit for unit in units[place:] if unit not in early)]


def evaluate(study: Study, variant: str, *, progress: Progress | None = None) -> list[Unit]:
    """Evaluate `base` or the model of a selection, after training it if necessary. Returns what was built."""
    return build(study, [Unit("evaluate", variant)], progress=progress)


def borrow(study: Study, name: str, lent: BorrowedConfig, *, progress: Progress | None = None) -> None:
    """Carry a selection of another study over by characters, see `ifguide.selection.transfer`; study.toml says from
    then on where it is from.

    Raises:
        ConfigError: a name that is taken or bad.
        StudyNotFound: there is no such study.
        StaleError: the other selection is not there or out of date.
        InputError: the studies hold other texts; the settings are as they were.
    """
    check_name(name, "selection")
    saved = artifacts.read_manifest(study.folder(Unit("selection", name)))
    borrowed_before = saved is None or saved["config"].get("kind") == "borrowed"
    if name in (*RESERVED, *study.config.variants, *study.config.imported) or not borrowed_before:
        raise ConfigError(f"the name {name!r} is taken; choose another for the borrowed selection with --name")
    other = Study.open(lent.study, study.root.parent)
    if other.name == study.name:
        raise ConfigError(f"{study.name!r} cannot borrow from itself; use the selection {lent.selection!r} directly")
    require_fresh(other, Unit("selection", lent.selection), f"run {other.name} --until selection")
    _build_changed(study, "borrowed", name, lent, [Unit("selection", name)], progress)


def edit_model(study: Study, name: str, variant: VariantConfig, *, progress: Progress | None = None) -> Study:
    """Edit the base model against a selection and measure the result; study.toml names it from then on, as the table
    `[variants.NAME]`. Returns the changed study.

    Raises:
        ConfigError: a name that is taken or bad.
        InputError: the selection holds no token; the settings are as they were.
    """
    check_name(name, "model")
    taken = (*study.config.borrowed, *study.config.imported, *study.selection_names())
    if name in RESERVED or (name in taken and name not in study.config.variants):
        raise ConfigError(f"the name {name!r} is taken; choose another for the edited model with --name")
    return _build_changed(study, "variants", name, variant, [Unit("evaluate", name)], progress)


def import_scores(study: Study, name: str, path: Path, *, progress: Progress | None = None) -> Study:
    """Take token scores from a file, see `ifguide.study.stages.baselines.read_scores`; study.toml names it from then
    on. They are treated and indexed as the study's own are. Returns the changed study.

    Raises:
        ConfigError: a name that is taken or bad.
        InputError: the file does not fit the corpus; the settings are as they were.
    """
    taken = (*RESERVED, *study.config.variants, *study.config.borrowed, *study.selection_names())
    if name in taken and name not in study.config.imported:
        raise ConfigError(f"the name {name!r} is taken; give the file another name")
    units = [Unit("baseline", name)]
    if reads_only(study.config) or unit_state(study, Unit("scores")).state == "fresh":
        units += [Unit("index"), Unit("documents")]
    return _build_changed(study, "imported", name, ImportedConfig(path=str(path.resolve())), units, progress)


def _build_changed(
    study: Study, section: str, name: str, table: object, units: list[Unit], progress: Progress | None
) -> Study:
    """The study with a table `[section.NAME]`, which study.toml gets when the units are built from it: a command that
    fails, is stopped or killed leaves the settings as they were. What others changed since the study was opened
    stays."""
    with _locked(study):
        now = Study.open(study.name, study.root.parent).config
        tables: dict = {section: {**getattr(now, section), name: table}}
        config = dataclasses.replace(now, **tables)
        check_variants(config)
        changed = Study(study.root, config)
        _build_locked(changed, _with_sources(changed, units), progress, Freshness(changed))
        distributed.current().decide(lambda: changed.change(config).name)
    return changed


def build(study: Study, units: Iterable[Unit], *, progress: Progress | None = None) -> list[Unit]:
    """Build artefacts and all they read, as far as they are missing or stale. Returns what was built."""
    return _build(study, _with_sources(study, units), progress, Freshness(study))


def _with_sources(study: Study, units: Iterable[Unit]) -> list[Unit]:
    """Artefacts with all they read, each after what it reads."""
    needed: dict[Unit, None] = {}

    def visit(unit: Unit) -> None:
        for source in read_units(study.config, unit):
            if source not in needed:
                visit(source)
        needed.setdefault(unit)

    for unit in units:
        visit(unit)
    return list(needed)


def _build(
    study: Study, units: list[Unit], progress: Progress | None, freshness: Freshness, forced: Collection[Unit] = ()
) -> list[Unit]:
    with _locked(study):
        return _build_locked(study, units, progress, freshness, forced)


@contextlib.contextmanager
def _locked(study: Study) -> Iterator[None]:
    with contextlib.ExitStack() as stack:  # the main process takes the lock for all of them
        distributed.current().decide(lambda: stack.enter_context(study_lock(study.root)))
        yield


def _build_locked(
    study: Study, units: list[Unit], progress: Progress | None, freshness: Freshness, forced: Collection[Unit] = ()
) -> list[Unit]:
    built: list[Unit] = []
    progress = progress or Progress()
    processes = distributed.current()
    keep_freed_memory()
    processes.decide(lambda: _prepare(study, units, freshness))
    for unit in units:
        if not processes.decide(functools.partial(_is_due, study, unit, freshness, unit in forced)):
            continue
        started = time.monotonic()
        parts = [other for other in units if other.stage == unit.stage]
        place = [*STAGES].index(unit.stage if unit.stage in STAGES else "index")  # which reads other scores
        progress.begin_stage(str(unit), place, len(STAGES), parts.index(unit), len(parts))
        _build_unit(study, unit, progress, freshness)
        freshness.renew(unit)
        progress.end_stage(time.monotonic() - started)
        built.append(unit)
    return built


def _prepare(study: Study, units: list[Unit], freshness: Freshness) -> None:
    artifacts.remove_temporaries(study.root)
    for unit in units:
        if unit.stage != "documents":  # the app may be building those
            artifacts.remove_partials(study.folder(unit))  # only here, where nobody else is building
        if (state := freshness.state(unit).state) == "missing":
            _check_can_build(study, unit, freshness)  # before hours of work on what it reads
        if state != "fresh":
            freshness.inputs(unit, read=[])  # likewise: a file of the user's may be gone


def _is_due(study: Study, unit: Unit, freshness: Freshness, forced: bool) -> bool:
    if not forced and freshness.state(unit).state == "fresh":
        return False
    _check_can_build(study, unit, freshness)
    return True


def _check_can_build(study: Study, unit: Unit, freshness: Freshness) -> None:
    """Refuse to build a user's own selection, which study.toml does not describe, and a model where there is none."""
    study.require_model(unit)
    if unit.stage == "selection" and not can_be_made_again(study.config, unit.name):
        state = freshness.state(unit)
        saved = ", ".join(study.selection_names()) or "none yet"
        stale, missing = f"is stale ({state.reason}); save it again", f"does not exist (there: {saved}); save it"
        why = stale if state.state == "stale" else missing
        raise StaleError(f"selection {unit.name!r} {why} with `ifguide select {study.name} --name {unit.name} ...`")


def _build_unit(study: Study, unit: Unit, progress: Progress, freshness: Freshness) -> None:
    from ifguide.study.stages.document_table import writing_alone

    if study.config.compute.threads:
        import torch

        torch.set_num_threads(study.config.compute.threads)
    processes = distributed.current()
    stage = describe_stage(unit.stage)
    build, shared = pkgutil.resolve_name(stage.build), bool(stage.batch)
    if processes.is_main:
        alone = writing_alone(study) if unit.stage == "documents" else contextlib.nullcontext()
        inputs, settings = freshness.inputs(unit), freshness.settings(unit)
        with alone, artifacts.building(study.folder(unit), stage=unit.stage, inputs=inputs, config=settings) as folder:
            if shared:
                processes.decide(lambda: str(folder))
            _build_in_memory(build, study, unit, folder, progress)
        close_work(study.root, unit.work)
    elif shared:
        build(study, unit, Path(processes.decide(None)), progress)
    if shared:  # it held a model and more
        return_freed_memory()


def _build_in_memory(build: Callable, study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """Build an artefact, with half the batch as often as the GPU's memory is too small; results change by rounding. A
    ConfigError: a batch of one is too large."""
    while True:
        try:
            return build(study, unit, folder, progress)
        except RuntimeError as error:
            import torch

            if not isinstance(error, torch.OutOfMemoryError) or not distributed.current().alone:
                raise
            smaller = smaller_batch(study.config, unit.stage)
            if not smaller:
                remedy = "a smaller corpus.max_length, or fewer layers in model.modules"
                if describe_stage(unit.stage).batch == TRAINING:
                    settings = 'training.gradient_checkpointing = true, training.adapter = "lora"'
                    remedy = f"{settings}, or a smaller corpus.max_length"
                if describe_stage(unit.stage).batch == GENERATION:
                    remedy = "a smaller evaluate.max_new_tokens, or shorter texts in evaluate.heldout"
                raise ConfigError(f"{unit}: one row at a time is too much for the GPU's memory; try {remedy}") from None
        settings = ", ".join(f"{place} = {value}" for place, value in smaller.items())
        progress.message(f"{unit}: the GPU's memory is too small; trying again with {settings}")
        torch.cuda.empty_cache()
        study = Study(study.root, with_values(study.config, smaller))
        shutil.rmtree(folder)
        folder.mkdir()
