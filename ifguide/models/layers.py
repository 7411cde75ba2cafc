"""Linear layers of any class seen alike: y = x Wᵀ + b, with the bias as one more input that is always 1.

A gradient, an eigenbasis or a direction of a layer has shape (O, I), bias in the last column. Only this file knows how
a class of layers stores its parameters: another class is one more line of `LAYER_TYPES`.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ifguide.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


Layers = dict[str, nn.Module]
"""Linear layers by name."""
Matrices = dict[str, torch.Tensor]
"""A matrix (O, I) for each layer by name: a gradient or a direction."""


@dataclass(frozen=True, kw_only=True)
class LayerType:
    """How a class of linear layers stores its parameters."""

    weight: str = "weight"
    """Attribute that holds W."""
    bias: str = "bias"
    """Attribute that holds b; where it is missing or None the layer has no bias."""
    inputs_first: bool = False
    """W is stored as (I, O) instead of (O, I)."""


LAYER_TYPES: dict[type[nn.Module], LayerType] = {nn.Linear: LayerType(), Conv1D: LayerType(inputs_first=True)}
"""Every class of layers that influence is computed over; subclasses count as their parent."""


def find_linear(model: nn.Module) -> Layers:
    """All linear layers by name, in model order."""
    return {name: module for name, module in model.named_modules() if LAYER_TYPES.keys() & type(module).mro()}


def _type_of(module: nn.Module) -> LayerType:
    for cls in type(module).__mro__:
        if cls in LAYER_TYPES:
            return LAYER_TYPES[cls]
    names = ", ".join(cls.__name__ for cls in LAYER_TYPES)
    raise ConfigError(f"expected a linear layer ({names}), got {type(module).__name__}; leave it out")


def oriented(module: nn.Module, weight: torch.Tensor) -> torch.Tensor:
    """A view of a weight between the layout the layer stores and (O, I), in either direction."""
    return weight.T if _type_of(module).inputs_first else weight


def weight_of(module: nn.Module) -> torch.Tensor:
    """W (O, I), a view of what the layer holds now."""
    return oriented(module, getattr(module, _type_of(module).weight))


def bias_of(module: nn.Module) -> torch.Tensor | None:
    """b (O,), or None."""
    return getattr(module, _type_of(module).bias, None)


def has_bias(module: nn.Module) -> bool:
    """Whether the layer adds a bias."""
    return bias_of(module) is not None


def layer_shape(module: nn.Module) -> tuple[int, int]:
    """(O, I) of a layer, the bias counted as an input."""
    outputs, inputs = weight_of(module).shape
    return outputs, inputs + has_bias(module)


def split_matrix(module: nn.Module, matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A matrix (O, I) of a layer as views of its part for W and its part for b (None without a bias)."""
    return (matrix[:, :-1], matrix[:, -1]) if has_bias(module) else (matrix, None)


def is_plain_matrix(module: nn.Module | None) -> bool:
    """Whether a layer does nothing but y = x Wᵀ + b: no subclass, no hook of accelerate's."""
    return type(module) in LAYER_TYPES and not hasattr(module, "_hf_hook")


def stores_inputs_first(model: nn.Module) -> bool:
    """Whether a model has layers that store W as (I, O), which low-rank adapters ask for (peft: `fan_in_fan_out`)."""
    return any(_type_of(module).inputs_first for module in find_linear(model).values())


def device_of(module: nn.Module) -> torch.device:
    """Where a module computes. Between calls accelerate may keep its weights elsewhere, even on the meta device."""
    for part in module.modules():
        place = getattr(getattr(part, "_hf_hook", None), "execution_device", None)
        if place is not None:
            return torch.device(place)
        for parameter in part.parameters(recurse=False):
            return parameter.device
    return torch.device("cpu")


def find_shared_inputs(model: nn.Module, modules: Layers) -> dict[str, str]:
    """For each layer the first one that is given the very same inputs (itself, if none before it is), with or without a
    bias alike. The model is run on two tokens.

    Queries, keys and values of an attention layer read one tensor, so what is made of it is made once.
    """
    seen: dict[str, torch.Tensor] = {}

    def make_hook(name: str):
        return lambda module, args: seen.setdefault(name, args[0])

    with contextlib.ExitStack() as hooks, torch.no_grad():
        for name, module in modules.items():
            hooks.enter_context(module.register_forward_pre_hook(make_hook(name)))
        model(input_ids=torch.ones(1, 2, dtype=torch.int64, device=device_of(model)))
    first: dict[tuple, str] = {}
    return {
        name: first.setdefault((id(seen[name]) if name in seen else name, has_bias(module)), name)
        for name, module in modules.items()
    }


@contextlib.contextmanager
def replace_forward(forwards: dict[nn.Module, Callable[[torch.Tensor], torch.Tensor]]) -> Iterator[None]:
    """Inside the block each layer computes something else; its hooks, accelerate's included, run as always."""
    kept = []
    try:
        for module, forward in forwards.items():
            name = "_old_forward" if hasattr(module, "_old_forward") else "forward"  # what accelerate's hooks call
            kept.append((module, name, vars(module).get(name)))
            setattr(module, name, forward)
        yield
    finally:
        for module, name, before in kept:
            if before is None:
                delattr(module, name)
            else:
                setattr(module, name, before)


@contextlib.contextmanager
def gradients_flow(model: "PreTrainedModel") -> Iterator[None]:
    """Let gradients flow through the activations while parameters need none, which saves a third of a backward pass."""
    embeddings = model.get_input_embeddings()
    with embeddings.register_forward_hook(lambda module, args, output: output.requires_grad_()), torch.enable_grad():
        yield


@contextlib.contextmanager
def watch(modules: Layers, *, on_input: Callable | None = None, on_gradient: Callable | None = None) -> Iterator[None]:
    """See each layer's inputs on the way forward, by `on_input(name, inputs (B, T, I))`, and its output's gradient on
    the way back, by `on_gradient(name, inputs (B, T, I), gradient (B, T, O))` as soon as it is known. Each layer must
    be called once a forward pass."""

    def make_hook(name: str):
        def hook(module, args, output):
            inputs = args[0].detach()
            if inputs.dim() != 3:
                wanted, remedy = "(batch, positions, features)", "leave it out with model.modules"
                raise ConfigError(f"layer {name} gets inputs of {tuple(inputs.shape)}, expected {wanted}; {remedy}")
            if has_bias(module):  # one more input that is always 1
                inputs = torch.cat([inputs, torch.ones_like(inputs[..., :1])], dim=-1)
            if on_input:
                on_input(name, inputs)
            if on_gradient and output.requires_grad:
                output.register_hook(lambda gradient: on_gradient(name, inputs, gradient))

        return hook

    with contextlib.ExitStack() as hooks:
        for name, module in modules.items():
            hooks.enter_context(module.register_forward_hook(make_hook(name)))
        yield
