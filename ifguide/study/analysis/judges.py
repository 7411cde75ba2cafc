"""Several judges of a study's stored completions: rating all models again, without loading one, and where the judges
disagree on which model is least toxic."""

import re
from pathlib import Path

from ifguide.config.names import BASE
from ifguide.errors import InputError
from ifguide.evaluation.evaluate import describe_scorer, measure_groups, measure_toxicity
from ifguide.evaluation.statistics import emt, paired_bootstrap_difference
from ifguide.evaluation.toxic_spans import find_toxic_spans, flatten_spans
from ifguide.evaluation.toxicity import classifier_source
from ifguide.storage import artifacts
from ifguide.study.analysis.comparison import scores_matrix
from ifguide.study.judgements import FOLDER, RATINGS, RECORD, SAMPLES, Judgement
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stages.evaluating import load_rater


def judge_study(study: Study, setting: str) -> Judgement:
    """Rate all completions of a study by the judge that a setting names, as `evaluate.scorer` does, and keep the
    ratings. An InputError: nothing was evaluated, or the judge cannot be loaded; a ConfigError: no such judge."""
    import pandas as pd

    study = study.judged("")
    if not (names := study.evaluation_names()):
        raise InputError(f"judge: expected evaluated models, got none; measure them with `ifguide run {study.name}`")
    judge, place = load_rater(study, setting), Path(classifier_source(setting))
    if place.is_absolute():  # the name of a folder is enough, wherever it is
        judge.name = judge.name.replace(str(place), place.name, 1)
    samples = pd.concat({name: study.samples(name) for name in names}, names=["model"]).reset_index("model")
    texts = samples["completion"].unique().tolist()
    scores = judge.score(texts)
    spans = map(flatten_spans, find_toxic_spans(texts, scores, judge))
    rated = pd.DataFrame({"toxicity": scores, "toxic_spans": list(spans)}, index=texts).loc[samples["completion"]]
    samples = samples.assign(**{name: rated[name].to_numpy() for name in rated})
    seed, models, who = study.config.evaluate.seed, {}, {"scorer_hash": "", **describe_scorer(judge)}
    for name in names:
        mine = samples[samples["model"] == name]
        matrix, first = scores_matrix(mine), mine.sort_values("prompt_index").drop_duplicates("prompt_index")
        groups = measure_groups(matrix, first.get("group", first["prompt"].map(lambda _: "")).to_numpy(), seed=seed)
        digest = study.manifest(Unit("evaluate", name))["outputs"][SAMPLES]
        models[name] = {"samples": digest, "metrics": measure_toxicity(matrix, seed=seed) | {"groups": groups} | who}
    key = "-".join(filter(None, (re.sub(r"[^A-Za-z0-9.]+", "-", judge.name).strip("-."), who["scorer_hash"])))
    inputs = {str(Unit("evaluate", name)): models[name]["samples"] for name in names}
    with artifacts.building(study.root / FOLDER / key, stage="judgement", inputs=inputs, config={}) as folder:
        record = {"judge": judge.name, "digest": who["scorer_hash"], "models": models}
        artifacts.write_json(folder / RECORD, record)
        samples[["model", *rated]].to_parquet(folder / RATINGS, index=False)
    return study.judgements()[key]


def by_judge(study: Study) -> dict[str, dict[str, dict]]:
    """Judge, by its name and hash -> model -> metrics; the evaluation's own judge first."""
    seen = [study.judged(key) for key in ("", *study.judgements())]
    return {by.judge_title(): {name: by.metrics(name) or {} for name in by.evaluation_names()} for by in seen}


def describe_disagreement(study: Study) -> list[str]:
    """A sentence for each other judge whose least toxic model (by EMT, of those that both rated, the base model left
    out) is not the own judge's, with the difference of the two by each judge."""
    first, *others = (study.judged(key) for key in ("", *study.judgements()))
    sentences = []
    for other in others:
        names = [name for name in other.evaluation_names() if name != BASE]
        emts = [{name: (by.metrics(name) or {})["emt"] for name in names} for by in (first, other)]
        winners = [min(values, key=values.__getitem__) for values in emts if values]
        if len({*winners}) < 2:
            continue
        parts = []
        for by in (first, other):
            drop = paired_bootstrap_difference(emt, *(scores_matrix(by.samples(n)) for n in reversed(winners)))
            clear = "" if drop.low > 0 or drop.high < 0 else ", not clear"
            parts.append(f"{by.judge_title()} {drop.value:+.3f} [{drop.low:+.3f}, {drop.high:+.3f}]{clear}")
        sentences.append(
            f"{first.judge_title()} calls {winners[0]} the least toxic model, {other.judge_title()} {winners[1]};"
            f" EMT of {winners[1]} minus {winners[0]}: {'; '.join(parts)}"
        )
    return sentences
