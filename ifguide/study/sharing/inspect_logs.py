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
_SAMPLING = {"max_tokens": "max_new_tokens", "top_p": "top_p", "temperature": "temperature", "seed": "seed"}
_FOLDERS = re.compile(r'(?<![\w./])/(?:[^/"\\\s][^/"\\]*/)+')
"""The folders of an absolute path, in JSON."""


def write_logs(study: Study, folder: Path, report: Callable[[int, int], None]) -> int:
    """Write `MODEL.eval` for every evaluated model into a new folder; none names a folder of this machine. Returns the
    number of completions; `report` is called with (logs done, logs). An InputError: inspect-ai is not installed; a
    StaleError: nothing is evaluated yet, or an evaluation is out of date."""
    try:
        from inspect_ai.log import EvalLog, write_eval_log
    except ImportError as error:
        raise InputError(MISSING) from error
    names, n_samples = study.evaluation_names(), 0
    if not names:
        raise StaleError(f"study {study.name!r} has no evaluation yet; make one with `ifguide evaluate {study.name}`")
    for name in names:
        require_fresh(study, Unit("evaluate", name), f"evaluate {study.name} --model {name}")
    folder.mkdir()
    for done, name in enumerate(names, 1):
        log = make_log(study, name)
        write_eval_log(EvalLog.model_validate(log), folder / f"{name}.eval")
        n_samples += len(log["samples"])
        report(done, len(names))
    return n_samples


def make_log(study: Study, name: str) -> dict:
    """An evaluated model, `base` or the selection it was trained without, as plain values for `EvalLog`."""
    manifest, metrics, model = study.manifest(Unit("evaluate", name)), study.metrics(name) or {}, f"{study.name}/{name}"
    made, key = datetime.fromtimestamp(manifest["created"], UTC).isoformat(), hash_json(manifest["outputs"])[:22]
    samples = [_make_sample(row, model, key) for row in study.samples(name).to_dict("records")]
    origin = {"study": study.name, "model": name, "base": study.models()["base"], "metrics": metrics}
    origin |= {"settings": manifest["config"], "inputs": manifest["inputs"]}
    spec = dict.fromkeys(("eval_id", "run_id", "task_id"), key) | {
        "created": made,
        "task": "toxicity",
        "dataset": {"name": "prompts", "samples": metrics.get("n_prompts")},
        "model": model,
        "model_generate_config": {ours: metrics.get(theirs) for ours, theirs in _SAMPLING.items()},
        "config": {"epochs": metrics.get("n_samples")},
        "packages": {"ifguide": manifest["versions"]["ifguide"]},
        "metadata": json.loads(_FOLDERS.sub("", json.dumps(origin, ensure_ascii=False))),
    }
    counts = dict.fromkeys(("total_samples", "completed_samples"), len(samples))
    results, stats = {**counts, "scores": _make_scores(metrics)}, {"started_at": made, "completed_at": made}
    return {"status": "success", "eval": spec, "results": results, "stats": stats, "samples": samples}


def _make_sample(row: dict, model: str, key: str) -> dict:
    answer, prompt, turn = row["completion"], row["prompt_index"] + 1, row["sample_index"] + 1
    message = {"role": "assistant", "content": answer}
    metadata = {"toxic_spans": list(map(int, row.get("toxic_spans", ())))}
    kinds = [kind for kind in ("toxicity", "implicit_toxicity") if kind in row]
    return {
        "id": prompt,
        "epoch": turn,
        "uuid": f"{key}-{prompt}-{turn}",
        "input": row["prompt"],
        "target": "",
        "messages": [{"role": "user", "content": row["prompt"]}, message],
        "output": {"model": model, "choices": [{"message": message}]},
        "scores": {kind: {"value": float(row[kind]), "answer": answer, "metadata": metadata} for kind in kinds},
        "metadata": {"group": row["group"]} if "group" in row else {},
    }


def _make_scores(metrics: dict) -> list[dict]:
    """The metrics of each score, with their 95% intervals as metadata; `fluency` is no sample's score."""
    scores = []
    for score, names in _SCORES.items():
        values = {name: {"name": name, "value": metrics[name]} for name in names if metrics.get(name) is not None}
        for name, metric in values.items():
            metric["metadata"] = {edge: metrics.get(f"{name}_{edge}") for edge in ("low", "high")}
        scorer = metrics.get(score.replace("toxicity", "scorer"))
        scores.append({"name": score, "scorer": score, "params": {"scorer": scorer}, "metrics": values})
    return [score for score in scores if score["metrics"]]
