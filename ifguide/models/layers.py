"""Linear layers seen alike: `nn.Linear` and GPT-2's `Conv1D`, with the bias as one more input that is always 1.

A gradient, an eigenbasis or a direction of a layer has shape (O, I), bias in the last column.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from ifguide.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def has_bias(module: nn.Module) -> bool:
    """Whether the layer adds a bias."""
    return getattr(module, "bias", None) is not None


def device_of(module: nn.Module) -> torch.device:
    """Where a module computes. accelerate may keep its weights elsewhere in between; then they look as if they were
    nowhere."""
    for part in module.modules():
        place = getattr(getattr(part, "_hf_hook", None), "execution_device", None)
        if place is not None:
            return torch.device(place)
        for parameter in part.parameters(recurse=False):
            return parameter.device
    return torch.device("cpu")


def layer_shape(module: nn.Module) -> tuple[int, int]:
    """(O, I) of a layer, the bias counted as an input."""
    shape = module.get_parameter("weight").shape
    outputs, inputs = shape if isinstance(module, nn.Linear) else shape[::-1]
    return outputs, inputs + has_bias(module)


def as_parameters(module: nn.Module, matrix: torch.Tensor) -> dict[str, torch.Tensor]:
    """A matrix (O, I) in the layout of the layer's own parameters: `weight` and, if it has one, `bias`."""
    weight = matrix[:, :-1] if has_bias(module) else matrix
    found = {"weight": weight if isinstance(module, nn.Linear) else weight.T}
    if has_bias(module):
        found["bias"] = matrix[:, -1]
    return found


def with_ones(inputs: torch.Tensor, module: nn.Module) -> torch.Tensor:
    """Inputs (..., I) with the bias's column of ones when the layer has a bias."""
    return torch.cat([inputs, torch.ones_like(inputs[..., :1])], dim=-1) if has_bias(module) else inputs


def find_linear(model: nn.Module) -> dict[str, nn.Module]:
    """All `nn.Linear` and GPT-2's `Conv1D` layers by name, in model order."""
    from transformers.pytorch_utils import Conv1D

    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}


def find_shared_inputs(model: nn.Module, modules: dict[str, nn.Module]) -> dict[str, str]:
    """For each layer the first one that is given the very same inputs (itself, if none before it is), with or without a
    bias alike.

    Queries, keys and values of an attention layer read one tensor, so what is made of it is made once.

    Args:
        model: run on two tokens.
        modules: the layers by name.
    """
    seen: dict[str, torch.Tensor] = {}

    def make_hook(name: str):
        return lambda module, args: seen.setdefault(name, args[0])

    handles = [module.register_forward_pre_hook(make_hook(name)) for name, module in modules.items()]
    try:
        with torch.no_grad():
            model(input_ids=torch.ones(1, 2, dtype=torch.int64, device=device_of(model)))
    finally:
        for handle in handles:
            handle.remove()
    first: dict[tuple, str] = {}
    return {
        name: first.setdefault((id(seen[name]) if name in seen else name, has_bias(module)), name)
        for name, module in modules.items()
    }


@contextlib.contextmanager
def replace_forward(module: nn.Module, forward: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Inside the block the layer computes something else; its hooks, accelerate's included, run as ever."""
    name = "_old_forward" if hasattr(module, "_old_forward") else "forward"  # the one that accelerate's hooks call
    had, before = name in vars(module), vars(module).get(name)
    setattr(module, name, forward)
    try:
        yield
    finally:
        if had:
            setattr(module, name, before)
        else:
            delattr(module, name)


@contextlib.contextmanager
def gradients_flow(model: nn.Module) -> Iterator[None]:
    """Let gradients flow through the activations while parameters need none, which saves a third of a backward pass."""
    handle = (
        cast("PreTrainedModel", model)
        .get_input_embeddings()
        .register_forward_hook(lambda module, args, output: output.requires_grad_())
    )
    try:
        with torch.enable_grad():
            yield
    finally:
        handle.remove()


@contextlib.contextmanager
def watch(
    modules: dict[str, nn.Module],
    *,
    on_input: Callable[[str, torch.Tensor], None] | None = None,
    on_gradient: Callable[[str, torch.Tensor, torch.Tensor], None] | None = None,
) -> Iterator[None]:
    """See each layer's inputs on the way forward and its output's gradient on the way back.

    Args:
        modules: the layers by name. Each must be called once a forward pass.
        on_input: called with (name, inputs (B, T, I)).
        on_gradient: called with (name, inputs (B, T, I), gradient (B, T, O)) as soon as the gradient is known.
    """

    def make_hook(name: str):
        def hook(module, args, output):
            inputs = args[0].detach()
            if inputs.dim() != 3:
                raise ConfigError(
                    f"layer {name} gets inputs of shape {tuple(inputs.shape)}, expected (batch, positions, features);"
                    " leave it out with model.modules"
                )
            inputs = with_ones(inputs, module)
            if on_input:
                on_input(name, inputs)
            if on_gradient and output.requires_grad:
                output.register_hook(lambda gradient: on_gradient(name, inputs, gradient))

        return hook

    handles = [module.register_forward_hook(make_hook(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
