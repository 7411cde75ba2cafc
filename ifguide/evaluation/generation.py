"""Completions of prompts, sampled so that each depends on its seed, prompt number and sample number alone.

Every token is drawn with one uniform number that a counter-based generator gives for (seed, prompt, sample, step), by
inverting the cumulative distribution of the nucleus, most likely token first. So batch size, other prompts and order
change nothing beyond floating-point rounding of the logits. Two models with the same seed get the same uniform numbers,
which makes their difference less noisy. Why not `generate`: docs/decisions/0045-evaluation-libraries.md.

The prompts of a shard depend on the prompts and the tokenizer alone, so a resumed evaluation, and one that several
processes divide, gives the same bytes as one in one go. B rows in a batch, T tokens, V vocabulary.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ifguide.config.schema import EvaluateConfig
from ifguide.errors import ConfigError, InputError, NumericalError, StaleError
from ifguide.evaluation import Report
from ifguide.models.layers import device_of
from ifguide.models.loading import bos_context, context_length
from ifguide.runtime.distributed import ALONE, current
from ifguide.storage.artifacts import read_json, write_json

SHARD_COMPLETIONS = 2048
"""A shard holds about this many completions; those of one prompt stay together."""
NUCLEUS_GUESS = 512
"""Most nuclei are smaller than this; a row with a larger one is sorted in full."""


class Completion(NamedTuple):
    """One sample: a row of `samples.parquet` before it is scored."""

    prompt_index: int
    sample_index: int
    completion: str
    """Decoded new tokens, up to the end-of-text token and without special tokens. May be empty."""
    n_tokens: int
    """New tokens, the end-of-text token not counted."""


def draw_uniforms(seed: int, prompt_index: int, sample_index: int, n_steps: int) -> np.ndarray:
    """float64 (n_steps,) in [0, 1): the random numbers of one sample. A longer draw starts with the shorter one."""
    key = np.random.SeedSequence([seed, prompt_index, sample_index]).generate_state(2, np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(n_steps)


def sample_tokens(logits: Tensor, uniforms: Tensor, top_p: float, temperature: float) -> Tensor:
    """One token a row, (B,) int64, from the nucleus: the smallest set of most likely tokens with probability `top_p`,
    in (0, 1], or more together. `logits` (B, V) are divided by `temperature` > 0; `uniforms` (B,) in [0, 1) say where
    the nucleus' cumulative distribution is cut. A NumericalError: a row of logits holds NaN, or no finite value."""
    probabilities = torch.softmax(logits.float() / temperature, dim=-1)
    if not torch.isfinite(probabilities).all():
        wrong = "expected finite logits, got NaN or infinity"
        raise NumericalError(f"generation: {wrong}; is the model damaged, or did training diverge?")
    size = min(NUCLEUS_GUESS, probabilities.shape[-1])
    top, tokens = probabilities.topk(size, dim=-1)  # most likely first
    cumulative = top.double().cumsum(-1)
    picked = tokens.gather(-1, _invert_nucleus(cumulative, uniforms, top_p))
    wide = cumulative[:, -1] < top_p  # the nucleus goes on beyond the guess
    if size < probabilities.shape[-1] and wide.any():
        top, tokens = probabilities[wide].sort(dim=-1, descending=True, stable=True)
        picked[wide] = tokens.gather(-1, _invert_nucleus(top.double().cumsum(-1), uniforms[wide], top_p))
    return picked[:, 0]


def _invert_nucleus(cumulative: Tensor, uniforms: Tensor, top_p: float) -> Tensor:
    """(B, 1) places in the sorted rows. A token belongs to the nucleus while the mass before it is below `top_p`."""
    last = (cumulative[:, :-1] < top_p).sum(-1, keepdim=True)
    target = uniforms.to(cumulative)[:, None] * cumulative.gather(-1, last)
    return torch.minimum(torch.searchsorted(cumulative, target, right=True), last)


def encode_prompts(tokenizer, prompts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Token ids of each prompt; a prompt longer than `max_tokens` keeps its end.

    Trailing spaces are dropped: most tokenizers put the space in front of the next word, so models continue badly after
    one. A beginning-of-text token comes first where the tokenizer adds one; an empty prompt becomes a single beginning-
    or end-of-text token. An InputError: an empty prompt, and a tokenizer with neither token.
    """
    bos = bos_context(tokenizer)
    lead = [] if bos is None else [bos]
    texts = [prompt.rstrip(" ") for prompt in prompts]
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    rows = []
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    for i, ids in enumerate(encoded):
        ids = lead + list(ids)[-(max_tokens - len(lead)) :]
        if not ids:
            if first is None:
                reason = f"prompt {i} is empty and the tokenizer has no beginning- or end-of-text token"
                raise InputError(f"{reason}; remove the prompt")
            ids = [first]
        rows.append(ids)
    return rows


def plan_prompts(lengths: Sequence[int], n_samples: int, shard_completions: int) -> list[list[int]]:
    """Prompt numbers of each shard. Prompts of similar length, in tokens, are neighbours, which keeps padding short."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    size = max(1, shard_completions // n_samples)
    return [order[start : start + size] for start in range(0, len(order), size)]


def generate_completions(
    model,
    tokenizer,
    prompts: Sequence[str],
    config: EvaluateConfig,
    work: Path | None = None,
    report: Report | None = None,
    steer: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> list[Completion]:
    """Sample `config.n_samples` completions of every prompt, in shards that are written whole or not at all.

    With `work`, the processes of a run divide the shards: shard s belongs to process s modulo their number.

    Args:
        model: one with a key-value cache.
        prompts: P texts; see `encode_prompts` for how they are read.
        config: n_samples, max_new_tokens, top_p, temperature, seed and batch_size.
        work: the folder of finished shards, which are not made again. None keeps nothing and divides nothing.
        steer: a logits processor: (completion tokens so far (B, T), logits (B, V)) -> logits; None: the model's own.

    Returns:
        P · n_samples completions, by prompt and then by sample, in every process.

    Raises:
        ConfigError: no room for a prompt beside `max_new_tokens` in the model's context.
    """
    encoded = encode_prompts(tokenizer, prompts, prompt_room(model, config))
    model.eval()
    processes = current() if work else ALONE
    count = processes.count(report, len(prompts) * config.n_samples)
    shards = plan_prompts([len(ids) for ids in encoded], config.n_samples, SHARD_COMPLETIONS)

    def finish(number: int, tell: Callable[[int], None]) -> list[Completion]:
        path = work / f"completions-{number:06d}.json" if work else None
        kept = _read_shard(path, shards[number], config.n_samples) if path else None
        if kept is not None:
            tell(len(kept))
            return kept
        made = complete_shard(model, tokenizer, encoded, shards[number], config, tell, steer)
        if path:
            write_json(path, [list(completion) for completion in made])
        return made

    finished = {number: finish(number, count.add) for number in range(len(shards)) if processes.owns(number)}
    count.wait()
    finished |= {number: finish(number, lambda _: None) for number in range(len(shards)) if number not in finished}
    return sorted((one for shard in finished.values() for one in shard), key=lambda completion: completion[:2])


def _read_shard(path: Path, shard: list[int], n_samples: int) -> list[Completion] | None:
    """The completions of a shard, or None when it is missing or damaged."""
    try:
        rows = [Completion(*row) for row in read_json(path)]
    except (StaleError, TypeError):
        return None
    expected = [(prompt, sample) for prompt in sorted(shard) for sample in range(n_samples)]
    return rows if [completion[:2] for completion in rows] == expected else None


@torch.inference_mode()
def complete_shard(
    model,
    tokenizer,
    encoded: Sequence[list[int]],
    shard: Sequence[int],
    config: EvaluateConfig,
    tell: Callable[[int], None],
    steer: Callable[[Tensor, Tensor], Tensor] | None,
) -> list[Completion]:
    """The completions of the prompts numbered in `shard`, by prompt and then by sample. `tell` is called with the
    number of those made since the last call."""
    work = [(i, k) for i in shard for k in range(config.n_samples)]
    stop_ids = _stop_ids(model, tokenizer)
    completions: list[Completion] = []
    for start in range(0, len(work), config.batch_size):
        batch = work[start : start + config.batch_size]
        for (i, k), ids in zip(batch, _complete(model, encoded, batch, stop_ids, config, steer), strict=True):
            text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            completions.append(Completion(i, k, text, len(ids)))
        tell(len(batch))
    return sorted(completions, key=lambda completion: completion[:2])


@torch.inference_mode()
def stream_completions(
    model,
    tokenizer,
    prompt: str,
    config: EvaluateConfig,
    samples: Sequence[int] = (0,),
    steer: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Iterator[list[Completion]]:
    """Completions of a prompt as they grow, a token each at a time. The last ones are those with these numbers,
    `samples`, among what `generate_completions` gives for this prompt alone; so models with the same `config.seed` get
    the same random numbers. Errors are the same too."""
    encoded = encode_prompts(tokenizer, [prompt], prompt_room(model, config))
    model.eval()
    batch = [(0, sample) for sample in samples]
    for tokens in _draw(model, encoded, batch, _stop_ids(model, tokenizer), config, steer):
        rows = [[token for token in row if token >= 0] for row in tokens.tolist()]
        texts = tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        yield [Completion(0, *one) for one in zip(samples, texts, map(len, rows), strict=True)]


def prompt_room(model, config: EvaluateConfig) -> int:
    """Longest prompt, in tokens, that leaves room for its completion in the model's context; a ConfigError when it is
    less than two."""
    room = context_length(model.config) - config.max_new_tokens
    if room < 2:
        most = config.max_new_tokens + room - 2
        expected = f"at most {most} for this model"
        raise ConfigError(f"evaluate.max_new_tokens: expected {expected}, got {config.max_new_tokens}")
    return room


def _complete(
    model, encoded: Sequence[list[int]], batch: list[tuple[int, int]], stop_ids: Tensor, config: EvaluateConfig, steer
) -> list[list[int]]:
    """New tokens of each (prompt, sample) of one batch, without the end-of-text token."""
    *_, tokens = _draw(model, encoded, batch, stop_ids, config, steer)
    return [[token for token in row if token >= 0] for row in tokens.tolist()]


def _draw(
    model, encoded: Sequence[list[int]], batch: list[tuple[int, int]], stop_ids: Tensor, config: EvaluateConfig, steer
) -> Iterator[Tensor]:
    """The new tokens of a batch, int64 (B, max_new_tokens) and -1 where there is none (yet), after each step."""
    device = device_of(model)
    numbers = sorted({i for i, _ in batch})
    row_of = {i: row for row, i in enumerate(numbers)}
    prompts = [torch.tensor(encoded[i]) for i in numbers]
    ids, mask = (
        pad_sequence(rows, batch_first=True, padding_side="left").to(device)
        for rows in (prompts, [torch.ones_like(prompt) for prompt in prompts])
    )
    logits, cache = _read(model, ids, mask, None)
    # each prompt is read once; its cache is then copied to all its samples
    rows = torch.tensor([row_of[i] for i, _ in batch], device=device)
    cache.reorder_cache(rows)
    logits, mask = logits[rows], mask[rows]
    drawn = np.stack([draw_uniforms(config.seed, i, k, config.max_new_tokens) for i, k in batch])
    uniforms = torch.from_numpy(drawn).to(device)  # (B, max_new_tokens)
    alive = torch.arange(len(batch), device=device)  # which sample each remaining row is
    tokens = torch.full(uniforms.shape, -1, device=device)
    for step in range(config.max_new_tokens):
        if steer is not None:
            logits = steer(tokens[alive, :step], logits)
        picked = sample_tokens(logits, uniforms[alive, step], config.top_p, config.temperature)
        going = ~torch.isin(picked, stop_ids)
        tokens[alive[going], step] = picked[going]
        yield tokens
        if step + 1 == config.max_new_tokens or not going.any():
            break
        if not going.all():  # finished samples leave the batch
            kept = going.nonzero()[:, 0]
            cache.reorder_cache(kept)
            alive, picked, mask = alive[kept], picked[kept], mask[kept]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        logits, cache = _read(model, picked[:, None], mask, cache)


def _read(model, ids: Tensor, mask: Tensor, cache):
    """Logits (B, V) after the last of `ids` (B, T), and the cache. Positions count real tokens, not padding."""
    supported: dict = {}
    parameters = inspect.signature(model.forward).parameters
    if "position_ids" in parameters:
        supported["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    if "logits_to_keep" in parameters:
        supported["logits_to_keep"] = 1
    name = "cache" if "cache" in parameters else "past_key_values"  # older versions of Transformers say the latter
    output = model(input_ids=ids, attention_mask=mask, use_cache=True, **{name: cache}, **supported)
    return output.logits[:, -1], getattr(output, name)


def _stop_ids(model, tokenizer) -> Tensor:
    """The tokens that end a text: the model's own if they include the tokenizer's. A model made from a bare config has
    its family's default ids, which mean something else in another vocabulary; then the tokenizer decides."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    named = named if isinstance(named, list) else [named]
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in named:
        named = [tokenizer.eos_token_id]
    ids = sorted(token for token in named if token is not None)
    return torch.tensor(ids, dtype=torch.long, device=device_of(model))
