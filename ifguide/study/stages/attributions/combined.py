"""`combined`: influence and probe, each over its standard deviation, added up."""

from collections.abc import Iterator

import numpy as np

from ifguide.influence.attribution import average_blocks


def combine(arrays: list[np.ndarray], corpus) -> Iterator[np.ndarray]:
    """Blocks of the two scores' mean in units of their standard deviations."""
    return average_blocks(arrays, corpus.valid_between)
