"""How likely several models find each other's completions of one prompt, token by token: computed on demand by a job.

The answer lies under the study's `likelihoods/`. A file's name carries a digest of the models and evaluations it was made from, so
that of an earlier model is never shown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ifguide import artifacts
from ifguide.errors import InputError, StaleError
from ifguide.lineage import Unit, weights_unit
from ifguide.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from ifguide.study import Study

FOLDER = "likelihoods"
VERSION = 1
MODELS_MOST = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenLikelihood:
    """One completion under one model."""

    pieces: list[str]
    """Its n tokens as text; joined, they are the completion."""
    log_probability: np.ndarray
    """float64 (n,), natural log of each token's probability after the prompt and the tokens before."""


def likelihood_path(study: "Study", prompt: int, models: Sequence[str]) -> "Path":
    """Where the answer for one prompt and some models lies or will lie.

    Raises:
        StaleError: a model or its evaluation is missing.
    """
    made_of: list = [VERSION, prompt]
    for model in sorted(set(models)):
        for unit in (weights_unit(model), Unit("evaluate", model)):
            manifest = artifacts.read_manifest(study.folder(unit))
            if manifest is None:
                raise StaleError(f"study {study.name!r} has no {unit} yet; build it with `ifguide evaluate {study.name} --model {model}`")  # fmt: skip
            made_of += [str(unit), artifacts.digest_of(manifest)]
    return study.root / FOLDER / f"prompt-{prompt}-{artifacts.hash_json(made_of)[:20]}.json"


def read_likelihoods(study: "Study", prompt: int, models: Sequence[str]) -> dict | None:
    """The answer, or None where it was not computed for these very models."""
    try:
        path = likelihood_path(study, prompt, models)
    except StaleError:
        return None
    return artifacts.read_json(path) if path.is_file() else None


def compute_likelihoods(study: "Study", prompt: int, models: Sequence[str], progress: Progress | None = None) -> dict:
    """Every completion that the models gave to one prompt, under each of the models; kept in the study's folder.

    Args:
        study: with evaluations of all the models.
        prompt: index of the prompt.
        models: two to four evaluated models.
        progress: where to report.

    Returns:
        `prompt`, `prompt_index`, `models`, and `completions`: of each its `model`, `sample`, `pieces` (its tokens' texts) and
        `log_probability`, model -> one natural logarithm a token.

    Raises:
        InputError: too few or too many models, one that was not evaluated, or no such prompt.
    """
    from ifguide.evaluating import load_evaluated

    models = sorted(set(models))
    known = study.evaluation_names()
    if not 2 <= len(models) <= MODELS_MOST or not set(models) <= set(known):
        raise InputError(f"expected two to {MODELS_MOST} of the evaluated models ({', '.join(known)}), got {', '.join(models) or 'none'}")  # fmt: skip
    path, progress = likelihood_path(study, prompt, models), progress or Progress()
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
    for turn, model in enumerate(models):
        loaded, tokenizer = load_evaluated(study, model)
        report = lambda d, n, turn=turn: progress.report(turn * n + d, len(models) * n, "completions")  # noqa: E731
        found = token_likelihoods(loaded, tokenizer, text, texts, report=report)
        for completion, likelihood in zip(completions, found, strict=True):
            completion.setdefault("pieces", likelihood.pieces)
            if completion["pieces"] != likelihood.pieces:
                raise InputError(f"{model!r} cuts texts into other tokens than {models[0]!r}; they cannot be compared token by token")  # fmt: skip
            completion.setdefault("log_probability", {})[model] = [float(x) for x in likelihood.log_probability]
    result = {"prompt": text, "prompt_index": prompt, "models": models, "completions": completions}
    path.parent.mkdir(exist_ok=True)
    artifacts.write_json(path, result)
    return result


def token_likelihoods(
    model,
    tokenizer,
    prompt: str,
    completions: Sequence[str],
    *,
    batch_size: int = 32,
    report: Callable[[int, int], None] | None = None,
) -> list[TokenLikelihood]:
    """Log-probability of every token of some completions after one prompt.

    The prompt is read as it was for generating. A completion's text is cut into tokens anew, which may give other tokens than those
    that were drawn where the text can be cut in two ways.

    Args:
        model, tokenizer: a causal language model on its device, and its tokenizer.
        prompt: the text before.
        completions: C texts, each with its leading space; empty ones have no tokens.
        batch_size: completions read at once.
        report: called with (completions done, completions in all).

    Returns:
        C of them, in order.

    Raises:
        InputError: a completion leaves no room for the prompt.
    """
    import torch

    from ifguide.evaluate.generation import encode_prompts
    from ifguide.models import context_length
    from ifguide.suppress import IGNORED, token_losses
    from ifguide.tokenizing import cut_pieces, tokenize

    texts = tokenize(tokenizer, list(completions))
    tokenized = [text.token_ids for text in texts]
    room = context_length(model.config) - max((len(ids) for ids in tokenized), default=0)
    if room < 2:
        raise InputError(f"expected completions shorter than the model's context of {context_length(model.config)} tokens, got one that fills it")  # fmt: skip
    lead = encode_prompts(tokenizer, [prompt], room)[0]
    pieces = [cut_pieces(text, t.char_end) if len(t.char_end) else [] for text, t in zip(completions, texts, strict=True)]  # fmt: skip
    found: list[np.ndarray] = []
    model.eval()
    for start in range(0, len(tokenized), batch_size):
        batch = tokenized[start : start + batch_size]
        shape = (len(batch), len(lead) + max(map(len, batch)))
        ids = torch.full(shape, lead[0], dtype=torch.long)  # what pads on the right is never looked back at
        labels = torch.full(shape, IGNORED, dtype=torch.long)
        for row, tokens in enumerate(batch):
            whole_row = torch.tensor([*lead, *tokens.tolist()])
            ids[row, : len(whole_row)] = whole_row
            labels[row, len(lead) : len(whole_row)] = whole_row[len(lead) :]
        with torch.inference_mode():
            logits = model(input_ids=ids.to(model.device), use_cache=False).logits
            losses = token_losses(logits, labels.to(model.device)).double().cpu().numpy()
        found += [-losses[row, len(lead) - 1 : len(lead) - 1 + len(tokens)] for row, tokens in enumerate(batch)]
        if report:
            report(len(found), len(tokenized))
    return [TokenLikelihood(pieces=p, log_probability=values) for p, values in zip(pieces, found, strict=True)]
