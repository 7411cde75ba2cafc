"""The plan of a run: how long each stage takes on this machine, how much memory and disk, and whether that fits."""

import dataclasses
import itertools
import json
import pkgutil
from collections.abc import Iterable
from pathlib import Path

from ifguide.config.attributions import needs_direction
from ifguide.errors import ConfigError
from ifguide.storage.durations import format_seconds
from ifguide.storage.peak_memory import free_memory
from ifguide.study import on_demand
from ifguide.study.freshness import settings_of
from ifguide.study.lineage import Unit
from ifguide.study.planning.measure import Measured, Need
from ifguide.study.planning.model_facts import find_facts
from ifguide.study.planning.sizing import smaller_batch
from ifguide.study.reading import Study
from ifguide.study.stage_table import GENERATION, STAGES, TRAINING

FOLDER = "plans"
NARROW_KERNELS = 800_000_000
"""Bytes that a processor's bfloat16 kernels, one for each shape of a batch, leave with a run once it has trained."""
RESERVE = 0.9
"""Share of the free memory that a stage may take."""
MEMORY = {"host": "memory", "device": "GPU memory"}


def known_plan(study: Study) -> dict | None:
    """The plan on file for the settings as they are; None: there is none."""
    return on_demand.read_result(_plan_path(study))


def _plan_path(study: Study) -> Path:
    settings = {str(unit): settings_of(study, unit) for stage in STAGES for unit in study.units(stage)}
    return on_demand.result_path(study, FOLDER, [3, settings, dataclasses.asdict(study.config.compute)])


def make_plan(study: Study) -> dict:
    """Measure, and keep the plan with the study: {"stages": {stage: the fields of `Need`}, "free": bytes of `host`,
    `device` and `disk`, "problems": [text, ...], "remedies": {setting: value}, "partitions": parts that the layers are
    fitted in, "prompts_warning": text}."""
    study.require_model(Unit("model"))
    measured = Measured(study)
    needs, partitions = measure_needs(measured), measured.partitions
    free = free_memory(study.root)
    problems, remedies = find_problems(study, needs, free)
    if partitions > 1 and not study.config.factors.partitions:
        remedies["factors.partitions"] = partitions
    stages = {stage: dataclasses.asdict(need) for stage, need in needs.items()}
    plan = {"stages": stages, "free": free, "problems": problems, "remedies": remedies, "partitions": partitions}
    plan |= {"prompts_warning": measured.sample.prompts_warning}
    return on_demand.keep_result(_plan_path(study), plan)


def measure_needs(measured: Measured) -> dict[str, Need]:
    """What each stage takes, in the order they run; trainings are measured last, for they change the model."""
    last = sorted(STAGES, key=lambda stage: STAGES[stage].batch == TRAINING)
    due = [stage for stage in last if STAGES[stage].need and measured.count(stage)]
    taken = {stage: pkgutil.resolve_name(STAGES[stage].need)(measured) for stage in due}
    needs, narrow = {}, measured.device.type == "cpu" and measured.config.training.dtype == "bfloat16"
    for stage in (stage for stage in STAGES if stage in taken):
        kept = NARROW_KERNELS if narrow and stage not in ("corpus", "queries") else 0
        needs[stage] = dataclasses.replace(taken[stage], host=(taken[stage].host or measured.least) + kept)
    return needs


def find_problems(study: Study, needs: dict[str, Need], free: dict[str, int]) -> tuple[list[str], dict]:
    """What does not fit, in words, and settings that make it fit."""
    config, problems = study.config, []
    remedies: dict[str, int | str] = {}
    small = {TRAINING: 1, GENERATION: 16}
    for (stage, need), (place, what) in itertools.product(needs.items(), MEMORY.items()):
        needed, batch = getattr(need, place), STAGES[stage].batch
        if needed <= RESERVE * free.get(place, needed / RESERVE):
            continue
        problems.append(f"{stage} needs {size(needed)} of {what}; {size(free[place])} are free")
        smaller = smaller_batch(config, stage, small.get(batch, 512))
        remedies |= smaller
        if stage == "factors" and 0 < (parts := config.factors.partitions) < len(find_facts(study).layers):
            remedies["factors.partitions"] = 2 * parts
        elif stage == "factors" and not smaller:
            remedies["model.modules"] = "mlp"
        if batch == TRAINING and not smaller:
            if not config.training.gradient_checkpointing:
                remedies["training.gradient_checkpointing"] = True
            elif config.model.mode == "finetune":
                remedies["training.adapter"] = "lora"
    total = sum(need.disk for need in needs.values())
    if total > free.get("disk", total):
        problems.append(f"the study needs {size(total)} on the disk; {size(free['disk'])} are free")
    return problems, remedies


def check_fit(study: Study, stages: Iterable[str]) -> None:
    """Refuse stages that cannot fit on this machine as it is now: counted from the model's shape, with nothing
    measured, is what each needs at the very least. A ConfigError names the settings that would make them fit."""
    from ifguide.influence.parts import direction_bytes, fit_bytes
    from ifguide.models.loading import pick_device

    config, facts = study.config, find_facts(study)
    weights = 4 * facts.parameters
    least = {"evaluate": weights}
    if needs_direction(config.scores) and not config.compute.device_map:
        needed = {"factors": fit_bytes, "direction": direction_bytes}
        alone = {stage: max(need({"": shape}, {"": ""}) for shape in facts.layers) for stage, need in needed.items()}
        least |= {stage: weights + one for stage, one in alone.items()}  # the largest layer in a part of its own
    if not config.training.adapter:
        least |= {"suppress": 4 * weights} | ({} if config.model.mode == "asis" else {"model": 4 * weights})
    place = "device" if pick_device(config.compute.device).type == "cuda" else "host"
    needs = {stage: Need(seconds=0.0, **{place: least[stage]}) for stage in stages if stage in least}
    problems, remedies = find_problems(study, needs, free_memory(study.root))
    if problems:
        settings = ", ".join(f"{key} = {json.dumps(value)}" for key, value in remedies.items())
        remedy = f"set {settings} in study.toml, use" if settings else "use"
        raise ConfigError(f"{'; '.join(problems)}; {remedy} a larger machine, or run it with --no-fit-check")


def size(n_bytes: float) -> str:
    """Bytes in words: `512 MB`, `3.4 GB`."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def plan_rows(plan: dict) -> list[tuple[str, ...]]:
    """A plan as a table: of each stage the time, memory, GPU memory and disk; then all together, and what is free."""
    places, stages = ("host", "device", "disk"), plan["stages"]
    rows = [
        (stage, format_seconds(need["seconds"]), *(size(need[place]) if need[place] else "" for place in places))
        for stage, need in stages.items()
    ]
    most = [size(plan["free"][place]) if place in plan["free"] else "" for place in places]
    seconds = sum(need["seconds"] for need in stages.values())
    return [*rows, ("in all", format_seconds(seconds), "", "", ""), ("free", "", *most)]
