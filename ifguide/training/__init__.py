"""Training with the penalised objective (Eq. 9), and preference training, on Transformers' Trainer.

Imports `errors`, `config`, `storage`, `runtime`, `data` and `models`. It does not know studies or scores.
"""
