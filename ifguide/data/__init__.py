"""Text in: readers, the tokenised corpus, queries, prompts, packing, word counts, and the inputs of the demo.

Imports `errors`, `config` and `storage`. It does not know studies, scores or models' weights.
"""
