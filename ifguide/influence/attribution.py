"""Direction v -> one score a token.

`own_loss`: s_t = vᵀ∇ℓ_t, the exact directional derivative of the loss of predicting token t (Eq. 8).
`position`: the part of vᵀ∇Σℓ that flows through the activations at position t-1, the one that predicts token t.
Both are reported at the predicted token, are positive where training on the token makes toxic completions likelier, and
sum to the same score over a sequence.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import nn

from ifguide.errors import NumericalError
from ifguide.influence.batches import Batch
from ifguide.influence.losses import SplitModel, backpropagate, slices
from ifguide.models.layers import Layers, Matrices, watch

ScoreBatch = Callable[[Batch], dict[str, torch.Tensor]]
"""Gives tensors (B, T-1) by name."""


def position_scores(
    model: nn.Module, modules: Layers, directions: list[Matrices], batch: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Position scores along each direction by one forward and one backward pass: scores (K, B, T-1) along K directions,
    and losses (B, T-1), 0 where nothing counts. Entry t is what flows through position t, which predicts token t+1.

    A backward pass gives each layer's inputs and output gradients, which no direction enters; each direction only
    multiplies them once more. Own-loss scores share too little for that (`benchmarks/several.py` has what was tried).
    """
    first = next(iter(directions[0].values()))
    totals = torch.zeros(len(directions), *batch.input_ids.shape, dtype=first.dtype, device=batch.input_ids.device)

    def add(name: str, a: torch.Tensor, g: torch.Tensor, places: torch.Tensor) -> None:
        for total, direction in zip(totals, directions, strict=True):
            v = direction[name]
            flow = ((a.to(v.dtype) @ v.T) * g.to(v.dtype)).sum(dim=-1)  # g_tᵀ V a_t
            total.view(-1).index_add_(0, places.flatten().to(total.device), flow.flatten().to(total.device))

    split = SplitModel.of(model)
    with watch(split.model, modules, on_gradient=add):
        losses = backpropagate(split, batch)
    counted = batch.counted
    return torch.stack([report_at_predicted(total[:, :-1], counted) for total in totals]), losses


def report_at_predicted(flow: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Keep the flow at positions that predict a counted token; what flows through context before the first one goes to
    it."""
    first = counted.int().argmax(dim=1, keepdim=True)  # (B, 1)
    before = torch.arange(flow.shape[1], device=flow.device) < first  # (B, T-1)
    context = (flow * before).sum(dim=1, keepdim=True)
    return (flow * counted).scatter_add(1, first, context * counted.any(dim=1, keepdim=True))


def score_corpus(
    batches: Iterable[Batch],
    score_batch: ScoreBatch,
    outputs: dict[str, np.ndarray],
    *,
    first: int = 0,
    device="cpu",
    report: Callable[[int], None] | None = None,
) -> None:
    """Score batches on the device and put every value at its token's place. `score_batch` gives tensors (B, T-1) by
    name; the `outputs`, float32 arrays by the same names, are written in place, and begin at the token `first`.
    `report` is called with the tokens done. A NumericalError: a score is not finite."""
    done = 0
    for places, scores, n_tokens in score_batches(batches, score_batch, device):
        for name, array in outputs.items():
            values = scores[name]
            if n_bad := np.count_nonzero(~np.isfinite(values)):
                remedy = "run the model in float32 (model.dtype) and check its weights"
                raise NumericalError(f"{n_bad:,} {name} scores are not finite; {remedy}")
            array[places - first] = values
        done += n_tokens
        if report:
            report(done)


def score_batches(
    batches: Iterable[Batch], score_batch: ScoreBatch, device="cpu"
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray], int]]:
    """For each batch the places int64 (n,) of the tokens that count, their scores float32 (n,) by name, and its length;
    arguments as for `score_corpus`."""
    for batch in batches:
        results = score_batch(batch.to(device))
        counted = (batch.target_index >= 0).numpy()
        scores = {name: values.float().cpu().numpy()[counted] for name, values in results.items()}
        yield batch.target_index.numpy()[counted], scores, batch.n_tokens


BLOCK = 1 << 20
"""Tokens held at once where whole arrays of scores are put together."""

ValidBetween = Callable[[int, int], np.ndarray]
"""Which of tokens [start, stop) have a score, bool (stop - start,)."""
AVERAGES: dict[str, Callable[..., np.ndarray]] = {"mean": np.mean, "median": np.median}
"""Ways to put the checkpoints' scores together."""


def average_blocks(
    scores: list[np.ndarray],
    valid_between: ValidBetween,
    block: int = BLOCK,
    average: str = "mean",
    divisors: list[float] | None = None,
) -> Iterator[np.ndarray]:
    """The study's score: one checkpoint's raw scores, or the average over checkpoints, float32 (N,) each, of score /
    standard deviation, which is taken over the valid tokens; the rest is 0. Piece by piece, float32 (at most `block`,),
    so that memory-mapped scores stay on disk. `divisors` are the standard deviations where these are but a part of the
    scores. A NumericalError: a checkpoint's scores are all the same."""
    if divisors is None:
        divisors = [deviation(one, valid_between, block) for one in scores] if len(scores) > 1 else [1.0]
    if 0 in divisors:
        same = divisors.index(0)
        raise NumericalError(f"all scores of checkpoint {same} are the same: it says nothing; leave it out")
    for part in slices(len(scores[0]), block):
        scaled = [np.asarray(one[part], dtype=np.float64) / d for one, d in zip(scores, divisors, strict=True)]
        yield np.where(valid_between(part.start, part.stop), AVERAGES[average](scaled, axis=0), 0).astype(np.float32)


def pool_blocks(
    scores: np.ndarray,
    token_ids: np.ndarray,
    valid_between: ValidBetween,
    pooling: float,
    block: int = BLOCK,
    means: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """Scores plus a multiple of the mean score of the token's kind, float32 (at most `block`,), piece by piece.

    A single place's score is noisy; what all places of one vocabulary entry have in common is not. A kind that occurs
    once adds its own score. Invalid tokens stay 0 and count for nothing.

    `scores` are float32 (N,), `token_ids` int (N,); `pooling` is the multiple, and 0 gives the scores as they are.
    `means` are from `mean_by_kind` where these are but a part of the scores.
    """

    def valid_parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for part in slices(len(scores), block):
            valid = valid_between(part.start, part.stop)
            yield np.asarray(token_ids[part])[valid], np.asarray(scores[part], np.float64)[valid]

    means = mean_by_kind(valid_parts()) if means is None else means
    for part in slices(len(scores), block):
        valid = valid_between(part.start, part.stop)
        kinds = np.where(valid, token_ids[part], 0)
        yield np.where(valid, scores[part] + pooling * means[kinds], 0).astype(np.float32)


def mean_by_kind(parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The mean score, float64 (V,), of each vocabulary entry, from parts: ids int (n,), scores float64 (n,)."""
    sums = counts = np.zeros(1)
    for kinds, values in parts:
        size = max(len(sums), int(kinds.max(initial=0)) + 1)
        sums, counts = (np.pad(total, (0, size - len(total))) for total in (sums, counts))
        sums = sums + np.bincount(kinds, values, size)
        counts = counts + np.bincount(kinds, minlength=size)
    return sums / np.maximum(counts, 1)


def mean_blocks(arrays: list[np.ndarray], block: int = BLOCK) -> Iterator[np.ndarray]:
    """The mean over float32 (N,) arrays, taken in float64, piece by piece."""
    for part in slices(len(arrays[0]), block):
        yield np.asarray(np.mean([array[part] for array in arrays], axis=0, dtype=np.float64), dtype=np.float32)


def deviation(scores: np.ndarray, valid_between: ValidBetween, block: int = BLOCK) -> float:
    """Standard deviation over the valid tokens in float64, in two passes."""

    def parts() -> Iterator[np.ndarray]:
        for part in slices(len(scores), block):
            yield np.asarray(scores[part], dtype=np.float64)[valid_between(part.start, part.stop)][None]

    return deviations(parts)[0]


def deviations(parts: Callable[[], Iterable[np.ndarray]]) -> list[float]:
    """Standard deviations of the rows of float64 (C, n), which `parts` gives part by part, twice."""

    def total(of: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, int]:
        values, n = np.zeros(1), 0
        for part in parts():
            values, n = values + np.array([row.sum() for row in of(part)]), n + part.shape[1]
        return values[:, None], n

    values, n = total(lambda x: x)
    means = values / max(n, 1)
    return np.sqrt(total(lambda x: (x - means) ** 2)[0][:, 0] / max(n, 1)).tolist()
