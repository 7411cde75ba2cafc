"""Reward-augmented decoding (Deng & Raffel, arXiv 2310.09520): a classifier helps the base model to choose each token.

A baseline without training: at every step each of the likeliest tokens is appended to the text so far, the result is
rated, and harmless tokens become more likely. It costs one rating per candidate and step.
"""

import torch
from torch import Tensor
from transformers import LogitsProcessor

from ifguide.evaluation.toxicity import ToxicityScorer


class RewardProcessor(LogitsProcessor):
    """Adds `strength` (β, in nats) · (1 - toxicity of the completion so far with the token) to the logits of the
    `candidates` likeliest tokens of a step; the others are out."""

    def __init__(self, tokenizer, scorer: ToxicityScorer, strength: float, candidates: int):
        self._tokenizer, self._scorer = tokenizer, scorer
        self.strength, self.candidates = strength, candidates

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Steered logits from `scores` (B, V), those of the next token; `input_ids` (B, T) are the tokens of the
        completions so far, without their prompts; T may be 0."""
        values, tokens = scores.topk(min(self.candidates, scores.shape[-1]), dim=-1)  # (B, K)
        tried = torch.cat([input_ids[:, None].expand(-1, tokens.shape[1], -1), tokens[:, :, None]], dim=-1)
        texts = self._tokenizer.batch_decode(
            tried.flatten(0, 1).tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        toxicity = torch.as_tensor(self._scorer.score(texts), dtype=values.dtype).view(values.shape).to(values.device)
        steered = torch.full_like(scores, -torch.inf)
        return steered.scatter(-1, tokens, values + self.strength * (1 - toxicity))
