"""How likely several models find each other's completions of one prompt, token by token: computed on demand."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ifguide.errors import InputError, StaleError
from ifguide.evaluation.likelihood import token_likelihoods
from ifguide.study import on_demand
from ifguide.study.freshness import unit_digest
from ifguide.study.lineage import Unit, weights_unit

if TYPE_CHECKING:
    from pathlib import Path

    from ifguide.study.reading import Study

FOLDER = "likelihoods"
VERSION = 1
MODELS_MOST = 4
"""Models that can be shown side by side."""


def likelihood_path(study: "Study", prompt: int, models: Sequence[str]) -> "Path":
    """Where the answer for one prompt and some models is or will be. A StaleError: a model, or its evaluation, is
    missing."""
    made_of: list = [VERSION, prompt]
    for model in sorted(set(models)):
        for unit in (weights_unit(model), Unit("evaluate", model)):
            made_of += [str(unit), unit_digest(study, unit)]
    return on_demand.result_path(study, FOLDER, made_of, f"prompt-{prompt}")


def read_likelihoods(study: "Study", prompt: int, models: Sequence[str]) -> dict | None:
    """The answer, or None where it was not computed for these models as they are now."""
    try:
        return on_demand.read_result(likelihood_path(study, prompt, models))
    except StaleError:
        return None


def compute_likelihoods(
    study: "Study", prompt: int, models: Sequence[str], load: Callable[["Study", str], tuple]
) -> dict:
    """Every completion that two to four evaluated models gave to one prompt, by its index, under each of the models;
    kept in the study's folder. `load` gives a model and its tokenizer. An InputError: too few or too many models, one
    that was not evaluated, or no such prompt.

    Returns `prompt`, `prompt_index`, `models`, and `completions`: of each its `model`, `sample`, `pieces` (its tokens'
    texts) and `log_probability`, model -> one natural logarithm a token.
    """
    models = sorted(set(models))
    evaluated = study.evaluation_names()
    if not 2 <= len(models) <= MODELS_MOST or not set(models) <= set(evaluated):
        expected = f"two to {MODELS_MOST} of the evaluated models ({', '.join(evaluated)})"
        raise InputError(f"expected {expected}, got {', '.join(models) or 'none'}")
    path = likelihood_path(study, prompt, models)
    completions: list[dict] = []
    text = None
    for model in models:
        samples = study.samples(model)
        mine = samples[samples["prompt_index"] == prompt].sort_values("sample_index")
        if not len(mine):
            raise InputError(f"expected a prompt from 0 to {samples['prompt_index'].max()}, got {prompt}")
        if text not in (None, mine["prompt"].iloc[0]):
            raise InputError(f"the models completed different prompts as number {prompt}; evaluate them again")
        text = mine["prompt"].iloc[0]
        completions += [
            {"model": model, "sample": int(sample), "text": completion}
            for sample, completion in zip(mine["sample_index"], mine["completion"], strict=True)
        ]
    assert text is not None
    texts = [completion.pop("text") for completion in completions]
    for model in models:
        loaded, tokenizer = load(study, model)
        likelihoods = token_likelihoods(loaded, tokenizer, text, texts)
        for completion, likelihood in zip(completions, likelihoods, strict=True):
            completion.setdefault("pieces", likelihood.pieces)
            if completion["pieces"] != likelihood.pieces:
                raise InputError(
                    f"{model!r} cuts texts into other tokens than {models[0]!r}; they cannot be compared token by token"
                )
            completion.setdefault("log_probability", {})[model] = [float(x) for x in likelihood.log_probability]
    result = {"prompt": text, "prompt_index": prompt, "models": models, "completions": completions}
    return on_demand.keep_result(path, result)
