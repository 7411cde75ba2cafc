"""The mathematics of influence: EK-FAC factors, the direction v, token scores. Tensors in, tensors out; no files.

Shape letters, here and in the files beside this one:
    B sequences in a batch, T positions, V vocabulary
    I inputs of a layer (one more when it has a bias, whose input is always 1), O outputs of a layer
    D documents, N tokens of the corpus laid end to end

Arguments that mean the same everywhere:
    model: a causal language model; one that is a `SplitModel` already is not split again
    modules: its tracked layers by name
    direction: v, (O, I) a layer, on the layer's device
    batch: on the model's device
    report: called with (done, total)
    processes: divide the work, and all return the same
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ifguide.influence.texts import score_texts

__all__ = ["score_texts"]


def __getattr__(name: str):
    """Import the public name on first use: who takes a part of the engine does not wait for the rest."""
    if name == "score_texts":
        from ifguide.influence.texts import score_texts

        return score_texts
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
