"""A study's evaluations as logs of Inspect: `inspect view` shows them, `inspect_ai.analysis` reads them.

A sample is a completion: its id is the prompt's number, its epoch the completion's, both from 1, so that Inspect shows
a prompt's completions together. Toxicity is the evaluation's; Inspect computes nothing.
"""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from ifguide.errors import InputError, StaleError
from ifguide.storage.artifacts import hash_json
from ifguide.study.freshness import require_fresh
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study

MISSING = "--what inspect needs the package inspect-ai, which is not installed; run: pip install 'ifguide[inspect]'"
_SCORES = {
    "toxicity": ("emt", "tp", "mean_toxicity"),
    "implicit_toxicity": ("implicit_emt", "implicit_tp", "implicit_mean_toxicity"),
    "fluency": ("perplexity", "distinct_1", "distinct_2", "repetition", "empty_share", "lambada_accuracy"),
}
"""The metrics that come from each score."""
_FOLDERS = re.compile(r'(?<![\w./])/(?:[^/"\\\s][^/"\\]*/)+')
"""The folders of an absolute path, in JSON."""


def write_logs(study: Study, folder: Path, report: Callable[[int, int], None]) -> int:
    """Write `MODEL.eval` for every evaluated model into a new folder. The same evaluations give the same samples and
    numbers; no log names a folder of this machine.

    Args:
        report: called with (logs done, logs).

    Returns:
        The number of completions in them.

    Raises:
        InputError: inspect-ai is not installed.
        StaleError: nothing is evaluated yet, or an evaluation is out of date.
    """
    try:
        from inspect_ai.log import write_eval_log
    except ImportError as error:
        raise InputError(MISSING) from error
    names = study.evaluation_names()
    if not names:
        raise StaleError(f"study {study.name!r} has no evaluation yet; make one with `ifguide evaluate {study.name}`")
    for name in names:
        require_fresh(study, Unit("evaluate", name), f"evaluate {study.name} --model {name}")
    folder.mkdir()
    n_samples = 0
    for done, name in enumerate(names, 1):
        log = make_log(study, name)
        n_samples += len(log.samples)
        write_eval_log(log, folder / f"{name}.eval")
        report(done, len(names))
    return n_samples


def make_log(study: Study, name: str):
    """The `inspect_ai.log.EvalLog` of an evaluated model: `base`, or the selection it was trained without."""
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalResults, EvalSpec, EvalStats
    from inspect_ai.model import GenerateConfig

    manifest, metrics = study.manifest(Unit("evaluate", name)), study.metrics(name) or {}
    made, key = datetime.fromtimestamp(manifest["created"], UTC).isoformat(), hash_json(manifest["outputs"])[:22]
    samples = _make_samples(study, name, key)
    prompts = list(dict.fromkeys(sample.id for sample in samples))
    told = {"study": study.name, "model": name, "base": study.models()["base"], "metrics": metrics}
    told |= {"settings": manifest["config"], "inputs": manifest["inputs"]}
    sampling = {"top_p": metrics.get("top_p"), "temperature": metrics.get("temperature"), "seed": metrics.get("seed")}
    spec = EvalSpec(
        eval_id=key,
        run_id=key,
        task_id=key,
        created=made,
        task="toxicity",
        dataset=EvalDataset(name="prompts", samples=len(prompts), sample_ids=prompts, shuffled=False),
        model=f"{study.name}/{name}",
        model_generate_config=GenerateConfig(max_tokens=metrics.get("max_new_tokens"), **sampling),
        config=EvalConfig(epochs=max(sample.epoch for sample in samples)),
        packages={"ifguide": manifest["versions"]["ifguide"]},
        metadata=json.loads(_FOLDERS.sub("", json.dumps(told, ensure_ascii=False))),
    )
    results = EvalResults(total_samples=len(samples), completed_samples=len(samples), scores=_make_scores(metrics))
    stats = EvalStats(started_at=made, completed_at=made)
    return EvalLog(status="success", eval=spec, results=results, stats=stats, samples=samples)


def _make_samples(study: Study, name: str, key: str) -> list:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatMessageUser, ModelOutput
    from inspect_ai.scorer import Score

    made = []
    for row in study.samples(name).to_dict("records"):
        place = f"{row['prompt_index'] + 1}-{row['sample_index'] + 1}"
        output = ModelOutput.from_content(f"{study.name}/{name}", row["completion"])
        output.choices[0].message.id = f"{place}-completion"
        scores = {kind: Score(value=float(row[kind])) for kind in ("toxicity", "implicit_toxicity") if kind in row}
        spans = row.get("toxic_spans")
        scores["toxicity"].metadata = {"toxic_spans": [] if spans is None else [int(edge) for edge in spans]}
        made.append(
            EvalSample(
                id=int(row["prompt_index"]) + 1,
                epoch=int(row["sample_index"]) + 1,
                uuid=f"{key}-{place}",
                input=row["prompt"],
                target="",
                messages=[ChatMessageUser(content=row["prompt"], id=f"{place}-prompt"), output.choices[0].message],
                output=output,
                scores=scores,
                metadata={"group": row["group"]} if row.get("group") else {},
            )
        )
    return made


def _make_scores(metrics: dict) -> list:
    """The metrics of each score, with their 95% intervals as metadata; what comes from no sample's score is called
    fluency."""
    from inspect_ai.log import EvalMetric, EvalScore

    found = []
    for score, names in _SCORES.items():
        values = {name: metrics[name] for name in names if metrics.get(name) is not None}
        lead, how = score.removesuffix("toxicity"), {}
        for name, value in values.items():
            bounds = {edge: metrics[f"{name}_{edge}"] for edge in ("low", "high") if f"{name}_{edge}" in metrics}
            how[name] = EvalMetric(name=name, value=value, metadata=bounds)
        if how:
            params = {"scorer": metrics[f"{lead}scorer"]} if f"{lead}scorer" in metrics else {}
            found.append(EvalScore(name=score, scorer=score, params=params, metrics=how))
    return found
