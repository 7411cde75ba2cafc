"""Text in: readers, the tokenised corpus, queries, prompts, packing, word counts, and the demo's generated text.

Imports `errors`, `config` and `storage`. It does not know studies, scores or models' weights.
"""
