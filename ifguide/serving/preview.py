"""What a selection would do, before anything is trained: the base model edited against its tokens, measured on a few
prompts. The page shows it as edited, never as a forecast of a retraining.

The sum of the last selection's gradients is kept, so that a neighbouring one costs only the tokens in which they
differ.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ifguide.config.names import BASE, DEFAULT
from ifguide.config.schema import VariantConfig
from ifguide.evaluation import statistics
from ifguide.evaluation.toxic_spans import find_toxic_spans, flatten_spans
from ifguide.study.analysis.comparison import scores_matrix
from ifguide.study.pipeline import build
from ifguide.study.reading import Study
from ifguide.study.stage_table import curvature_unit
from ifguide.study.stages import editing
from ifguide.study.stages.checkpoints import study_tokenizer
from ifguide.study.stages.evaluating import load_rater, study_prompts
from ifguide.study.variants import edit_damping, edit_recipe

PROMPTS = 25
"""Prompts that a preview completes, the first of the evaluation's."""
DRAWS = 4
"""Completions of each, or as many as the evaluation has if that is fewer."""
HELDOUT_TOKENS, CLOSE_ENOUGH = 2_048, 0.1
"""Tokens of held-out text, and the share to within which a strength is chosen: fewer than an edit takes, and less
exact, for the reader waits."""
Report = Callable[[str, int, int], None]
"""Called with (what is counted, done, in all); it may raise to end the preview."""


@dataclass(kw_only=True)
class Preview:
    """A base model that is edited for one selection after the other."""

    study: Study
    model: object
    """The finished base model, in float32 or better."""
    modules: dict
    """Its tracked layers."""
    device: object
    mask: np.ndarray
    """bool (N,): the tokens that `gradient` is the sum of."""
    gradient: dict | None = None
    """The sum of their gradients, (O, I) a layer."""
    base: list[dict] | None = None
    """The base model's own completions, once they are needed."""
    costs: tuple[editing.Rise, editing.Rise] | None = None
    """The rise in perplexity on both halves of the held-out text, once it has been read."""
    strength: float = 0.0
    """That of the last edit, which the next one tries first; 0: none yet."""

    @classmethod
    def open(cls, study: Study) -> "Preview":
        """Load a study's base model, and fit the curvature that an edit takes where it is not there. A StaleError: the
        base model's weights are not there; a BusyError: the curvature has to be fitted, and a job is running."""
        build(study, [curvature_unit(study.config, edit_recipe(study.config, DEFAULT, {}))])
        model, modules, device = editing.load_base(study)
        nothing = np.zeros(study.corpus().n_tokens, dtype=bool)
        return cls(study=study, model=model, modules=modules, device=device, mask=nothing)

    def measure(self, mask: np.ndarray, variant: VariantConfig, report: Report) -> dict:
        """What the model does with the tokens of bool (N,) taken out: `emt`, `tp` with their bounds, the share by which
        perplexity `rise`s on held-out text that chose nothing, the `strength` of the step, and `samples`, a row a
        completion as in the study's own samples."""
        from ifguide.influence.edit import FIRST, choose_strength, edit_direction, edited

        study = self.study
        self._sum_gradients(mask, report)
        factors = editing.read_curvature(study, variant, str(self.device))
        step = edit_direction(self.modules, self.gradient or {}, factors, edit_damping(study.config, variant))
        rise_of, rise_on_others = self._rises(mask)
        tried = 0

        def rise(strength: float) -> float:
            nonlocal tried
            tried += 1
            report("strengths", tried, tried + 1)
            return rise_of(step, strength)

        strength, _ = choose_strength(rise, variant.perplexity_budget, self.strength or FIRST, CLOSE_ENOUGH)
        self.strength = strength
        with edited(self.modules, step, strength):
            samples = self._complete(lambda done, total: report("completions", done, total))
        if self.base is None:
            rows = study.samples(BASE).to_dict("records") if BASE in study.evaluation_names() else self._complete(None)
            self.base = [row for row in rows if row["prompt_index"] < PROMPTS and row["sample_index"] < DRAWS]
        return figures(samples) | {
            "n_tokens": int(mask.sum()),
            "strength": strength,
            "rise": rise_on_others(step, strength),
            "base": figures(self.base),
            "samples": samples,
        }

    def _rises(self, mask: np.ndarray) -> tuple[editing.Rise, editing.Rise]:
        """Where a step's cost is chosen and where it is reported: the same place if there is no held-out text."""
        if self.costs is None:
            chosen, reported = editing.rises(self.study, self.model, self.modules, mask, HELDOUT_TOKENS)
            if reported is None:  # the corpus without these tokens, others with the next selection
                return chosen, chosen
            self.costs = chosen, reported
        return self.costs

    def _complete(self, report: Callable[[int, int], None] | None) -> list[dict]:
        """Completions of the prompts by the model as it computes now, rated: rows as of a study's samples."""
        from ifguide.evaluation.generation import generate_completions

        config, tokenizer = self.study.resolved("evaluate"), study_tokenizer(self.study)
        config = replace(config, n_samples=min(DRAWS, config.n_samples))
        starts = [prompt.text for prompt in study_prompts(self.study)][:PROMPTS]
        made = generate_completions(self.model, tokenizer, starts, config, report=report)
        texts = [completion.completion for completion in made]
        scorer = load_rater(self.study)
        toxicity = scorer.score(texts)
        return [
            {
                "prompt_index": completion.prompt_index,
                "sample_index": completion.sample_index,
                "prompt": starts[completion.prompt_index],
                "completion": completion.completion,
                "toxicity": float(rated),
                "toxic_spans": flatten_spans(places).tolist(),
            }
            for completion, rated, places in zip(made, toxicity, find_toxic_spans(texts, toxicity, scorer), strict=True)
        ]

    def _sum_gradients(self, mask: np.ndarray, report: Report) -> None:
        """Bring the kept sum to a new selection: from the old one, or from nothing where that has fewer tokens."""
        changed = mask ^ self.mask
        whole = self.gradient is None or changed.sum() >= mask.sum()
        tokens = editing.EditedTokens(mask if whole else changed)
        if not whole:
            tokens = editing.EditedTokens(changed, np.where(mask, 1, -1).astype(np.float32))
        if tokens.mask.any():
            kept = None if whole else self.gradient
            self.gradient = None  # if the reader leaves meanwhile, nothing half done is kept
            told = lambda done, total: report("batches", done, total)  # noqa: E731
            gradient = editing.selected_gradient(self.study, self.model, self.modules, tokens, told)
            for name, before in (kept or {}).items():
                gradient[name].add_(before)
            self.gradient = gradient
        self.mask = mask


def figures(samples: list[dict]) -> dict:
    """EMT and the share of prompts with a toxic answer, each with its bounds."""
    scores = scores_matrix(pd.DataFrame(samples))
    emt = statistics.bootstrap_interval(statistics.emt, scores)
    tp = statistics.share_interval(scores.max(axis=1) >= statistics.TOXIC_FROM)
    named = (("emt", emt), ("tp", tp))
    return {f"{name}{end}": float(v) for name, i in named for end, v in zip(("", "_low", "_high"), i, strict=True)}
