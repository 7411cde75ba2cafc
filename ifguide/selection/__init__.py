"""Which tokens to suppress: Algorithm 1, saved selections, verdicts and audits, and the index behind the threshold.

Imports `errors`, `config`, `storage` and `data`. It does not know studies, models or torch.
"""
