"""General capability by EleutherAI's lm-evaluation-harness, an optional extra: a thin adapter."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

from ifguide.errors import InputError

MISSING = "evaluate.harness_tasks needs lm-evaluation-harness; run: pip install 'ifguide[harness]', or empty it"


def check_harness(tasks: Sequence[str], folder: str = "") -> None:
    """Refuse early what would fail after the completions are made: an InputError when the package is not installed, the
    folder is not there, or it has no task of that name."""
    available = _task_manager(folder).all_tasks
    for task in tasks:
        if task not in available:
            told = ", ".join(sorted(available)[:20]) if folder else "see `lm_eval ls tasks`"
            expected = f"a task of {folder or 'the harness'}"
            raise InputError(f"evaluate.harness_tasks: expected {expected}, got {task!r}; known: {told}")


def run_harness(model, tokenizer, tasks: Sequence[str], folder: str = "", *, limit: int = 0) -> dict:
    """Run tasks, or groups of tasks, of the harness on a model, on `limit` examples each (0: all). With a folder of
    task YAML files only its tasks are known, and data files that they name are looked for from there; the harness's own
    tasks fetch their data from the hub. An InputError: as `check_harness`, or the harness could not run a task.

    Returns {task: {metric: value}}, with a metric's standard error as `<metric>_stderr`, the number of examples as
    `n_samples`, and the filter after a comma unless it is the default one.
    """
    manager = _task_manager(folder)
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    place = contextlib.chdir(folder) if folder else contextlib.nullcontext()
    try:
        with place, contextlib.redirect_stderr(io.StringIO()):  # its progress bars would garble ours
            measured = lm_eval.simple_evaluate(
                model=HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=16),
                tasks=list(tasks),
                task_manager=manager,
                limit=limit or None,
                log_samples=False,
                bootstrap_iters=1000,
            )
    except Exception as error:  # a task may fail in its data, its template or its own code
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"lm-evaluation-harness could not run {', '.join(tasks)} ({reason})") from error
    results: dict[str, dict] = {}
    for task, values in measured["results"].items():
        numbers = [key for key, value in values.items() if isinstance(value, int | float) and key != "sample_len"]
        results[task] = {key.removesuffix(",none"): values[key] for key in numbers}
        if task in measured.get("n-samples", {}):
            results[task]["n_samples"] = measured["n-samples"][task]["effective"]
    return results


def _task_manager(folder: str):
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise InputError(MISSING) from error
    if folder and not Path(folder).is_dir():
        problem = f"expected a folder of task files, got {folder!r}"
        raise InputError(f"evaluate.harness_folder: {problem}; name one, or leave it empty")
    return TaskManager(include_path=folder or None, include_defaults=not folder)
