"""Layers divided into parts whose matrices fit in memory together.

Bytes are counted for sums in float32. Layers that read the same inputs stay in one part, for they share a covariance.
"""

from collections.abc import Callable

from ifguide.models.layers import Layers, layer_shape

DECOMPOSITION = 32
"""Bytes for each entry of a matrix while its eigenvectors are found: itself, its eigenvectors and LAPACK's workspace of
twice the size, in float64."""

Shapes = dict[str, tuple[int, int]]
"""(O, I) of layers by name."""
Need = Callable[[Shapes, dict[str, str]], int]
"""Bytes that a part takes, where layers share inputs as `find_shared_inputs` says."""


def shapes_of(part: Layers) -> Shapes:
    """The shape of each layer."""
    return {name: layer_shape(module) for name, module in part.items()}


def fit_bytes(part: Shapes, shared: dict[str, str]) -> int:
    """Bytes of a fit's matrices: the covariances, or the eigenvectors in their place; and λ, or before that the
    decomposition of the largest."""
    sides = [outputs for outputs, _ in part.values()]
    sides += {shared[name]: inputs for name, (_, inputs) in part.items()}.values()
    values = 4 * sum(outputs * inputs for outputs, inputs in part.values())
    return 4 * sum(side**2 for side in sides) + max(values, DECOMPOSITION * max(sides) ** 2)


def direction_bytes(part: Shapes, shared: dict[str, str]) -> int:
    """Bytes of the mean gradients of two sets of queries, and of the factors and products of the largest layer."""
    largest = max(outputs**2 + inputs**2 + 4 * outputs * inputs for outputs, inputs in part.values())
    return 8 * sum(outputs * inputs for outputs, inputs in part.values()) + 4 * largest


def divide(modules: Layers, shared: dict[str, str], n: int) -> list[Layers]:
    """At most n parts of about the same number of bytes, in model order."""
    groups: dict[str, Layers] = {}
    for name, module in modules.items():
        groups.setdefault(shared[name], {})[name] = module
    sizes = [sum((outputs + inputs) ** 2 for outputs, inputs in shapes_of(group).values()) for group in groups.values()]
    parts: list[Layers] = [{} for _ in range(n)]
    before, total = 0, sum(sizes)
    for group, size in zip(groups.values(), sizes, strict=True):
        parts[n * (2 * before + size) // (2 * total)] |= group
        before += size
    return [part for part in parts if part]


def fewest_parts(modules: Layers, shared: dict[str, str], need: Need, room: float) -> list[Layers]:
    """The fewest parts of which none needs more than `room` bytes; where that cannot be, one part for each group."""
    n_groups = len({*shared.values()})
    for n in range(1, n_groups + 1):
        parts = divide(modules, shared, n)
        if max(need(shapes_of(part), shared) for part in parts) <= room:
            return parts
    return divide(modules, shared, 4 * n_groups)
