"""Edits of a study's base model: which tokens, which curvature, and a step as long as the held-out text allows."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ifguide.config.names import BASE
from ifguide.config.schema import VariantConfig
from ifguide.data.by_document import sum_by_document
from ifguide.data.packing import chunk_documents
from ifguide.data.stretches import find_edges
from ifguide.errors import ConfigError, InputError
from ifguide.runtime.progress import Progress, report_part
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stage_table import curvature_unit
from ifguide.study.stages import checkpoints
from ifguide.study.stages.evaluating import load_evaluated, split_heldout
from ifguide.study.variants import edit_damping

if TYPE_CHECKING:
    from ifguide.models.layers import Layers, Matrices

SAMPLE_TOKENS = 8_192
"""Tokens of held-out text, or of the corpus where there is none, that the length of a step is chosen on."""


@dataclass(frozen=True)
class EditedTokens:
    """The tokens that an edit takes out."""

    mask: np.ndarray
    """bool (N,)."""
    weights: np.ndarray | None = None
    """float32 (N,), what each counts for; None: all 1."""


def edited_tokens(study: Study, variant: VariantConfig) -> EditedTokens:
    """The selection's tokens; with `weighted_share` that share of all tokens with a score, those of the highest, each
    weighted by its score above the median. An InputError: there are none."""
    selection = study.selection(variant.selection)
    mask, weights = np.asarray(selection.mask), None
    if variant.weighted_share:
        kind = selection.settings.get("attribution")
        if not kind:
            raise ConfigError(f"suppress.weighted_share: selection {variant.selection!r} was not made by scores; set 0")
        scores, valid = np.asarray(study.scores(kind)), study.corpus().valid()
        median, least = np.quantile(scores[valid], (0.5, 1 - variant.weighted_share))
        weights = np.where(valid & (scores > least), scores - median, 0).astype(np.float32)
        mask = weights > 0
    if not mask.any():
        raise InputError(f"edit: selection {variant.selection!r} holds no token; select some with `ifguide select`")
    return EditedTokens(mask, weights)


def token_sequences(study: Study, mask: np.ndarray):
    """The chunks that hold tokens of bool (N,), each cut after its last one, in which only those tokens count."""
    from ifguide.influence.batches import CorpusSequences

    corpus, layout = study.corpus(), checkpoints.read_layout(study)
    offsets, marked = np.asarray(corpus.offsets), np.flatnonzero(mask)
    chunks = chunk_documents(offsets, layout["max_length"] - (layout["bos"] is not None))
    hit = np.isin(chunks[:, 0], np.flatnonzero(sum_by_document(mask, offsets)))
    chunks = chunks[hit]
    last = np.searchsorted(marked, chunks[:, 2]) - 1
    ends = np.where(last >= 0, marked[last] + 1, 0)
    holds = ends > chunks[:, 1] + 1  # a chunk's first token is context
    chunks = np.column_stack([chunks[:, :2], ends])[holds]
    return CorpusSequences(corpus.token_ids, offsets, chunks, layout["bos"], find_edges(mask))


def load_base(study: Study):
    """The finished base model in float32 or better, for a step in less would be rounded away; its tracked layers and
    device."""
    from ifguide.models.layers import device_of

    entry = study.models()["base"]
    dtype = "float64" if study.config.model.dtype == "float64" else "float32"
    model = checkpoints.place_model(study, entry["source"], entry.get("revision", ""), dtype=dtype)
    modules = tracked(study, model)
    return model, modules, device_of(model)


def selected_gradient(study: Study, model, modules, tokens: EditedTokens, report=None) -> "Matrices":
    """The weighted sum of the tokens' gradients at a loaded base model, (O, I) a layer; `report` is called with
    (batches done, batches in all)."""
    from ifguide.influence.batches import make_batches
    from ifguide.influence.edit import token_gradient

    sequences = token_sequences(study, tokens.mask)
    batches = list(make_batches(sequences, study.config.compute.tokens_per_batch))
    weigh = None
    if tokens.weights is not None:
        import torch

        by_token = torch.from_numpy(tokens.weights)
        weigh = by_token.__getitem__
    return token_gradient(model, modules, batches, weigh=weigh, report=report, n_batches=len(batches))


def heldout_texts(study: Study) -> list[str]:
    """The study's held-out texts that an edit can be chosen and measured on: at least two, or none."""
    from ifguide.data.prompts import read_heldout

    config = study.resolved("evaluate")
    texts = read_heldout(config.heldout, config) if config.heldout else []
    return texts if len(texts) > 1 else []


@dataclass
class Rise:
    """How much perplexity rises with a step of the weights, as a share of the unedited model's."""

    modules: "Layers"
    """The model's tracked layers."""
    mean_loss: Callable[[], float]
    """The mean loss of a token of some text, in nats, by the model as it computes now."""

    def __post_init__(self) -> None:
        self.before = self.mean_loss()

    def __call__(self, step: "Matrices", strength: float) -> float:
        from ifguide.influence.edit import edited

        with edited(self.modules, step, strength):
            return math.expm1(self.mean_loss() - self.before)


def rises(
    study: Study, model, modules: "Layers", mask: np.ndarray, n_tokens: int = SAMPLE_TOKENS
) -> tuple[Rise, Rise | None]:
    """The rise on one half of the held-out text, and on the other half, which chooses nothing, of up to about
    `n_tokens` each. Without held-out text the first is of corpus tokens outside bool (N,), and there is no second."""
    if texts := heldout_texts(study):
        first, second = (Rise(modules, heldout_loss(study, model, half, n_tokens)) for half in split_heldout(texts))
        return first, second
    return Rise(modules, corpus_loss(study, model, mask, n_tokens)), None


def heldout_loss(study: Study, model, texts: list[str], n_tokens: int) -> Callable[[], float]:
    """The mean loss of a token of some texts, up to about `n_tokens`, in nats."""
    from ifguide.evaluation.fluency import heldout_losses

    tokenizer = checkpoints.study_tokenizer(study)
    texts = [text for text in texts if text]
    lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    some = texts[: 1 + int(np.searchsorted(np.cumsum(lengths), n_tokens))]

    def mean_loss() -> float:
        losses = heldout_losses(model, tokenizer, some)
        return float(losses.nats.sum() / losses.tokens.sum())

    return mean_loss


def corpus_loss(study: Study, model, mask: np.ndarray, n_tokens: int) -> Callable[[], float]:
    """The mean loss of tokens outside bool (N,), of documents drawn at random up to about `n_tokens`."""
    import torch

    from ifguide.influence.batches import make_batches
    from ifguide.influence.losses import SplitModel
    from ifguide.models.layers import device_of

    split = SplitModel.of(model)
    sequences = checkpoints.corpus_sequences(study, max_tokens=n_tokens, seed=study.config.training.seed)
    batches = [b.to(device_of(model)) for b in make_batches(sequences, study.config.compute.tokens_per_batch)]
    outside = torch.from_numpy(~mask)
    kept = [(batch.target_index >= 0).cpu() & outside[batch.target_index.cpu()] for batch in batches]
    total = sum(int(places.sum()) for places in kept)

    @torch.inference_mode()
    def mean_loss() -> float:
        losses = (split(batch).cpu()[places].double().sum() for batch, places in zip(batches, kept, strict=True))
        return float(sum(losses)) / total

    return mean_loss


def build_edit(study: Study, variant: VariantConfig, folder: Path, progress: Progress) -> dict:
    """Write the edited model into `folder`; gives what is noted of it."""
    from ifguide.influence.edit import apply_edit, choose_strength, edit_direction
    from ifguide.training.record import save_weights

    checkpoints.require_one_process("an edit")
    tokens = edited_tokens(study, variant)
    model, modules, device = load_base(study)
    source = read_curvature(study, variant, str(device))
    gradient = selected_gradient(study, model, modules, tokens, report_part(progress, "batches"))
    damping = edit_damping(study.config, variant)
    step = edit_direction(modules, gradient, source, damping)
    rise, on_others = rises(study, model, modules, tokens.mask)

    def tell(strength: float) -> float:
        share = rise(step, strength)
        progress.message(f"a step of {strength:.4g} raises perplexity by {share:+.1%}")
        return share

    strength, tried = choose_strength(tell, variant.perplexity_budget)
    if variant.onto:
        model, _ = load_evaluated(study, variant.onto)
        modules = tracked(study, model)
    apply_edit(modules, step, strength)
    save_weights(model, checkpoints.study_tokenizer(study), folder / "final")
    return {
        "damping": damping,
        "strength": strength,
        "perplexity_rise": tried.get(strength, 0.0),
        "chosen_on": "heldout" if on_others else "corpus",
        "tried": sorted(tried.items()),
        "n_tokens": int(tokens.mask.sum()),
    }


def tracked(study: Study, model):
    """A model's tracked layers."""
    from ifguide.models.loading import tracked_modules

    return tracked_modules(model, study.config.model.modules)


def read_curvature(study: Study, variant: VariantConfig, device: str):
    """EK-FAC factors for an edit: of the finished model, or of the last checkpoint that the study scores at; None for
    the identity."""
    unit = curvature_unit(study.config, variant)
    if unit.name:
        return checkpoints.StoredFactors(study.folder(unit) / checkpoints.FACTORS, device) or None
    return checkpoints.read_factors(study, study.checkpoint_names()[-1], device)


def build_curvature(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """EK-FAC factors of the finished base model, or of the last scoring checkpoint, fitted on the corpus."""
    at = BASE if unit.name == "final" else study.checkpoint_names()[-1]
    model, modules, device = checkpoints.load_checkpoint(study, at)
    path = folder / checkpoints.FACTORS
    checkpoints.fit_checkpoint(study, path, model, modules, device, tell=progress.message, report=report_part(progress))
