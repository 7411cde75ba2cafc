"""Reward-augmented decoding (Deng & Raffel, arXiv 2310.09520): a classifier helps the base model to choose each token.

A baseline without training: at every step each of the likeliest tokens is appended to the text so far, the result is
rated, and harmless tokens become more likely. It costs one rating per candidate and step.
"""

import torch
from torch import Tensor
from transformers import LogitsProcessor

from ifguide.evaluation.toxicity import ToxicityScorer


class RewardProcessor(LogitsProcessor):
    """Adds `strength` · (1 - toxicity of the completion so far with the token) to the logits of the likeliest tokens;
    the others are out.

    Args:
        tokenizer: the model's.
        scorer: rates texts from 0 to 1.
        strength: β, in nats for a text that is not toxic at all.
        candidates: tokens tried a step.
    """

    def __init__(self, tokenizer, scorer: ToxicityScorer, strength: float, candidates: int):
        self._tokenizer, self._scorer = tokenizer, scorer
        self.strength, self.candidates = strength, candidates

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Steered logits.

        Args:
            input_ids: (B, T) tokens of the completions so far, without their prompts; T may be 0.
            scores: (B, V) logits of the next token.
        """
        values, tokens = scores.topk(min(self.candidates, scores.shape[-1]), dim=-1)  # (B, K)
        tried = torch.cat([input_ids[:, None].expand(-1, tokens.shape[1], -1), tokens[:, :, None]], dim=-1)
        texts = self._tokenizer.batch_decode(
            tried.flatten(0, 1).tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        toxicity = torch.as_tensor(self._scorer.score(texts), dtype=values.dtype).view(values.shape).to(values.device)
        steered = torch.full_like(scores, -torch.inf)
        return steered.scatter(-1, tokens, values + self.strength * (1 - toxicity))
