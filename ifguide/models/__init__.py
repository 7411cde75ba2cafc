"""Models and tokenizers from a folder or the hub, and one adapter for every type of linear layer.

Imports `errors`, `config`, `storage` and `data`. It does not know influence or training.
"""
