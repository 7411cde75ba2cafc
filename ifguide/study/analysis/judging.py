"""Rating the stored completions of all models of a study by another judge. No model of the study is loaded."""

import re
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ifguide.errors import InputError
from ifguide.evaluation.evaluate import describe_scorer, measure_toxicity
from ifguide.evaluation.toxic_spans import find_toxic_spans, flatten_spans
from ifguide.evaluation.toxicity import classifier_source
from ifguide.storage import artifacts
from ifguide.study.analysis.comparison import scores_matrix
from ifguide.study.judgements import FOLDER, RATINGS, RECORD, SAMPLES, Judgement, list_judgements
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stages.evaluating import load_rater

if TYPE_CHECKING:
    import pandas as pd


def judge_study(study: Study, setting: str) -> Judgement:
    """Rate all completions of a study by the judge that a setting names, as `evaluate.scorer` does, and keep the
    ratings. An InputError: nothing was evaluated, or the judge cannot be loaded; a ConfigError: no such judge."""
    import pyarrow as pa
    from pyarrow import parquet

    names = study.evaluation_names()
    if not names:
        raise InputError(f"judge: expected evaluated models, got none; measure them with `ifguide run {study.name}`")
    judge, place = load_rater(study, setting), Path(classifier_source(setting))
    if place.is_absolute():  # the name of a folder is enough, wherever it is
        judge.name = judge.name.replace(str(place), place.name, 1)
    who, seed = describe_scorer(judge), study.config.evaluate.seed
    samples = {name: study.samples(name) for name in names}
    different = list(dict.fromkeys(chain.from_iterable(frame["completion"] for frame in samples.values())))
    rated = dict(zip(different, judge.score(different).tolist(), strict=True))
    spans = dict(zip(rated, find_toxic_spans(different, np.array([*rated.values()]), judge), strict=True))
    models, rows = {}, []
    for name, frame in samples.items():
        frame = frame.assign(toxicity=frame["completion"].map(rated))
        digest = study.manifest(Unit("evaluate", name))["outputs"][SAMPLES]
        models[name] = {"samples": digest, "metrics": measure_samples(frame, seed) | {"scorer_hash": ""} | who}
        rows += [(name, rated[text], flatten_spans(spans[text])) for text in frame["completion"]]
    digest = who.get("scorer_hash", "")
    key = "-".join(filter(None, (re.sub(r"[^A-Za-z0-9.]+", "-", judge.name).strip("-."), digest)))
    inputs = {str(Unit("evaluate", name)): models[name]["samples"] for name in names} | {"judge": digest}
    with artifacts.building(
        study.root / FOLDER / key, stage="judgement", inputs=inputs, config={"judge": judge.name}
    ) as folder:
        record = {"judge": judge.name, "digest": digest, "models": models}
        artifacts.write_json(folder / RECORD, record)
        columns = dict(zip(("model", "toxicity", "toxic_spans"), map(list, zip(*rows, strict=True)), strict=True))
        parquet.write_table(pa.table(columns), folder / RATINGS)
    return list_judgements(study.root)[key]


def measure_samples(samples: "pd.DataFrame", seed: int) -> dict:
    """EMT, TP and mean toxicity of samples with their intervals, also of each group of prompts that they name."""
    ordered = samples.sort_values(["prompt_index", "sample_index"])
    scores, groups = scores_matrix(ordered), {}
    if "group" in ordered:
        of_prompt = ordered["group"].to_numpy()[:: scores.shape[1]]
        for group in dict.fromkeys(filter(None, of_prompt)):
            groups[group] = {"n_prompts": int((of_prompt == group).sum())}
            groups[group] |= measure_toxicity(scores[of_prompt == group], seed=seed)
    return measure_toxicity(scores, seed=seed) | {"groups": groups}
