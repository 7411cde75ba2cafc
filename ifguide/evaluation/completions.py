"""Completions in shards, each written whole or not at all, so that a killed evaluation resumes.

The prompts of a shard depend on the prompts and the tokenizer alone, and each shard is completed by itself. So a
resumed evaluation gives the same bytes as an uninterrupted one.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ifguide.config.schema import EvaluateConfig
from ifguide.errors import StaleError
from ifguide.evaluation.generation import Completion, encode_prompts, generate_completions, prompt_room
from ifguide.storage.artifacts import read_json, write_json

SHARD_COMPLETIONS = 2048
"""A shard holds about this many completions; those of one prompt stay together."""


def plan_prompts(lengths: Sequence[int], n_samples: int, shard_completions: int) -> list[list[int]]:
    """Prompt numbers of each shard. Prompts of similar length are neighbours, which keeps padding short.

    Args:
        lengths: tokens of each prompt.
        n_samples: completions a prompt.
        shard_completions: size of a shard.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    size = max(1, shard_completions // n_samples)
    return [order[start : start + size] for start in range(0, len(order), size)]


def complete_in_shards(
    model,
    tokenizer,
    prompts: Sequence[str],
    config: EvaluateConfig,
    work: Path | None = None,
    report: Callable[[int, int], None] | None = None,
    steer=None,
) -> list[Completion]:
    """`generate_completions` in shards that are kept in a folder.

    Args:
        model, tokenizer, prompts, config: as for `generate_completions`.
        work: the folder of finished shards, which are not made again. None keeps nothing.
        report: called with (completions done, completions in all).
        steer: as for `generate_completions`.

    Returns:
        P · n_samples completions, by prompt and then by sample.
    """
    encoded = encode_prompts(tokenizer, prompts, prompt_room(model, config))
    total = len(prompts) * config.n_samples
    found: list[Completion] = []
    shards = plan_prompts([len(ids) for ids in encoded], config.n_samples, SHARD_COMPLETIONS)
    for number, shard in enumerate(shards):
        path = work / f"completions-{number:06d}.json" if work else None
        kept = _read(path, shard, config.n_samples) if path else None
        if kept is None:
            tell = report and partial(_report_more, report, len(found), total)
            kept = generate_completions(
                model, tokenizer, prompts, config, tell, only=shard, encoded=encoded, steer=steer
            )
            if path:
                write_json(path, [list(completion) for completion in kept])
        found += kept
        if report:
            report(len(found), total)
    return sorted(found, key=lambda completion: completion[:2])


def _report_more(report: Callable[[int, int], None], done: int, total: int, more: int, _: int) -> None:
    report(done + more, total)


def _read(path: Path, shard: list[int], n_samples: int) -> list[Completion] | None:
    """The completions of a shard, or None when it is missing or damaged."""
    try:
        rows = [Completion(*row) for row in read_json(path)]
    except (StaleError, TypeError):
        return None
    expected = [(prompt, sample) for prompt in sorted(shard) for sample in range(n_samples)]
    return rows if [completion[:2] for completion in rows] == expected else None
