"""How toxic and how fluent a model is: completions, scorers, perplexity, statistics.

Imports every room up to `training`. It does not know studies.
"""
