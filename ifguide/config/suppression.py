"""Settings of the models that a study compares: how each is made from a selection, or from another method.

Part of `ifguide.config.schema`, which everybody imports them from.
"""

from typing import Annotated, Literal

from pydantic import Field

from ifguide.config.names import DEFAULT
from ifguide.config.types import AtLeastTwo, Count, Flag, Name, NotNegative, Number, Positive, Share, Text
from ifguide.config.validation import table


@table("suppress")
class SuppressConfig:
    """The penalised objective (Eq. 9), and other ways to train without the selected tokens, or to edit them out."""

    method: Literal["penalise", "mask", "drop", "edit"] = "penalise"
    """`penalise` (Eq. 9), `mask` (no loss on selected tokens), `drop` (no loss on documents with a selected token), or
    `edit` (no training: one step of the finished model's weights)."""
    penalty: NotNegative = 1.0
    """λ: weight of a selected token's cross-entropy, which is subtracted."""
    max_penalty: NotNegative = 10.0
    """Clamp on a selected token's cross-entropy, in nats; 0: no clamp, as in the paper."""
    warmup_share: Share = 0.25
    """`penalise`: linear warm-up of the penalty over this fraction of steps, from plain training; 0 disables it."""
    perplexity_budget: Share = 0.01
    """`edit`: how much perplexity may rise on one half of the held-out text; figures are of the other half."""
    damping: NotNegative = 0.0
    """`edit`: damping of the curvature, in mean eigenvalues. 0: 0.3 for a model trained from scratch, else 1."""
    weighted_share: Share = 0.0
    """`edit`: take this share of all tokens, the highest scores, weighted by score; 0: the selection's, all alike."""
    curvature: Literal["auto", "checkpoint", "final"] = "auto"
    """`edit`: EK-FAC of the last scoring `checkpoint`, or of the `final` model; `auto`: final for `scratch` only."""
    edit_first: Flag = True
    """Also `edit` the base model against the default selection, before anything is trained against it."""


@table("baselines")
class BaselinesConfig:
    """The other methods that `ifguide compare` measures."""

    scorer: Text = "profanity-check"
    """Toxicity classifier of the baselines that use one; see `evaluate.scorer`."""
    document_min: Annotated[Number, Field(gt=0, le=1)] = 0.5
    """Documents that score at least this are called toxic."""
    epochs: Positive = 2.0
    """Passes over the queries when the two models of `loss-difference` are fine-tuned."""
    learning_rate: NotNegative = 0.0
    """Peak learning rate of those two models; 0 uses a tenth of `training.learning_rate`."""
    dpo_learning_rate: Positive = 1e-6
    """DPO's peak learning rate: trl's default. At the rates of usual training a model soon forgets its language."""
    dpo_beta: Positive = 0.1
    """DPO's β: a larger value keeps the model closer to the base model."""
    dpo_epochs: Positive = 1.0
    """DPO's passes over the pairs of a toxic and a safe query with the same prompt."""
    steer_scorer: Text = "queries"
    """Reward-augmented decoding's classifier: `queries` fits one (character n-grams) on the toxic and safe queries'
    completions; other values as for `evaluate.scorer`, but not the same one, or the judge steers."""
    steer_strength: Positive = 10.0
    """Reward-augmented decoding: logit bonus, in nats, of a token after which the text is not toxic at all."""
    steer_candidates: AtLeastTwo = 20
    """Reward-augmented decoding: number of candidate tokens per step."""


@table("variants")
class VariantConfig(SuppressConfig):
    """Another model: a selection, and how to train without it. `[variants.NAME]` inherits nothing from `[suppress]`."""

    selection: Name = DEFAULT
    """The selection to train without."""
    onto: Text = ""
    """`edit`: a trained model that the base model's edit is added to; empty: the base model."""
    seed: Count = 0
    """Added to `training.seed`, so that the same selection is trained against in another order."""
