"""A sweep: several thresholds of one kind of scores, each edited or trained against, and measured.

Every threshold is a saved selection and every model a table `[variants.NAME]`, so a sweep that was stopped goes on
where it was, and its models are like any others.
"""

import dataclasses

import numpy as np

from ifguide.config.schema import VariantConfig
from ifguide.errors import ConfigError
from ifguide.runtime.progress import Progress
from ifguide.storage.lock import study_lock
from ifguide.study.analysis.dose import EDITED
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import build
from ifguide.study.reading import Study
from ifguide.study.stages.select import preview_selection, save_selection
from ifguide.study.variants import edit_recipe, recipe


def sweep_tokens(study: Study, points: int, kind: str, first: int = 0, last: int = 0) -> list[int]:
    """Numbers of tokens above a threshold, `points` of them in equal steps of their logarithm, from `first` to `last`;
    by itself from half to twice what the automatic point takes. A ConfigError: no such range."""
    if not first or not last:
        usual = preview_selection(study, {"attribution": kind, "quantile": 0.0}).settings["tokens_above"]
        first, last = first or max(1, usual // 2), last or min(2 * usual, study.corpus().n_valid - 1)
    if not 1 <= first <= last < study.corpus().n_valid or points < 1:
        raise ConfigError(f"a sweep needs 1 point or more and from 1 to {study.corpus().n_valid - 1:,} tokens")
    return sorted({round(n) for n in np.geomspace(first, last, points)})


def sweep_models(study: Study, tokens: list[int], kind: str, method: str, seeds: int = 1) -> dict[str, VariantConfig]:
    """The models of a sweep by name; a training has one for each seed, an edit one."""
    models = {}
    for n in tokens:
        selection = f"{kind}-top-{n}"
        usual = recipe(study.config, selection)
        for seed in range(1 if method == EDITED else seeds):
            name = f"{selection}-{method}" + (f"-seed-{seed}" if seed else "")
            trained = "penalise" if usual.method == "edit" else usual.method
            made = dataclasses.replace(usual, selection=selection, method=trained, seed=seed)
            models[name] = edit_recipe(study.config, selection, {}) if method == EDITED else made
    return models


def run_sweep(study: Study, models: dict[str, VariantConfig], progress: Progress | None = None) -> Study:
    """Save the sweep's selections, name its models in study.toml, and make and measure those that are not there.
    Returns the changed study. A BusyError: another process is running this study."""
    with study_lock(study.root):
        for selection in {variant.selection for variant in models.values()} - {*study.selection_names()}:
            kind, _, n = selection.rpartition("-top-")
            save_selection(study, selection, {"attribution": kind, "tokens_above": int(n)})
        config = Study.open(study.name, study.root.parent).config
        study = study.change(dataclasses.replace(config, variants={**config.variants, **models}))
    build(study, [Unit("evaluate", name) for name in models], progress=progress)
    return study
